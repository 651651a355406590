"""A parcel: events of one topic, encoded, with the count of what is in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Parcel:
    """Records of one topic in the order in which they are sent."""

    topic: str
    keys: list[bytes]
    bodies: list[bytes]
    tally: Counter[str] = field(default_factory=Counter)
    """Records by what is right or wrong with them, and checksums: what the tables must show in the end."""
    until_ms: int = 0
    """When the last one arrives."""


class Source(Protocol):
    """Anything that gives parcels in the order of time."""

    def advance(self, until_ms: int) -> list[Parcel]:
        """What arrives before `until_ms` and has not been given yet."""

    def finish(self, cut_ms: int) -> list[Parcel]:
        """What happened before `cut_ms` and is still on its way."""
