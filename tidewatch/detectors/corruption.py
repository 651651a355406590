"""A metric that lies: out of its range, stuck, drifting, noisy, jumping or missing against its own baseline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from tidewatch.detectors import Array, Detector, Example, Lookback, Signal
from tidewatch.detectors.history import counted, mean, median, steps

RECENT, NEAR = 10, 5
"""Windows over which noise, trend and gaps are measured, and those that say what a value should be next."""


def jump(values: Array, ends: Array) -> Array:
    """How far the newest extremes (n, 1 or 2) lie from the medians of the five minutes and the half hour before, whichever
    is nearer: what comes back to where it was for half an hour is no jump."""
    usual = np.stack([median(values[:, -NEAR - 1:-1]), median(values[:, :-1])], axis=1)
    return np.asarray(np.fmax.reduce(np.fmin.reduce(np.abs(ends[:, :, None] - usual[:, None, :]), axis=2), axis=1))


def signs(h: Mapping[str, Array]) -> Array:
    """Inputs (n, windows) to signals (n, 10)."""
    values, low, high, share = h["mean"], h["low"], h["high"], h["missing"]
    counter = counted(values)
    rise = steps(values)
    values = np.where(counter[:, None], rise, values)
    wide = high - low
    ends = np.where(counter[:, None], values[:, -1:], np.stack([low[:, -1], high[:, -1]], axis=1))
    moved = np.abs(steps(values))
    # medians: a single spike is a jump, not ten minutes of noise or drift
    noise = mean(np.stack([median(moved[:, -RECENT:]), median(np.where(counter[:, None], np.nan, wide[:, -RECENT:]))], axis=1))
    trend = median(values[:, -RECENT:]) - median(values[:, :-RECENT])
    same = (rise == 0) & (wide == 0)
    still = np.where(same.all(axis=1), same.shape[1], np.argmin(same[:, ::-1], axis=1)).astype(float)
    # light, load and traffic vary with their level: in logarithms day and night are measured alike
    logs, log_ends = np.arcsinh(values), np.arcsinh(ends)
    # what only rises is a counter or drifts: the baseline knows (`learned_with`)
    return np.stack([
        h["mean"][:, -1], jump(values, ends), noise, np.where(counter, np.nan, wide[:, -1]), trend,
        np.where(np.isnan(h["mean"][:, -1]), np.nan, still), mean(share[:, -RECENT:]),
        np.arcsinh(h["mean"][:, -1]), jump(logs, log_ends), np.where(counter, np.nan, np.arcsinh(high[:, -1]) - np.arcsinh(low[:, -1])),
    ], axis=1)


DETECTOR = Detector(
    name="corruption",
    use_case="lie",
    title="Device sends erroneous data",
    doc=__doc__ or "",
    view="reading_1m",
    lookback=Lookback(
        windows=31, span=timedelta(hours=6), signs=signs,
        inputs=(
            ("mean", "value_sum / NULLIF(CAST(readings - missing AS DOUBLE), 0.0)"), ("low", "value_min"), ("high", "value_max"),
            ("missing", "CAST(missing AS DOUBLE) / CAST(readings AS DOUBLE)"),
        ),
    ),
    signals=(
        Signal("value_level", "", 0, "identity", "", "mean of the values in a minute", 1e-6, learned_with="value_range"),
        Signal("value_jump", "", 1, "identity", "", "largest distance of a value from the medians of the five minutes and the half hour before", 1e-6),
        Signal("value_noise", "", 1, "identity", "", "over ten minutes: mean of the median step from minute to minute and the median span within one", 1e-6),
        Signal("value_range", "", 1, "identity", "", "largest minus smallest value in a minute", 1e-6),
        Signal("value_trend", "", 0, "identity", "", "median of the last ten minutes against that of the twenty before", 1e-6),
        Signal("still_minutes", "", 1, "log1p", "minutes", "minutes in a row without any change", 0.25),
        Signal("missing_share", "", 1, "identity", "", "share of reports without a value, over ten minutes", 0.05),
        Signal("level_log", "", 0, "identity", "", "logarithm (inverse hyperbolic sine) of the mean of the values in a minute", 1e-6, "value_level", "value_range"),
        Signal("jump_log", "", 1, "identity", "", "largest distance of a value from those medians, in logarithms: a factor", 1e-6, "value_level"),
        Signal("range_log", "", 1, "identity", "", "largest minus smallest value in a minute, in logarithms: a factor", 1e-6, "value_level"),
    ),
    technique="T1565",
    runbook="docs/runbooks/corruption.md",
    false_positives=("a recalibrated or replaced sensor", "a changed unit after a firmware update"),
    examples=(
        Example(
            "a spike",
            {"value_level": 57, "value_jump": 75, "value_noise": 8, "value_range": 75, "value_trend": 7, "still_minutes": 0, "missing_share": 0,
             "level_log": 4.74, "jump_log": 1.5, "range_log": 1.5},
            {"value_level": 20, "value_jump": 0.5, "value_noise": 0.4, "value_range": 0.5, "value_trend": 0.1, "still_minutes": 0, "missing_share": 0,
             "level_log": 3.69, "jump_log": 0.025, "range_log": 0.025},
            True,
        ),
        Example(
            "an ordinary window",
            {"value_level": 20.2, "value_jump": 0.52, "value_noise": 0.41, "value_range": 0.49, "value_trend": 0.1, "still_minutes": 0, "missing_share": 0,
             "level_log": 3.7, "jump_log": 0.026, "range_log": 0.024},
            {"value_level": 20, "value_jump": 0.5, "value_noise": 0.4, "value_range": 0.5, "value_trend": 0.1, "still_minutes": 0, "missing_share": 0,
             "level_log": 3.69, "jump_log": 0.025, "range_log": 0.025},
            False,
        ),
    ),
)
