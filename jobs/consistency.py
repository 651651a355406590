"""Consistency: what the stream saw of a window when it closed, against what the feature store holds of it.

Two comparisons, on the windows that end in (start, end]: of every published view, the stream's rows (`…_online`) with the
view's; and of every detector, the signals that the stream logged with its scores (`scores`) with those that training
reads from the feature store. A row a view or detector goes to `consistency`: windows that the store has and the stream
has not (missing: it was late or down, or had no model), that only the stream has (extra), that both have with another
number (mismatched), and how far the farthest is off. Scores count from the first one on.

The figures are no gate: late events alone make the stream's windows differ, and the job says so without failing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tidewatch import features, tables
from tidewatch.detectors import Detector, all_detectors
from tidewatch.features import render
from tidewatch.settings import Settings

from jobs import cli, lake, train
from jobs import spark as sp
from jobs.topics import publish as send

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TOLERANCE = 1e-9
"""Relative difference up to which two doubles are the same: engines add in another order. Whole numbers must be equal."""
BEFORE = timedelta(hours=1)
"""How much earlier than asked for the store is read: of the first sliding windows of what is read, nothing is known."""


@dataclass(frozen=True)
class Compared:
    """What comparing one view or detector amounts to."""

    offline: int
    """Windows in the feature store."""
    online: int
    """Windows that the stream saw."""
    missing: int
    extra: int
    mismatched: int
    largest: float
    """Greatest difference over the greater amount, 0 to 2; a number beside nothing is 1."""
    worst: str
    """The feature or signal that differs in most windows; '' if none does."""


def compare(spark: SparkSession, offline: DataFrame, online: DataFrame, keys: Sequence[str], values: Sequence[str]) -> Compared:
    """Compare two frames of windows with the same columns; `keys` make a window, `values` are numbers."""
    offline.createOrReplaceTempView("offline_windows")
    online.createOrReplaceTempView("online_windows")
    kinds = dict(offline.dtypes)
    differences = []
    for v in values:
        a, b = f"CAST(f.`{v}` AS DOUBLE)", f"CAST(n.`{v}` AS DOUBLE)"
        differences.append(
            f"CASE WHEN f.`found` IS NULL OR n.`found` IS NULL OR {a} <=> {b} THEN 0D WHEN {a} IS NULL OR {b} IS NULL OR ISNAN({a}) OR ISNAN({b}) THEN 1D "
            f"ELSE ABS({a} - {b}) / GREATEST(ABS({a}), ABS({b})) END AS `{v}`"
        )
    names = ", ".join(f"`{k}`" for k in keys)
    off = {v: f"`{v}` > {TOLERANCE if kinds[v] == 'double' else 0.0!r}D" for v in values}
    row = spark.sql(
        f"WITH differing AS (SELECT f.`found` AS of, n.`found` AS on, {', '.join(differences)} "
        f"FROM (SELECT *, TRUE AS `found` FROM offline_windows) f FULL OUTER JOIN (SELECT *, TRUE AS `found` FROM online_windows) n USING ({names})) "
        f"SELECT COUNT(of), COUNT(on), COUNT_IF(on IS NULL), COUNT_IF(of IS NULL), COUNT_IF({' OR '.join(off.values())}), "
        f"{', '.join(f'MAX(`{v}`), COUNT_IF({off[v]})' for v in values)} FROM differing"
    ).collect()[0]
    largest, counts = [float(x or 0.0) for x in row[5::2]], [int(x) for x in row[6::2]]
    worst = max(range(len(values)), key=counts.__getitem__)
    return Compared(*(int(x) for x in row[:5]), max(largest), values[worst] if counts[worst] else "")


def of_view(spark: SparkSession, settings: Settings, name: str, start: datetime, end: datetime) -> Compared:
    """A view's rows in the feature store against the stream's."""
    v = features.view(name)
    offline, online = (spark.sql(f"SELECT * FROM {sp.window(settings, tables.table(n), start, end, closed='right')}") for n in (name, f"{name}_online"))
    return compare(spark, offline, online, (*v.keys, "window_end"), [f.name for f in v.features])


def of_detector(spark: SparkSession, settings: Settings, detector: Detector, start: datetime, end: datetime) -> Compared | None:
    """A detector's signals as training reads them against those that the stream logged; None if it logged none."""
    signals = [f"signal_{i}" for i in range(len(detector.signals))]
    metric = render.metric(detector) != "''"
    logged = spark.sql(
        f"SELECT CONCAT(detector, '|', device_id, '|', {'metric' if metric else repr('')}) AS entity, device_id, "
        f"UNIX_MILLIS(CAST(window_end AS TIMESTAMP)) AS end_ms, {', '.join(f'GET(signals, {i}) AS {s}' for i, s in enumerate(signals))} "
        f"FROM {sp.window(settings, tables.SCORES, start, end, closed='right')} WHERE detector = '{detector.name}'"
    ).cache()
    first = logged.agg({"end_ms": "min"}).collect()[0][0]
    if first is None:
        return None
    found = train.read_windows(spark, settings, detector, start - BEFORE, end)
    found = found[(found["end_ms"] >= first) & (found["end_ms"] > cli.millis(start))]
    offline = spark.createDataFrame(found[["entity", "device_id", "end_ms", *signals]], f"entity STRING, device_id STRING, end_ms BIGINT, {', '.join(f'{s} DOUBLE' for s in signals)}")
    # of very many windows, training reads those of some devices only
    devices = spark.createDataFrame([(d,) for d in sorted(set(found["device_id"]))], "device_id STRING")
    if metric:
        # of a device's metrics the stream logs the one that weighs most; a window of the device that it did not score is missing once
        told, heard = logged.select("entity", "end_ms"), logged.select("device_id", "end_ms").distinct()
        unheard = offline.join(heard, ["device_id", "end_ms"], "left_anti").dropDuplicates(["device_id", "end_ms"])
        offline = offline.join(told, ["entity", "end_ms"], "left_semi").unionByName(unheard)
    result = compare(spark, offline.drop("device_id"), logged.join(devices, "device_id", "left_semi").drop("device_id"), ("entity", "end_ms"), signals)
    logged.unpersist()
    return Compared(**{**asdict(result), "worst": detector.signals[signals.index(result.worst)].name if result.worst else ""})


