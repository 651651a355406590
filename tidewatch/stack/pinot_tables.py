"""Pinot's tables from the catalogue: `python -m tidewatch.stack.pinot_tables generate [--check]` writes `pinot_tables/`.

A folder a table with `schema.json` and `table.json`. What depends on the place (`${KAFKA}`, `${CONSUMER_FACTORY}`, …)
is filled in from the settings by `apply`. Array elements that charts need are plain columns (`derived`), for Pinot 0.11 has
no function that takes one element; our decoder takes them out of the record.
"""

from __future__ import annotations

import hashlib
import json
import string
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tidewatch import detectors, events
from tidewatch import settings as settings_
from tidewatch.errors import ServiceError
from tidewatch.pinot import query
from tidewatch.settings import ROOT, Settings
from tidewatch.stack.pinot_decoder import CONTRACT_CLASS, JSON_CLASS
from tidewatch.tables import Column, Table, catalogue

FOLDER = ROOT / "pinot_tables"
PINOT_TYPES = {
    "string": "STRING", "long": "LONG", "int": "INT", "double": "DOUBLE", "boolean": "BOOLEAN",
    "timestamp": "LONG", "bytes": "BYTES", "double[]": "DOUBLE", "string[]": "STRING",
}
LONG_TEXT = 65536
"""Characters kept of a long text; Pinot cuts every other STRING at 512."""
LONG_TEXTS = frozenset({
    "dead_letters.original", "dead_letters.detail", "alerts.title", "alerts.reason", "models.reason", "decisions.reason", "models.uri",
    "validations.observed", "validations.report",
})


STAR_TREES: dict[str, list[dict[str, Any]]] = {
    # charts of all devices: added up when a segment is made, so that what they cost does not grow with the devices
    "scores": [{
        "dimensionsSplitOrder": ["use_case", "baseline", "window_end"],
        "functionColumnPairs": ["COUNT__*", "MAX__score", "SUM__anomalous", "SUM__unusual"],
        "maxLeafRecords": 1000,
    }],
    "flow_1m": [
        {"dimensionsSplitOrder": ["window_end"], "functionColumnPairs": ["SUM__flows", "SUM__external_bytes_out", "SUM__external_bytes_in"]},
        # of segments that lie within the time asked for as a whole
        {"dimensionsSplitOrder": ["device_id"], "functionColumnPairs": ["SUM__external_bytes_out", "SUM__external_bytes_in"]},
    ],
    "reading_1m": [{"dimensionsSplitOrder": ["window_end"], "functionColumnPairs": ["SUM__readings", "SUM__missing", "SUM__errors"]}],
}
"""Star-tree indexes, by table."""
COMPUTED: dict[str, dict[Column, str]] = {
    "scores": {Column("unusual", "boolean", "the score is at least 0.25, as of one ordinary window in a hundred"): "greaterThanOrEqual(score, 0.25)"},
}
"""Columns that only Pinot has, computed of the row by its own functions when it comes in, by table; so a star-tree can add them up."""
LEFT_OUT = {"scores": frozenset({"top_observed", "top_expected", "signals", "expected"})}
"""Columns of the catalogue that Pinot does without, by table."""


@dataclass(frozen=True)
class Derived:
    """A column that only Pinot has: one element of an array of the topic's, taken while a record is read."""

    column: Column
    array: str
    index: int


def added_up(table: Table) -> set[str]:
    """The columns that a star-tree aggregates in another order than rows come in, which is that of time."""
    trees = [t for t in STAR_TREES.get(table.name, ()) if t["dimensionsSplitOrder"][0] != table.time]
    return {pair.split("__")[1] for tree in trees for pair in tree["functionColumnPairs"]} - {"*"}


def signal_count() -> int:
    """The most signals that any detector has."""
    return max(len(d.signals) for d in detectors.all_detectors())


