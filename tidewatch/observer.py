"""Measures the pipeline once a minute: the table `pipeline`, the file `metrics.txt` for Prometheus, `state.json` for the start page.

Every figure comes from a server's own interface; one that does not answer leaves its figures out and is told as down.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewatch import losses, notify, orchestrator, tables
from tidewatch.errors import TidewatchError
from tidewatch.events import names as sources
from tidewatch.pinot import query
from tidewatch.settings import Settings, current
from tidewatch.stack import control

log = logging.getLogger(__name__)
EVERY_SECONDS = 60
SELDOM = 5
"""Sizes of tables are read every so many rounds."""
STREAM_GROUP = "tidewatch-stream"
METRICS = {
    "measured": ("s", "when all of this was measured, seconds since 1970"),
    "lag": ("events", "events in Kafka that the stream has not read, as of its last checkpoint; '' is all sources"),
    "lost": ("events", "events that Kafka deleted before the stream read them, within the last day"),
    "events_per_second": ("1/s", "events received, all sources"),
    "events_per_second_of": ("1/s", "events received, by topic"),
    "stream_state": ("", "1: the stream runs; the detail is Flink's word"),
    "checkpoint_age": ("s", "since the newest finished checkpoint"),
    "checkpoint_seconds": ("s", "how long the newest checkpoint took"),
    "checkpoint_bytes": ("B", "size of the newest checkpoint"),
    "checkpoints_failed": ("", "checkpoints that failed since the stream started"),
    "late_events": ("events", "events that came after their window had closed, since the stream started"),
    "duplicate_events": ("events", "events that a device sent again and Pinot left out, by source, since Pinot's start"),
    "too_late": ("events", "events of a cycle, by source, that came too late for the feature store too (batch.lateness); told by build_features"),
    "data_age": ("s", "since the end of the newest scored window, on the event clock"),
    "open_alerts": ("", "incidents that were anomalous within the last 15 minutes; a group is one, suppressed ones do not count"),
    "suppressed_alerts": ("", "incidents of the last 15 minutes that a snooze or a maintenance window keeps quiet"),
    "undelivered": ("records", "records of the topic findings (and marks of transactions) that a webhook has not got, by webhook"),
    "champion_age": ("s", "since the champion of a use case was promoted; a use case without one has no value"),
    "dag_seconds": ("s", "how long a DAG's last run took, or takes so far; the detail is its state"),
    "dag_failed": ("", "1: a DAG's last run failed"),
    "dag_age": ("s", "since a DAG's last run was due"),
    "dag_every": ("s", "how often a DAG is due by the clock"),
    "pinot_rows": ("rows", "rows of a table"),
    "pinot_segments": ("", "segments of a table"),
    "pinot_consuming": ("", "partitions of a table that are being consumed"),
    "pinot_halted": ("", "partitions of a table whose consumption has stopped"),
    "delta_rows": ("rows", "rows of a table"),
    "delta_files": ("", "files of a table's newest version"),
    "delta_bytes": ("B", "size of a table's newest version"),
    "service_up": ("", "1: a server of the stack serves"),
    "dashboards_refreshed": ("s", "when the DAG refresh_dashboards last refreshed them, seconds since 1970"),
}
"""Every metric with its unit and meaning."""


@dataclass(frozen=True)
class Measurement:
    """One number."""

    metric: str
    subject: str
    value: float
    detail: str = ""

    def row(self, at_ms: int) -> dict[str, Any]:
        """The row of the table `pipeline`."""
        return {"at": at_ms, "metric": self.metric, "subject": self.subject, "value": float(self.value), "unit": METRICS[self.metric][0], "detail": self.detail}


Found = Iterator[Measurement]


def _get(url: str) -> Any:
    import requests

    r = requests.get(url, timeout=10)
    r.raise_for_status()
    return r.json()


class Kafka:
    """Offsets of the topics: what came since the last round, and what the stream has still to read."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka.admin import AdminClient

        self.admin = AdminClient({"bootstrap.servers": settings.kafka, "log_level": 0})
        self.before: tuple[float, dict[str, int]] | None = None
        self.kept = settings.state_dir / "data" / "observer" / "offsets.json"
        self.memory = losses.Memory.load(self.kept)

    def _offsets(self, topics: list[str], *, end: bool) -> dict[Any, int]:
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        there = self.admin.list_topics(timeout=10).topics
        when: Callable[[], Any] = OffsetSpec.latest if end else OffsetSpec.earliest
        asked = {TopicPartition(t, p): when() for t in topics if t in there for p in there[t].partitions}
        return {(k.topic, k.partition): f.result(10).offset for k, f in self.admin.list_offsets(asked, request_timeout=10).items()} if asked else {}

    def measure(self, settings: Settings) -> Found:
        from confluent_kafka import ConsumerGroupTopicPartitions

        now, ends = time.monotonic(), self._offsets([*sources(), "dead_letters", "scores", "alerts"], end=True)
        begins = self._offsets(list(sources()), end=False)
        totals: dict[str, int] = {}
        for (topic, _), offset in ends.items():
            totals[topic] = totals.get(topic, 0) + offset
        if self.before:
            seconds = max(now - self.before[0], 1e-3)
            rates = {t: max(0, n - self.before[1].get(t, n)) / seconds for t, n in totals.items()}
            for topic, rate in rates.items():
                yield Measurement("events_per_second_of", topic, rate)
            yield Measurement("events_per_second", "", sum(rates.get(t, 0) for t in sources()))
        self.before = now, totals
        group = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(STREAM_GROUP)], request_timeout=10)[STREAM_GROUP].result(10)
        read = {(p.topic, p.partition): p.offset for p in group.topic_partitions or [] if p.offset >= 0}
        lags = {t: sum(n - read.get((t, p), begins.get((t, p), 0)) for (x, p), n in ends.items() if x == t) for t in sources() if t in totals}
        for topic, lag in lags.items():
            yield Measurement("lag", topic, max(0, lag))
        yield Measurement("lag", "", max(0, sum(lags.values())))
        self.memory, lost = self.memory.seen(time.time(), {f"{t}/{p}": n for (t, p), n in begins.items()},
                                             {f"{t}/{p}": n for (t, p), n in read.items() if t in sources()})
        self.memory.save(self.kept)
        if lost:
            log.error("DATA LOST: Kafka deleted %d events before the stream read them; send them again from their source", lost)
        yield Measurement("lost", "", lost)

    def undelivered(self, settings: Settings) -> Found:
        """What each webhook has still to get."""
        from confluent_kafka import ConsumerGroupTopicPartitions

        ends = self._offsets([tables.FINDINGS.name], end=True) if settings.alerts.webhooks else {}
        for w in settings.alerts.webhooks:
            group = notify.webhook_group(w)
            told = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=10)[group].result(10)
            got = {(p.topic, p.partition): p.offset for p in told.topic_partitions or [] if p.offset >= 0}
            yield Measurement("undelivered", w.name, sum(max(0, n - got[k]) for k, n in ends.items() if k in got))


