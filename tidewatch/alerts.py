"""Alerts as Pinot holds them, and how they compare with what is known to have happened."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidewatch.detectors import USE_CASES
from tidewatch.errors import InputError
from tidewatch.pinot import query
from tidewatch.settings import Settings
from tidewatch.severity import LEVELS
from tidewatch.tables import ALERTS, LABELS

LIMIT = 100_000
NO_LIST = (["null"], ["-Infinity"], [float("-inf")])
"""How Pinot shows a list that is null: as one element with the default of its type."""
EVERYONE = "*"
"""The device of an alert that is about many devices, or all."""


def fetch(settings: Settings, *, use_case: str = "", severity: str = "", device: str = "") -> list[dict[str, Any]]:
    """Alerts, newest first; times are UTC milliseconds. Raises InputError for an unknown word, ServiceError without Pinot."""
    for word, known, what in ((use_case, USE_CASES, "use case"), (severity, LEVELS, "severity")):
        if word and word not in known:
            raise InputError(f"there is no {what} {word!r}.", f"one of: {', '.join(known)}")
    given = {"use_case": use_case, "severity": severity, "device_id": device}
    given = {k: v for k, v in given.items() if v}
    names = [c.name for c in ALERTS.columns]
    sql = (
        f"SELECT {', '.join(chr(34) + n + chr(34) for n in names)} FROM alerts"
        + (f" WHERE {' AND '.join(f'{k} = %({k})s' for k in given)}" if given else "")
        + f' ORDER BY "end" DESC, alert_id LIMIT {LIMIT}'
    )
    return [{n: [] if x in NO_LIST else x for n, x in zip(names, row, strict=True)} for row in query(settings, sql, given)]


def suppressed(settings: Settings) -> dict[str, int]:
    """How many alerts each rule has suppressed. Raises ServiceError without Pinot."""
    sql = f"SELECT suppressed_by, COUNT(*) FROM alerts WHERE suppressed_by <> '' GROUP BY suppressed_by LIMIT {LIMIT}"
    return {rule: int(n) for rule, n in query(settings, sql)}


def is_listed(alert: Mapping[str, Any]) -> bool:
    """It stands for itself: no member of a group, and nothing keeps it quiet."""
    return not alert.get("group_id") and not alert.get("suppressed_by")


def labels(settings: Settings) -> list[dict[str, Any]]:
    """What is known to have happened, from Delta; times are UTC milliseconds. Empty if nothing was ever labelled."""
    found = LABELS.dataset(settings)
    if found is None:
        return []
    rows: list[dict[str, Any]] = found.to_table().to_pylist()
    for row in rows:
        for c in LABELS.columns:
            if c.type == "timestamp":
                row[c.name] = milliseconds(row[c.name])
    return rows


def milliseconds(t: Any) -> int:
    """A moment as Delta gives it, UTC if it has no zone."""
    from datetime import UTC

    moment: float = (t if t.tzinfo else t.replace(tzinfo=UTC)).timestamp()
    return round(moment * 1000)


@dataclass(frozen=True)
class Verdict:
    """Alerts of one use case against the labels."""

    use_case: str
    incidents: int
    """Labelled incidents."""
    found: int
    """Incidents with at least one alert."""
    alerts: int
    right: int
    """Alerts at a labelled incident of their use case."""
    wrong: int
    """Alerts at no labelled incident at all; one at another kind of incident is neither right nor wrong."""
    delay_s: float | None
    """Median seconds from an incident's start to the start of its first alert, of those found."""


def _touch(alert: Mapping[str, Any], label: Mapping[str, Any], slack_ms: int) -> bool:
    return bool(
        alert["device_id"] == label["device_id"] and alert["start"] < label["end"] + slack_ms and alert["end"] > label["start"] - slack_ms
    )


def compare(
    alerts: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], slack_ms: int = 600_000, use_cases: Iterable[str] = USE_CASES,
) -> tuple[Verdict, ...]:
    """One verdict a use case: an alert meets a label of its device if they overlap, give or take `slack_ms`.

    Of a group its members count, not the group; suppressed alerts do not count.
    """
    made = []
    alerts = [a for a in alerts if a["device_id"] != EVERYONE and not a.get("suppressed_by")]
    for use_case in use_cases:
        mine = [a for a in alerts if a["use_case"] == use_case]
        incidents = [x for x in known if x["use_case"] == use_case]
        hits = [[a for a in mine if _touch(a, x, slack_ms)] for x in incidents]
        right = sum(any(_touch(a, x, slack_ms) for x in incidents) for a in mine)
        neither = sum(
            not any(_touch(a, x, slack_ms) for x in incidents) and any(_touch(a, x, slack_ms) for x in known) for a in mine
        )
        delays = [max(0, min(a["start"] for a in found) - x["start"]) / 1000 for x, found in zip(incidents, hits, strict=True) if found]
        made.append(Verdict(
            use_case, len(incidents), sum(bool(h) for h in hits), len(mine), right, len(mine) - right - neither,
            statistics.median(delays) if delays else None,
        ))
    return tuple(made)
