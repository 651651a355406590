"""Settings: one frozen typed tree, read from `tidewatch.toml` and `TIDEWATCH_…` variables.

A variable names its place in the tree with two underscores between levels:
`TIDEWATCH_PORTS__KAFKA=9092`, `TIDEWATCH_STREAM__PARALLELISM=4`.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import secrets as _secrets
import socket
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tidewatch.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ports(_Frozen):
    """Where each local server listens, always on 127.0.0.1."""

    kafka: int = 19092
    kafka_controller: int = 19093
    zookeeper: int = 19181
    pinot_controller: int = 19000
    pinot_broker: int = 19099
    pinot_server: int = 19098
    pinot_server_admin: int = 19097
    flink_rest: int = 19081
    flink_rpc: int = 19123
    flink_blob: int = 19125
    flink_taskmanager_rpc: int = 19122
    flink_taskmanager_data: int = 19121
    postgres: int = 19432
    mlflow: int = 19500
    airflow: int = 19080
    airflow_logs: int = 19793
    airflow_trigger_logs: int = 19794
    superset: int = 19088
    reports: int = 19090
    kafka_metrics: int = 19101
    pinot_metrics: int = 19102
    flink_jobmanager_metrics: int = 19103
    flink_taskmanager_metrics: int = 19104

    @classmethod
    def from_base(cls, base: int) -> Ports:
        """Every port counted up from `base`: a second stack beside the first (tests)."""
        return cls(**{name: base + i for i, name in enumerate(cls.model_fields)})

    @classmethod
    def free(cls) -> Ports:
        """Ports none of which is taken, below the range from which the kernel picks; raises SettingsError if there are none."""
        for base in range(21000, 32000, 100):
            ports, held = cls.from_base(base), []
            try:
                for port in ports.model_dump().values():
                    s = socket.socket()
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    held.append(s)
                    s.bind(("127.0.0.1", port))
            except OSError:
                continue
            else:
                return ports
            finally:
                for s in held:
                    s.close()
        raise SettingsError("no free range of ports between 21000 and 32000.")


class External(_Frozen):
    """Addresses of servers that Tidewatch does not start; empty: the local one."""

    kafka: str = Field("", description="bootstrap servers, host:port[,host:port]")
    pinot_controller: str = Field("", description="http://host:port")
    pinot_broker: str = Field("", description="http://host:port")
    flink_rest: str = Field("", description="http://host:port")
    mlflow: str = Field("", description="http://host:port")
    airflow: str = Field("", description="http://host:port")
    superset: str = Field("", description="http://host:port")
    otlp: str = Field("", description="where Airflow sends its own metrics, OpenTelemetry over HTTP: http://host:port/path; empty: nowhere")
    spark_master: str = Field("local[2]", description="a Spark master URL")


class Topics(_Frozen):
    """How Kafka topics are made."""

    partitions: int = Field(4, ge=1)
    replication_factor: int = Field(1, ge=1)
    retention: timedelta = timedelta(hours=24)


class Limits(_Frozen):
    """What makes an event impossible, beyond the ranges that its contract gives."""

    max_future: timedelta = Field(timedelta(minutes=5), description="event time after the broker received it")
    max_past: timedelta = Field(timedelta(days=365 * 30), description="event time before the broker received it")


class Network(_Frozen):
    """Which addresses count as inside; everything else is outside."""

    inside: tuple[str, ...] = (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16",
        "224.0.0.0/4", "255.255.255.255/32", "0.0.0.0/32", "fc00::/7", "fe80::/10", "ff00::/8", "::1/128", "::/128",
    )

    trusted: tuple[str, ...] = Field((), description="networks outside whose traffic counts as inside: backup, updates, cloud services of the house")

    @property
    def not_external(self) -> tuple[str, ...]:
        """Networks to which nothing leaks: inside and trusted."""
        return (*self.inside, *self.trusted)

    @field_validator("inside", "trusted")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for v in value:
            ipaddress.ip_network(v)
        return value


class Stream(_Frozen):
    """The Flink job."""

    parallelism: int = Field(2, ge=1)
    task_heap_mb: int = Field(1536, ge=512, description="the local worker's heap for state and open windows: more for more devices (docs/sizing.md)")
    checkpoint_interval: timedelta = timedelta(seconds=10)
    state_backend: Literal["hashmap", "rocksdb"] = Field("hashmap", description="where the stream keeps its state: on the heap, or on disk for more devices than fit there (docs/sizing.md)")
    rocksdb_mb: int = Field(512, ge=64, description="the local worker's memory for rocksdb's blocks and write buffers, beside its heap")
    lateness: timedelta = Field(timedelta(seconds=5), description="how long a window waits for late events")
    idle_timeout: timedelta = Field(timedelta(minutes=2), description="a source partition without events for so long stops holding time back; too short, and a slow start makes events late")
    alert_gap: timedelta = Field(timedelta(minutes=10), description="anomalous windows closer than this are one incident")
    committer_poll: timedelta = Field(timedelta(seconds=2), description="how often finished files are committed to Delta")


class Webhook(_Frozen):
    """Where findings (OCSF, JSON) are posted; docs/alerts.md."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="what it is called; its place in the topic is kept under this name")
    url: HttpUrl
    headers: dict[str, SecretStr] = Field({}, description="sent with each post, as Authorization")
    min_severity: Literal["low", "medium", "high", "critical"] = Field("low", description="findings below are not posted")
    retries: int = Field(5, ge=0, description="of one post, with growing pauses; after them it is tried again for ever, half a minute apart")
    timeout: timedelta = Field(timedelta(seconds=10), gt=timedelta(0), description="how long to wait for an answer")


