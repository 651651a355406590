"""Starts, stops and describes the running stream, through Flink's REST address."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidewatch import events, quiet, tables
from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings

from streaming import build

NAME = "tidewatch"
GROUP = "tidewatch-stream"
ENDED = frozenset({"FINISHED", "CANCELED", "FAILED", "SUSPENDED"})
INCOMPATIBLE = (
    "Cannot map checkpoint/savepoint state", "StateMigrationException", "Failed to rollback to checkpoint/savepoint",
    "max parallelism", "No savepoint/checkpoint metadata", "Cannot find checkpoint or savepoint",
)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Status:
    """How the stream stands; counts are since this job was submitted."""

    state: str
    """RUNNING, RESTARTING, … of Flink, or NOT RUNNING."""
    job_id: str = ""
    uptime_seconds: float = 0.0
    tasks_running: int = 0
    tasks: int = 0
    restarts: int = 0
    checkpoints: int = 0
    checkpoints_failed: int = 0
    checkpoint_seconds: float | None = None
    checkpoint_bytes: int | None = None
    checkpoint_age_seconds: float | None = None
    lag: int | None = None
    """Events that the last checkpoint had not read."""
    late: int | None = None
    """Parts of windows (one a device and minute) that came too late; their events are in Delta all the same."""
    last_error: str = ""
    last_error_seconds_ago: float | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)


def cause(stacktrace: str) -> str:
    """The deepest cause of a Java stack trace, in one line."""
    told = [ln.strip() for ln in stacktrace.splitlines() if ln.strip() and not ln.lstrip().startswith(("at ", "..."))]
    causes = [ln.removeprefix("Caused by: ") for ln in told if ln.startswith("Caused by: ")]
    return (causes or told or ["no message"])[-1]


def _call(settings: Settings, path: str, body: dict[str, Any] | None = None, method: str = "") -> Any:
    request = urllib.request.Request(
        settings.flink_rest + path, data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"}, method=method or ("GET" if body is None else "POST"),
    )
    try:
        with _direct.open(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as e:
        raise ServiceError(f"Flink refuses {path}: {e.code} {e.read().decode(errors='replace')[:500]}", "`tidewatch logs flink_jobmanager` tells more") from e
    except (OSError, ValueError) as e:
        raise ServiceError(f"Flink does not answer at {settings.flink_rest} ({e}).", "start it with `tidewatch up`") from e


def _call_of_job(settings: Settings, path: str) -> Any:
    """The answer; {} while the job initializes, for then Flink refuses some questions, whichever state it tells."""
    try:
        return _call(settings, path)
    except ServiceError as e:
        if "initializing" not in e.reason:
            raise
        return {}


def running(settings: Settings) -> str:
    """The running job's id, or ''."""
    jobs = [j for j in _call(settings, "/jobs/overview")["jobs"] if j["name"] == NAME and j["state"] not in ENDED]
    return str(max(jobs, key=lambda j: j["start-time"])["jid"]) if jobs else ""


def newest_state(settings: Settings) -> str:
    """The newest savepoint or checkpoint as a URI, or ''."""
    data = settings.state_dir / "data" / "flink"
    found = [*data.glob("savepoints/*/_metadata"), *data.glob("checkpoints/*/chk-*/_metadata")]
    return max(found, key=lambda p: p.stat().st_mtime_ns).parent.as_uri() if found else ""


def _check_topics(settings: Settings) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        there = AdminClient({"bootstrap.servers": settings.kafka, "log_level": 0}).list_topics(timeout=20).topics
    except KafkaException as e:
        raise ServiceError(f"Kafka does not answer at {settings.kafka}.", "start it with `tidewatch up`") from e
    missing = sorted(t.name for t in tables.catalogue().values() if t.topic and t.name not in there)
    if missing:
        raise ServiceError(f"these topics do not exist: {', '.join(missing)}.", "`tidewatch up kafka` makes them")


