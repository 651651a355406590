"""Flink: one JobManager and one TaskManager, launched as plain Java processes from PyFlink's own jars.

Jobs are kept in ZooKeeper and the state folder: a JobManager that starts again resumes them from their last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service, install, jvm, metrics, probe

SLOTS = 4
MB = 2**20


@dataclass(frozen=True)
class Memory:
    """The TaskManager's memory in MB; Flink wants its parts told one by one when its own scripts do not start it."""

    task_heap: int
    framework_heap: int = 128
    framework_off_heap: int = 128
    task_off_heap: int = 64
    network: int = 192
    managed: int = 448
    """Python workers live here."""
    metaspace: int = 384
    overhead: int = 256
    rocksdb: int = 0
    """Blocks and write buffers of a state on disk, in native memory that Flink does not count."""

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def java(self) -> tuple[str, ...]:
        heap = self.task_heap + self.framework_heap
        direct = self.framework_off_heap + self.task_off_heap + self.network
        # half for what is young: state takes less than the other half, and events die at once; what windows held is collected by QuietCollection.java
        return (f"-Xms{heap}m", f"-Xmx{heap}m", "-XX:NewRatio=1", f"-XX:MaxDirectMemorySize={direct}m", f"-XX:MaxMetaspaceSize={self.metaspace}m")

    def flink(self) -> tuple[str, ...]:
        sizes = {
            "task.heap.size": self.task_heap, "framework.heap.size": self.framework_heap, "framework.off-heap.size": self.framework_off_heap,
            "task.off-heap.size": self.task_off_heap, "network.min": self.network, "network.max": self.network, "managed.size": self.managed,
            "jvm-metaspace.size": self.metaspace, "jvm-overhead.min": self.overhead, "jvm-overhead.max": self.overhead,
        }
        return tuple(w for k, v in sizes.items() for w in ("-D", f"taskmanager.memory.{k}={v * MB}b"))


def slots(settings: Settings) -> int:
    """Of the worker: at least SLOTS, and as many as the job's parallelism."""
    return max(SLOTS, settings.stream.parallelism)


