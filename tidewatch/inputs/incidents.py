"""Incidents of the generated network: what goes wrong, where and when; the labels come from here, never from events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tidewatch.errors import InputError
from tidewatch.inputs.network import Network

MARGIN_MS = 45 * 60_000
"""A device has peace for so long between two incidents."""


@dataclass(frozen=True)
class Trouble:
    """A kind of incident: the use case it belongs to and how long it lasts."""

    kind: str
    use_case: str
    minutes: tuple[float, float]


TROUBLES = (
    Trouble("silent", "silent", (12, 30)),
    Trouble("flood", "silent", (8, 20)),
    Trouble("fast_leak", "leak", (8, 20)),
    Trouble("slow_leak", "leak", (90, 240)),
    Trouble("new_destination", "leak", (10, 30)),
    Trouble("stuck", "lie", (25, 60)),
    Trouble("drift", "lie", (40, 90)),
    Trouble("noise", "lie", (20, 45)),
    Trouble("spike", "lie", (20, 45)),
    Trouble("missing", "lie", (20, 45)),
)
BY_KIND = {t.kind: t for t in TROUBLES}


@dataclass(frozen=True)
class Incident:
    """One incident of one device, from `start_ms` to just before `end_ms`."""

    device: int
    kind: str
    start_ms: int
    end_ms: int
    metric: int = 0
    """For the lies: which of the device's metrics."""
    strength: float = 1.0
    """1 is the demonstration's; less is fainter: fewer events, smaller amounts, a value less wrong."""

    @property
    def use_case(self) -> str:
        return BY_KIND[self.kind].use_case

    def clear_of(self, other: Incident) -> bool:
        return self.device != other.device or self.end_ms + MARGIN_MS <= other.start_ms or other.end_ms + MARGIN_MS <= self.start_ms


def plan(
    net: Network, start_ms: int, end_ms: int, each: int, *, seed: int = 0, kinds: Sequence[str] = (),
    beside: Sequence[Incident] = (),
) -> tuple[Incident, ...]:
    """`each` incidents of every kind (or of `kinds`) between two times, on different devices where there are enough.

    Long kinds are cut to a quarter of the window. Incidents of a device do not touch each other or those of `beside`.
    Raises InputError if they do not fit.
    """
    rng = np.random.default_rng([net.seed, 2, seed, start_ms // 1000, end_ms // 1000, each])
    found: list[Incident] = []
    window = end_ms - start_ms
    for kind in [k for _ in range(each) for k in (kinds or tuple(BY_KIND))]:
        if kind not in BY_KIND:
            raise InputError(f"there is no kind of incident {kind!r}.", f"one of: {', '.join(BY_KIND)}")
        used = {i.device for i in found} | {i.device for i in beside}
        for attempt in range(400):
            minutes = rng.uniform(*BY_KIND[kind].minutes)
            length = min(int(minutes * 60_000), window // 4) // 1000 * 1000
            start = start_ms + int(rng.uniform(0.05, 0.95) * (window - length)) // 1000 * 1000
            one = Incident(int(rng.integers(net.size)), kind, start, start + length, int(rng.integers(8)))
            fresh = one.device not in used or attempt >= 200
            if length > 0 and fresh and all(one.clear_of(o) for o in (*found, *beside)):
                found.append(one)
                break
        else:
            raise InputError(
                f"{each} incidents of each kind do not fit on {net.size} devices in {window / 60_000:.0f} minutes.",
                "give more --devices, a longer time or fewer incidents",
            )
    return tuple(sorted(found, key=lambda i: (i.start_ms, i.device)))


def checked(net: Network, incidents: Sequence[Incident]) -> tuple[Incident, ...]:
    """Incidents given by hand, if they are possible; raises InputError if not."""
    for n, i in enumerate(incidents):
        if i.kind not in BY_KIND:
            raise InputError(f"there is no kind of incident {i.kind!r}.", f"one of: {', '.join(BY_KIND)}")
        if not 0 <= i.device < net.size:
            raise InputError(f"there is no device {i.device}.", f"the network has devices 0 to {net.size - 1}")
        if i.end_ms <= i.start_ms:
            raise InputError(f"the incident {i.kind!r} ends before it starts.", "give a later end")
        for o in incidents[:n]:
            if not i.clear_of(o):
                raise InputError(
                    f"{net.names[i.device]}: two incidents are closer than {MARGIN_MS // 60_000} minutes.",
                    "move one of them or choose another device",
                )
    return tuple(sorted(incidents, key=lambda i: (i.start_ms, i.device)))


def labels(net: Network, incidents: Sequence[Incident], until_ms: int, origin: str = "generator") -> list[dict[str, object]]:
    """Rows of the table `labels`, of what has happened by `until_ms`."""
    return [
        {"device_id": net.names[i.device], "start": i.start_ms, "end": i.end_ms, "use_case": i.use_case, "kind": i.kind, "origin": origin}
        for i in (replace(i, end_ms=min(i.end_ms, until_ms)) for i in incidents)
        if i.start_ms < i.end_ms
    ]
