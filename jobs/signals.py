"""A detector's signals out of its silver view: the rows that baselines and training both start from."""

from __future__ import annotations

from datetime import datetime

from tidewatch import features, tables
from tidewatch.detectors import Detector
from tidewatch.features import render
from tidewatch.settings import Settings

from jobs import spark as sp


def query(settings: Settings, detector: Detector, start: datetime, end: datetime) -> str:
    """Spark SQL: entity, device_id, metric, window_end, hour and one raw column a signal, `signal_0` on.

    Windows that end in (start, end], but for those that begin before the first event there is: a sliding window knows
    only part of itself then.
    """
    view = features.view(detector.view)
    rows = sp.window(settings, tables.table(view.name), start, end, closed="right")
    columns = ", ".join(f"{sql} AS `signal_{i}`" for i, (_, sql) in enumerate(render.signals(detector)))
    whole = "" if view.tumbling else (
        f" WHERE `window_start` >= (SELECT MIN(`window_start`) FROM {rows}) + INTERVAL '{view.size_seconds - view.slide_seconds}' SECOND"
    )
    return (
        f"SELECT {render.entity(detector)} AS `entity`, `device_id`, {render.metric(detector)} AS `metric`, `window_end`, "
        f"CAST({render.HOUR} AS INT) AS `hour`, {columns} "
        f"FROM (SELECT *, UNIX_MILLIS(CAST(`window_end` AS TIMESTAMP)) AS `window_end_ms` FROM {rows}{whole})"
    )


def transformed(detector: Detector) -> list[str]:
    """Spark SQL of each signal in its transformed unit (`tidewatch.scoring.transform`), over the columns of `query`."""
    return [
        f"LOG1P(GREATEST(`signal_{i}`, 0D))" if s.transform == "log1p" else f"`signal_{i}`"
        for i, s in enumerate(detector.signals)
    ]
