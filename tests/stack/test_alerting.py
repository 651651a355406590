"""The ticker and the notifier against a real broker: outages open and close, findings are written once, webhooks lose nothing."""

from __future__ import annotations

import http.server
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import HttpUrl

from tests.test_ocsf import alert
from tidewatch import alerts, notify, ocsf, outage, quiet, topics
from tidewatch.settings import ROOT, Outage, Ports, Settings, Webhook, load

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def kafka() -> Iterator[tuple[Settings, dict[str, str]]]:
    """A broker of its own with every topic, and the variables under which a process finds it.

    `TIDEWATCH_TEST_KAFKA=1` uses the one that the settings name: it must be new.
    """
    if os.environ.get("TIDEWATCH_TEST_KAFKA"):
        yield load(outage=Outage(after="PT2S")), {**os.environ, "PYTHONPATH": str(ROOT)}  # type: ignore[arg-type]
        return
    folder = Path(tempfile.mkdtemp(prefix="tidewatch-kafka-"))
    for shared in ("env", "jars"):
        (folder / shared).symlink_to(load().state_dir / shared)
    ports = Ports.free()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TIDEWATCH_STATE_DIR": str(folder), "TIDEWATCH_PORTS": json.dumps(ports.model_dump())}
    command = [str(ROOT / "bin" / "tidewatch")]
    try:
        subprocess.run([*command, "up", "kafka"], env=env, check=True, timeout=300)
        settings = load(state_dir=folder, ports=ports, outage=Outage(after="PT2S"))  # type: ignore[arg-type]
        _led(settings)
        yield settings, env
    finally:
        subprocess.run([*command, "down"], env=env, check=False, timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def _led(settings: Settings) -> None:
    """Wait until every partition of the sources has a leader: a topic that was just made may have none for a moment."""
    from confluent_kafka import KafkaException

    for left in reversed(range(60)):
        try:
            outage.Ticker(settings).newest()
            return
        except KafkaException:
            if not left:
                raise
            time.sleep(0.5)


def send(settings: Settings, topic: str, values: list[tuple[bytes, bytes]]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.kafka, "log_level": 0})
    for key, value in values:
        producer.produce(topic, value, key)
    assert producer.flush(30) == 0