def stream(settings: Settings) -> Found:
    """Flink: state, checkpoints, late events."""
    base, now = settings.flink_rest, time.time()
    jobs = sorted(_get(f"{base}/jobs/overview")["jobs"], key=lambda j: -j["start-time"])
    if not jobs:
        yield Measurement("stream_state", "", 0, "not started")
        return
    job = jobs[0]
    yield Measurement("stream_state", "", float(job["state"] == "RUNNING"), job["state"].lower())
    points = _get(f"{base}/jobs/{job['jid']}/checkpoints")
    yield Measurement("checkpoints_failed", "", points["counts"]["failed"])
    last = points["latest"]["completed"]
    if last:
        yield Measurement("checkpoint_age", "", now - last["latest_ack_timestamp"] / 1000)
        yield Measurement("checkpoint_seconds", "", last["end_to_end_duration"] / 1000)
        yield Measurement("checkpoint_bytes", "", last["state_size"])
    late = 0.0
    for vertex in _get(f"{base}/jobs/{job['jid']}")["vertices"]:
        url = f"{base}/jobs/{job['jid']}/vertices/{vertex['id']}/subtasks/metrics"
        names = [m["id"] for m in _get(url) if m["id"].endswith("numLateRecordsDropped")] if "Window" in vertex["name"] else []
        if names:
            late += sum(m["sum"] for m in _get(f"{url}?get={','.join(names)}&agg=sum"))
    yield Measurement("late_events", "", late)


