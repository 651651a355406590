"""A device that talks to strangers: outside addresses that it did not talk to in the day before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from tidewatch.detectors import Array, Detector, Example, Lookback, Signal

HOUR_MS = 3_600_000
KNOWN_HOURS = 12
"""Hours of the day before from which it is told whom the device knows."""


def signs(h: Mapping[str, Array]) -> Array:
    """Inputs (n, windows) to signals (n, 1)."""
    before = h["end"] <= h["end"][:, -1:] - HOUR_MS  # hours that share nothing with the newest
    bits = np.where(np.isnan(h["groups"]), 0.0, h["groups"]).astype(np.int64)
    known = np.bitwise_or.reduce(np.where(before, bits, 0), axis=1)
    new = np.bitwise_count(bits[:, -1] & ~known).astype(np.float64)
    new[(before.sum(axis=1) < KNOWN_HOURS) | np.isnan(h["groups"][:, -1])] = np.nan
    return np.asarray(new[:, None])


DETECTOR = Detector(
    name="strangers",
    use_case="leak",
    title="Device talks to strangers outside",
    doc=__doc__ or "",
    view="egress_1h",
    history=timedelta(days=3),
    lookback=Lookback(
        windows=25, span=timedelta(hours=24), every=timedelta(hours=1), signs=signs, inputs=(("groups", "CAST(outside_groups AS DOUBLE)"),),
    ),
    signals=(
        Signal("new_destinations", "", 1, "log1p", "groups of addresses", "outside addresses (by group, of 52) of the hour that the device did not talk to in the day before", 0.25),
    ),
    technique="T1048",
    runbook="docs/runbooks/strangers.md",
    false_positives=("a new provider, or a known one that moved to new addresses", "software that calls a list of servers for the first time"),
    examples=(
        Example("twenty strangers in an hour", {"new_destinations": 20}, {"new_destinations": 0}, True),
        Example("one new address", {"new_destinations": 1}, {"new_destinations": 0}, False),
    ),
)