def client_env(settings: Settings) -> dict[str, str]:
    """Variables under which PyFlink's client (and its Java) runs."""
    from tidewatch.stack.services.flink import client_env as flink_client_env

    opens = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent")
    return {
        **os.environ, **flink_client_env(settings),
        # unset, PyFlink finds its own home and forgets FLINK_LIB_DIR
        "FLINK_HOME": str(build.wheel(settings)),
        "FLINK_ENV_JAVA_OPTS": " ".join(f"--add-opens=java.base/java.{p}=ALL-UNNAMED" for p in opens),
        "TIDEWATCH_STATE_DIR": str(settings.state_dir),
    }


def _submit(settings: Settings, resume: str) -> str:
    log = settings.logs / "stream_submit.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(settings.env_python("flink")), "-m", "streaming.job", *(["--resume", resume] if resume else [])]
    with log.open("w") as out:
        done = subprocess.run(command, env=client_env(settings), cwd=ROOT, stdout=subprocess.PIPE, stderr=out, text=True, check=False)
    lines = done.stdout.split()
    if done.returncode or not lines:
        text = log.read_text()
        if any(sign in text for sign in INCOMPATIBLE):
            raise _incompatible(resume)
        raise ServiceError(f"the stream was not submitted: {cause(text)[:500]}", f"the whole message is in {log}")
    return lines[-1]


def _incompatible(resume: str) -> ServiceError:
    return ServiceError(
        f"the state in {Path(resume.removeprefix('file://')).name} does not fit the stream's code any more.",
        "`tidewatch stream start --fresh` begins without it, at the offsets read last: windows open then are incomplete, nothing else is lost",
    )


def start(settings: Settings, *, fresh: bool = False, timeout: float = 300.0, say: Callable[[str], None] = lambda _: None) -> str:
    """Submit the job and wait until all its tasks run; the job's id.

    It resumes from the newest savepoint or checkpoint, unless `fresh`. Raises ServiceError when it runs already, when
    Flink, Kafka or a topic is missing, or when the state does not fit the code.
    """
    job = running(settings)
    if job:
        raise ServiceError(f"the stream runs already (job {job}).", "`tidewatch stream stop` stops it")
    if not _call(settings, "/overview")["taskmanagers"]:
        raise ServiceError("Flink has no worker.", "start it with `tidewatch up`")
    _check_topics(settings)
    quiet.publish(settings)
    if build.build(settings):
        say("compiled the stream's Java")
    resume = "" if fresh else newest_state(settings)
    say(f"resuming from {Path(resume.removeprefix('file://')).name}" if resume else "starting without earlier state")
    backlog = _backlog(settings) if resume else None
    if backlog and backlog[1]:
        say(f"DATA LOST: Kafka deleted {backlog[1]:,} events before the stream read them; it was down for longer than topics.retention ({settings.topics.retention}). Send them again from their source")
    job = _submit(settings, resume)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        now = status(settings, job)
        if now.state == "RUNNING" and now.tasks_running == now.tasks > 0:
            return job
        if any(sign in now.last_error for sign in INCOMPATIBLE):
            if now.state not in ENDED:
                _call(settings, f"/jobs/{job}?mode=cancel", method="PATCH")
            raise _incompatible(resume)
        if now.state in ENDED:
            raise ServiceError(f"the stream ended at once: {cause(now.last_error)}", "`tidewatch logs flink_taskmanager` tells more")
        time.sleep(1)
    raise ServiceError(f"the stream does not run after {timeout:.0f} s: {cause(status(settings, job).last_error)[:300]}", "`tidewatch stream status` and `tidewatch logs flink_taskmanager` tell more")


