"""The peer of the throughput bench: its windows, in the spark environment."""

from __future__ import annotations

import pytest

from tests.features import parity
from tidewatch import events, features
from tidewatch.features import render

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("pyspark", reason="the spark environment has it")


def test_the_peer_has_the_streams_windows() -> None:
    """As many, with the same features; distinct counts are approximate there, and sums of doubles depend on their order."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    from bench.spark_stream import windows

    spark = (
        SparkSession.builder.master("local[1]").config("spark.sql.session.timeZone", "UTC").config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "1").getOrCreate()
    )
    try:
        for source in events.names():
            kinds = {f.name: parity.FLINK[f.type] for f in events.contract(source).fields} | {"external": "BOOLEAN"}
            rows = [tuple(r.get(n) for n in kinds) for r in parity.rows(source)]
            frame = spark.createDataFrame(rows, ", ".join(f"`{n}` {t}" for n, t in kinds.items())).withColumn("ts", F.timestamp_millis("ts"))
            frame.createOrReplaceTempView(source)
            view = features.view(f"{source}_1m")
            exact = [f.name for f in view.features if f.type == "long" and "DISTINCT" not in f.expression]
            ours = spark.sql(f"SELECT * FROM ({render.spark_view_sql(view)})").select(*view.keys, F.col("window_end").cast("timestamp"), *exact)
            peers = windows(frame.withColumn("event_time", F.col("ts")), view.name)
            assert {f.name for f in view.features} <= set(peers.columns)
            peers = peers.select(*view.keys, "window_end", *exact)
            assert ours.count() == peers.count() > 100 and ours.exceptAll(peers).isEmpty()
    finally:
        spark.stop()
