"""What lookbacks are made of: statistics along the last windows of a key, NaN where there is none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidewatch.detectors import Array

COUNTER_WINDOWS = 20
"""Windows from which a metric that never falls is believed to be a counter."""


def mean(x: Array) -> Array:
    """Mean along the last axis of what is there: (n,), NaN where nothing is."""
    there = ~np.isnan(x)
    count = there.sum(axis=1)
    return np.asarray(np.divide(np.where(there, x, 0.0).sum(axis=1), count, out=np.full(len(x), np.nan), where=count > 0))


def deviation(x: Array) -> Array:
    """Standard deviation along the last axis of what is there: (n,), NaN where nothing is."""
    return np.sqrt(mean((x - mean(x)[:, None]) ** 2))


def median(x: Array) -> Array:
    """Median along the last axis of what is there: (n,), NaN where nothing is."""
    x = np.sort(x, axis=1)  # NaN goes last
    count = (~np.isnan(x)).sum(axis=1)
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, x.shape[1] - 1)
    row = np.arange(len(x))
    return np.asarray(np.where(count > 0, (x[row, low] + x[row, high]) / 2, np.nan))


def steps(x: Array) -> Array:
    """What each window differs from the one before: (n, windows), NaN in the first."""
    out = np.full_like(x, np.nan)
    out[:, 1:] = np.diff(x, axis=1)
    return out


def counted(x: Array) -> NDArray[np.bool_]:
    """True where a metric counts up: it never fell in the windows seen, at least 20, and rose in half of them or more."""
    step = steps(x)
    known = (~np.isnan(step)).sum(axis=1)
    return np.asarray((known >= COUNTER_WINDOWS) & ~(step < 0).any(axis=1) & (2 * (step > 0).sum(axis=1) >= known))
