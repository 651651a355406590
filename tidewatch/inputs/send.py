"""Sending: a source's parcels to Kafka at a pace, counted; a stop leaves nothing half sent."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tidewatch.errors import ServiceError
from tidewatch.inputs.parcel import Parcel, Source
from tidewatch.settings import Settings

QUEUE = 400_000
"""Records waiting in the client at most."""


class Kafka:
    """A producer whose records all arrive exactly once and in order, or whose end is an error."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        """Connect; raises ServiceError if no broker answers or a topic is missing."""
        from confluent_kafka import KafkaException, Producer

        self.settings = settings
        self._failed: list[str] = []
        self._producer = Producer({
            "bootstrap.servers": settings.kafka, "enable.idempotence": True, "acks": "all", "compression.type": "lz4",
            "linger.ms": 20, "batch.size": 1_000_000, "batch.num.messages": 50_000, "queue.buffering.max.messages": QUEUE * 2,
            "queue.buffering.max.kbytes": 1_048_576, "delivery.timeout.ms": 300_000, "delivery.report.only.error": True,
            # the partition that Java's clients choose too
            "partitioner": "murmur2_random", "log_level": 0,
        })
        try:
            there = self._producer.list_topics(timeout=10).topics
        except KafkaException as e:
            raise ServiceError(f"no Kafka broker answers at {settings.kafka}.", "start the servers with `tidewatch up`") from e
        missing = [t for t in topics if t not in there]
        if missing:
            raise ServiceError(f"Kafka at {settings.kafka} has no topic {', '.join(missing)}.", "`tidewatch up` makes the topics")

    def _report(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")

    def send(self, parcel: Parcel) -> None:
        """Hand over a parcel; waits while the client's queue is full. Raises ServiceError if an earlier record was refused."""
        producer, topic, report = self._producer, parcel.topic, self._report
        produce = producer.produce
        for at in range(0, len(parcel.bodies), 20_000):
            while len(producer) > QUEUE:
                producer.poll(0.05)
            for key, body in zip(parcel.keys[at : at + 20_000], parcel.bodies[at : at + 20_000], strict=True):
                produce(topic, body, key, -1, report)
            producer.poll(0)
        self._check()

    def flush(self) -> None:
        """Wait until the brokers have everything; raises ServiceError if they refused or do not answer."""
        left = self._producer.flush(330)
        self._check()
        if left:
            raise ServiceError(f"Kafka at {self.settings.kafka} did not take {left} records.", "`tidewatch logs kafka` tells more")

    def _check(self) -> None:
        if self._failed:
            raise ServiceError(f"Kafka refused {len(self._failed)} records: {self._failed[0]}.", "`tidewatch logs kafka` tells more")

    def __enter__(self) -> Kafka:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.purge()
            self._producer.flush(5)


@dataclass
class Sent:
    """What has been sent so far."""

    start_ms: int
    until_ms: int
    """All events before this time have been sent."""
    topics: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def records(self) -> int:
        return sum(t["records"] for t in self.topics.values())

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and the manifest."""
        return {
            "start_ms": self.start_ms, "end_ms": self.until_ms, "seconds": round(self.seconds, 3),
            "produced_total": self.records, "topics": {n: dict(sorted(t.items())) for n, t in sorted(self.topics.items())},
        }


WAKE_ROUNDS, WAKE_PAUSE = 24, 0.25
"""A burst begins with so many small rounds, so many seconds apart."""
WAKE_SLOW, WAKE_SLOW_PAUSE = 5, 2.0
"""The first of them wait longer: until they have read something, readers that were idle do not hold time back."""
WAKE_MS, WAKE_RECORDS = 1_000, 20
"""Event time of the first of them; it doubles while a round has fewer records. Without doubling the slow ones together are the 5 s that
`stream.lateness` is by default: no window closes by them, even where a busy machine reads them all at once."""


def drive(
    source: Source, send: Callable[[Parcel], None], flush: Callable[[], None], *, start_ms: int, end_ms: int | None,
    step_ms: int, speed: float | None = None, live: bool = False, stop: threading.Event | None = None,
    before: Callable[[int], None] = lambda _: None, after: Callable[[Sent], None] = lambda _: None,
    clock: Callable[[], float] = time.time,
) -> Sent:
    """Take a source from `start_ms` to `end_ms` (None: until `stop`), in rounds of at most `step_ms` of event time.

    `speed` is event seconds a second; None: as fast as it goes after a few seconds of small rounds. Flink holds time back
    for a reader that was idle only once that reader's time has caught up with the others', so a burst into an idle stream
    would make one reader's events late. `live` never runs ahead of `clock`: it catches up, then follows.
    `before(until_ms)` and `after(sent)` run around each round. Returns when the brokers have it all.
    """
    stop = stop or threading.Event()
    sent, begun = Sent(start_ms, start_ms), clock()
    waking, wake_ms = WAKE_ROUNDS if speed is None and not live else 0, WAKE_MS

    def deliver(parcels: list[Parcel]) -> None:
        for p in parcels:
            send(p)
            sent.topics.setdefault(p.topic, Counter()).update(p.tally)
        sent.seconds = clock() - begun

    while not stop.is_set() and (end_ms is None or sent.until_ms < end_ms):
        until = sent.until_ms + step_ms
        if live:
            until = min(until, int(clock() * 1000))
        if speed is not None:
            until = min(until, start_ms + int((clock() - begun) * 1000 * speed))
        if end_ms is not None:
            until = min(until, end_ms)
        if until - sent.until_ms < min(step_ms, 200) and until != end_ms:
            stop.wait(0.2)
            continue
        if waking:
            until = min(until, sent.until_ms + wake_ms)
        known = sent.records
        before(until)
        deliver(source.advance(until))
        sent.until_ms = until
        after(sent)
        if waking:
            waking -= 1
            wake_ms *= 2 if sent.records < known + WAKE_RECORDS else 1
            flush()
            stop.wait(WAKE_SLOW_PAUSE if waking >= WAKE_ROUNDS - WAKE_SLOW else WAKE_PAUSE)
    deliver(source.finish(sent.until_ms))
    flush()
    sent.seconds = clock() - begun
    return sent


def write_manifest(settings: Settings, run: str, content: dict[str, Any]) -> Path:
    """Keep what a run has sent: the truth that the tables are checked against."""
    path = settings.state_dir / "data" / "generate" / f"{run}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1))
    new.replace(path)
    return path