def derived(name: str) -> tuple[Derived, ...]:
    """The columns that Pinot has beside the catalogue's."""
    if name not in ("scores", "alerts"):
        return ()
    found = [
        Derived(Column("first_signal", "string", "the signal that weighs most"), "top_signals", 0),
        Derived(Column("first_observed", "double", "its observed value"), "top_observed", 0),
        Derived(Column("first_expected", "double", "the value its baseline expects"), "top_expected", 0),
    ]
    if name == "alerts":
        found += [
            Derived(Column("second_signal", "string", "the signal that weighs second"), "top_signals", 1),
            Derived(Column("second_observed", "double", "its observed value"), "top_observed", 1),
            Derived(Column("second_expected", "double", "the value its baseline expects"), "top_expected", 1),
        ]
    if name == "scores":
        for i in range(signal_count()):
            found += [
                Derived(Column(f"observed_{i + 1}", "double", f"observed value of the detector's signal {i + 1}"), "signals", i),
                Derived(Column(f"expected_{i + 1}", "double", f"expected value of the detector's signal {i + 1}"), "expected", i),
            ]
    return tuple(found)


def names() -> tuple[str, ...]:
    """Every table that is in Pinot."""
    return tuple(t.name for t in catalogue().values() if t.pinot)


def columns(table: Table) -> tuple[Column, ...]:
    """The table's columns in Pinot: what its topic carries and Pinot keeps, what our decoder tells of addresses, the derived and the computed ones."""
    own = tuple(c for c in table.columns if c.name not in LEFT_OUT.get(table.name, ()))
    if table.topic == "avro":
        contract = events.contract(table.name)
        told = {f.name for f in contract.fields} | ({"external"} if contract.addressed else set())
        own = tuple(c for c in own if c.name in told)
    return (*own, *(d.column for d in derived(table.name)), *COMPUTED.get(table.name, ()))


def _is_metric(table: Table, c: Column) -> bool:
    if c.type not in ("long", "int", "double") or c.name in table.keys:
        return False
    return table.topic != "avro" or events.contract(table.name)[c.name].role == "metric"


def schema(table: Table) -> dict[str, Any]:
    """Pinot's schema of a table; times are LONG milliseconds."""
    made: dict[str, Any] = {
        "schemaName": table.name, "dimensionFieldSpecs": [], "metricFieldSpecs": [], "dateTimeFieldSpecs": [],
    }
    for c in columns(table):
        spec: dict[str, Any] = {"name": c.name, "dataType": PINOT_TYPES[c.type]}
        if c.type == "timestamp":
            spec |= {"format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"}
            made["dateTimeFieldSpecs"].append(spec)
        elif _is_metric(table, c):
            made["metricFieldSpecs"].append(spec)
        else:
            if c.type.endswith("[]"):
                spec["singleValueField"] = False
            if c.type == "string":
                spec |= {"defaultNullValue": ""}
                if f"{table.name}.{c.name}" in LONG_TEXTS:
                    spec |= {"maxLength": LONG_TEXT}
            made["dimensionFieldSpecs"].append(spec)
    if table.pinot == "upsert":
        made["primaryKeyColumns"] = list(table.keys)
    return made


def _stream(table: Table) -> dict[str, str]:
    made = {
        "streamType": "kafka",
        "stream.kafka.topic.name": table.name,
        "stream.kafka.broker.list": "${KAFKA}",
        "stream.kafka.consumer.type": "lowlevel",
        "stream.kafka.consumer.factory.class.name": "${CONSUMER_FACTORY}",
        "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
        # the stream's sinks are transactional: what a failed attempt wrote must not be read
        "stream.kafka.isolation.level": "read_committed",
        "realtime.segment.flush.threshold.rows": "${FLUSH_ROWS}",
        "realtime.segment.flush.threshold.time": "${FLUSH_AFTER}",
    }
    if table.topic == "avro":
        return made | {
            "stream.kafka.decoder.class.name": CONTRACT_CLASS,
            "stream.kafka.decoder.prop.schema": events.contract(table.name).rules,
            "stream.kafka.decoder.prop.max.future.ms": "${MAX_FUTURE_MS}",
            "stream.kafka.decoder.prop.max.past.ms": "${MAX_PAST_MS}",
            "stream.kafka.decoder.prop.inside": "${INSIDE}",
        }
    made["stream.kafka.decoder.class.name"] = JSON_CLASS
    if taken := derived(table.name):
        made["stream.kafka.decoder.prop.elements"] = ",".join(f"{d.column.name}={d.array}[{d.index}]" for d in taken)
    return made


