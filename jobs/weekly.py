"""The rhythm of the week: how far an hour of a workday, of a weekend's day, of one weekday lies from that hour of any day.

Baselines have 24 hours a device, not the 168 of a week: a sevenfold topic and state would be the price in the stream. They are
renewed every `batch.cycle`, so they carry the 24 hours that come next, each as that hour of that weekday is expected.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LEAST_DAYS = 2
"""Days of a kind (weekend, Tuesday …) on which an hour must have been seen before it is told apart."""
PRIOR_DAYS = {"kind of day": 1, "weekday": 2}
"""Shrinkage: with so many days of evidence a shift counts half; a weekday's shift is one of few days, so it has to wait longer."""


def hour_of_week(end_ms: Integers) -> Integers:
    """0 to 167, Monday midnight UTC first."""
    return (end_ms // HOUR_MS + 72) % 168  # 1970 began on a Thursday


def coming(from_ms: int) -> Integers:
    """(24,) The hours of the week that come next, by hour of the day."""
    first = from_ms // HOUR_MS
    hours = np.arange(first, first + 24)
    found = np.empty(24, dtype=np.int64)
    found[hours % 24] = hour_of_week(hours * HOUR_MS)
    return found


def shifts(entity: Integers, entities: int, end_ms: Integers, residual: Array) -> Array:
    """(entities, 168) What is to be added to the hour of the day, from windows' residuals (n,) against it; NaN: does not count.

    First the median of a workday's or weekend day's hour, then what is left of each weekday's; each shrunk towards none by
    days / (days + prior), and none with less than `LEAST_DAYS` days (Efron and Morris 1975, on shrinkage to the group).
    """
    there = ~np.isnan(residual)
    entity, end_ms, residual = entity[there], end_ms[there], residual[there]
    how, day = hour_of_week(end_ms), end_ms // DAY_MS
    every = np.arange(168)
    kind = every % 24 + 24 * (every >= 120)
    wide = _shrunk(entity * 48 + kind[how], entities * 48, day, residual, PRIOR_DAYS["kind of day"]).reshape(entities, 48)
    week = wide[:, kind]
    left = residual - week[entity, how]
    return week + _shrunk(entity * 168 + how, entities * 168, day, left, PRIOR_DAYS["weekday"]).reshape(entities, 168)


def _shrunk(cell: Integers, cells: int, day: Integers, values: Array, prior: int) -> Array:
    """(cells,) Each cell's median, shrunk by the days that it was seen on."""
    from jobs.build_baselines import quantile

    if not len(cell):
        return np.zeros(cells)
    span = int(day.max() - day.min()) + 1
    days = np.bincount(np.unique(cell * span + day - day.min()) // span, minlength=cells)
    median = np.nan_to_num(quantile(cell, values, cells, 0.5))
    return np.where(days >= LEAST_DAYS, days / (days + prior) * median, 0.0)