class Alerts(_Frozen):
    """How incidents become alerts; the stream reads this when it starts."""

    group_devices: int = Field(5, ge=2, description="devices that go wrong at once in one use case before they are one incident")
    group_within: timedelta = Field(timedelta(minutes=5), gt=timedelta(0), description="at once: their incidents begin within so long; later ones join within so long of the newest")
    group_named: int = Field(20, ge=1, description="members of a group that its alert names; all of them carry its group_id")
    webhooks: tuple[Webhook, ...] = ()

    @field_validator("webhooks")
    @classmethod
    def _named_apart(cls, value: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
        if len({w.name for w in value}) < len(value):
            raise ValueError("two webhooks have the same name")
        return value


class Outage(_Frozen):
    """When the silence of a whole source is an outage (`tidewatch/outage.py`)."""

    after: timedelta = Field(timedelta(minutes=3), gt=timedelta(0), description="no event for so long, by the wall clock: longer than a source with all its devices usually pauses")
    every: timedelta = Field(timedelta(seconds=10), gt=timedelta(0), description="how often is looked")


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)


class Maintenance(_Frozen):
    """A planned time in which what matches is quiet: from `start` to `end`, or every week on `days` from `begins` to `ends`."""

    name: str = Field(min_length=1, description="what `suppressed_by` says, after maintenance:")
    use_case: Literal["*", "silent", "leak", "lie"] = "*"
    detector: str = Field("*", description="this and the next three are patterns: * any text, ? any character, commas between several")
    device: str = "*"
    kind: str = "*"
    site: str = "*"
    start: datetime | None = Field(None, description="with its zone; without one it is UTC")
    end: datetime | None = None
    days: tuple[Day, ...] = Field(DAYS, description="the days on which it begins")
    begins: clock | None = Field(None, description="hour of the day, as 22:00")
    ends: clock | None = Field(None, description="hour of the day; at or before `begins`: of the next day")
    zone: str = Field("UTC", description="of begins and ends, as Europe/Berlin")

    @field_validator("start", "end")
    @classmethod
    def _utc(cls, value: datetime | None) -> datetime | None:
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as e:
            raise ValueError("there is no such time zone") from e
        return value

    @model_validator(mode="after")
    def _whole(self) -> Maintenance:
        if (self.begins is None) != (self.ends is None):
            raise ValueError("begins and ends belong together")
        if self.begins is None and (self.start is None or self.end is None):
            raise ValueError("give start and end, or begins and ends")
        if self.start and self.end and self.end <= self.start:
            raise ValueError("it ends before it starts")
        return self

    def weekdays(self) -> list[int]:
        """1 Monday to 7 Sunday."""
        return [DAYS.index(d) + 1 for d in self.days]


class Batch(_Frozen):
    """Spark jobs and what they keep."""

    driver_memory: str = "1500m"
    shuffle_partitions: int = Field(2, ge=1)
    cycle: timedelta = Field(timedelta(hours=4), description="how often features and models are renewed")
    lateness: timedelta = Field(timedelta(hours=4), ge=timedelta(0), description="how long after its end a window is still opened again by a late event; what comes later is only counted")
    drift_watch: timedelta = Field(timedelta(hours=1), description="how often drift is looked for between cycles")
    drift_limit: float = Field(0.25, gt=0, description="population stability index from which a signal has drifted")
    training_window: timedelta = Field(timedelta(days=7), description="how far back a training set reaches")
    retention: timedelta = Field(timedelta(days=30), description="how long bronze and silver rows are kept")
    vacuum_retention: timedelta = Field(
        timedelta(days=7), ge=timedelta(days=1), description="how long files are kept that no version needs; longer than the longest reader: a task runs two hours at most",
    )


class Promotion(_Frozen):
    """The rule by which a challenger becomes champion."""

    margin: float = Field(0.01, ge=0, description="how much better its back-test figure must be")
    target_false_alerts: float = Field(0.001, gt=0, description="alerts per device and day that thresholds are set for, if the training is long enough to tell")
    max_false_alerts: float = Field(0.5, ge=0, description="alerts per device and day on clean windows, at most")
    max_anomalous_share: float = Field(0.05, gt=0, le=1, description="share of a detector's clean windows that are called anomalous, at most")
    min_detection: float = Field(0.05, ge=0, le=1, description="share of incidents to find in the back-test, at least")
    min_windows_per_second: float = Field(5000, ge=0, description="windows scored in a CPU second, at least; 10,000 devices close about 1,000 windows a second")
    shadow: bool = Field(False, description="after a training, the best challenger that is fit and did not win scores beside the champion, without alerts")
    approval: bool = Field(False, description="a person approves in Airflow before a challenger is promoted")


