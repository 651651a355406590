"""A detector's signals out of its silver view: the rows that baselines and training both start from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from tidewatch import features, tables
from tidewatch.detectors import Array, Detector
from tidewatch.features import render
from tidewatch.settings import Settings

from jobs import cli, lake
from jobs import spark as sp

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

PART_ROWS = 1_000_000
"""Rows of a view that one partition takes at most, about: they are in memory at once."""
CHUNK_ROWS = 50_000
"""Rows whose lookback is computed at once."""


def query(settings: Settings, detector: Detector, start: datetime, end: datetime) -> str:
    """Spark SQL: entity, device_id, metric, end_ms, hour and one raw column a signal, `signal_0` on; of a lookback, its inputs.

    Windows that end in (start, end], of a lookback also those that it sees before; but for those that begin before the
    first event there is: a sliding window knows only part of itself then.
    """
    view = features.view(detector.view)
    rows = sp.window(settings, tables.table(view.name), start - (detector.lookback.span if detector.lookback else timedelta(0)), end, closed="right")
    columns = ", ".join(f"{sql} AS `signal_{i}`" for i, (_, sql) in enumerate(render.signals(detector)))
    whole = "" if view.tumbling else (
        f" WHERE `window_start` >= (SELECT MIN(`window_start`) FROM {rows}) + INTERVAL '{view.size_seconds - view.slide_seconds}' SECOND"
    )
    return (
        f"SELECT {render.entity(detector)} AS `entity`, `device_id`, {render.metric(detector)} AS `metric`, "
        f"`window_end_ms` AS `end_ms`, CAST({render.HOUR} AS INT) AS `hour`, {columns} "
        f"FROM (SELECT *, UNIX_MILLIS(CAST(`window_end` AS TIMESTAMP)) AS `window_end_ms` FROM {rows}{whole})"
    )


def look_back(detector: Detector, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with the inputs of a lookback, all of their entities, into rows with the signals; any order."""
    import pandas as pd

    back = detector.lookback
    assert back is not None
    frame = frame.sort_values(["entity", "end_ms"], ignore_index=True)
    n, k = len(frame), back.windows
    codes = pd.factorize(frame["entity"])[0]
    first = np.searchsorted(codes, codes, "left")
    end = frame["end_ms"].to_numpy(dtype=np.float64)
    kept = np.flatnonzero(frame["end_ms"].to_numpy(dtype=np.int64) % max(1, back.every // timedelta(milliseconds=1)) == 0)
    inputs = frame[[f"signal_{i}" for i in range(len(back.inputs))]].to_numpy(dtype=np.float64)
    out = np.empty((n, len(detector.signals)))
    for a in range(0, n, CHUNK_ROWS):
        rows = np.arange(a, min(a + CHUNK_ROWS, n))
        before = np.searchsorted(kept, rows)[:, None] - np.arange(k - 1, 0, -1)
        at = np.column_stack([kept[np.maximum(before, 0)] if len(kept) else np.zeros_like(before), rows])
        there = np.column_stack([before >= 0, np.ones(len(rows), dtype=bool)]) & (at >= first[rows][:, None])
        seen: Array = np.where(there[:, None, :], inputs[at].transpose(0, 2, 1), np.nan)
        out[rows] = back.signals(np.where(there, end[at], -np.inf), seen)
    kept = frame[["entity", "device_id", "metric", "end_ms", "hour"]]
    return kept.assign(**{f"signal_{i}": out[:, i] for i in range(out.shape[1])})


def rows(spark: SparkSession, settings: Settings, detector: Detector, start: datetime, end: datetime) -> DataFrame:
    """entity, device_id, metric, end_ms, hour, signal_0 … of the windows that end in (start, end]; entities are not split."""
    found = spark.sql(query(settings, detector, start, end))
    parts = max(settings.batch.shuffle_partitions, -(-lake.count(settings, tables.table(detector.view)) // PART_ROWS))
    found = found.repartition(parts, "entity")
    if detector.lookback is None:
        return found

    def work(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        frames = list(batches)
        if frames:
            yield look_back(detector, pd.concat(frames, ignore_index=True))

    signals = "".join(f", signal_{i} DOUBLE" for i in range(len(detector.signals)))
    done = found.mapInPandas(work, f"entity STRING, device_id STRING, metric STRING, end_ms BIGINT, hour INT{signals}")
    return done.where(f"end_ms > {cli.millis(start)}")


def unlabelled(spark: SparkSession, settings: Settings, detector: Detector, found: DataFrame) -> DataFrame:
    """The rows whose window touches no labelled incident of the device, nor its afterglow: what is known to be wrong is
    not what is usual."""
    size = features.view(detector.view).size_seconds * 1000
    glow = detector.afterglow // timedelta(milliseconds=1)
    spans = (
        "SELECT device_id AS d, UNIX_MILLIS(CAST(`start` AS TIMESTAMP)) AS s, UNIX_MILLIS(CAST(`end` AS TIMESTAMP)) AS e "
        f"FROM {sp.whole(settings, 'labels')}"
    )
    labels = spark.sql(spans)
    return found.join(
        labels, (found["device_id"] == labels["d"]) & (found["end_ms"] > labels["s"]) & (found["end_ms"] - size - glow < labels["e"]), "left_anti",
    )
