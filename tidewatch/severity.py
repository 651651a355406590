"""Severity of an incident: that of its score, raised by how long it lasts and how many devices it takes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

LEVELS = ("low", "medium", "high", "critical")
LASTING = ((timedelta(minutes=30), 1), (timedelta(hours=4), 2))
"""(from the first anomalous window's start to the last one's end at least, levels more)."""
SPREAD = ((10, 1), (100, 2))
"""(devices at least, levels more)."""


def _more(value: str, steps: Sequence[tuple[int, int]]) -> str:
    whens = " ".join(f"WHEN {value} >= {least} THEN {more}" for least, more in sorted(steps, reverse=True))
    return f"CASE {whens} ELSE 0 END"


def sql(severity: str, lasting_ms: str, members: str) -> str:
    """The incident's severity as SQL over three SQL expressions: of the score (one of LEVELS), milliseconds, devices."""
    of_score = f"CASE {severity} " + " ".join(f"WHEN '{name}' THEN {i}" for i, name in enumerate(LEVELS)) + " END"
    lasting = [(span // timedelta(milliseconds=1), more) for span, more in LASTING]
    level = f"{of_score} + {_more(lasting_ms, lasting)} + {_more(members, SPREAD)}"
    whens = " ".join(f"WHEN {level} <= {i} THEN '{name}'" for i, name in enumerate(LEVELS[:-1]))
    return f"CASE {whens} ELSE '{LEVELS[-1]}' END"