class Pinot(_Frozen):
    """How Pinot reads the topics and how long it keeps rows; Delta keeps them longer."""

    consumer_factory: str = Field(
        "org.apache.pinot.plugin.stream.kafka20.KafkaConsumerFactory", description="class of Pinot's Kafka plugin",
    )
    raw_retention: timedelta = Field(timedelta(days=7), description="event time kept of raw events, in whole days")
    retention: timedelta = Field(timedelta(days=30), description="event time kept of windows, scores and dead letters")
    flush_rows: int = Field(1_000_000, ge=1000, description="rows in a segment being filled, over all partitions of a topic")
    flush_after: timedelta = Field(timedelta(hours=6), description="a segment is closed at the latest after this long")


class Metadata(_Frozen):
    """The database of Airflow, MLflow and Superset."""

    url: str = Field("", description="postgresql://user:password@host:port, without a database; empty: the local PostgreSQL")
    postgres_bin: str = Field("", description="folder of PostgreSQL's server programs; empty: found by itself")


class Settings(BaseSettings):
    """The whole tree. Build it with `load()`; it never changes afterwards."""

    model_config = SettingsConfigDict(
        env_prefix="TIDEWATCH_", env_nested_delimiter="__", frozen=True, extra="forbid",
    )

    state_dir: Path = Field(ROOT / ".state", description="everything installed, generated or stored")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    ingress: Literal["kafka"] = "kafka"
    olap: Literal["pinot"] = "pinot"
    serving: Literal["delta"] = "delta"
    ports: Ports = Ports()
    external: External = External()
    topics: Topics = Topics()
    limits: Limits = Limits()
    network: Network = Network()
    stream: Stream = Stream()
    alerts: Alerts = Alerts()
    outage: Outage = Outage()
    maintenance: tuple[Maintenance, ...] = ()
    batch: Batch = Batch()
    promotion: Promotion = Promotion()
    pinot: Pinot = Pinot()
    metadata: Metadata = Metadata()

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return (value if value.is_absolute() else ROOT / value).resolve()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = Path(os.environ.get("TIDEWATCH_CONFIG", ROOT / "tidewatch.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=toml)

    # -- addresses: an external one if set, else the local server's
    @property
    def kafka(self) -> str:
        return self.external.kafka or f"127.0.0.1:{self.ports.kafka}"

    @property
    def pinot_controller(self) -> str:
        return self.external.pinot_controller or f"http://127.0.0.1:{self.ports.pinot_controller}"

    @property
    def pinot_broker(self) -> str:
        return self.external.pinot_broker or f"http://127.0.0.1:{self.ports.pinot_broker}"

    @property
    def flink_rest(self) -> str:
        return self.external.flink_rest or f"http://127.0.0.1:{self.ports.flink_rest}"

    @property
    def mlflow(self) -> str:
        return self.external.mlflow or f"http://127.0.0.1:{self.ports.mlflow}"

    @property
    def airflow(self) -> str:
        return self.external.airflow or f"http://127.0.0.1:{self.ports.airflow}"

    @property
    def superset(self) -> str:
        return self.external.superset or f"http://127.0.0.1:{self.ports.superset}"

    @property
    def reports(self) -> str:
        return f"http://127.0.0.1:{self.ports.reports}"

    # -- places in the state folder
    @property
    def lake(self) -> Path:
        """Root of the Delta tables: `lake/bronze/flow`, `lake/gold/alerts`, …"""
        return self.state_dir / "lake"

    @property
    def landing(self) -> Path:
        """Where the stream writes finished Parquet files before they are committed to Delta."""
        return self.state_dir / "landing"

    @property
    def logs(self) -> Path:
        return self.state_dir / "log"

    def env_python(self, group: str) -> Path:
        """The Python of one component's environment (`tools`, `flink`, `spark`, `airflow`, `superset`)."""
        return self.state_dir / "env" / group / "bin" / "python"

    def secret(self, name: str) -> str:
        """A generated secret, made at first use and kept in the state folder with mode 600."""
        folder = self.state_dir / "secrets"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / name
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text().strip()
        while (value := _secrets.token_urlsafe(24)).startswith("-"):  # a program would read it as an option
            pass
        with os.fdopen(fd, "w") as f:
            f.write(value)
        return value


def load(**overrides: object) -> Settings:
    """Read the settings; raises SettingsError naming the setting that is wrong."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise SettingsError(
            f"setting `{where}`: {first['msg']} (got {first.get('input')!r}).",
            "correct it in tidewatch.toml or in the variable TIDEWATCH_" + where.upper().replace(".", "__"),
        ) from e


@functools.cache
def current() -> Settings:
    """The settings of this process, read once (for entry points only; functions take them as an argument)."""
    return load()
