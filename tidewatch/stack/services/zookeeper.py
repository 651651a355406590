"""ZooKeeper: keeps Pinot's cluster state, and Flink's jobs so that they survive a crash."""

from __future__ import annotations

import socket

from tidewatch.settings import Settings
from tidewatch.stack import Service, jvm


def services(settings: Settings) -> tuple[Service, ...]:
    conf = settings.state_dir / "conf" / "zookeeper"
    logging, log_text = jvm.log_config(settings, "zookeeper", quiet=("org.apache.zookeeper",))
    return (
        Service(
            name="zookeeper",
            doc="cluster state of Pinot and Flink",
            command=(
                jvm.java(), "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", f"-Dlog4j2.configurationFile={logging}",
                "-Dzookeeper.admin.enableServer=false", "-Dzookeeper.4lw.commands.whitelist=srvr,ruok",
                "-cp", jvm.classpath(settings, "pinot"), "org.apache.zookeeper.server.ZooKeeperServerMain", str(conf / "zoo.cfg"),
            ),
            memory_mb=320,
            ready=_ready,
            ports=("zookeeper",),
            files={
                logging: log_text,
                conf / "zoo.cfg": (
                    f"dataDir={settings.state_dir / 'data' / 'zookeeper'}\nclientPort={settings.ports.zookeeper}\n"
                    "clientPortAddress=127.0.0.1\ntickTime=2000\nmaxClientCnxns=0\nmaxSessionTimeout=60000\n"
                    "autopurge.snapRetainCount=3\nautopurge.purgeInterval=6\n"
                ),
            },
        ),
    )


def _ready(settings: Settings) -> bool:
    with socket.create_connection(("127.0.0.1", settings.ports.zookeeper), timeout=2) as s:
        s.sendall(b"ruok")
        return s.recv(4) == b"imok"
