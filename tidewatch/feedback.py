"""An analyst's mark on an alert: true, false or benign, kept in Delta and told to the topic `feedback`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tidewatch.errors import InputError
from tidewatch.settings import Settings
from tidewatch.tables import ALERTS, FEEDBACK

VERDICTS = ("true", "false", "benign")


def alert(settings: Settings, alert_id: str) -> dict[str, Any]:
    """The newest state of an alert, from Delta, times in UTC milliseconds; raises InputError if there is none."""
    from pyarrow import dataset

    rows: list[dict[str, Any]] = []
    if (stored := ALERTS.dataset(settings)) is not None:
        columns = ["alert_id", "use_case", "detector", "device_id", "start", "end", "windows"]
        rows = stored.to_table(columns=columns, filter=dataset.field("alert_id") == alert_id).to_pylist()
    if not rows:
        raise InputError(f"there is no alert {alert_id!r} in the lake.", "copy the id from `tidewatch alerts --json`; a new alert is there after some seconds")
    newest = max(rows, key=lambda r: (r["end"], r["windows"]))
    from tidewatch.alerts import _milliseconds

    return {**newest, "start": _milliseconds(newest["start"]), "end": _milliseconds(newest["end"])}


def mark(settings: Settings, alert_id: str, verdict: str, *, analyst: str, note: str, at: datetime, publish: bool = True) -> dict[str, Any]:
    """Mark an alert, in place of an earlier mark; the row. Raises InputError for an unknown alert or verdict, ServiceError without Kafka."""
    from jobs import lake, topics

    if verdict not in VERDICTS:
        raise InputError(f"{verdict!r} is no verdict.", f"one of: {', '.join(VERDICTS)}")
    found = alert(settings, alert_id)
    row = {c.name: found[c.name] for c in FEEDBACK.columns if c.name in found} | {
        "verdict": verdict, "analyst": analyst, "note": note, "marked_at": round(at.timestamp() * 1000),
    }
    quoted = alert_id.replace("'", "''")
    lake.replace(settings, FEEDBACK, [row], f"alert_id = '{quoted}'")
    if publish:
        topics.publish(settings, FEEDBACK, [row], "alert_id", "marked_at")
    return row
