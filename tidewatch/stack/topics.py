"""Kafka's topics, made from the catalogue of tables."""

from __future__ import annotations

from typing import Any

from tidewatch import tables
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings

FOREVER = str(2**63 - 1)


def config(settings: Settings, table: tables.Table) -> dict[str, str]:
    """The topic's settings. A compacted topic keeps the producer's time and its old versions as long as other topics keep records."""
    retention = str(int(settings.topics.retention.total_seconds() * 1000))
    if table.compacted:
        return {
            "cleanup.policy": "compact", "message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": FOREVER,
            "min.compaction.lag.ms": retention, "min.cleanable.dirty.ratio": "0.1", "segment.ms": "3600000",
        }
    return {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "retention.ms": retention}


def wanted(settings: Settings) -> dict[str, dict[str, str]]:
    """Every topic with its settings."""
    return {t.name: config(settings, t) for t in tables.catalogue().values() if t.topic}


def apply(settings: Settings) -> list[str]:
    """Make the topics that are missing and correct the settings of the others; returns the new ones.

    Raises ServiceError if the brokers do not answer or refuse, or if a topic has fewer partitions than it should.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        NewTopic,
        ResourceType,
    )

    fix = "`tidewatch logs kafka` tells more"
    admin = AdminClient({"bootstrap.servers": settings.kafka, "log_level": 0})
    try:
        there = admin.list_topics(timeout=20).topics
        topics = wanted(settings)
        new = [n for n in topics if n not in there]
        made = admin.create_topics([
            NewTopic(n, num_partitions=settings.topics.partitions, replication_factor=settings.topics.replication_factor, config=topics[n])
            for n in new
        ], operation_timeout=30) if new else {}
        for future in made.values():
            future.result(60)
        changes: list[Any] = []
        for name in topics.keys() & there.keys():
            if len(there[name].partitions) != settings.topics.partitions:
                raise ServiceError(
                    f"topic {name} has {len(there[name].partitions)} partitions, the setting topics.partitions says {settings.topics.partitions}.",
                    "set topics.partitions back: keys must stay in their partition")
            entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in topics[name].items()]
            changes.append(ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries))
        for future in (admin.incremental_alter_configs(changes) if changes else {}).values():
            future.result(60)
    except KafkaException as e:
        raise ServiceError(f"Kafka at {settings.kafka} refused: {e.args[0].str()}.", fix) from e
    return new


def ready(settings: Settings) -> bool:
    """The broker answers and leads its partitions."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        return bool(AdminClient({"bootstrap.servers": settings.kafka, "log_level": 0}).list_topics(timeout=3).brokers)
    except KafkaException:
        return False