def olap(settings: Settings) -> Found:
    """Pinot: freshness, alerts, champions, rows and consumption; what is told before it stops answering, or refuses, stays told."""
    from tidewatch.stack import pinot_tables

    now = time.time() * 1000
    for (newest,) in query(settings, "SELECT MAX(window_end) FROM scores"):
        if isinstance(newest, (int, float)) and newest > 0:
            yield Measurement("data_age", "", (now - newest) / 1000)
    for (count,) in query(settings, f"SELECT COUNT(*) FROM alerts WHERE group_id = '' AND suppressed_by = '' AND \"end\" >= {now - 900_000:.0f}"):
        yield Measurement("open_alerts", "", count)
    for (count,) in query(settings, f"SELECT COUNT(*) FROM alerts WHERE suppressed_by <> '' AND \"end\" >= {now - 900_000:.0f}"):
        yield Measurement("suppressed_alerts", "", count)
    for use_case, since in query(settings, "SELECT use_case, MAX(promoted_at) FROM models GROUP BY use_case"):
        yield Measurement("champion_age", use_case, (now - since) / 1000)
    for name in pinot_tables.names():
        info = _get(f"{settings.pinot_controller}/tables/{name}/consumingSegmentsInfo").get("_segmentToConsumingInfoMap", {})
        states = [s["consumerState"] for found in info.values() for s in found]
        yield Measurement("pinot_consuming", name, states.count("CONSUMING"))
        yield Measurement("pinot_halted", name, len([s for s in states if s != "CONSUMING"]))
        segments = _get(f"{settings.pinot_controller}/segments/{name}")
        yield Measurement("pinot_segments", name, sum(len(v) for d in segments for v in d.values()))
        for (rows,) in query(settings, f"SELECT COUNT(*) FROM {name}"):
            yield Measurement("pinot_rows", name, rows)
    yield from duplicates(settings)


def refreshed(settings: Settings) -> Found:
    """When the dashboards were refreshed last."""
    for (at,) in query(settings, "SELECT MAX(value) FROM pipeline WHERE metric = 'dashboards_refreshed'"):
        if isinstance(at, (int, float)) and at > 0:
            yield Measurement("dashboards_refreshed", "", at)


def duplicates(settings: Settings) -> Found:
    """What Pinot's dedup left out, from its own endpoint; nothing of a Pinot elsewhere."""
    import requests

    if settings.external.pinot_controller:
        return
    r = requests.get(f"http://127.0.0.1:{settings.ports.pinot_metrics}/metrics", timeout=10)
    r.raise_for_status()
    dropped = dict(re.findall(r'^pinot_realtimeDedupDropped\{[^}]*table="(\w+)"[^}]*\} (\S+)$', r.text, re.MULTILINE))
    for source in sources():
        yield Measurement("duplicate_events", source, float(dropped.get(source, 0)))


def dags(settings: Settings) -> Found:
    """Airflow: each DAG's last run."""
    from datetime import datetime

    client = orchestrator.Client(settings)
    for name, due in (("feature_store", settings.batch.cycle), ("watch", settings.batch.drift_watch)):
        yield Measurement("dag_every", name, due.total_seconds())
    for dag in orchestrator.dags(client):
        for run in orchestrator.runs(client, dag["dag_id"], limit=1):
            begun = datetime.fromisoformat(run["start_date"]).timestamp() if run.get("start_date") else time.time()
            yield Measurement("dag_seconds", dag["dag_id"], run.get("duration") or time.time() - begun, run["state"])
            yield Measurement("dag_failed", dag["dag_id"], float(run["state"] == "failed"))
            yield Measurement("dag_age", dag["dag_id"], time.time() - datetime.fromisoformat(run["run_after"]).timestamp())


