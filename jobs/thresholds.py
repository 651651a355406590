"""Where a model calls a window anomalous: thresholds by how often ordinary windows pass them, raised to keep within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from tidewatch import scoring
from tidewatch.detectors import Detector

from jobs.backtest import Labels, Windows, device_days, incidents, score, untouched

Array = NDArray[np.float64]

PEAKS = 100
"""Highest peaks of the training to which the tail of its alerts is fitted, if there are as many."""
BEYOND = 0.5
"""A threshold is at most so many decades beyond the least likely training window, for each decade of device-days that were seen: a few
device-days do not tell how the tail goes on, and what they miss on a guess they would miss for good."""
LEAST_DECADES, MOST_DECADES = 2.5, 8.0
"""-log10(p) of the least and the greatest threshold, whatever the training looked like, was contaminated with, or is aimed at: five
windows a day are as odd as the least."""
LONGEST = timedelta(hours=7)
"""Ordinary windows give no longer alert than a working day: no more of them may be anomalous than as many alerts as are aimed at would have,
each so long."""


def return_level(
    device: NDArray[np.str_], end_ms: NDArray[np.int64], decades: Array, days: float, gap: timedelta, rate: float,
) -> float:
    """The height that the peaks of windows' `decades` (n,) pass `rate` times a device and day.

    Peaks over a threshold (Coles 2001, chapter 4): windows of a device at most the gap apart have one peak, as they have one alert;
    by how much the highest `PEAKS` pass a threshold is exponential, as what -log10(p) says of itself. It is fitted by the
    quantile of 80 %, which a few windows that were not ordinary do not move, and of all quantiles tells an exponential best.
    """
    order = np.lexsort((end_ms, device))
    device, end_ms, decades = device[order], end_ms[order], np.nan_to_num(decades[order])
    if not len(decades) or days <= 0:
        return 0.0
    ranked = np.sort(decades)[::-1]
    most = PEAKS
    while True:
        least = float(ranked[min(most, len(ranked) - 1)])
        rows = np.flatnonzero(decades > least)
        apart = (device[rows][1:] != device[rows][:-1]) | (np.diff(end_ms[rows]) > gap // timedelta(milliseconds=1))
        peaks = np.maximum.reduceat(decades[rows], np.concatenate([[0], np.flatnonzero(apart) + 1])) if len(rows) else rows
        if len(peaks) >= PEAKS or most >= len(ranked):
            break
        most *= 2
    if not len(peaks):
        return least
    mean = float(np.quantile(peaks - least, 0.8)) / np.log(5)
    return least + mean * float(np.log(len(peaks) / (days * rate)))


def at_return_level(
    model: scoring.Model, detectors: Sequence[Detector], windows: Mapping[str, Windows], gap: timedelta, target: float,
) -> scoring.Model:
    """The model with thresholds that ordinary windows like these, which it was trained on, are expected to pass `target` times a device
    and day, over all detectors, as far as they can tell: at most `BEYOND` the least likely of them for each decade of device-days."""
    parts = dict(model.detectors)
    for detector in detectors:
        if not len(windows[detector.name]):
            continue
        rows, got, _ = score(model, detector.name, windows[detector.name])
        w = windows[detector.name].at(rows)
        decades, days = np.nan_to_num(scoring.from_score(got)), device_days([w])
        level = return_level(w.device, w.end_ms, decades, days, gap, target / len(detectors))
        farthest = decades.max() + BEYOND * np.log10(max(days, 1.0))
        least = max(LEAST_DECADES, -np.log10(target / len(detectors) * (LONGEST / timedelta(days=1))))
        level = float(np.clip(level, least, np.clip(farthest, least, MOST_DECADES)))
        parts[detector.name] = replace(parts[detector.name], threshold=level / (scoring.DECADES + level))
    return replace(model, detectors=parts)


def at_budget(
    model: scoring.Model, detectors: Sequence[Detector], windows: Mapping[str, Windows], labels: Labels, gap: timedelta, limit: float,
) -> scoring.Model:
    """The model at the operating point that the budget allows: thresholds raised, never lowered, until each detector raises no
    more than its equal part of `limit` alerts a device and day on held-out windows that see nothing of a labelled incident.

    So families are compared by what they find at the same price (a detection rate at a fixed false alarm rate, Egan 1975).
    """
    parts = dict(model.detectors)
    for detector in detectors:
        every_metric = windows[detector.name]
        if not len(every_metric):
            continue
        rows, got, _ = score(model, detector.name, every_metric)
        w, part = every_metric.at(rows), parts[detector.name]
        quiet = untouched(w, labels, detector.afterglow)
        allowed = int(limit / len(detectors) * device_days([w]))
        loud = got >= part.threshold
        steps = np.unique(got[loud & quiet])
        low, high = -1, len(steps) - 1  # raised just above steps[high]; -1: as it is
        while low < high:
            mid = (low + high) // 2
            over = loud & (got > (steps[mid] if mid >= 0 else -1.0))
            if incidents(w.device[over], w.start_ms[over], w.end_ms[over], gap, quiet[over]) <= allowed:
                high = mid
            else:
                low = mid + 1
        if high >= 0:
            parts[detector.name] = replace(part, threshold=float(np.nextafter(steps[high], 1.0)))
    return replace(model, detectors=parts)
