"""Drift: how far a distribution has moved from the one that was learned from, as one number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BINS = 10


def shares(values: Array, edges: Array) -> Array:
    """Share of the values in each bin (len(edges) + 1 bins; NaN in one more, last), each of at least half a value."""
    known = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(edges, known, "left"), minlength=len(edges) + 1).astype(np.float64)
    counts = np.append(counts, len(values) - len(known)) + 0.5
    return np.asarray(counts / counts.sum())


def psi(reference: Array, recent: Array) -> float:
    """The population stability index of two samples (n,), (m,): sum of (a - b) ln(a / b) over their shares a, b of ten bins.

    Bins are the reference's deciles, fewer where it repeats itself, and one of missing values. By convention below 0.1 is
    the same distribution and above 0.25 another one (Siddiqi 2006, *Credit Risk Scorecards*). NaN if a sample is empty.
    """
    reference, recent = np.asarray(reference, dtype=np.float64), np.asarray(recent, dtype=np.float64)
    if not len(reference) or not len(recent):
        return float("nan")
    known = reference[~np.isnan(reference)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.zeros(0)
    if len(edges) == 1 and edges[0] == known.min() == known.max():
        edges = np.array([np.nextafter(edges[0], -np.inf), edges[0]])  # a constant: what lies below it is another value
    a, b = shares(recent, edges), shares(reference, edges)
    return float(((a - b) * np.log(a / b)).sum())