def _opens() -> tuple[str, ...]:
    exports = ("java.rmi/sun.rmi.registry", "jdk.compiler/com.sun.tools.javac.api", "jdk.compiler/com.sun.tools.javac.file",
               "jdk.compiler/com.sun.tools.javac.parser", "jdk.compiler/com.sun.tools.javac.tree", "jdk.compiler/com.sun.tools.javac.util",
               "java.security.jgss/sun.security.krb5")
    opens = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent", "util.concurrent.atomic", "util.concurrent.locks")
    return (
        *(f"--add-exports={m}=ALL-UNNAMED" for m in exports), *(f"--add-opens=java.base/java.{p}=ALL-UNNAMED" for p in opens),
        "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    )


def conf_dir(settings: Settings) -> Path:
    """Where config.yaml lies; what a client of this cluster needs as FLINK_CONF_DIR."""
    return settings.state_dir / "conf" / "flink"


def client_env(settings: Settings) -> dict[str, str]:
    """Variables with which PyFlink's client finds our configuration and jars instead of its own."""
    python = settings.env_python("flink")
    return {
        "FLINK_CONF_DIR": str(conf_dir(settings)),
        "FLINK_LIB_DIR": str(settings.state_dir / "jars" / "flink_lib"),
        "FLINK_LOG_DIR": str(settings.logs),
        "FLINK_PLUGINS_DIR": str(conf_dir(settings) / "plugins"),
        "JAVA_HOME": str(Path(jvm.java()).parent.parent),
        "PYTHONPATH": str(ROOT),
        "PYFLINK_PYTHON": str(python),
        "PYFLINK_CLIENT_EXECUTABLE": str(python),
    }


def configuration(settings: Settings) -> dict[str, object]:
    """config.yaml of both processes."""
    p, data = settings.ports, settings.state_dir / "data" / "flink"
    python = settings.env_python("flink")
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": p.flink_rpc,
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.memory.process.size": "1024m",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.host": "127.0.0.1",
        "taskmanager.rpc.port": p.flink_taskmanager_rpc,
        "taskmanager.data.port": p.flink_taskmanager_data,
        "taskmanager.numberOfTaskSlots": slots(settings),
        "blob.server.port": p.flink_blob,
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": p.flink_rest,
        "rest.bind-port": p.flink_rest,
        "web.submit.enable": False,
        # how old the figures of the web page and of `stream status` may be
        "metrics.fetcher.update-interval": 2000,
        "io.tmp.dirs": str(data / "tmp"),
        # all slots share it: of a slot's share of managed memory, which Python and windows claim too, some 50 MB would be left
        "state.backend.rocksdb.memory.fixed-per-tm": f"{settings.stream.rocksdb_mb}m",
        "parallelism.default": settings.stream.parallelism,
        "high-availability.type": "zookeeper",
        "high-availability.storageDir": (data / "ha").as_uri(),
        "high-availability.zookeeper.quorum": f"127.0.0.1:{p.zookeeper}",
        "high-availability.zookeeper.path.root": "/flink",
        # after a crash the next JobManager waits this long for its predecessor's session to end
        "high-availability.zookeeper.client.session-timeout": 15000,
        "high-availability.cluster-id": "/tidewatch",
        "high-availability.jobmanager.port": p.flink_rpc,
        "execution.checkpointing.dir": (data / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (data / "savepoints").as_uri(),
        "heartbeat.interval": 5000,
        "heartbeat.timeout": 30000,
        # on a crowded machine an answer can take longer than the default 10 s, and the job would restart for it
        "pekko.ask.timeout": "60 s",
        # a job that waits for its worker asks anew after so long; a request that was lost costs five minutes by default
        "slot.request.timeout": 60000,
        # a worker that is not let in ends, and the supervisor starts another: once in some kills it waited the default five minutes
        "taskmanager.registration.timeout": "60 s",
        # as beans, which the agent serves on loopback: Flink's own Prometheus reporter listens on every address
        "metrics.reporters": "jmx",
        "metrics.reporter.jmx.factory.class": "org.apache.flink.metrics.jmx.JMXReporterFactory",
        "metrics.reporter.jmx.filter.includes": metrics.FLINK_REPORTED,
        "python.executable": str(python),
        "python.client.executable": str(python),
    }


def services(settings: Settings) -> tuple[Service, ...]:
    conf, stream = conf_dir(settings), settings.stream
    memory = Memory(stream.task_heap_mb, rocksdb=stream.rocksdb_mb if stream.state_backend == "rocksdb" else 0)
    jars = str(settings.state_dir / "jars" / "flink_lib" / "*")
    # JSON is YAML
    yaml = "".join(f"{k}: {json.dumps(v)}\n" for k, v in configuration(settings).items())
    env = {**client_env(settings), "PATH": f"{settings.env_python('flink').parent}:/usr/local/bin:/usr/bin:/bin"}

    def row(name: str, java: tuple[str, ...], main: str, arguments: tuple[str, ...]) -> tuple[tuple[str, ...], dict[Path, str]]:
        logging, text = jvm.log_config(settings, name, quiet=("org.apache.kafka", "org.apache.flink.shaded.zookeeper3"))
        agent, agent_files = metrics.agent(settings, name, getattr(settings.ports, f"{name}_metrics"), metrics.FLINK)
        command = (
            jvm.java(), *java, agent, *jvm.COLLECTOR, "-XX:+ExitOnOutOfMemoryError", *_opens(), f"-Dlog4j2.configurationFile={logging}",
            f"-Dlog.file={settings.logs / (name + '.log')}", "-cp", jars, main, "--configDir", str(conf), *arguments,
        )
        return command, {logging: text, conf / "config.yaml": yaml, **agent_files}

    jm, jm_files = row("flink_jobmanager", ("-Xms448m", "-Xmx448m", "-XX:MaxMetaspaceSize=256m", "-XX:TieredStopAtLevel=1"),
                       "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", ())
    tm, tm_files = row("flink_taskmanager", memory.java(), "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
                       ("-D", "taskmanager.resource-id=tidewatch", "-D", f"taskmanager.cpu.cores={slots(settings)}.0", *memory.flink()))
    return (
        Service(
            name="flink_jobmanager",
            doc="the stream's coordinator",
            command=jm,
            memory_mb=900,
            ready=lambda s: "taskmanagers" in probe.document(f"http://127.0.0.1:{s.ports.flink_rest}/overview"),
            needs=("zookeeper",),
            ports=("flink_rest", "flink_rpc", "flink_blob", "flink_jobmanager_metrics"),
            env=env,
            files=jm_files,
            prepare=_folders,
            url=lambda s: s.flink_rest,
        ),
        Service(
            name="flink_taskmanager",
            doc="the stream's worker",
            command=tm,
            memory_mb=memory.total,
            ready=lambda s: probe.document(f"http://127.0.0.1:{s.ports.flink_rest}/overview")["taskmanagers"] > 0,
            # Kafka stops after it, so that the job ends its last transactions
            needs=("flink_jobmanager", "kafka"),
            ports=("flink_taskmanager_rpc", "flink_taskmanager_data", "flink_taskmanager_metrics"),
            env=env,
            files=tm_files,
            prepare=_folders,
        ),
    )


def _folders(settings: Settings) -> None:
    data = settings.state_dir / "data" / "flink"
    for folder in ("tmp", "ha", "checkpoints", "savepoints"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    _plugin(settings, "metrics-jmx")
    settings.landing.mkdir(parents=True, exist_ok=True)
    install.flink_library(settings)


def _plugin(settings: Settings, name: str) -> None:
    """One of the plugins that come with PyFlink's wheel, as a link in a folder of ours: all of them would be loaded."""
    link = conf_dir(settings) / "plugins" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    found = next((settings.env_python("flink").parent.parent / "lib").glob(f"python3*/site-packages/pyflink/plugins/{name}"), None)
    if found is None:
        raise ServiceError(f"PyFlink's wheel has no plugin {name}.", "run `tidewatch install`")
    if not link.is_symlink() or link.readlink() != found.resolve():
        link.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):  # both processes are prepared side by side
            link.symlink_to(found.resolve())