def check(spark: SparkSession, settings: Settings, start: datetime, end: datetime, *, publish: bool) -> dict[str, Any]:
    """Compare everything, write `consistency`; the summary."""
    run_id, rows = f"{cli.iso(start)}/{cli.iso(end)}", []
    found: dict[tuple[str, str], Compared] = {}
    for name in features.names():
        if features.view(name).published and sp.exists(settings, tables.table(f"{name}_online")) and sp.exists(settings, tables.table(name)):
            begin = time.monotonic()
            found["view", name] = of_view(spark, settings, name, start, end)
            cli.say(f"{name}: {_words(found['view', name])}, in {time.monotonic() - begin:.1f} s")
    for d in all_detectors():
        begin = time.monotonic()
        compared = of_detector(spark, settings, d, start, end) if sp.exists(settings, tables.SCORES) else None
        if compared is None:
            cli.say(f"{d.name}: the stream has scored nothing in the window")
            continue
        found["detector", d.name] = compared
        cli.say(f"{d.name}: {_words(compared)}, in {time.monotonic() - begin:.1f} s")
    for (kind, name), c in found.items():
        rows.append({
            "run_id": run_id, "run_at": cli.millis(end), "kind": kind, "name": name, "offline": c.offline, "online": c.online, "missing": c.missing,
            "extra": c.extra, "mismatched": c.mismatched, "largest_difference": c.largest, "worst": c.worst,
        })
    lake.replace(settings, tables.CONSISTENCY, rows, f"run_id = '{run_id}'")
    if publish:
        send(settings, tables.CONSISTENCY, rows, "run_id", "run_at")
    total = {k: sum(r[k] for r in rows) for k in ("offline", "online", "missing", "extra", "mismatched")}
    return {"job": "consistency", "start": cli.iso(start), "end": cli.iso(end), **total, "compared": {r["name"]: {k: r[k] for k in (*total, "largest_difference", "worst")} for r in rows}}


def _words(c: Compared) -> str:
    return (f"{c.offline:,} windows in the store, {c.online:,} in the stream, {c.missing:,} missing, {c.extra:,} extra, {c.mismatched:,} differ"
            + (f", most by {c.worst}, by {c.largest:.3g} at most" if c.mismatched else ""))


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    with sp.session(settings, "consistency") as spark:
        return check(spark, settings, options.start, options.end, publish=not options.no_publish)


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