def config(table: Table) -> dict[str, Any]:
    """Pinot's configuration of a table, with `${…}` where the place matters."""
    cs = columns(table)
    device = [c.name for c in cs if c.name == "device_id"]
    filtered = [c.name for c in cs if c.name in ("use_case", "detector", "metric", "severity", "source", "external")]
    raw = table.topic == "avro"
    plain = [
        c.name for c in cs
        if f"{table.name}.{c.name}" in LONG_TEXTS or c.name == "event_id" or (_is_metric(table, c) and c.type != "int") or (raw and c.name == table.time)
    ]
    unpacked = added_up(table)
    indexing: dict[str, Any] = {
        "loadMode": "MMAP",
        "nullHandlingEnabled": True,
        "invertedIndexColumns": [*device, *filtered],
        # raw segments are short in time, and pruned by it
        "rangeIndexColumns": [] if raw else [table.time],
        "noDictionaryColumns": plain,
        "streamConfigs": _stream(table),
    }
    if table.name in STAR_TREES:
        indexing["starTreeIndexConfigs"] = STAR_TREES[table.name]
    made: dict[str, Any] = {
        "tableName": table.name,
        "tableType": "REALTIME",
        "segmentsConfig": {
            "schemaName": table.name, "timeColumnName": table.time, "replication": "1", "replicasPerPartition": "1",
        },
        "tenants": {"broker": "DefaultTenant", "server": "DefaultTenant"},
        "tableIndexConfig": indexing,
        "metadata": {"customConfigs": {}},
        # uncompressed, as Pinot leaves metrics, they cost a third of a segment's making: it is packed with gzip. Those that a star-tree
        # reads in its own order would cost many times that: a block is unpacked for each row
        "fieldConfigList": [
            {"name": n, "encodingType": "RAW", "compressionCodec": "PASS_THROUGH" if n in unpacked else "ZSTANDARD"} for n in plain
        ],
    }
    if table.name in COMPUTED:
        made["ingestionConfig"] = {"transformConfigs": [{"columnName": c.name, "transformFunction": f} for c, f in COMPUTED[table.name].items()]}
    if table.pinot == "upsert":
        made["upsertConfig"] = {"mode": "FULL", "hashFunction": "MURMUR3", "comparisonColumn": table.time}
        # the rows of one key, and so their metadata, must be on one server; topics are keyed so that they are
        made["routing"] = {"instanceSelectorType": "strictReplicaGroup"}
    if table.delta != "gold":
        made["segmentsConfig"] |= {
            "retentionTimeUnit": "DAYS",
            "retentionTimeValue": "${RAW_RETENTION_DAYS}" if table.topic == "avro" else "${RETENTION_DAYS}",
        }
    return made


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    made: dict[Path, str] = {}
    for name in names():
        t = catalogue()[name]
        made[FOLDER / name / "schema.json"] = json.dumps(schema(t), indent=2) + "\n"
        made[FOLDER / name / "table.json"] = json.dumps(config(t), indent=2) + "\n"
    return made


def stale() -> tuple[str, ...]:
    """What differs between the generated files and those in the folder, in words."""
    want = files()
    wrong = [f"{p.relative_to(ROOT)} is not current" for p, text in want.items() if not p.exists() or p.read_text() != text]
    extra = [f"{p.relative_to(ROOT)} belongs to no table" for p in sorted(FOLDER.rglob("*.json")) if p not in want]
    return (*wrong, *extra)


