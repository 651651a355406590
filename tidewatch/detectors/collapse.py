"""A device whose rates break down: several of what it counts per second fall at once below anything seen lately."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from tidewatch.detectors import Array, Detector, Example, Lookback, Signal
from tidewatch.detectors.history import counted, median, steps

LEAST_WINDOWS = 3
"""Windows before the newest without which nothing is said."""
RESOLUTION = 1e-3
"""A fall is measured down to this share of the usual value, or to the noise of the half hour before: from there on it is nothing."""


def signs(h: Mapping[str, Array]) -> Array:
    """Inputs (n, windows) to signals (n, 3); only of metrics that behave like rates: never negative, not counting up."""
    low, mean = h["low"], h["mean"]
    usual = median(mean[:, :-1])
    before = low[:, :-1]
    known = ~np.isnan(before)
    least = np.where(known, before, np.inf).min(axis=1)
    rate = (known.sum(axis=1) >= LEAST_WINDOWS) & (usual > 0) & (least >= 0) & ~counted(mean)
    noise = median(np.abs(steps(mean[:, :-1])))
    nothing = np.where(rate, np.fmax(RESOLUTION * usual, noise), 1.0)
    now = np.maximum(low[:, -1], 0.0)
    with np.errstate(invalid="ignore"):
        fall = np.log10((np.where(rate, least, 0.0) + nothing) / (now + nothing))
    missing = np.isnan(low[:, -1])
    return np.stack([
        np.where(missing, np.nan, np.where(rate, np.maximum(fall, 0.0), 0.0)),
        np.where(missing, np.nan, np.where(rate, np.clip(1.0 - now / np.where(rate, usual, 1.0), 0.0, 1.0), 0.0)),
        np.where((h["low"] < 0).any(axis=1) | counted(mean), np.nan, mean[:, -1]),
    ], axis=1)


DETECTOR = Detector(
    name="collapse",
    use_case="silent",
    title="Device's rates broke down",
    doc=__doc__ or "",
    view="reading_1m",
    lookback=Lookback(
        windows=31, span=timedelta(hours=6), signs=signs,
        inputs=(("mean", "value_sum / NULLIF(CAST(readings - missing AS DOUBLE), 0.0)"), ("low", "value_min")),
    ),
    signals=(
        Signal("fall", "", 1, "identity", "decades", "how far the smallest value of the minute lies below the smallest of the half hour before", 0.15),
        Signal("gone_share", "", 1, "identity", "", "share of the usual value that is gone", 0.25),
        Signal("rate", "", -1, "log1p", "", "mean of the minute, if it behaves like a rate: never negative, not counting up", 0.25),
    ),
    technique="T1499",
    runbook="docs/runbooks/collapse.md",
    false_positives=("planned maintenance of a link or service", "the end of a nightly job that was all of the traffic"),
    examples=(
        Example("an interface that carries nothing any more", {"fall": 2.6, "gone_share": 1.0, "rate": 0}, {"fall": 0, "gone_share": 0.2, "rate": 4000}, True),
        Example("a quiet minute", {"fall": 0.1, "gone_share": 0.4, "rate": 3000}, {"fall": 0, "gone_share": 0.2, "rate": 4000}, False),
    ),
)
