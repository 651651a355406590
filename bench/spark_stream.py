"""The peer of the stream's mode `delta`: Spark Structured Streaming from the same topics to Delta, with the same windows.

`python bench/spark_stream.py FOLDER` reads the topics from the beginning to the end (trigger availableNow), decodes the
Avro, drops impossible events by the same predicates, and writes events and one-minute windows to Delta under FOLDER. Run
by `bench/throughput.py` in the Spark environment. Structured Streaming has no exact COUNT(DISTINCT): approximate there.
The time from the first query's start to the last one's end goes to FOLDER/seconds, the records read so far by all queries to
FOLDER/read as it goes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.streaming.query import StreamingQuery

from tidewatch import events, features
from tidewatch.features import render
from tidewatch.settings import Settings, load

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tidewatch</groupId><artifactId>bench</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.spark</groupId><artifactId>spark-sql-kafka-0-10_2.13</artifactId><version>{v}</version></dependency>
<dependency><groupId>org.apache.spark</groupId><artifactId>spark-avro_2.13</artifactId><version>{v}</version></dependency>
</dependencies></project>"""
BATCH = 1_000_000
"""Records of a topic in one micro-batch at most."""
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies"


def jars(settings: Settings) -> str:
    """Delta's jars, and Kafka's and Avro's for Spark, fetched once."""
    import pyspark

    folder = settings.state_dir / "peer-jars"
    if not folder.exists():
        pom = settings.state_dir / "peer-pom.xml"
        pom.write_text(POM.format(v=pyspark.__version__))
        subprocess.run(["mvn", "-q", "-B", "-f", str(pom), COPY, "-DexcludeTransitive=false", f"-DoutputDirectory={folder}"], check=True)
    wheel = {p.name for p in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
    found = [*(settings.state_dir / "jars" / "spark").glob("*.jar"), *(p for p in folder.glob("*.jar") if p.name not in wheel and "spark-core" not in p.name)]
    return ",".join(map(str, found))


def source(spark: SparkSession, settings: Settings, name: str) -> DataFrame:
    """The possible events of a topic, with `ts` as a timestamp."""
    contract = events.contract(name)
    raw = (
        spark.readStream.format("kafka").option("kafka.bootstrap.servers", settings.kafka).option("subscribe", name)
        .option("startingOffsets", "earliest").option("maxOffsetsPerTrigger", BATCH).load()
    )
    decoded = raw.select(
        from_avro("value", contract.schema, {"mode": "PERMISSIVE"}).alias("e"), F.col("timestamp").alias("ingested_at"),
        F.col("partition").alias("kafka_partition"), F.col("offset").alias("kafka_offset"),
    ).select("e.*", "ingested_at", "kafka_partition", "kafka_offset")
    rules = render.predicates(contract, settings.limits, time_ms=f"UNIX_MILLIS(`{contract.time.name}`)", received_ms="UNIX_MILLIS(`ingested_at`)")
    valid = decoded.where(f"`event_id` IS NOT NULL AND ({render.reason_sql(rules)}) IS NULL")
    # the stream tells networks apart by CIDR; a prefix is cheaper, which favours the peer
    other = "CASE WHEN `direction` = 'in' THEN `src_ip` ELSE `dst_ip` END"
    valid = valid.withColumn("external", ~F.expr(other).rlike(r"^(10\.|192\.168\.)") if contract.addressed else F.lit(None).cast("boolean"))
    return valid.withColumn("event_time", F.col(contract.time.name)).withColumn("date", F.date_format("event_time", "yyyy-MM-dd"))


def windows(frame: DataFrame, name: str) -> DataFrame:
    """The one-minute view of the events."""
    view = features.view(name)
    row = [F.expr(sql) for sql in render.row_sql(view, view.sources[0])]
    found = [
        F.expr(sql.replace("COUNT(DISTINCT ", "APPROX_COUNT_DISTINCT(").replace("MAX(`ts`)", "MAX(UNIX_MILLIS(`ts`))"))
        for sql in render.spark_aggregates(view)
    ]
    return (
        frame.select("event_time", *row).withWatermark("event_time", "5 seconds").groupBy(F.window("event_time", "1 minute"), *view.keys).agg(*found)
        .select("window.end", *view.keys, *(f.name for f in view.features)).withColumnRenamed("end", "window_end")
    )


def main(folder: Path) -> None:
    settings = load()
    spark = (
        SparkSession.builder.master("local[2]").appName("peer").config("spark.jars", jars(settings)).config("spark.driver.memory", "3g")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension").config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog").config("spark.sql.shuffle.partitions", "4")
        .config("spark.ui.enabled", "false").getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    begin = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    queries: dict[str, list[StreamingQuery]] = {n: [] for n in events.names()}

    def write(source: str, frame: DataFrame, name: str, *partition: str) -> None:
        out = frame.writeStream.format("delta").option("checkpointLocation", str(folder / "checkpoints" / name)).trigger(availableNow=True)
        queries[source].append(out.partitionBy(*partition).start(str(folder / name)))

    for name in events.names():
        write(name, source(spark, settings, name), name, "date")
        write(name, windows(source(spark, settings, name), f"{name}_1m"), f"{name}_1m")
    every = [q for qs in queries.values() for q in qs]
    while any(q.isActive for q in every):
        time.sleep(1)
        # an event counts when both queries of its topic have had it
        read = sum(min(sum(p["numInputRows"] for p in q.recentProgress) for q in qs) for qs in queries.values())
        (folder / "read.new").write_text(str(read))
        (folder / "read.new").replace(folder / "read")
    for q in every:
        q.awaitTermination()
    (folder / "seconds").write_text(str(time.monotonic() - begin))
    for name in events.names():
        print(f"peer: {name} {spark.read.format('delta').load(str(folder / name)).count():,} rows, "
              f"{spark.read.format('delta').load(str(folder / f'{name}_1m')).count():,} windows", flush=True)
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
