"""Every view, signal and predicate on one engine over the same events: `python -m tests.features.parity spark OUT.json`.

The Flink side runs in the Flink environment, the Spark side in the Spark environment; test_parity compares them.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from tidewatch import events, features
from tidewatch.detectors import all_detectors
from tidewatch.features import render
from tidewatch.settings import Limits

BEGIN = 1_795_474_800_000
"""On the hour."""
MINUTES = 25
FLINK = {"string": "STRING", "long": "BIGINT", "int": "INT", "double": "DOUBLE", "boolean": "BOOLEAN"}


def rows(source: str, seed: int = 7) -> list[dict[str, Any]]:
    """A few thousand events in event-time order: devices that pause, nulls, duplicates, events on a window's edge, a name for an address."""
    rng = random.Random(f"{source}{seed}")
    found = []
    for i in range(3000):
        ts = BEGIN + rng.randrange(MINUTES * 60) * 1000 + rng.choice((0, 0, 1, 500, 999))
        device = f"dev-{rng.randrange(6)}"
        if device == "dev-3" and ts > BEGIN + 11 * 60_000:
            continue
        row: dict[str, Any] = {"device_id": device, "event_id": i, "ts": ts, "external": None}
        if source == "flow":
            row |= {
                "direction": rng.choice(("in", "out")), "src_ip": f"10.0.0.{rng.randrange(9)}", "src_port": rng.choice((None, 80)),
                "dst_ip": f"8.8.8.{n}" if (n := rng.randrange(20)) else "hôte", "dst_port": rng.choice((None, 443)), "proto": "tcp",
                "bytes_out": rng.randrange(10**10), "bytes_in": rng.randrange(10**6), "pkts_out": 1, "pkts_in": 2, "duration_ms": 3,
                "status": rng.choice(("ok", "ok", "reset")), "external": rng.random() < 0.3,
            }
        else:
            metric = rng.choice(("cpu", "température", "never"))
            value = None if metric == "never" or rng.random() < 0.2 else rng.gauss(0, 1e3)
            row |= {"metric": metric, "value": value, "status": rng.choice(("ok", "ok", "error"))}
        found.append(row)
        if rng.random() < 0.02:
            found.append(dict(row))
    return sorted(found, key=lambda r: r["ts"])


def odd(source: str) -> list[dict[str, Any]]:
    """Events on both sides of every limit of the contract, with the moment the broker received them."""
    contract = events.contract(source)
    good = rows(source)[0] | {"ingested_ms": BEGIN + 1000}
    found = [good]
    for f in contract.fields:
        edges: list[Any] = []
        for limit in (f.minimum, f.maximum):
            if limit is not None:
                edges += [limit, limit - 1, limit + 1] if f.type != "double" else [limit, limit * 1.1, limit * 0.9]
        for length in (f.min_length, f.max_length):
            if length is not None:
                edges += ["ü" * n for n in (length - 1, length, length + 1) if n >= 0]
        edges += [*f.values, "something else", ""] if f.values else []
        edges += [None] if f.nullable else []
        for edge in edges:
            whole = isinstance(edge, float) and f.type in ("long", "int")
            found.append(good | {f.name: int(edge) if whole else edge})
    limits = Limits()
    for span in (limits.max_future.total_seconds(), -limits.max_past.total_seconds()):
        found += [good | {"ts": good["ingested_ms"] + int(span * 1000) + d} for d in (-1, 0, 1)]
    return [r | {"event_id": r["event_id"] if r["event_id"] != good["event_id"] else i} for i, r in enumerate(found)]