def stop(settings: Settings, *, timeout: float = 300.0) -> str:
    """Stop the job with a savepoint; the savepoint's URI. Raises ServiceError when it does not run or the savepoint fails."""
    job = running(settings)
    if not job:
        raise ServiceError("the stream does not run.", "`tidewatch stream start` starts it")
    folder = (settings.state_dir / "data" / "flink" / "savepoints").as_uri()
    trigger = _call(settings, f"/jobs/{job}/stop", {"drain": False, "targetDirectory": folder})["request-id"]
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        answer = _call(settings, f"/jobs/{job}/savepoints/{trigger}")
        if answer["status"]["id"] == "COMPLETED":
            operation = answer.get("operation", {})
            if "location" in operation:
                return str(operation["location"])
            cause = str(operation.get("failure-cause", {}).get("stack-trace", "unknown")).splitlines()[0]
            raise ServiceError(f"the savepoint failed: {cause}", "the stream still runs or restarts; try again once `tidewatch stream status` says RUNNING")
        time.sleep(0.5)
    raise ServiceError(f"no savepoint after {timeout:.0f} s.", "`tidewatch stream status` tells how the job stands")


def _backlog(settings: Settings) -> tuple[int, int] | None:
    """Events after what the last checkpoint committed: those to read, and those that Kafka has deleted; None if Kafka does not tell."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    consumer = Consumer({"bootstrap.servers": settings.kafka, "group.id": GROUP, "enable.auto.commit": False, "log_level": 0})
    try:
        there = consumer.list_topics(timeout=5).topics
        wanted = [TopicPartition(n, p) for n in events.names() if n in there for p in there[n].partitions]
        lag = lost = 0
        for tp in consumer.committed(wanted, timeout=5):
            low, high = consumer.get_watermark_offsets(TopicPartition(tp.topic, tp.partition), timeout=5)
            lag += high - max(tp.offset, low)
            lost += max(0, low - tp.offset) if tp.offset >= 0 else 0
        return lag, lost
    except KafkaException:
        return None
    finally:
        consumer.close()


def _late(settings: Settings, job: str, vertices: list[dict[str, Any]]) -> int | None:
    total = 0
    try:
        for v in vertices:
            if "WindowAggregate" not in v["name"]:
                continue
            base = f"/jobs/{job}/vertices/{v['id']}/subtasks/metrics"
            names = [m["id"] for m in _call(settings, base) if m["id"].endswith("numLateRecordsDropped")]
            if names:
                total += sum(int(m["sum"]) for m in _call(settings, f"{base}?get={','.join(names)}&agg=sum"))
    except (ServiceError, KeyError, ValueError):
        return None
    return total


def status(settings: Settings, job: str = "", *, deep: bool = False) -> Status:
    """How the job stands; `deep` asks Kafka for the lag and the windows for late events, too."""
    job = job or running(settings)
    if not job:
        return Status("NOT RUNNING")
    detail = _call(settings, f"/jobs/{job}")
    checkpoints = _call_of_job(settings, f"/jobs/{job}/checkpoints") if detail["vertices"] else {}
    counts, last = checkpoints.get("counts", {}), (checkpoints.get("latest") or {}).get("completed")
    errors = _call_of_job(settings, f"/jobs/{job}/exceptions?maxExceptions=20").get("exceptionHistory", {}).get("entries", [])
    tasks = detail["status-counts"]
    error = errors[0] if errors else None
    backlog = _backlog(settings) if deep else None
    return Status(
        state=detail["state"], job_id=job, uptime_seconds=detail["duration"] / 1000,
        tasks_running=sum(v["parallelism"] for v in detail["vertices"] if v["status"] == "RUNNING"),
        tasks=sum(v["parallelism"] for v in detail["vertices"]) if tasks else 0,
        restarts=len(errors), checkpoints=counts.get("completed", 0), checkpoints_failed=counts.get("failed", 0),
        checkpoint_seconds=last["end_to_end_duration"] / 1000 if last else None,
        checkpoint_bytes=last["state_size"] if last else None,
        checkpoint_age_seconds=round(time.time() - last["latest_ack_timestamp"] / 1000, 1) if last else None,
        lag=backlog[0] if backlog else None, late=_late(settings, job, detail["vertices"]) if deep else None,
        last_error=error["stacktrace"] if error else "",
        last_error_seconds_ago=round(time.time() - error["timestamp"] / 1000, 1) if error else None,
    )
