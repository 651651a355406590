"""A device whose day outside is unlike its others: it talks to strangers, or leaks so slowly that no hour shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from tidewatch.detectors import Array, Detector, Example, Lookback, Signal

HOUR_MS = 3_600_000
KNOWN_HOURS = 12
"""Hours of the day before from which it is told whom the device knows."""
BURSTS = 6
"""Heaviest hours that a day's sum leaves out: what they show, the hour's and the minute's detectors have seen."""


def signs(h: Mapping[str, Array]) -> Array:
    """Inputs (n, windows) to signals (n, 2)."""
    before = h["end"] <= h["end"][:, -1:] - HOUR_MS  # hours that share nothing with the newest
    bits = np.where(np.isnan(h["groups"]), 0.0, h["groups"]).astype(np.int64)
    known = np.bitwise_or.reduce(np.where(before, bits, 0), axis=1)
    new = np.bitwise_count(bits[:, -1] & ~known).astype(np.float64)
    new[(before.sum(axis=1) < KNOWN_HOURS) | np.isnan(h["groups"][:, -1])] = np.nan
    day = before.copy()
    day[:, -1] = True
    out = np.where(day, np.nan_to_num(h["out"]), 0.0)
    return np.stack([new, np.sort(out, axis=1)[:, :-BURSTS].sum(axis=1)], axis=1)


DETECTOR = Detector(
    name="egress_day",
    use_case="leak",
    title="Device talks to strangers outside, or leaks all day",
    doc=__doc__ or "",
    view="egress_1h",
    history=timedelta(days=3),
    lookback=Lookback(
        windows=25, span=timedelta(hours=24), every=timedelta(hours=1), signs=signs,
        inputs=(("groups", "CAST(outside_groups AS DOUBLE)"), ("out", "CAST(external_bytes_out AS DOUBLE)")),
    ),
    signals=(
        Signal("new_destinations", "", 1, "log1p", "groups of addresses", "outside addresses (by group, of 52) of the hour that the device did not talk to in the day before", 0.25),
        Signal("external_bytes_out_1d", "", 1, "log1p", "B", "bytes sent to outside addresses in a day, its six heaviest hours left out", 0.25),
    ),
    technique="T1048",
    runbook="docs/runbooks/egress_day.md",
    false_positives=("a new provider, or a known one that moved to new addresses", "a first backup or synchronisation that takes the whole day"),
    examples=(
        Example("twenty strangers in an hour", {"new_destinations": 20, "external_bytes_out_1d": 3e6}, {"new_destinations": 0, "external_bytes_out_1d": 3e6}, True),
        Example("a leak all day", {"new_destinations": 0, "external_bytes_out_1d": 1e11}, {"new_destinations": 0, "external_bytes_out_1d": 3e6}, True),
        Example("one new address", {"new_destinations": 1, "external_bytes_out_1d": 4e6}, {"new_destinations": 0, "external_bytes_out_1d": 3e6}, False),
    ),
)
