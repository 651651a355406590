"""Pinot: controller, broker and server in one JVM; the tables come from `pinot_tables/`."""

from __future__ import annotations

from tidewatch.settings import Settings
from tidewatch.stack import Service, jvm, metrics, pinot_decoder, pinot_tables, probe

CLUSTER = "tidewatch"


def services(settings: Settings) -> tuple[Service, ...]:
    conf = settings.state_dir / "conf" / "pinot"
    logging, log_text = jvm.log_config(settings, "pinot", quiet=(
        "org.apache.helix", "org.apache.zookeeper", "org.apache.kafka", "org.apache.pinot.controller.helix", "org.reflections",
        "org.apache.pinot.core", "org.apache.pinot.segment", "org.apache.pinot.broker.requesthandler", "org.glassfish",
    ))
    roles = ("controller", "broker", "server")
    agent, agent_files = metrics.agent(settings, "pinot", settings.ports.pinot_metrics, metrics.PINOT)
    return (
        Service(
            name="pinot",
            doc="what analysts and dashboards query, seconds after the event",
            command=(
                # hardly anything that it makes lives long: a wide young generation is collected half as often
                jvm.java(), "-Xms1500m", "-Xmx1500m", "-Xmn900m", *jvm.COLLECTOR, "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
                # a longer session stalls the restart after a crash on "another instance with the same name"
                "-Dzk.session.timeout=10000", agent, f"-Dlog4j2.configurationFile={logging}", "-cp", jvm.classpath(settings, "pinot"),
                "org.apache.pinot.tools.admin.PinotAdministrator", "StartServiceManager", "-zkAddress", f"127.0.0.1:{settings.ports.zookeeper}",
                "-clusterName", CLUSTER, "-port", "-1", "-bootstrapConfigPaths", *(str(conf / f"{r}.conf") for r in roles),
            ),
            memory_mb=2400,
            ready=_ready,
            ready_timeout=300,
            # its tables consume topics, which are made after Kafka's start
            needs=("zookeeper", "kafka"),
            ports=("pinot_controller", "pinot_broker", "pinot_server", "pinot_server_admin", "pinot_metrics"),
            files={logging: log_text, **agent_files, **{conf / f"{r}.conf": _properties(settings, r) for r in roles}},
            prepare=_decoder,
            after=_tables,
            # it closes its consumers one after the other, seconds each; killed, it reads their rows again from Kafka
            stop_seconds=20,
            nice=5,
            url=lambda s: s.pinot_controller,
        ),
    )


def _ready(settings: Settings) -> bool:
    here = settings.ports
    return (
        probe.answers(f"http://127.0.0.1:{here.pinot_controller}/health")
        and probe.answers(f"http://127.0.0.1:{here.pinot_broker}/health")
        and probe.answers(f"http://127.0.0.1:{here.pinot_server_admin}/health")
    )


def _tables(settings: Settings) -> None:
    pinot_tables.apply(settings)


def _decoder(settings: Settings) -> None:
    """Pinot loads it from its class path, so it has to be there before the start."""
    pinot_decoder.build(settings)


def _properties(settings: Settings, role: str) -> str:
    p, data = settings.ports, settings.state_dir / "data" / "pinot"
    zookeeper = f"127.0.0.1:{p.zookeeper}"
    lines: dict[str, object] = {"pinot.service.role": role.upper(), "pinot.cluster.name": CLUSTER, "pinot.zk.server": zookeeper}
    match role:
        case "controller":
            lines |= {
                "controller.helix.cluster.name": CLUSTER,
                "controller.zk.str": zookeeper,
                "controller.host": "127.0.0.1",
                "controller.access.protocols": "http",
                "controller.access.protocols.http.host": "127.0.0.1",
                "controller.access.protocols.http.port": p.pinot_controller,
                "controller.vip.host": "127.0.0.1",
                "controller.vip.port": p.pinot_controller,
                "controller.data.dir": data / "controller",
                "controller.local.temp.dir": data / "controller-tmp",
                "controller.task.scheduler.enabled": "false",
                "pinot.set.instance.id.to.hostname": "false",
                "cluster.tenant.isolation.enable": "true",
            }
        case "broker":
            lines |= {
                "pinot.broker.hostname": "127.0.0.1",
                "pinot.broker.client.access.protocols": "http",
                "pinot.broker.client.access.protocols.http.host": "127.0.0.1",
                "pinot.broker.client.access.protocols.http.port": p.pinot_broker,
                "pinot.broker.timeoutMs": 30000,
                "pinot.broker.delayShutdownTimeMs": 0,
            }
        case "server":
            lines |= {
                "pinot.server.netty.host": "127.0.0.1",
                "pinot.server.netty.port": p.pinot_server,
                "pinot.server.adminapi.access.protocols": "http",
                "pinot.server.adminapi.access.protocols.http.host": "127.0.0.1",
                "pinot.server.adminapi.access.protocols.http.port": p.pinot_server_admin,
                "pinot.server.grpc.enable": "false",
                "pinot.server.instance.dataDir": data / "server" / "index",
                "pinot.server.instance.segmentTarDir": data / "server" / "segments",
                "pinot.server.instance.realtime.alloc.offheap": "true",
                "pinot.server.instance.reload.consumingSegment": "true",
                # of all partitions, which fill at about the same time; four at once hold up the stream's scores (docs/measured.md)
                "pinot.server.instance.realtime.max.parallel.segment.builds": 1,
                # without these a restarted server answers from half of its rows
                "pinot.server.startup.enableServiceStatusCheck": "true",
                "pinot.server.starter.realtimeConsumptionCatchupWaitMs": 30000,
                "pinot.server.starter.enableRealtimeOffsetBasedConsumptionStatusChecker": "true",
                "pinot.server.startup.serviceStatusCheckIntervalMs": 500,
                "pinot.server.shutdown.enableQueryCheck": "false",
            }
    return "".join(f"{k}={v}\n" for k, v in lines.items())
