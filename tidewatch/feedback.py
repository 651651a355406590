"""An analyst's mark on an alert: true, false or benign, kept in Delta and told to the topic `feedback`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tidewatch.alerts import milliseconds
from tidewatch.errors import InputError
from tidewatch.settings import Settings
from tidewatch.tables import ALERTS, FEEDBACK

VERDICTS = ("true", "false", "benign")


def alerts(settings: Settings, alert_id: str) -> list[dict[str, Any]]:
    """The newest state of an alert and, of a group, those of its members' own alerts, from Delta, times in UTC milliseconds.

    Raises InputError if there is none.
    """
    from pyarrow import dataset

    newest: dict[str, dict[str, Any]] = {}
    if (stored := ALERTS.dataset(settings)) is not None:
        columns = ["alert_id", "use_case", "detector", "device_id", "start", "end", "windows"]
        wanted = (dataset.field("alert_id") == alert_id) | (dataset.field("group_id") == alert_id)
        for row in stored.to_table(columns=columns, filter=wanted).to_pylist():
            known = newest.setdefault(row["alert_id"], row)
            if (row["end"], row["windows"]) > (known["end"], known["windows"]):
                newest[row["alert_id"]] = row
    if alert_id not in newest:
        raise InputError(f"there is no alert {alert_id!r} in the lake.", "copy the id from `tidewatch alerts --json`; a new alert is there after some seconds")
    found = [newest.pop(alert_id), *(newest[k] for k in sorted(newest))]
    return [{**r, "start": milliseconds(r["start"]), "end": milliseconds(r["end"])} for r in found]


def mark(settings: Settings, alert_id: str, verdict: str, *, analyst: str, note: str, at: datetime, publish: bool = True) -> list[dict[str, Any]]:
    """Mark an alert, in place of an earlier mark, and with a group its members' alerts; the rows, the asked one first.

    Raises InputError for an unknown alert or verdict, ServiceError without Kafka.
    """
    from jobs import lake, topics

    if verdict not in VERDICTS:
        raise InputError(f"{verdict!r} is no verdict.", f"one of: {', '.join(VERDICTS)}")
    rows = [
        {c.name: found[c.name] for c in FEEDBACK.columns if c.name in found} | {
            "verdict": verdict, "analyst": analyst, "note": note, "marked_at": round(at.timestamp() * 1000),
        }
        for found in alerts(settings, alert_id)
    ]
    quoted = ", ".join("'" + r["alert_id"].replace("'", "''") + "'" for r in rows)
    lake.replace(settings, FEEDBACK, rows, f"alert_id IN ({quoted})")
    if publish:
        topics.publish(settings, FEEDBACK, rows, "alert_id", "marked_at")
    return rows


def told(rows: list[dict[str, Any]]) -> str:
    """What was marked, in words."""
    first, members = rows[0], len(rows) - 1
    with_them = f" with its {members} members" if members > 1 else " with its member" if members else ""
    return f"{first['alert_id']} is marked {first['verdict']}{with_them}; the next training of {first['use_case']!r} takes it into account"
