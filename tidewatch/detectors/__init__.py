"""Detectors: one value a detector; what it reads, how its signals point, what an analyst does about a hit.

A detector turns a row of its feature view into signals, compares each with the device's own baseline, and the
champion model of its use case scores them together (`tidewatch.scoring`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidewatch.errors import ContractError

Array = NDArray[np.float64]

USE_CASES = ("silent", "leak", "lie")

CANDIDATES: Mapping[str, tuple[str, ...]] = {
    "silent": ("pca", "kmeans", "gmm"),
    # bursts have several shapes: on 1,000 injected device-days both find the same leaks, clusters with 6.9 false alerts, one ellipsoid with 23.6
    "leak": ("kmeans", "pca", "gmm"),
    "lie": ("pca", "kmeans", "gmm"),
}
"""Model families trained for each use case, one model of all its detectors each; the first is the first champion."""


@dataclass(frozen=True)
class Signal:
    """One number of a window that may betray the device."""

    name: str
    expression: str
    """SQL over the view's columns and `window_end_ms` (BIGINT); means the same in Flink and Spark. '': the detector's
    lookback computes the signal."""
    direction: Literal[-1, 0, 1]
    """1: too much is a sign; -1: too little; 0: both."""
    transform: Literal["identity", "log1p"]
    unit: str
    doc: str
    scale_floor: float
    """Smallest robust scale, in transformed units: differences below it are never a sign."""
    varies: str = ""
    """A signal of the same detector: only where a device's varies by a third of its level does this one count, else it is no
    sign. A logarithm says what the number says where that hardly moves, and what says nothing new dilutes the rest."""
    learned_with: str = ""
    """A signal of the same detector: windows in which that one is missing are judged by this one, but not learned from; where they
    are the most, this one is no sign. So what counts up has no level, and a gauge that suddenly does has left its own."""


@dataclass(frozen=True)
class Lookback:
    """What a detector sees of the windows before: the last ones of the same key, as SQL columns, and what it makes of them.

    Both engines only hand the columns over; the signals are computed by `signs`, the same code in stream and batch.
    """

    windows: int
    """The newest window and those before it, at most."""
    span: timedelta
    """Windows that ended longer ago than this are not seen."""
    inputs: tuple[tuple[str, str], ...]
    """(name, SQL over the view's columns)."""
    signs: Callable[[Mapping[str, Array]], Array]
    """From inputs (n, windows), oldest first, NaN where there is none, to the signals (n, d). Beside the inputs it is given `end`:
    the windows' ends in milliseconds."""
    every: timedelta = timedelta(0)
    """Of the windows before, those are seen whose end is a multiple of it (UTC); 0: all. So a day needs not each of its sliding windows."""

    def signals(self, end_ms: Array, inputs: Array) -> Array:
        """The signals (n, d) from the ends of the windows (n, windows) and the inputs (n, inputs, windows), the newest last."""
        seen = end_ms >= end_ms[:, -1:] - self.span / timedelta(milliseconds=1)
        return self.signs({"end": np.where(seen, end_ms, np.nan), **{name: np.where(seen, inputs[:, i], np.nan) for i, (name, _) in enumerate(self.inputs)}})


@dataclass(frozen=True)
class Example:
    """A window next to its baseline, and whether it must be an alert."""

    name: str
    observed: dict[str, float]
    expected: dict[str, float]
    hit: bool


@dataclass(frozen=True)
class Detector:
    """One way in which a device goes wrong, and how it is told."""

    name: str
    use_case: Literal["silent", "leak", "lie"]
    title: str
    doc: str
    view: str
    signals: tuple[Signal, ...]
    technique: str
    """MITRE ATT&CK technique, for instance T1499."""
    runbook: str
    false_positives: tuple[str, ...]
    lookback: Lookback | None = None
    threshold: float = 0.5
    """Score (0 to 1, `tidewatch.scoring`) from which a window is anomalous."""
    severities: tuple[tuple[float, str], ...] = ((0.0, "low"), (0.5, "medium"), (0.55, "high"), (0.6, "critical"))
    """(from this score on, severity): .5 is one ordinary window in a million, .55 in twenty million, .6 in a billion."""
    examples: tuple[Example, ...] = field(default=())
    history: timedelta = timedelta(0)
    """It is trained once windows lie so far apart: those that each see half an hour or more of the same soon are many, and know little."""

    @property
    def afterglow(self) -> timedelta:
        """How long after an incident a window may still see it: not a sign of it, but not what is usual either."""
        back = self.lookback
        return (back.windows - 1) * (back.every or timedelta(minutes=1)) if back else timedelta(0)

    def severity(self, score: float) -> str:
        """The severity of a score."""
        return next(name for least, name in reversed(self.severities) if score >= least)


def all_detectors() -> tuple[Detector, ...]:
    """Every detector, sorted by name."""
    found: list[Any] = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    return tuple(sorted((m.DETECTOR for m in found if hasattr(m, "DETECTOR")), key=lambda d: d.name))


def of_use_case(use_case: str) -> tuple[Detector, ...]:
    """The detectors of a use case; raises ContractError for an unknown one."""
    if use_case not in USE_CASES:
        raise ContractError(f"there is no use case {use_case!r}.", f"one of: {', '.join(USE_CASES)}")
    return tuple(d for d in all_detectors() if d.use_case == use_case)
