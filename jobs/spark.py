"""The Spark session of a job, and how jobs read and replace windows of Delta tables."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidewatch import tables
from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings
from tidewatch.tables import Table

from jobs.cli import say

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SPARK_TYPES = {
    "string": "STRING", "long": "BIGINT", "int": "INT", "double": "DOUBLE", "boolean": "BOOLEAN", "timestamp": "TIMESTAMP_NTZ",
    "bytes": "BINARY", "double[]": "ARRAY<DOUBLE>", "string[]": "ARRAY<STRING>",
}


@contextlib.contextmanager
def session(settings: Settings, name: str) -> Iterator[SparkSession]:
    """A Spark session with Delta, on `settings.external.spark_master`, stopped at the end.

    In local mode Delta's and Spark's own parallelism is cut to what two cores want, the JVM compiles with C1 only (jobs
    live for a minute or two and would spend much of it in the optimizing compiler: 111 CPU seconds against 152 for the
    gate), and finds its classes prepared by an earlier session (44 against 67 for an hour of features).
    """
    from pyspark.sql import SparkSession

    # by their real place: state folders that share jars share the prepared classes too
    jars = sorted((settings.state_dir / "jars" / "spark").resolve().glob("*.jar"))
    if not jars:
        raise ServiceError(f"Delta's jars are not in {settings.state_dir / 'jars' / 'spark'}.", "run `tidewatch install`")
    b = settings.batch
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])).strip(os.pathsep)
    warehouse = settings.state_dir / "data" / "spark"
    local = settings.external.spark_master.startswith("local")
    java = "-XX:TieredStopAtLevel=1 -XX:-DontCompileHugeMethods -XX:+UseSerialGC -Dderby.system.home=" + str(warehouse)
    knobs = {
        **({"spark.driver.extraClassPath": ":".join(str(j) for j in jars)} if local else {"spark.jars": ",".join(str(j) for j in jars)}),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": b.driver_memory,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": f"{_prepared_classes(jars)} {java}" if local else java,
        "spark.sql.warehouse.dir": warehouse.as_uri(),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(b.shuffle_partitions),
        "spark.default.parallelism": str(b.shuffle_partitions),
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
        "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "1000000",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.appName(name).master(settings.external.spark_master)
    for key, value in knobs.items():
        builder = builder.config(key, value)
    begin = time.monotonic()
    spark = builder.getOrCreate()
    say(f"{name}: Spark {spark.version} up after {time.monotonic() - begin:.0f} s")
    try:
        yield spark
    finally:
        say(f"{name}: {time.monotonic() - begin:.0f} s, of the JVM {_jvm_seconds(spark):.0f} CPU s")
        spark.stop()


def _prepared_classes(jars: list[Path]) -> str:
    """JVM options to take classes from an archive (class data sharing), or to write it at the end if there is none yet.

    The archive lies beside the jars' folder and belongs to exactly these jars; the JVM itself refuses one of another
    Java, another class path or a write that did not end, and works without.
    """
    import pyspark

    key = hashlib.sha256("\n".join([pyspark.__version__, *map(str, jars)]).encode()).hexdigest()[:16]
    folder = jars[0].resolve().parent.parent
    archive = folder / f"spark-{key}.jsa"
    for part in folder.glob(f"{archive.name}.*"):
        if not Path(f"/proc/{part.suffix[1:]}").exists():
            with contextlib.suppress(FileNotFoundError):  # another session was quicker
                part.replace(archive)
    quiet = "-Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off"
    if archive.exists():
        return f"-XX:SharedArchiveFile={archive} {quiet}"
    if any(folder.glob(f"{archive.name}.*")) or not os.access(folder, os.W_OK):
        return ""
    return f"-XX:ArchiveClassesAtExit={archive}.{os.getpid()} {quiet}"


def _jvm_seconds(spark: SparkSession) -> float:
    """CPU seconds of the driver's JVM so far; NaN where /proc does not tell."""
    gateway = spark.sparkContext._gateway
    try:
        fields = Path(f"/proc/{gateway.proc.pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, AttributeError):
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def instant(t: datetime) -> str:
    """A literal of type TIMESTAMP_NTZ, UTC."""
    return f"TIMESTAMP_NTZ '{t.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def exists(settings: Settings, table: Table) -> bool:
    """True if the Delta table has been written."""
    return (table.path(settings) / "_delta_log").is_dir()


def version(settings: Settings, table: Table) -> int:
    """The Delta table's version; -1 if it is not there."""
    from deltalake import DeltaTable

    return DeltaTable(str(table.path(settings))).version() if exists(settings, table) else -1


def window(settings: Settings, table: Table, start: datetime, end: datetime, *, closed: str = "left") -> str:
    """A query in parentheses: rows whose time lies in [start, end), or in (start, end] with closed='right'.

    A table that does not exist reads as an empty one of the same columns.
    """
    if not exists(settings, table):
        columns = ", ".join(f"CAST(NULL AS {SPARK_TYPES[c.type]}) AS `{c.name}`" for c in table.columns)
        return f"(SELECT {columns}, CAST(NULL AS STRING) AS `date` WHERE FALSE)"
    t = f"`{table.time}`"
    low, high = (">", "<=") if closed == "right" else (">=", "<")
    return (
        f"(SELECT * FROM delta.`{table.path(settings)}` WHERE `date` BETWEEN '{start.astimezone(UTC):%Y-%m-%d}' AND '{end.astimezone(UTC):%Y-%m-%d}'"
        f" AND {t} {low} {instant(start)} AND {t} {high} {instant(end)})"
    )


def whole(settings: Settings, name: str) -> str:
    """A query in parentheses: every row of a table, none if it does not exist."""
    table = tables.table(name)
    far = datetime(1970, 1, 1, tzinfo=UTC)
    return f"(SELECT * FROM delta.`{table.path(settings)}`)" if exists(settings, table) else window(settings, table, far, far + timedelta(1))


def replace(settings: Settings, table: Table, rows: DataFrame, where: str, *, partition: bool = True) -> int:
    """Replace exactly the rows that `where` names by `rows`, in one commit; returns how many were written.

    Raises ServiceError, and leaves the table as it is, if another writer changed these rows meanwhile.
    """
    from delta.exceptions import DeltaConcurrentModificationException
    from pyspark.sql import functions as F

    out = rows.select(*(F.col(c.name).cast(SPARK_TYPES[c.type]).alias(c.name) for c in table.columns))
    if partition:
        out = out.withColumn("date", F.date_format(F.col(table.time), "yyyy-MM-dd"))
    writer = out.write.format("delta")
    if partition:
        writer = writer.partitionBy("date")
    before = version(settings, table)
    if before >= 0:
        writer = writer.mode("overwrite").option("replaceWhere", where).option("mergeSchema", "true")
    try:
        writer.save(str(table.path(settings)))
    except DeltaConcurrentModificationException as e:
        reason = str(e).strip().splitlines()[0]
        raise ServiceError(f"{table.name}: another writer changed the same rows meanwhile: {reason}", "run the job again: it replaces its window") from e
    # nothing for nothing is no commit
    return written(settings, table) if version(settings, table) > before else 0


def written(settings: Settings, table: Table) -> int:
    """Rows that the newest commit of a table, by Spark, added; those that only moved to another file do not count."""
    from deltalake import DeltaTable

    newest: dict[str, Any] = DeltaTable(str(table.path(settings))).history(1)[0]
    metrics = newest.get("operationMetrics") or {}
    return int(metrics.get("numOutputRows", 0)) - int(metrics.get("numCopiedRows", 0))