def records(settings: Settings, topic: str) -> list[dict[str, Any]]:
    """Every committed record of a topic."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": settings.kafka, "group.id": secrets.token_hex(4), "isolation.level": "read_committed",
                         "enable.partition.eof": True, "log_level": 0})
    parts = list(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in parts])
    found, left = [], set(parts)
    while left:
        message = consumer.poll(30)
        assert message is not None
        if message.error():
            left.discard(message.partition())
        else:
            found.append(json.loads(message.value() or b""))
    consumer.close()
    return found


def eventually(what: str, seconds: float, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def test_an_outage_opens_lasts_over_a_restart_and_closes(kafka: tuple[Settings, dict[str, str]]) -> None:
    settings, _ = kafka

    def look(ticker: outage.Ticker) -> list[tuple[str, str]]:
        return [(o.source, o.status) for o in ticker.round(round(time.time() * 1000))]

    ticker = outage.Ticker(settings)
    assert look(ticker) == [], "no source ever sent"
    send(settings, "flow", [(b"d", b"any")])
    send(settings, "reading", [(b"d", b"any")])
    assert look(ticker) == []
    time.sleep(2.5)
    assert look(ticker) == [("", "open")]
    (told,) = topics.read(settings, "outages").values()
    assert told["title"] == "No events from any source" and told["status"] == "open"
    (rule,) = json.loads(topics.read(settings, "quiet")['{"use_case": "silent"}']["rules"])
    assert (rule["rule"], rule["detector"], rule["until_ms"]) == (told["alert_id"], outage.ABSENCE, quiet.FOREVER)
    again = outage.Ticker(settings)
    assert look(again) == [], "it is known to be open"
    send(settings, "reading", [(b"d", b"any")])
    assert look(again) == [("", "closed")]
    (closed,) = topics.read(settings, "outages").values()
    assert closed["status"] == "closed" and closed["alert_id"] == told["alert_id"] and closed["end"] > told["start"] + 2000
    (rule,) = json.loads(topics.read(settings, "quiet")['{"use_case": "silent"}']["rules"])
    assert rule["until_ms"] == closed["end"] + outage.MARGIN_MS
    # the other source alone: reading goes on
    for _ in range(4):
        time.sleep(1)
        send(settings, "reading", [(b"d", b"any")])
    assert look(again) == [("flow", "open")]


def test_findings_are_written_once_however_often_the_notifier_is_killed(kafka: tuple[Settings, dict[str, str]]) -> None:
    settings, env = kafka
    n, made = 600, []
    run = secrets.token_hex(3)
    for i in range(n):
        one = {"alert_id": f"{run}:cam-{i}", "device_id": f"cam-{i}"}
        made += [alert(**one, severity="low"), alert(**one, severity="high", windows=3), alert(**one, severity="high", windows=3, status="closed")]
    made.append(alert(alert_id=f"{run}:x", suppressed_by="snooze:1"))
    rows = [(a["device_id"].encode(), json.dumps(a).encode()) for a in made]
    done = threading.Event()

    def feed() -> None:
        for k in range(0, len(rows), 60):
            send(settings, "alerts", rows[k:k + 60])
            time.sleep(0.3)
        send(settings, "alerts", [(b"x", b"no json"), (b"x", b'{"alert_id": "half"}')])
        done.set()

    threading.Thread(target=feed).start()
    kills = 0
    while True:
        process = subprocess.Popen([str(settings.env_python("tools")), "-m", "tidewatch.notify"], env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
        if done.is_set():
            break
        time.sleep(2.5)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    def ours() -> list[dict[str, Any]]:
        return [f for f in records(settings, "findings") if f["finding_info"]["uid"].startswith(run)]

    try:
        eventually("every finding", 60, lambda: len(ours()) >= 3 * n)
        time.sleep(2)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, "it stops cleanly"
    found = ours()
    assert kills >= 1
    assert len(found) == 3 * n == len({f["metadata"]["uid"] for f in found})
    assert {f["activity_name"] for f in found} == {"Create", "Update", "Close"}
    assert [p for f in found for p in ocsf.problems(f)] == []


class Receiver:
    """A webhook that answers as it is told, and keeps what it said yes to."""

    def __init__(self, port: int = 0) -> None:
        self.answers: list[int] = []
        self.got: list[dict[str, Any]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = outer.answers.pop(0) if outer.answers else 200
                if answer == 200:
                    assert self.headers["Authorization"] == "Bearer abc"
                    outer.got.append(body)
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_webhook_that_is_down_loses_nothing(kafka: tuple[Settings, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    settings, _ = kafka
    receiver = Receiver()
    webhook = Webhook(name=f"test-{secrets.token_hex(3)}", url=HttpUrl(f"http://127.0.0.1:{receiver.port}/in"), retries=1, headers={"Authorization": "Bearer abc"})  # type: ignore[dict-item]

    def tell(*numbers: int) -> None:
        send(settings, "findings", [(b"same", json.dumps(ocsf.finding(alert(alert_id=f"{webhook.name}:{i}"))).encode()) for i in numbers])

    def deliver() -> tuple[threading.Thread, threading.Event]:
        stop = threading.Event()
        thread = threading.Thread(target=notify.deliver, args=(settings, webhook, stop, 0.3), daemon=True)
        thread.start()
        return thread, stop

    def got(of: Receiver) -> list[int]:
        return [int(f["finding_info"]["uid"].rsplit(":", 1)[1]) for f in of.got]

    tell(0)  # before the webhook was set: not for it
    thread, stop = deliver()
    time.sleep(3)
    receiver.answers = [503, 429, 500, 404]
    tell(1, 2)
    eventually("all after errors", 30, lambda: got(receiver) == [1, 2])
    receiver.answers = [422]
    tell(3, 4)
    eventually("what it refuses for good is left out", 30, lambda: got(receiver) == [1, 2, 4])
    receiver.close()
    tell(5, 6)
    time.sleep(2)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    tell(7)
    back = Receiver(receiver.port)
    thread, stop = deliver()
    eventually("what came while it was down, and while nobody delivered", 30, lambda: got(back) == [5, 6, 7])
    time.sleep(1)
    from tidewatch.observer import Kafka

    shown = settings.model_copy(update={"alerts": settings.alerts.model_copy(update={"webhooks": (webhook,)})})
    eventually("nothing is left to deliver", 20, lambda: [
        m.value for m in Kafka(shown).undelivered(shown)] == [0])
    stop.set()
    thread.join(30)
    back.close()


def test_an_outage_is_an_alert_like_any_other(stack: Any) -> None:
    """Through the stream into Pinot; the demonstration's snooze keeps it quiet, so nobody is told."""
    settings: Settings = stack.settings
    ticker = outage.Ticker(settings.model_copy(update={"outage": Outage(after="PT1S")}))  # type: ignore[arg-type]
    now = round(time.time() * 1000)
    ticker.round(now)
    assert ticker.held is not None
    if outage.EVERYTHING not in ticker.held:  # the stack's own ticker may have told it before
        ticker.round(now + 2000)
    told = ticker.held[outage.EVERYTHING]
    try:
        def row() -> dict[str, Any] | None:
            return next((a for a in alerts.fetch(settings, use_case=outage.USE_CASE) if a["alert_id"] == told.alert_id), None)

        eventually("the outage in Pinot", 120, lambda: row() is not None)
        found = row()
        assert found is not None
        assert (found["severity"], found["title"], found["members"]) == ("critical", "No events from any source", 0)
        assert found["suppressed_by"].startswith("snooze:")
        assert told.alert_id not in topics.read(settings, "findings")
    finally:
        quiet.remove(settings, told.alert_id)


def test_every_alert_that_stands_for_itself_was_told(stack: Any) -> None:
    listed = [json.loads(line)["finding_info"]["uid"] for line in stack.run("alerts", "--ocsf").stdout.splitlines()]
    assert listed
    eventually("their findings", 60, lambda: set(listed) <= set(topics.read(stack.settings, "findings")))
    found = records(stack.settings, "findings")
    assert [p for f in found for p in ocsf.problems(f)] == []
    assert len({f["metadata"]["uid"] for f in found}) == len(found)
