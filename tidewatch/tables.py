"""The catalogue: every table once, with its columns; topic, Pinot table and Delta table have the table's name."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tidewatch import events, features
from tidewatch.errors import ContractError
from tidewatch.settings import Settings

if TYPE_CHECKING:
    from pyarrow import dataset

Layer = Literal["bronze", "silver", "gold"]
TYPES = ("string", "long", "int", "double", "boolean", "timestamp", "bytes", "double[]", "string[]")


@dataclass(frozen=True)
class Column:
    """One column. A `timestamp` is UTC: milliseconds since 1970 (LONG) in Kafka and Pinot, microseconds in Delta."""

    name: str
    type: str
    doc: str
    unit: str = ""
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """One table and where it lives."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    time: str
    """The column of the event time: partitions in Delta (`date`, derived), time column in Pinot."""
    keys: tuple[str, ...]
    """What makes a row unique."""
    topic: Literal["avro", "json", ""] = ""
    """Format of the Kafka topic of the same name; '': no topic."""
    compacted: bool = False
    pinot: Literal["dedup", "upsert", "append", ""] = ""
    """How Pinot ingests the topic; '': not in Pinot. dedup: by the decoder, within a segment; upsert: some 100 bytes of heap a
    key for ever, so only where keys are few."""
    delta: Layer | Literal[""] = ""
    """Layer of the Delta table; '': not in Delta."""
    writer: Literal["stream", "batch", "input", ""] = ""
    """Who writes the Delta table."""

    def path(self, settings: Settings) -> Path:
        """Where the Delta table lies; raises ContractError if the table has none."""
        if not self.delta:
            raise ContractError(f"the table {self.name!r} is not in Delta.")
        return settings.lake / self.delta / self.name

    def dataset(self, settings: Settings) -> dataset.Dataset | None:
        """The Delta table's rows as Arrow reads them; None if it does not exist yet.

        By Arrow's own file system: deltalake's is Python, and Arrow's threads that close a file through it while the interpreter ends
        abort the process ("terminate called without an active exception": one in four on a busy machine).
        """
        from deltalake import DeltaTable
        from pyarrow import fs

        path = str(self.path(settings))
        if not DeltaTable.is_deltatable(path):
            return None
        return DeltaTable(path).to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(path, fs.LocalFileSystem()))


def _events(name: str) -> Table:
    c = events.contract(name)
    columns = [
        Column(f.name, "timestamp" if f.role == "time" else f.type, f.doc, f.unit, f.nullable) for f in c.fields
    ]
    delta_only = [
        Column("external", "boolean", "the other end is outside the inside networks; null: it has no address"),
        Column("ingested_at", "timestamp", "when the broker received the event", nullable=False),
        Column("kafka_partition", "int", "partition of the topic the event came from", nullable=False),
        Column("kafka_offset", "long", "offset in that partition", nullable=False),
    ]
    return Table(name, c.doc, tuple(columns + delta_only), c.time.name, (c.key.name, "event_id"),
                 topic="avro", pinot="dedup", delta="bronze", writer="stream")


def view_columns(name: str) -> tuple[Column, ...]:
    """The columns of a feature view's rows: keys, window, features."""
    v = features.view(name)
    return (
        *(Column(k, "string", "key of the view", nullable=False) for k in v.keys),
        Column("window_start", "timestamp", "first instant of the window", nullable=False),
        Column("window_end", "timestamp", "first instant after the window", nullable=False),
        *(Column(f.name, f.type, f.doc, f.unit) for f in v.features),
    )


_WHO = (
    Column("use_case", "string", "silent, leak or lie", nullable=False),
    Column("detector", "string", "name of the detector", nullable=False),
    Column("device_id", "string", "the device", nullable=False),
    Column("metric", "string", "the metric, '' where the detector looks at the whole device", nullable=False),
)
_WHY = (
    Column("model_version", "string", "version of the model that scored, 'use_case/number'"),
    Column("baseline", "string", "whose baseline: device, kind (a device without history) or global"),
    Column("top_signals", "string[]", "the three signals that weigh most, first the heaviest"),
    Column("top_observed", "double[]", "their observed values"),
    Column("top_expected", "double[]", "the values their baseline expects"),
    Column("top_shares", "double[]", "their shares of the score, 0 to 1"),
)