def lake(settings: Settings) -> Found:
    """Delta: rows, files and bytes of each table, from its log."""
    from deltalake import DeltaTable

    for t in tables.catalogue().values():
        if t.delta and DeltaTable.is_deltatable(str(t.path(settings))):
            files = DeltaTable(str(t.path(settings))).get_add_actions(flatten=True)
            yield Measurement("delta_rows", t.name, sum(n or 0 for n in files.column("num_records").to_pylist()))
            yield Measurement("delta_files", t.name, files.num_rows)
            yield Measurement("delta_bytes", t.name, sum(files.column("size_bytes").to_pylist()))


def exposition(found: list[Measurement]) -> str:
    """The measurements in Prometheus' text form."""
    lines = []
    for name, (unit, doc) in METRICS.items():
        of = [m for m in found if m.metric == name]
        if of:
            lines += [f"# HELP tidewatch_{name} {doc}{f' ({unit})' if unit else ''}", f"# TYPE tidewatch_{name} gauge"]
            lines += [f'tidewatch_{name}{{subject="{m.subject}"}} {m.value:.10g}' for m in of]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


class Observer:
    """Rounds of measuring; remembers what rates and seldom figures need."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka import Producer

        self.settings, self.kafka = settings, Kafka(settings)
        self.producer = Producer({"bootstrap.servers": settings.kafka, "log_level": 0, "message.timeout.ms": 20_000})
        self.rounds, self.sizes = 0, list[Measurement]()

    def _try(self, what: Callable[[Settings], Found]) -> list[Measurement]:
        import requests
        from confluent_kafka import KafkaException

        found: list[Measurement] = []
        try:
            found.extend(what(self.settings))
        except (TidewatchError, OSError, KafkaException, requests.RequestException, KeyError, ValueError) as e:
            log.warning("%s: %s", what.__name__, str(e)[:300])
        return found

    def round(self) -> list[Measurement]:
        """Measure once, publish, write the files."""
        services = control.status(self.settings)
        found = [Measurement("measured", "", round(time.time())), *(Measurement("service_up", s.service, float(s.state == "ready")) for s in services)]
        for what in (self.kafka.measure, self.kafka.undelivered, stream, olap, dags):
            found += self._try(what)
        if self.rounds % SELDOM == 0:
            self.sizes = self._try(lake)
            found += self.sizes
        self.rounds += 1
        at = round(time.time() * 1000)
        for m in found:
            with contextlib.suppress(BufferError):
                self.producer.produce("pipeline", json.dumps(m.row(at)).encode(), m.metric.encode())
        self.producer.flush(20)
        # read from the table that the figures go to: not told to it again
        found += self._try(refreshed)
        reports = self.settings.state_dir / "reports"
        _write(reports / "metrics.txt", exposition([*found, *(() if self.rounds % SELDOM == 1 else self.sizes)]))
        _write(reports / "state.json", json.dumps({
            "at": at, "every_s": EVERY_SECONDS, "addresses": {
                "superset": self.settings.superset, "airflow": self.settings.airflow, "mlflow": self.settings.mlflow,
                "flink": self.settings.flink_rest, "pinot": self.settings.pinot_controller,
            },
            "services": [{"service": s.service, "state": s.state, "url": s.url, "doc": s.doc} for s in services],
            "figures": [m.row(at) for m in found if m.metric.split("_")[0] not in ("pinot", "delta", "service")],
        }))
        return found


def main() -> None:
    """Measure for ever."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a query of Pinot
    observer = Observer(current())
    while True:
        begin = time.monotonic()
        n = len(observer.round())
        log.info("%d figures in %.1f s", n, time.monotonic() - begin)
        time.sleep(max(5.0, EVERY_SECONDS - (time.monotonic() - begin)))


if __name__ == "__main__":
    main()
