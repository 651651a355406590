"""Kafka: one broker that is its own controller (KRaft); the topics come from the catalogue of tables."""

from __future__ import annotations

import base64
import subprocess
import uuid

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.stack import Service, jvm, metrics, probe, topics


def services(settings: Settings) -> tuple[Service, ...]:
    logging, log_text = jvm.log_config(settings, "kafka")
    properties = settings.state_dir / "conf" / "kafka" / "server.properties"
    agent, agent_files = metrics.agent(settings, "kafka", settings.ports.kafka_metrics, metrics.KAFKA)
    return (
        Service(
            name="kafka",
            doc="the bus: every event, window, score and alert",
            command=(
                jvm.java(), "-Xms512m", "-Xmx1g", *jvm.COLLECTOR, "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
                agent, f"-Dlog4j2.configurationFile={logging}", "-cp", jvm.classpath(settings, "kafka"), "kafka.Kafka", str(properties),
            ),
            memory_mb=1200,
            ready=lambda s: probe.accepts(s.ports.kafka) and topics.ready(s),
            ports=("kafka", "kafka_controller", "kafka_metrics"),
            files={logging: log_text, properties: _properties(settings), **agent_files},
            prepare=_format,
            after=lambda s: void(topics.apply(s)),
            stop_seconds=60,
        ),
    )


def void(_: object) -> None:
    return None


def _properties(settings: Settings) -> str:
    p = settings.ports
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"PLAINTEXT://127.0.0.1:{p.kafka},CONTROLLER://127.0.0.1:{p.kafka_controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{p.kafka},CONTROLLER://127.0.0.1:{p.kafka_controller}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{p.kafka_controller}",
        "log.dirs": settings.state_dir / "data" / "kafka",
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.partitions": settings.topics.partitions,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # Flink's sinks ask for an hour, so that a transaction outlives a long restart
        "transaction.max.timeout.ms": 3_600_000,
        "log.segment.bytes": 256 * 2**20,
        "log.retention.ms": int(settings.topics.retention.total_seconds() * 1000),
    }
    return "".join(f"{k}={v}\n" for k, v in lines.items())


def _cluster_id() -> str:
    """A random one as Kafka's own `random-uuid` makes it: none that begins with a dash, which would be read as an option."""
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


def _format(settings: Settings) -> None:
    """Give the log folder its cluster id, once."""
    data = settings.state_dir / "data" / "kafka"
    if (data / "meta.properties").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    properties = settings.state_dir / "conf" / "kafka" / "server.properties"
    done = subprocess.run(
        [jvm.java(), "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", jvm.classpath(settings, "kafka"), "kafka.tools.StorageTool", "format",
         "--standalone", "-t", _cluster_id(), "-c", str(properties)],
        capture_output=True, text=True, check=False,
    )
    if done.returncode:
        raise ServiceError(f"Kafka's log folder {data} could not be formatted: {(done.stderr or done.stdout).strip()[-600:]}",
                           "empty that folder if it is left from a broken start")