DEAD_LETTERS = Table(
    "dead_letters", "Events that could not be used, with the reason and the original bytes; replayable.",
    (
        Column("source", "string", "topic the event came from", nullable=False),
        Column("kafka_partition", "int", "its partition", nullable=False),
        Column("kafka_offset", "long", "its offset", nullable=False),
        Column("ingested_at", "timestamp", "when the broker received it", nullable=False),
        Column("reason", "string", "short code: malformed, or FIELD_RULE as in bytes_out_range", nullable=False),
        Column("detail", "string", "what exactly was wrong"),
        Column("device_id", "string", "the device, if it could be read"),
        Column("original", "string", "the original value, base64", nullable=False),
    ),
    time="ingested_at", keys=("source", "kafka_partition", "kafka_offset"),
    topic="json", pinot="append", delta="bronze", writer="stream",
)
SCORES = Table(
    "scores", "Every scored window with the signals that were scored: what the stream knew.",
    (
        *_WHO,
        Column("window_start", "timestamp", "first instant of the window", nullable=False),
        Column("window_end", "timestamp", "first instant after the window", nullable=False),
        Column("score", "double", "0 to 1; 0.5 and above is an anomaly by default", nullable=False),
        Column("anomalous", "boolean", "the score reached the detector's threshold", nullable=False),
        *_WHY,
        Column("signals", "double[]", "every signal's observed value, in the detector's order; six significant digits, whole numbers whole"),
        Column("expected", "double[]", "every signal's expected value, in the detector's order"),
        Column("usual_low", "double", "from here the detector's first signal usually lies: three scales of its baseline below the centre"),
        Column("usual_high", "double", "up to here: three scales above"),
        Column("shadow_version", "string", "version of the challenger that scored beside the champion, 'use_case/number'; null: none did"),
        Column("shadow_score", "double", "its score, which raises no alert"),
        Column("shadow_anomalous", "boolean", "its score reached its own threshold"),
    ),
    time="window_end", keys=("detector", "device_id", "metric", "window_end"),
    topic="json", pinot="append", delta="silver", writer="stream",
)
ALERTS = Table(
    "alerts", "Incidents: consecutive anomalous windows of one device and use case, and of many devices at once; newest state last.",
    (
        Column("alert_id", "string", "use_case:device_id:start in milliseconds; of an outage use_case:outage:source:start", nullable=False),
        *_WHO,
        Column("start", "timestamp", "start of the first anomalous window", nullable=False),
        Column("end", "timestamp", "end of the last anomalous window so far", nullable=False),
        Column("windows", "long", "anomalous windows so far", nullable=False),
        Column("severity", "string", "low, medium, high or critical: of the highest score, raised by duration and spread (tidewatch/severity.py)", nullable=False),
        Column("score", "double", "highest score so far", nullable=False),
        *_WHY,
        Column("technique", "string", "MITRE ATT&CK technique", nullable=False),
        Column("title", "string", "what happened, in words", nullable=False),
        Column("reason", "string", "why, in words: the heaviest signal, observed and expected", nullable=False),
        Column("kind", "string", "the device's kind, '' if unknown or if members differ", nullable=False),
        Column("site", "string", "the device's site, '' if unknown or if members differ", nullable=False),
        Column("status", "string", "open, or closed once no further window can belong to it", nullable=False),
        Column("group_id", "string", "alert_id of the group that it is a member of, or ''", nullable=False),
        Column("members", "long", "devices: of a group, which has the device '*', its members; else 1", nullable=False),
        Column("member_ids", "string[]", "the first members of a group", nullable=False),
        Column("suppressed_by", "string", "the rule that keeps it quiet, or ''", nullable=False),
    ),
    time="end", keys=("alert_id",),
    topic="json", pinot="upsert", delta="gold", writer="stream",
)
FINDINGS = Table(
    "findings", "News of alerts as OCSF Detection Findings, one JSON document a record, keyed by alert_id (tidewatch/ocsf.py).",
    (
        Column("time", "timestamp", "end of the alert's newest window", nullable=False),
        Column("class_uid", "int", "2004: Detection Finding", nullable=False),
        Column("activity_id", "int", "1 Create, 2 Update, 3 Close", nullable=False),
        Column("severity_id", "int", "2 Low, 3 Medium, 4 High, 5 Critical", nullable=False),
        Column("status_id", "int", "1 New, 3 Suppressed, 4 Resolved", nullable=False),
        Column("finding_info", "string", "object: uid is the alert_id", nullable=False),
        Column("metadata", "string", "object: uid is another for each state", nullable=False),
    ),
    time="time", keys=("finding_info",), topic="json", compacted=True,
)
BASELINES = Table(
    "baselines", "What is normal for a device, per hour of the day: centre and robust scale of every signal.",
    (
        Column("entity", "string", "detector|device_id|metric", nullable=False),
        Column("detector", "string", "name of the detector", nullable=False),
        Column("device_id", "string", "the device", nullable=False),
        Column("metric", "string", "the metric or ''", nullable=False),
        Column("kind", "string", "the device's kind"),
        Column("valid_from", "timestamp", "event time from which the stream uses it", nullable=False),
        Column("source", "string", "device: its own history; kind: borrowed from its kind", nullable=False),
        Column("windows", "long", "windows it was built from", nullable=False),
        Column("center", "double[]", "24 hours x signals: the median in the signal's transformed unit, of the 24 hours that come after valid_from", nullable=False),
        Column("scale", "double[]", "one a signal: robust scale in the transformed unit", nullable=False),
        Column("daily", "double[]", "24 hours x signals, whatever the day of the week; null: as center; not in the topic"),
    ),
    time="valid_from", keys=("entity", "valid_from"),
    topic="json", compacted=True, delta="gold", writer="batch",
)
MODELS = Table(
    "models", "Which model version scores from when on, and which beside it; written by promote, rollback and shadow.",
    (
        Column("use_case", "string", "silent, leak or lie", nullable=False),
        Column("version", "string", "version in the registry", nullable=False),
        Column("valid_from", "timestamp", "event time from which the stream uses it", nullable=False),
        Column("uri", "string", "http address of the model's model.json", nullable=False),
        Column("promoted_at", "timestamp", "when it was promoted", nullable=False),
        Column("reason", "string", "why: the rule's figures", nullable=False),
        Column("shadow_version", "string", "version of the challenger that scores beside it without raising alerts, or ''"),
        Column("shadow_uri", "string", "http address of the challenger's model.json, or ''"),
    ),
    time="promoted_at", keys=("use_case", "version", "valid_from"),
    topic="json", compacted=True, pinot="append", delta="gold", writer="batch",
)
DECISIONS = Table(
    "decisions", "What became of every candidate of every training: its figures, promoted or refused, and why.",
    (
        Column("use_case", "string", "silent, leak or lie", nullable=False),
        Column("version", "string", "version in the registry", nullable=False),
        Column("family", "string", "family of the model: pca, kmeans or gmm", nullable=False),
        Column("training", "string", "the training's run in MLflow", nullable=False),
        Column("window_end", "timestamp", "end of the window that was learned from", nullable=False),
        Column("decided_at", "timestamp", "when it was decided", nullable=False),
        Column("champion", "string", "the champion before, or ''", nullable=False),
        Column("promoted", "boolean", "it became champion", nullable=False),
        Column("reason", "string", "why", nullable=False),
        Column("detection", "double", "share of incidents found in the back-test: of injected ones, and of labelled ones where there are any"),
        Column("recall_injected", "double", "share of injected incidents found"),
        Column("recall_labelled", "double", "share of labelled incidents found; null: there were none"),
        Column("false_alerts", "double", "alerts a device and day on windows without an incident"),
    ),
    time="decided_at", keys=("use_case", "version", "training"),
    topic="json", pinot="upsert", delta="gold", writer="batch",
)
PIPELINE = Table(
    "pipeline", "What the pipeline does, measured every minute: lag, checkpoints, throughput, runs, sizes.",
    (
        Column("at", "timestamp", "when it was measured", nullable=False),
        Column("metric", "string", "what was measured", nullable=False),
        Column("subject", "string", "of what: a topic, table, DAG, use case or job; '' for the whole", nullable=False),
        Column("value", "double", "the value", nullable=False),
        Column("unit", "string", "its unit", nullable=False),
        Column("detail", "string", "what a number cannot say: a state, an address"),
    ),
    time="at", keys=("at", "metric", "subject"), topic="json", pinot="append",
)
VALIDATIONS = Table(
    "validations", "Results of the Great Expectations gate, one row an expectation and run.",
    (
        Column("run_id", "string", "the run", nullable=False),
        Column("run_at", "timestamp", "end of the window that was validated", nullable=False),
        Column("table_name", "string", "what was validated", nullable=False),
        Column("expectation", "string", "what was expected", nullable=False),
        Column("column_name", "string", "of which column, or ''", nullable=False),
        Column("success", "boolean", "it held", nullable=False),
        Column("observed", "string", "what was seen"),
        Column("unexpected", "long", "rows that broke it"),
        Column("report", "string", "address of the report"),
    ),
    time="run_at", keys=("run_id", "table_name", "expectation", "column_name"),
    topic="json", pinot="append", delta="gold", writer="batch",
)
CONSISTENCY = Table(
    "consistency", "How far the stream's windows and signals agree with the feature store's, one row a view or detector and run.",
    (
        Column("run_id", "string", "the run: the window that was compared", nullable=False),
        Column("run_at", "timestamp", "end of that window", nullable=False),
        Column("kind", "string", "view or detector", nullable=False),
        Column("name", "string", "its name", nullable=False),
        Column("offline", "long", "windows in the feature store", nullable=False),
        Column("online", "long", "windows that the stream saw", nullable=False),
        Column("missing", "long", "windows that only the feature store has", nullable=False),
        Column("extra", "long", "windows that only the stream has", nullable=False),
        Column("mismatched", "long", "windows of both with a value that differs: whole numbers at all, others by more than 1e-9 of it", nullable=False),
        Column("largest_difference", "double", "the greatest such difference; a number beside nothing is 1", nullable=False),
        Column("worst", "string", "the feature or signal that differs in most windows, or ''", nullable=False),
    ),
    time="run_at", keys=("run_id", "kind", "name"),
    topic="json", pinot="append", delta="gold", writer="batch",
)
DRIFT = Table(
    "drift", "How far signals and scores have moved from the champion's training window, one row a signal and run.",
    (
        Column("run_id", "string", "the run: the window that was looked at", nullable=False),
        Column("run_at", "timestamp", "end of that window", nullable=False),
        Column("use_case", "string", "silent, leak or lie", nullable=False),
        Column("detector", "string", "name of the detector", nullable=False),
        Column("signal", "string", "the signal, or 'score'", nullable=False),
        Column("model_version", "string", "the champion whose training window is compared with", nullable=False),
        Column("psi", "double", "population stability index: below 0.1 alike, above 0.25 another distribution", nullable=False),
        Column("drifted", "boolean", "the index is above batch.drift_limit", nullable=False),
        Column("reference_windows", "long", "windows of the training window that were compared with", nullable=False),
        Column("windows", "long", "windows that were looked at", nullable=False),
        Column("reference_median", "double", "median then, in the signal's unit"),
        Column("median", "double", "median now"),
    ),
    time="run_at", keys=("run_id", "detector", "signal"),
    topic="json", pinot="append", delta="gold", writer="batch",
)
FEEDBACK = Table(
    "feedback", "What analysts said of alerts; the newest mark of an alert counts.",
    (
        Column("alert_id", "string", "the alert", nullable=False),
        Column("use_case", "string", "silent, leak or lie", nullable=False),
        Column("detector", "string", "name of the detector", nullable=False),
        Column("device_id", "string", "the device", nullable=False),
        Column("start", "timestamp", "start of the alert", nullable=False),
        Column("end", "timestamp", "end of the alert when it was marked", nullable=False),
        Column("verdict", "string", "true, false, or benign (it happened, and is nothing to act on)", nullable=False),
        Column("analyst", "string", "who says so, or ''", nullable=False),
        Column("note", "string", "why, or ''", nullable=False),
        Column("marked_at", "timestamp", "when", nullable=False),
    ),
    time="marked_at", keys=("alert_id",), topic="json", pinot="upsert", delta="gold", writer="input",
)
SNOOZES = Table(
    "snoozes", "What is to be kept quiet until when, who said so and why; maintenance windows are settings.",
    (
        Column("rule", "string", "name of the rule: snooze:ID, or the alert_id of the outage that it belongs to", nullable=False),
        Column("use_case", "string", "silent, leak or lie; '*' all", nullable=False),
        Column("detector", "string", "name of a detector, or several with commas; '*' all", nullable=False),
        Column("device", "string", "pattern of devices: * any text, ? any character, commas between several", nullable=False),
        Column("kind", "string", "pattern of their kinds", nullable=False),
        Column("site", "string", "pattern of their sites", nullable=False),
        Column("from", "timestamp", "event time from which it holds", nullable=False),
        Column("until", "timestamp", "event time until which it holds", nullable=False),
        Column("reason", "string", "why", nullable=False),
        Column("who", "string", "who says so", nullable=False),
        Column("added_at", "timestamp", "when", nullable=False),
    ),
    time="from", keys=("rule",), delta="gold", writer="input",
)
QUIET = Table(
    "quiet", "Every rule that keeps alerts quiet, one record a use case: what the stream reads.",
    (
        Column("use_case", "string", "silent, leak or lie", nullable=False),
        Column("valid_from", "timestamp", "always 0: each rule has its own time", nullable=False),
        Column("rules", "string", "the rules as a JSON array (tidewatch/quiet.py)", nullable=False),
    ),
    time="valid_from", keys=("use_case",), topic="json", compacted=True,
)
OUTAGES = Table(
    "outages", "Times without any event, from one source or from all, by the wall clock; the stream takes them among the alerts.",
    (
        Column("alert_id", "string", "silent:outage:source:start in milliseconds", nullable=False),
        Column("use_case", "string", "silent", nullable=False),
        Column("source", "string", "the source that is out; '' all are", nullable=False),
        Column("start", "timestamp", "when the last event before it came", nullable=False),
        Column("end", "timestamp", "until when nothing came, so far", nullable=False),
        Column("status", "string", "open, or closed once events came again", nullable=False),
        Column("title", "string", "what happened, in words", nullable=False),
        Column("reason", "string", "since when, in words", nullable=False),
    ),
    time="end", keys=("alert_id",), topic="json", compacted=True,
)
LABELS = Table(
    "labels", "What really happened, where it is known: from the generator and from labelled data.",
    (
        Column("device_id", "string", "the device", nullable=False),
        Column("start", "timestamp", "first instant", nullable=False),
        Column("end", "timestamp", "last instant", nullable=False),
        Column("use_case", "string", "silent, leak, lie or other", nullable=False),
        Column("kind", "string", "the source's own word", nullable=False),
        Column("origin", "string", "who says so: generator or the set's name", nullable=False),
    ),
    time="start", keys=("device_id", "start", "use_case", "kind"), delta="gold", writer="input",
)
DEVICES = Table(
    "devices", "The inventory: every known device with its kind and site.",
    (
        Column("device_id", "string", "the device", nullable=False),
        Column("kind", "string", "what it is: server, workstation, camera, sensor, …", nullable=False),
        Column("site", "string", "where it stands", nullable=False),
        Column("address", "string", "its address, or ''", nullable=False),
        Column("added_at", "timestamp", "when it joined the inventory", nullable=False),
    ),
    time="added_at", keys=("device_id",), topic="json", compacted=True, pinot="upsert", delta="gold", writer="input",
)


@functools.cache
def catalogue() -> dict[str, Table]:
    """Every table by name."""
    tables = [_events(n) for n in events.names()]
    for n in features.names():
        v = features.view(n)
        columns = view_columns(n)
        keys = (*v.keys, "window_end")
        tables.append(Table(n, v.doc, columns, "window_end", keys, topic="json" if v.published else "",
                            pinot="append" if v.published else "", delta="silver", writer="batch"))
        if v.published:
            tables.append(Table(f"{n}_online", f"What the stream saw of {n} when the window closed.", columns,
                                "window_end", keys, delta="silver", writer="stream"))
    tables += [DEAD_LETTERS, SCORES, ALERTS, FINDINGS, BASELINES, MODELS, DECISIONS, VALIDATIONS, PIPELINE, CONSISTENCY, DRIFT, FEEDBACK, SNOOZES, QUIET, OUTAGES, LABELS, DEVICES]
    return {t.name: t for t in tables}


def table(name: str) -> Table:
    """One table; raises ContractError if there is none of that name."""
    try:
        return catalogue()[name]
    except KeyError:
        raise ContractError(f"there is no table {name!r}.", f"one of: {', '.join(catalogue())}") from None
