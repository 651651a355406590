"""A device that calls outside like a clock: minute after minute, with as many flows of the same size."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from tidewatch.detectors import Array, Detector, Example, Lookback, Signal
from tidewatch.detectors.history import deviation

LEAST_CALLS = 5
"""Minutes with outside flows from which their regularity is told."""


def signs(h: Mapping[str, Array]) -> Array:
    """Inputs (n, windows) to signals (n, 2)."""
    flows = h["flows"]
    calls = np.where(flows > 0, flows, np.nan)
    minutes = (flows > 0).sum(axis=1).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        unlike = deviation(np.log(calls)) + deviation(np.log1p(h["out"] / calls))
    alike = np.where(minutes >= LEAST_CALLS, minutes / (1.0 + np.nan_to_num(unlike)), 0.0)
    return np.stack([minutes, alike], axis=1)


DETECTOR = Detector(
    name="beacon",
    use_case="leak",
    title="Device calls outside like a clock",
    doc=__doc__ or "",
    view="flow_1m",
    history=timedelta(hours=2.5),
    lookback=Lookback(
        windows=31, span=timedelta(minutes=30), signs=signs,
        inputs=(("flows", "CAST(external_flows AS DOUBLE)"), ("out", "CAST(external_bytes_out AS DOUBLE)")),
    ),
    signals=(
        Signal("external_minutes", "", 1, "log1p", "minutes", "minutes of the last half hour with a flow to or from outside", 0.3),
        Signal("beacon_minutes", "", 1, "log1p", "minutes", "the same, the less the more their flows differ in number and size", 0.3),
    ),
    technique="T1041",
    runbook="docs/runbooks/beacon.md",
    false_positives=("a time service or a monitoring agent that was just installed", "a message queue or a call that is kept open"),
    examples=(
        Example("a call home each minute", {"external_minutes": 31, "beacon_minutes": 29}, {"external_minutes": 3, "beacon_minutes": 0}, True),
        Example("a busy half hour", {"external_minutes": 24, "beacon_minutes": 9}, {"external_minutes": 18, "beacon_minutes": 7}, False),
    ),
)
