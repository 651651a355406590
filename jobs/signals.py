"""A detector's signals out of its silver view: the rows that baselines and training both start from."""

from __future__ import annotations

from datetime import datetime, timedelta

from tidewatch import features, tables
from tidewatch.detectors import Detector
from tidewatch.features import render
from tidewatch.settings import Settings

from jobs import spark as sp


def query(settings: Settings, detector: Detector, start: datetime, end: datetime) -> str:
    """Spark SQL: entity, device_id, metric, window_end, hour and one raw column a signal, `signal_0` on.

    Windows that lie wholly in [start, end]: a longer window that began before the data did knows only half of itself.
    """
    view = features.view(detector.view)
    table = tables.table(view.name)
    first = start + timedelta(seconds=view.size_seconds) - timedelta(microseconds=1)
    columns = ", ".join(f"{sql} AS `signal_{i}`" for i, (_, sql) in enumerate(render.signals(detector)))
    return (
        f"SELECT {render.entity(detector)} AS `entity`, `device_id`, {render.metric(detector)} AS `metric`, `window_end`, "
        f"CAST({render.HOUR} AS INT) AS `hour`, {columns} "
        f"FROM (SELECT *, UNIX_MILLIS(CAST(`window_end` AS TIMESTAMP)) AS `window_end_ms` "
        f"FROM {sp.window(settings, table, first, end, closed='right')})"
    )


def transformed(detector: Detector) -> list[str]:
    """Spark SQL of each signal in its transformed unit (`tidewatch.scoring.transform`), over the columns of `query`."""
    return [
        f"LOG1P(GREATEST(`signal_{i}`, 0D))" if s.transform == "log1p" else f"`signal_{i}`"
        for i, s in enumerate(detector.signals)
    ]
