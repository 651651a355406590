"""Each Java server's own metrics for Prometheus: its JMX beans, served by Prometheus' agent inside it, on loopback.

Only the beans named here are read, and only when somebody asks, so that an endpoint nobody scrapes costs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tidewatch.settings import Settings

VERSION = "1.0.1"
"""Of the agent, as in `jars/metrics/pom.xml`."""


@dataclass(frozen=True)
class Beans:
    """Which JMX beans of a server become metrics, in the agent's own terms."""

    include: tuple[str, ...]
    """Patterns of object names."""
    rules: tuple[dict[str, object], ...]
    """The first rule whose `pattern` matches `domain<properties><>attribute` names the metric and its labels."""


KAFKA = Beans(
    ("kafka.server:type=BrokerTopicMetrics,*", "kafka.server:type=ReplicaManager,*", "kafka.network:type=RequestMetrics,name=TotalTimeMs,*",
     "kafka.server:type=KafkaRequestHandlerPool,*", "kafka.controller:type=KafkaController,*", "kafka.log:type=LogManager,*"),
    (
        {"pattern": r"kafka.server<type=BrokerTopicMetrics, name=(\w+)PerSec, topic=(.+)><>Count", "name": "kafka_topic_$1_total", "labels": {"topic": "$2"}, "type": "COUNTER"},
        {"pattern": r"kafka.server<type=BrokerTopicMetrics, name=(\w+)PerSec><>Count", "name": "kafka_broker_$1_total", "type": "COUNTER"},
        {"pattern": r"kafka.network<type=RequestMetrics, name=TotalTimeMs, request=(Produce|FetchConsumer)><>(50|99)thPercentile", "name": "kafka_request_milliseconds",
         "labels": {"request": "$1", "percentile": "$2"}, "type": "GAUGE"},
        {"pattern": r"kafka.server<type=KafkaRequestHandlerPool, name=RequestHandlerAvgIdlePercent><>OneMinuteRate", "name": "kafka_request_handlers_idle_ratio", "type": "GAUGE"},
        {"pattern": r"kafka.(server|controller|log)<type=(ReplicaManager|KafkaController|LogManager), name=(\w+)><>Value", "name": "kafka_$2_$3", "type": "GAUGE"},
    ),
)
_PINOT = r'"org.apache.pinot.common.metrics"<type="(Server|Broker|Controller)Metrics", name="pinot\.\w+\.'
PINOT = Beans(
    tuple(f'"org.apache.pinot.common.metrics":type="{role}Metrics",*' for role in ("Server", "Broker", "Controller")),
    (
        {"pattern": _PINOT + r'(\w+)_REALTIME-(\w+)-(\d+)\.(\w+)"><>(Value|Count)', "name": "pinot_$5", "labels": {"role": "$1", "table": "$2", "topic": "$3", "partition": "$4"}},
        {"pattern": _PINOT + r'(\w+)_(?:REALTIME|OFFLINE)\.(\w+)"><>(Value|Count)', "name": "pinot_$3", "labels": {"role": "$1", "table": "$2"}},
        {"pattern": _PINOT + r'(\w+)\.(\w+)\.(\w+)_(?:REALTIME|OFFLINE)"><>(Value|Count)', "name": "pinot_$2_$3", "labels": {"role": "$1", "table": "$4"}},
        {"pattern": _PINOT + r'(\w+)"><>(Value|Count)', "name": "pinot_$2", "labels": {"role": "$1"}},
    ),
)
# the properties of Flink's beans come in no order; a task's name can be cut, since its number stands beside it
_TASK = r"(?=.*\btask_name=([^,>]{1,60}))(?=.*\btask_id=(\w{8}))(?=.*\bsubtask_index=(\d+)).*><>(Value|Count)"
_OPERATOR = r"(?=.*\boperator_name=([^,>]{1,60}))(?=.*\boperator_id=(\w{8}))(?=.*\bsubtask_index=(\d+)).*><>(Value|Count)"
FLINK = Beans(
    ("org.apache.flink.*:*",),
    (
        {"pattern": r"org.apache.flink.taskmanager.job.task.operator.([\w.]+)<" + _OPERATOR, "name": "flink_operator_$1", "labels": {"operator": "$2", "id": "$3", "subtask": "$4"}},
        {"pattern": r"org.apache.flink.taskmanager.job.task.(\w+)<" + _TASK, "name": "flink_task_$1", "labels": {"task": "$2", "id": "$3", "subtask": "$4"}},
        {"pattern": r"org.apache.flink.(jobmanager|taskmanager).([\w.]+)<.*><>(Value|Count)", "name": "flink_$1_$2"},
    ),
)
FLINK_REPORTED = ";".join((
    "jobmanager", "jobmanager.job",
    "taskmanager.job.task:numRecordsIn,numRecordsOut,busyTimeMsPerSecond,backPressuredTimeMsPerSecond,idleTimeMsPerSecond,checkpointStartDelayNanos",
    "taskmanager.job.task.operator:numLateRecordsDropped,pendingRecords,currentInputWatermark,watermarkLag,numRecordsInErrors",
))
"""Which of its metrics Flink offers as beans: it has thousands, one or more an operator and subtask."""


def agent(settings: Settings, service: str, port: int, beans: Beans) -> tuple[str, dict[Path, str]]:
    """The Java option that serves a server's beans at http://127.0.0.1:port/metrics, and the agent's configuration file."""
    path = settings.state_dir / "conf" / service / "metrics.yaml"
    # JSON is YAML
    text = json.dumps({"includeObjectNames": beans.include, "rules": beans.rules}, indent=1)
    jar = settings.state_dir / "jars" / "metrics" / f"jmx_prometheus_javaagent-{VERSION}.jar"
    return f"-javaagent:{jar}=127.0.0.1:{port}:{path}", {path: text}


ENDPOINTS = ("kafka", "pinot", "flink_jobmanager", "flink_taskmanager")
"""Services that have one, at the port `<service>_metrics`."""
