"""Feedback: what analysts said of alerts, and what the next training makes of it.

An alert marked `true` is a labelled incident of its use case. One marked `benign` is an incident of no use case: its windows
teach nothing and count as no false alert. One marked `false` stays what the model is to call ordinary: thresholds are raised
above it where that costs little (`heed`), and each model is asked whether it would raise it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from tidewatch import scoring, tables
from tidewatch.alerts import EVERYONE
from tidewatch.detectors import Detector
from tidewatch.settings import Settings

from jobs import backtest, cli, lake

MARK_COST = 0.05
"""Share of the injected incidents found that a detector may lose for the sake of alerts marked as false."""


@dataclass(frozen=True, eq=False)
class Marks:
    """n marked alerts."""

    labels: backtest.Labels
    verdict: NDArray[np.str_]

    def of(self, verdict: str, use_case: str) -> backtest.Labels:
        """The marks of one verdict and use case."""
        x = self.labels
        rows = (self.verdict == verdict) & (x.use_case == use_case)
        return backtest.Labels(x.device[rows], x.start_ms[rows], x.end_ms[rows], x.use_case[rows])


def read(settings: Settings, start: datetime, end: datetime) -> Marks:
    """The marks of devices' alerts that overlap [start, end], whenever they were made: an analyst comes after the window.

    A group, of the device `EVERYONE`, has no windows of its own: its members' alerts are marked with it.
    """
    low, high = cli.millis(start), cli.millis(end)
    rows = [r for r in lake.read(settings, tables.FEEDBACK) if r["end"] >= low and r["start"] <= high and r["device_id"] != EVERYONE]
    rows.sort(key=lambda r: (r["device_id"], r["start"], r["alert_id"]))

    def column(name: str, kind: type) -> NDArray[np.generic]:
        return np.array([r[name] for r in rows], dtype=kind)

    return Marks(backtest.Labels(column("device_id", str), column("start", np.int64), column("end", np.int64), column("use_case", str)),  # type: ignore[arg-type]
                 column("verdict", str))  # type: ignore[arg-type]


def labelled(labels: backtest.Labels, marks: Marks) -> backtest.Labels:
    """The labels and what the marks add to them."""
    m, told = marks.labels, np.isin(marks.verdict, ("true", "benign"))
    use_case = np.where(marks.verdict == "benign", "other", m.use_case)[told]
    return backtest.Labels(*(np.concatenate(x) for x in (
        (labels.device, m.device[told]), (labels.start_ms, m.start_ms[told]), (labels.end_ms, m.end_ms[told]), (labels.use_case, use_case),
    )))


def peaks(model: scoring.Model, detector: Detector, w: backtest.Windows, labels: backtest.Labels) -> NDArray[np.float64]:
    """The highest score of the windows that each label touches; NaN where there are none."""
    rows = backtest.touching(w, labels)
    near = w.at(np.unique(np.concatenate(rows)) if rows else np.zeros(0, dtype=np.int64))
    if not len(near):
        return np.full(len(rows), np.nan)
    at, score, _ = backtest.score(model, detector.name, near)
    return np.array([np.fmax.reduce(score[t], initial=np.nan) for t in backtest.touching(near.at(at), labels)])


def heed(
    model: scoring.Model, detectors: Sequence[Detector], read: Mapping[str, backtest.Windows], held: Mapping[str, backtest.Windows],
    labels: backtest.Labels, marks: Marks, seed: int,
) -> scoring.Model:
    """The model with each detector's threshold raised above the alerts of its use case that were marked as false, the mildest first.

    A threshold goes no further than what is known to be true allows: every labelled incident and every alert marked as true
    that the detector finds, it finds still; nor than `MARK_COST` of the injected incidents. `read` are all windows, `held` those of the back-test.
    """
    parts = dict(model.detectors)
    mine = labels.use_case == model.use_case
    true = backtest.Labels(labels.device[mine], labels.start_ms[mine], labels.end_ms[mine], labels.use_case[mine])
    for d in detectors:
        now = parts[d.name].threshold
        wrong = peaks(model, d, read[d.name], marks.of("false", model.use_case))
        loud = np.unique(wrong[wrong >= now])
        if not len(loud):
            continue
        right = peaks(model, d, read[d.name], true)
        ceiling = np.min(right[right >= now], initial=1.0)
        hit = backtest.measure(model, d, held[d.name], labels, seed).hit
        least = (1 - MARK_COST) * (hit >= now).mean() if len(hit) else 0.0
        for above in np.nextafter(loud, 1.0):
            if above > ceiling or (len(hit) and (hit >= above).mean() < least):
                break
            parts[d.name] = replace(parts[d.name], threshold=float(above))
    return replace(model, detectors=parts)


def figures(
    model: scoring.Model, detectors: Sequence[Detector], windows: Mapping[str, backtest.Windows], marks: Marks, gap: timedelta, seed: int,
) -> dict[str, float]:
    """How a model does on the marked alerts of its use case: what is logged.

    `marked_true`, `marked_false`: how many there are. `recall_marked`, `false_marked`: share of each that it would raise.
    `precision_marked`: share of the true ones among those it would raise; absent if it would raise none.
    """
    out: dict[str, float] = {}
    raised = {}
    for verdict, name in (("true", "recall_marked"), ("false", "false_marked")):
        mine = marks.of(verdict, model.use_case)
        near = {}
        for d in detectors:
            rows = backtest.touching(windows[d.name], mine)
            near[d.name] = windows[d.name].at(np.unique(np.concatenate(rows)) if rows else np.zeros(0, dtype=np.int64))
        if not any(len(w) for w in near.values()):
            continue
        share = backtest.run(model, detectors, near, mine, gap, seed)[0].recall_labelled
        if share is None:
            continue
        out[f"marked_{verdict}"], out[name] = float(len(mine.device)), share
        raised[verdict] = share * len(mine.device)
    total = sum(raised.values())
    return {**out, "precision_marked": raised.get("true", 0.0) / total} if total > 0 else out