def generate() -> None:
    """Write the files."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in set(FOLDER.rglob("*.json")) - set(files()):
        path.unlink()


def filled(text: str, settings: Settings) -> dict[str, Any]:
    """A file with its `${…}` replaced; raises KeyError for one that is unknown."""

    def whole(span: timedelta, unit: timedelta) -> str:
        return str(max(1, span // unit))

    ms = timedelta(milliseconds=1)
    made: dict[str, Any] = json.loads(string.Template(text).substitute(
        KAFKA=settings.kafka, CONSUMER_FACTORY=settings.pinot.consumer_factory,
        FLUSH_ROWS=str(settings.pinot.flush_rows), FLUSH_AFTER=whole(settings.pinot.flush_after, timedelta(minutes=1)) + "m",
        INSIDE=",".join(settings.network.not_external),
        MAX_FUTURE_MS=whole(settings.limits.max_future, ms), MAX_PAST_MS=whole(settings.limits.max_past, ms),
        RAW_RETENTION_DAYS=whole(settings.pinot.raw_retention, timedelta(days=1)),
        RETENTION_DAYS=whole(settings.pinot.retention, timedelta(days=1)),
    ))
    return made


def apply(settings: Settings) -> dict[str, str]:
    """Create or update every table and wait until queries reach it; what happened to each: created, updated or current.

    Their topics must exist. Raises ServiceError if Pinot does not answer or refuses.
    """
    import requests

    base = settings.pinot_controller.rstrip("/")
    done: dict[str, str] = {}

    def ask(method: str, path: str, body: dict[str, Any] | None = None, *, missing_ok: bool = False) -> Any:
        try:
            r = requests.request(method, base + path, json=body, timeout=60)
        except requests.RequestException as e:
            raise ServiceError(f"Pinot's controller at {base} does not answer ({type(e).__name__}).", "start it: `tidewatch up`") from e
        if r.status_code == 404 and missing_ok:
            return None
        if not r.ok:
            try:
                why = r.json().get("error", r.text)
            except ValueError:
                why = r.text
            raise ServiceError(
                f"Pinot refuses {method} {path}: {str(why).strip()[:500]}",
                f"correct the table in tidewatch/tables.py; what Pinot cannot change (a column less, another type) needs DELETE {base}/tables/NAME "
                f"and {base}/schemas/NAME first, and then has the rows that Kafka still has",
            )
        return r.json()

    for name in names():
        shape = json.loads((FOLDER / name / "schema.json").read_text())
        table = filled((FOLDER / name / "table.json").read_text(), settings)
        digest = hashlib.sha256(json.dumps([shape, table], sort_keys=True).encode()).hexdigest()[:16]
        table["metadata"]["customConfigs"]["tidewatch.digest"] = digest
        present = (ask("GET", f"/tables/{name}", missing_ok=True) or {}).get("REALTIME")
        if present is not None and (present["metadata"].get("customConfigs") or {}).get("tidewatch.digest") == digest:
            done[name] = "current"
            continue
        if ask("GET", f"/schemas/{name}", missing_ok=True) is None:
            ask("POST", "/schemas", shape)
        else:
            ask("PUT", f"/schemas/{name}", shape)
        if present is None:
            ask("POST", "/tables", table)
            done[name] = "created"
        else:
            ask("PUT", f"/tables/{name}", table)
            ask("POST", f"/segments/{name}/reload?type=REALTIME")
            done[name] = "updated"
    await_routes(settings, done)
    return done


def await_routes(settings: Settings, tables: Iterable[str], seconds: float = 180) -> None:
    """Wait until the broker sends queries to every segment of the tables.

    After a restart the server calls itself healthy some seconds before the broker takes it into its routes again
    (https://github.com/apache/pinot/issues/16565). Raises ServiceError with the broker's words after that many seconds.
    """
    until = time.monotonic() + seconds
    for name in tables:
        while True:
            try:
                query(settings, f"SELECT COUNT(*) FROM {name}")
                break
            except ServiceError as e:
                if time.monotonic() > until:
                    raise ServiceError(f"Pinot does not answer for the table {name} after {seconds:.0f} s: {e}",
                                       f"look at its segments: {settings.pinot_controller}/#/tenants/table/{name}_REALTIME; `tidewatch logs pinot`") from e
            time.sleep(0.5)


def main(argv: list[str]) -> int:
    """`generate`, `generate --check` or `apply`."""
    if argv == ["generate"]:
        generate()
    elif argv == ["generate", "--check"]:
        wrong = stale()
        print("\n".join(wrong) or "pinot_tables/ is current")
        return 1 if wrong else 0
    elif argv == ["apply"]:
        for name, what in apply(settings_.current()).items():
            print(f"{name:15} {what}")
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
