"""The Flink job: decodes, validates, lands, windows, scores and alerts; SQL in `streaming/sql`, run by `tidewatch stream start`.

`python -m streaming.job [--resume PATH] [--explain]` submits it to the cluster of the settings and prints the job's id.
"""

from __future__ import annotations

import argparse
import os
import string
import sys
import zlib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from tidewatch import events, features, outage, severity, tables
from tidewatch import settings as settings_
from tidewatch.detectors import all_detectors
from tidewatch.errors import ContractError
from tidewatch.events import Contract
from tidewatch.features import render
from tidewatch.settings import ROOT, Settings
from tidewatch.tables import Table

from streaming.build import jar_path
from streaming.control import GROUP, NAME
from streaming.windows import Handed, handed

SQL = Path(__file__).parent / "sql"
FLINK = {
    "string": "STRING", "long": "BIGINT", "int": "INT", "double": "DOUBLE", "boolean": "BOOLEAN", "bytes": "BYTES",
    "double[]": "ARRAY<DOUBLE>", "string[]": "ARRAY<STRING>",
}
CONTROL_IDLE = timedelta(seconds=15)
"""After this long without a new baseline or model, windows no longer wait for one. Short, for scores wait as long
after each of them; too short costs nothing but an old version for windows that are already past."""
NEVER_LATE = timedelta(days=36525)
"""Added to the event time of baselines and models: a process table function of Flink 2.3 does not see a row that is late
(FLINK-39436, mended in 2.4), but what is learned of the past counts."""
JAVA_FUNCTIONS = {
    "tidewatch_base64": "Base64Text", "tidewatch_incidents": "MergeIncidents", "tidewatch_groups": "GroupIncidents",
    "tidewatch_suppressed_by": "SuppressedBy", "tidewatch_match": "MatchWindows", "tidewatch_bucket": "Bucket", "tidewatch_buckets": "Buckets",
    "tidewatch_millis": "Millis", "tidewatch_time": "Time", "tidewatch_day": "Day", "CRC32": "Crc32", "ADDRESS_BIT": "AddressBit", "ADDRESS_SUMS": "AddressSums",
    "BIT_OR": "BitOr",
}
"""Name in SQL, class in `streaming/java`."""
INCIDENT = (
    "alert_id", "use_case", "detector", "device_id", "metric", "start_ms", "end_ms", "windows", "severity", "score", "model_version",
    "baseline", "top_signals", "top_observed", "top_expected", "top_shares", "technique", "title", "reason", "kind", "site", "status",
    "group_id", "members", "member_ids", "suppressed_by",
)
"""Columns in which incidents and outages meet."""
PROMPT = frozenset({"alerts"})
"""Tables whose topic is written at once, at least once: their rows replace one another."""


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template of `streaming/sql` with its placeholders filled; raises ContractError for one without a value."""
    try:
        return string.Template((SQL / f"{template}.sql").read_text()).substitute(values)
    except KeyError as e:
        raise ContractError(f"streaming/sql/{template}.sql has the placeholder {e}, which nothing fills.") from e


def _millis(span: timedelta) -> str:
    return f"{span // timedelta(milliseconds=1)} ms"


def _join(parts: Iterable[str]) -> str:
    return ",\n  ".join(parts)


def records_sql(contract: Contract, settings: Settings) -> str:
    """The table `<source>_records` over the source's topic."""
    rules = render.time_rules(contract, settings.limits, received_ms="tidewatch_millis(`ingested_at`)")
    inside = ",".join(settings.network.not_external) if contract.addressed else ""
    ahead = timedelta(seconds=render.ahead_seconds(contract.name))
    return fill("records", {
        "name": contract.name,
        "columns": _join(f"{render.quoted(f.name)} {FLINK[f.type]}" for f in contract.fields),
        "reason": f"COALESCE(`fault`, {render.reason_sql(rules)})",
        "time": render.quoted(contract.time.name),
        "ahead_ms": str(ahead // timedelta(milliseconds=1)),
        "lateness": render.flink_interval(settings.stream.lateness + ahead),
        "idle": _millis(settings.stream.idle_timeout),
        "kafka": settings.kafka,
        "group": GROUP,
        "schema": contract.rules.replace("'", "''"),
        "inside": inside,
    })


def topic_sql(table: Table, settings: Settings) -> str:
    """The sink `topic_<name>`: timestamps as milliseconds, keyed by the device."""
    guarantee = "'sink.delivery-guarantee' = 'at-least-once'" if table.name in PROMPT else _join((
        "'sink.delivery-guarantee' = 'exactly-once'",
        f"'sink.transactional-id-prefix' = '{NAME}-{table.name}'",
        "'properties.transaction.timeout.ms' = '600000'",
    ))
    columns = _join(f"{render.quoted(c.name)} {FLINK.get(c.type, 'BIGINT')}" for c in table.columns)
    return fill("topic", {"name": table.name, "columns": columns, "kafka": settings.kafka, "guarantee": guarantee})


def landing_sql(table: Table, settings: Settings) -> str:
    """The sink `landing_<name>`: the Delta table's columns and its partition."""
    columns = _join(f"{render.quoted(c.name)} {FLINK.get(c.type, 'TIMESTAMP_LTZ(6)')}" for c in table.columns)
    return fill("landing", {"name": table.name, "columns": columns, "path": (settings.landing / table.name).as_uri()})


def select_topic_sql(table: Table, relation: str) -> str:
    """Rows of a relation as the table's topic carries them: times as milliseconds."""
    columns = (
        f"tidewatch_millis({render.quoted(c.name)})" if c.type == "timestamp" else render.quoted(c.name)
        for c in table.columns
    )
    return f"SELECT {', '.join(columns)} FROM `{relation}`"


def insert_topic_sql(table: Table, relation: str) -> str:
    """Rows of a relation into the table's topic."""
    return f"INSERT INTO `topic_{table.name}` {select_topic_sql(table, relation)}"


def insert_landing_sql(table: Table, relation: str) -> str:
    """Rows of a relation into the table's landing folder."""
    event_time = events.contract(table.name).time.name if table.name in events.names() else None

    def time(name: str) -> str:
        return f"tidewatch_time({render.quoted(name)})" if name == event_time else render.quoted(name)

    columns = [f"CAST({time(c.name)} AS TIMESTAMP_LTZ(6))" if c.type == "timestamp" else render.quoted(c.name) for c in table.columns]
    date = f"tidewatch_day({time(table.time)})"
    return f"INSERT INTO `landing_{table.name}` SELECT {', '.join([*columns, date])} FROM `{relation}`"


def windows_sql(h: Handed) -> str:
    """The windows of a view as they are handed over."""
    return fill("windows", {"view": h.view, "handed": h.text, "metric": render.metric(h.detectors[0]), "inputs": _join(h.inputs)})


def by_detector(what: str) -> str:
    """A text of each detector, as SQL over the column `detector`."""
    texts = ((d.name, getattr(d, what).replace("'", "''")) for d in all_detectors())
    whens = " ".join(f"WHEN '{name}' THEN '{text}'" for name, text in texts)
    return f"CASE `detector` {whens} END"


def views_sql(settings: Settings) -> list[tuple[str, str]]:
    """Every relation of the job between sources and sinks, (name, query), each after what it reads."""
    found = []
    contracts = [events.contract(n) for n in events.names()]
    for c in contracts:
        columns = ", ".join(render.quoted(f.name) for f in c.fields)
        found.append((c.name, fill("events", {"name": c.name, "columns": columns})))
    found.append(("dead_letters", "\nUNION ALL\n".join(
        fill("dead_letters", {"name": c.name, "time": c.time.name}) for c in contracts
    )))
    windows = [v for n in features.names() for v in render.flink_view_sql(features.view(n))]
    windows.append(("windows", "\nUNION ALL\n".join(windows_sql(h) for h in handed())))
    found += windows
    found.append(("told", fill("told", {})))
    found.append(("matched", fill("matched", {"windows": f"{zlib.crc32(repr(windows).encode()):08x}"})))
    found.append(("scores", fill("scores", {})))
    found.append(("anomalous", fill("anomalous", {"technique": by_detector("technique"), "title": by_detector("title")})))
    found.append(("placed", fill("placed", {})))
    found.append(("incidents", fill("incidents", {"gap_ms": str(settings.stream.alert_gap // timedelta(milliseconds=1))})))
    found.append(("grouped", fill("grouped", {
        "devices": str(settings.alerts.group_devices), "within_ms": str(settings.alerts.group_within // timedelta(milliseconds=1)),
        "named": str(settings.alerts.group_named),
    })))
    found.append(("unsent", fill("unsent", {"detector": outage.DETECTOR, "technique": outage.TECHNIQUE})))
    found.append(("alerts", fill("alerts", {"columns": ", ".join(f"`{n}`" for n in INCIDENT), "severity": severity.sql("`severity`", "`end_ms` - `start_ms`", "`members`")})))
    return found


def outputs() -> list[tuple[Table, str, bool, bool]]:
    """(table, relation, to its topic, to its landing folder) of everything the stream writes."""
    found = []
    for t in tables.catalogue().values():
        if t.name in events.names():
            found.append((t, t.name, False, True))
        elif t.name in features.names() and t.topic:
            found.append((t, t.name, True, False))
            found.append((tables.table(f"{t.name}_online"), t.name, False, True))
        elif t.writer == "stream" and t.topic == "json":
            found.append((t, t.name, True, True))
    return found


def configuration(settings: Settings, resume: str = "") -> dict[str, str]:
    """The job's configuration; in the job, since the cluster's own is ignored for it (docs/stream.md)."""
    s = settings.stream
    data = settings.state_dir / "data" / "flink"
    host, port = settings.flink_rest.removeprefix("http://").rsplit(":", 1)
    python = str(settings.env_python("flink"))
    found = {
        "execution.target": "remote",
        "rest.address": host,
        "rest.port": port,
        "pipeline.name": NAME,
        "pipeline.jars": jar_path(settings).as_uri(),
        "pipeline.object-reuse": "true",
        # an alert is six exchanges behind its events: what waits in buffers, for time to be told and for a batch adds up
        "pipeline.auto-watermark-interval": "100 ms",
        "execution.buffer-timeout.interval": "50 ms",
        "parallelism.default": str(s.parallelism),
        "table.local-time-zone": "UTC",
        "table.optimizer.agg-phase-strategy": "TWO_PHASE",
        "execution.checkpointing.interval": _millis(s.checkpoint_interval),
        "execution.checkpointing.min-pause": "1 s",
        "execution.checkpointing.timeout": "10 min",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.tolerable-failed-checkpoints": "100",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": "2",
        "execution.checkpointing.dir": (data / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (data / "savepoints").as_uri(),
        "state.backend.type": s.state_backend,
        # of the local worker no managed memory, but `stream.rocksdb_mb`, which all slots share
        "state.backend.rocksdb.memory.managed": str(bool(settings.external.flink_rest)).lower(),
        # each window and most baselines are asked for before they are there
        "state.backend.rocksdb.use-bloom-filter": "true",
        "execution.checkpointing.snapshot-compression": "true",
        "execution.checkpointing.incremental": str(s.state_backend == "rocksdb").lower(),
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        # what it waits for is as a rule a worker that starts again, some seconds; after five good minutes it begins anew
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "5 min",
        "python.executable": python,
        "python.client.executable": python,
        "python.pythonpath": str(ROOT),
        # a batch costs a worker some milliseconds whatever is in it
        "python.fn-execution.bundle.size": "5000",
        "python.fn-execution.arrow.batch.size": "5000",
        "python.fn-execution.bundle.time": "50",
    }
    if resume:
        found["execution.state-recovery.path"] = resume
    return found


Statements = tuple[list[str], list[tuple[str, str]], list[str]]


def build_statements(settings: Settings) -> Statements:
    """(tables to create, relations to define, inserts), all as SQL."""
    create = [records_sql(events.contract(n), settings) for n in events.names()]
    create += [fill(n, {"kafka": settings.kafka, "group": GROUP, "idle": _millis(CONTROL_IDLE), "never_late": str(NEVER_LATE // timedelta(milliseconds=1))}) for n in ("baselines", "models", "devices", "quiet", "outages")]
    insert = []
    for table, relation, topic, landing in outputs():
        if topic:
            create.append(topic_sql(table, settings))
            insert.append(insert_topic_sql(table, relation))
        if landing:
            create.append(landing_sql(table, settings))
            insert.append(insert_landing_sql(table, relation))
    return create, views_sql(settings), insert


def register_functions(te: Any, settings: Settings) -> None:
    """The job's own functions: those in Java, and the scorer in Python."""
    from streaming.scorer import scorer

    for name, of in JAVA_FUNCTIONS.items():
        te.execute_sql(f"CREATE TEMPORARY SYSTEM FUNCTION {name} AS 'tidewatch.stream.{of}' LANGUAGE JAVA")
    te.create_temporary_system_function("tidewatch_score", scorer(settings.state_dir / "data" / "models"))


def prepare(settings: Settings, config: Mapping[str, str], statements: Statements | None = None) -> Any:
    """The job (by default the whole one) as a statement set, not yet executed."""
    from pyflink.table import EnvironmentSettings, TableEnvironment

    if config["execution.target"] == "remote":
        # PyFlink looks for the target before it is set, and would let the cluster's workers wait for this process
        os.environ.update(_python_worker_execution_mode="process")
    te = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in config.items():
        te.get_config().set(key, value)
    register_functions(te, settings)
    create, views, insert = statements or build_statements(settings)
    for sql in create:
        te.execute_sql(sql)
    for name, query in views:
        te.create_temporary_view(name, te.sql_query(query))
    done = te.create_statement_set()
    for sql in insert:
        done.add_insert_sql(sql)
    return done


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", default="", help="a savepoint or checkpoint to resume from")
    parser.add_argument("--explain", action="store_true", help="print the plan, submit nothing")
    options = parser.parse_args(arguments)
    settings = settings_.current()
    statements = prepare(settings, configuration(settings, options.resume))
    if options.explain:
        print(statements.explain())
        return
    print(statements.execute().get_job_client().get_job_id())


if __name__ == "__main__":
    main(sys.argv[1:])