def queries() -> list[tuple[str, str]]:
    """What both engines are asked, beside the views themselves: (name, query over views and `<source>_odd`)."""
    found = []
    for n in features.names():
        v = features.view(n)
        columns = [render.quoted(c) for c in (*v.keys, "window_end_ms", *(f.name for f in v.features))]
        found.append((n, f"SELECT {', '.join(columns)}, {render.HOUR} AS `hour` FROM {render.quoted(n)}"))
    for d in all_detectors():
        signals = ", ".join(sql for _, sql in render.signals(d))
        found.append((f"signals of {d.name}", f"SELECT {render.entity(d)} AS `entity`, `window_end_ms`, {signals} FROM {render.quoted(d.view)}"))
    for s in events.names():
        reason = render.reason_sql(render.predicates(events.contract(s), Limits()))
        columns = [render.quoted(f.name) for f in events.contract(s).fields]
        found.append((f"reasons of {s}", f"SELECT {', '.join(columns)}, {reason} AS `reason` FROM `{s}_odd`"))
    return found


def _types(source: str) -> list[tuple[str, str]]:
    return [*((f.name, f.type) for f in events.contract(source).fields), ("external", "boolean")]


def _write(path: Path, found: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in found))


def flink(folder: Path) -> dict[str, list[list[Any]]]:
    """On a MiniCluster, from files."""
    from pyflink.table import EnvironmentSettings, TableEnvironment

    from streaming import build, job
    from tidewatch.settings import current

    te = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    build.build(current())
    for key, value in {"table.local-time-zone": "UTC", "parallelism.default": "1", "pipeline.jars": build.jar_path(current()).as_uri()}.items():
        te.get_config().set(key, value)
    for name, of in job.JAVA_FUNCTIONS.items():
        te.execute_sql(f"CREATE TEMPORARY SYSTEM FUNCTION {name} AS 'tidewatch.stream.{of}' LANGUAGE JAVA")
    for s in events.names():
        columns = ", ".join(f"{render.quoted(n)} {FLINK[t]}" for n, t in _types(s))
        for name, found, more in (
            (s, rows(s), f", `rowtime` AS TO_TIMESTAMP_LTZ(`ts` + {render.ahead_seconds(s) * 1000}, 3), WATERMARK FOR `rowtime` AS `rowtime` - INTERVAL '10' SECOND"),
            (f"{s}_odd", odd(s), ", `ingested_ms` BIGINT"),
        ):
            _write(folder / f"{name}.json", found)
            te.execute_sql(f"CREATE TABLE `{name}` ({columns}{more}) WITH ('connector'='filesystem', 'path'='{(folder / name).as_uri()}.json', 'format'='json')")
    for n in features.names():
        for name, query in render.flink_view_sql(features.view(n)):
            te.create_temporary_view(name, te.sql_query(query))
    answers = {}
    for name, query in queries():
        with te.execute_sql(query).collect() as found:
            answers[name] = [list(r) for r in found]
    return answers


def spark(folder: Path) -> dict[str, list[list[Any]]]:
    """In local mode, from the same files; events as they lie in Delta (`ts` a timestamp)."""
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]").config("spark.sql.session.timeZone", "UTC").config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    )
    try:
        for s in events.names():
            schema = ", ".join(f"{render.quoted(n)} {FLINK[t]}" for n, t in _types(s))
            _write(folder / f"{s}.json", rows(s))
            _write(folder / f"{s}_odd.json", odd(s))
            raw = session.read.schema(schema).json(str(folder / f"{s}.json"))
            raw.selectExpr("* EXCEPT (`ts`)", "CAST(TIMESTAMP_MILLIS(`ts`) AS TIMESTAMP_NTZ) AS `ts`").createOrReplaceTempView(s)
            session.read.schema(schema + ", `ingested_ms` BIGINT").json(str(folder / f"{s}_odd.json")).createOrReplaceTempView(f"{s}_odd")
        for n in features.names():
            session.sql(render.spark_view_sql(features.view(n))).createOrReplaceTempView(n)
        return {name: [list(r) for r in session.sql(query).collect()] for name, query in queries()}
    finally:
        session.stop()


def main(arguments: list[str]) -> None:
    engine, out = arguments
    with tempfile.TemporaryDirectory() as folder:
        answers = {"flink": flink, "spark": spark}[engine](Path(folder))
    Path(out).write_text(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
