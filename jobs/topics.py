"""Publishing to the control topics: JSON rows of a table, keyed, with the event time as the record's time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.tables import Table

TIMEOUT_SECONDS = 30.0


def publish(settings: Settings, table: Table, rows: Iterable[Mapping[str, Any]], key: str, time: str, *, raw: bool = False) -> int:
    """Send rows to the table's topic, each with the key {key: value} and `row[time]` (milliseconds) as its timestamp.

    `raw`: the key is the value itself, and goes to the partition that the stream would send it to, so that Pinot replaces rows.

    Returns how many the broker acknowledged; raises ServiceError if it did not acknowledge them all.
    """
    from confluent_kafka import KafkaException, Producer

    failed: list[str] = []
    sent = 0

    def told(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(str(error))

    producer = Producer({
        "bootstrap.servers": settings.kafka, "acks": "all", "enable.idempotence": True, "linger.ms": 20,
        "partitioner": "murmur2_random", "compression.type": "lz4", "message.timeout.ms": int(TIMEOUT_SECONDS * 1000), "log_level": 0,
    })
    try:
        for row in rows:
            while True:
                try:
                    producer.produce(
                        table.name, key=row[key] if raw else json.dumps({key: row[key]}), value=json.dumps(dict(row), allow_nan=False),
                        timestamp=int(row[time]), on_delivery=told,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
            sent += 1
            producer.poll(0)
    except KafkaException as e:
        failed.append(str(e))
    left = producer.flush(TIMEOUT_SECONDS + 5)
    if failed or left:
        raise ServiceError(
            f"Kafka at {settings.kafka} did not take {len(failed) + left} of {sent} rows of the topic {table.name!r}: {failed[0] if failed else 'timeout'}.",
            "is it up? `tidewatch status`; then run the job again, or with --no-publish",
        )
    return sent
