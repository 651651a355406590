"""Reading a small compacted topic to its end: a service's own memory of what it has told."""

from __future__ import annotations

import json
from typing import Any

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings


def read(settings: Settings, topic: str, timeout: float = 60.0) -> dict[str, dict[str, Any]]:
    """The newest committed value of each key, from the topic's beginning to its end as it is now.

    Raises ServiceError if the brokers do not answer in time or the topic is not there.
    """
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

    consumer = Consumer({
        "bootstrap.servers": settings.kafka, "group.id": f"tidewatch-read-{topic}", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True, "log_level": 0,
    })
    found: dict[str, dict[str, Any]] = {}
    try:
        parts = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        if not parts:
            raise ServiceError(f"the topic {topic} does not exist.", "`tidewatch up kafka` makes it")
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in parts])
        left = set(parts)
        while left:
            message = consumer.poll(timeout)
            if message is None:
                raise ServiceError(f"Kafka at {settings.kafka} does not give the topic {topic} to its end.", "`tidewatch logs kafka` tells more")
            error = message.error()
            if error is None:
                key, value = message.key(), message.value()
                if key is not None:
                    found.pop(key.decode(), None)
                    if value is not None:
                        found[key.decode()] = json.loads(value)
            elif error.name() == "_PARTITION_EOF":
                left.discard(message.partition())
            else:
                raise KafkaException(error)
    except KafkaException as e:
        raise ServiceError(f"Kafka at {settings.kafka} does not answer ({e}).", "`tidewatch status` tells what runs") from e
    finally:
        consumer.close()
    return found
