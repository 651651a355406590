"""What the stream hands over of the windows of a view: to which detectors, which inputs, and how many windows back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from tidewatch.detectors import Detector, all_detectors
from tidewatch.features import render

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Handed:
    """Windows of one view, for the detectors that see its last ones or for those that see the newest alone."""

    view: str
    detectors: tuple[Detector, ...]
    lookback: int
    """The newest window and those before it."""
    every_ms: int
    """Of those before it, the ones whose end is a multiple of so many milliseconds; 1: all."""
    inputs: tuple[str, ...]
    """SQL of type DOUBLE over the view's columns; what several detectors read is there once."""

    @property
    def text(self) -> str:
        """All but the inputs, as Handed.java reads it."""
        return ",".join((f"{self.view}|{self.lookback}|{self.every_ms}", *(f"{d.use_case}|{d.name}|{len(d.signals)}" for d in self.detectors)))

    def read(self, flat: Array) -> Array:
        """(n, 1 + inputs, lookback): of n device's metrics the windows' ends and then each input, the newest last; NaN: none."""
        return flat.reshape(-1, 1 + len(self.inputs), self.lookback)

    def observe(self, detector: Detector, seen: Array) -> Array:
        """The detector's signals (n, d) of what `read` gave."""
        places = [1 + self.inputs.index(sql) for sql in wanted(detector)]
        back = detector.lookback
        if back is None:
            return seen[:, places, -1]
        seen = seen[:, :, -back.windows:]
        return back.signals(np.nan_to_num(seen[:, 0], nan=-np.inf), seen[:, places])


def wanted(detector: Detector) -> tuple[str, ...]:
    """SQL of what the detector reads of a window."""
    return tuple(sql for _, sql in render.signals(detector))


def handed(detectors: Iterable[Detector] | None = None) -> tuple[Handed, ...]:
    """What the stream hands over, by view."""
    found: dict[tuple[str, bool, int], list[Detector]] = {}
    for d in all_detectors() if detectors is None else detectors:
        every = d.lookback.every // timedelta(milliseconds=1) if d.lookback else 0
        found.setdefault((d.view, d.lookback is not None, max(1, every)), []).append(d)
    return tuple(
        Handed(
            view, tuple(ds), max(d.lookback.windows if d.lookback else 1 for d in ds), every,
            tuple(dict.fromkeys(sql for d in ds for sql in wanted(d))),
        )
        for (view, _, every), ds in sorted(found.items())
    )
