"""Airflow: API server, scheduler, DAG processor and triggerer, each a plain process; they share one configuration file."""

from __future__ import annotations

import base64
import configparser
import fcntl
import hashlib
import io
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tidewatch import orchestrator
from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service, metadata

ACCOUNTS = {"admin": "admin", "operator": "op", "analyst": "user", "viewer": "viewer"}
"""Accounts and their roles in Airflow's simple auth manager; the passwords are the secrets `airflow_<account>_password`."""
POOLS = {"spark": (1, "Spark sessions on this machine")}


def _home(settings: Settings) -> Path:
    return settings.state_dir / "data" / "airflow"


def _conf(settings: Settings) -> Path:
    return settings.state_dir / "conf" / "airflow"


def _fernet(secret: str) -> str:
    """A key in the form that Airflow's Fernet wants: 32 bytes, base64."""
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode()


def configuration(settings: Settings) -> str:
    """airflow.cfg: what differs from Airflow's defaults. Holds secrets: mode 600, never in an environment that tasks see."""
    address = f"http://127.0.0.1:{settings.ports.airflow}"
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": ROOT / "dags",
            "executor": "LocalExecutor",
            "parallelism": 2,
            "load_examples": False,
            "dags_are_paused_at_creation": False,
            "dagbag_import_timeout": 90,
            "fernet_key": _fernet(settings.secret("airflow_fernet")),
            "execution_api_server_url": f"{address}/execution/",
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": ",".join(f"{name}:{role}" for name, role in ACCOUNTS.items()),
            "simple_auth_manager_passwords_file": _conf(settings) / "passwords.json",
        },
        "database": {"sql_alchemy_conn": metadata.url(settings, "airflow"), "load_default_connections": False},
        "api": {
            "host": "127.0.0.1", "port": settings.ports.airflow, "base_url": settings.airflow, "workers": 1,
            "secret_key": settings.secret("airflow_session"),
        },
        "api_auth": {"jwt_secret": settings.secret("airflow_jwt") * 2},
        "scheduler": {"enable_health_check": False, "task_queued_timeout": 1200, "parsing_processes": 1},
        "dag_processor": {
            "parsing_processes": 1, "min_file_process_interval": 300, "refresh_interval": 300, "dag_file_processor_timeout": 120,
        },
        # the first call of a task can stall while both cores are busy
        "workers": {"execution_api_timeout": 120, "execution_api_retries": 10},
        "triggerer": {"capacity": 100},
        "logging": {"base_log_folder": settings.logs / "airflow", "logging_level": settings.log_level},
        "usage_data_collection": {"enabled": False},
        # where to stands in the environment: Airflow's own settings for it are deprecated
        "metrics": {"otel_on": bool(settings.external.otlp)},
    }
    parser = configparser.RawConfigParser()
    for name, values in sections.items():
        parser[name] = {k: str(v).replace("%", "%%") for k, v in values.items()}
    out = io.StringIO("")
    parser.write(out)
    return out.getvalue()


def environment(settings: Settings) -> dict[str, str]:
    """Variables of each of the four processes (and of `airflow` by hand)."""
    return {
        "AIRFLOW_HOME": str(_home(settings)),
        "AIRFLOW_CONFIG": str(_conf(settings) / "airflow.cfg"),
        "PATH": f"{settings.env_python('airflow').parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
        "TIDEWATCH_STATE_DIR": str(settings.state_dir),
        **({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": settings.external.otlp, "OTEL_SERVICE_NAME": "airflow"} if settings.external.otlp else {}),
    }


def _files(settings: Settings) -> dict[Path, str]:
    passwords = {name: settings.secret(f"airflow_{name}_password") for name in ACCOUNTS}
    return {_conf(settings) / "airflow.cfg": configuration(settings), _conf(settings) / "passwords.json": json.dumps(passwords)}


def prepare(settings: Settings) -> None:
    """Bring the metadata database to this Airflow's schema: once a version and database. Raises ServiceError."""
    home = _home(settings)
    home.mkdir(parents=True, exist_ok=True)
    (settings.logs / "airflow").mkdir(parents=True, exist_ok=True)
    installed = sorted(settings.env_python("airflow").parent.parent.glob("lib/*/site-packages/apache_airflow_core-*.dist-info"))
    if not installed:
        raise ServiceError("Airflow is not installed in its environment.", "run `tidewatch install`")
    identity = [installed[-1].name, metadata.url(settings, "airflow"), _made(settings.state_dir / "data" / "postgres" / "PG_VERSION")]
    mark = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    stamp = home / "migrated"
    with open(home / "migrate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the four processes are prepared side by side
        if stamp.exists() and stamp.read_text() == mark:
            return
        done = subprocess.run(
            [str(settings.env_python("airflow")), "-m", "airflow", "db", "migrate"], env={**os.environ, **environment(settings)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=home,
        )
        if done.returncode:
            raise ServiceError(f"Airflow cannot bring its database up to date: {done.stdout[-800:].strip()}", "see that PostgreSQL runs (`tidewatch status`)")
        stamp.write_text(mark)


def _made(path: Path) -> str:
    """When a file was made; '' if it is not there. A database folder made anew is a new database."""
    return str(path.stat().st_mtime_ns) if path.exists() else ""


def _healthy(component: str) -> Callable[[Settings], bool]:
    def ready(settings: Settings) -> bool:
        return bool(orchestrator.health(settings)[component]["status"] == "healthy")

    return ready


def make_pools(settings: Settings) -> None:
    """The pools that the DAGs name; leaves those that are there as someone may have set them."""
    client = orchestrator.Client(settings)
    known = {p["name"] for p in client.call("GET", "/pools?limit=100")["pools"]}
    for name, (slots, description) in POOLS.items():
        if name not in known:
            client.call("POST", "/pools", {"name": name, "slots": slots, "description": description, "include_deferred": False})


def await_dags(settings: Settings, seconds: float = 120) -> None:
    """Wait until every DAG file has been read. Raises ServiceError with the error of a file that cannot be."""
    wanted = {p.stem for p in (ROOT / "dags").glob("*.py") if p.stem not in ("__init__", "house")}
    client = orchestrator.Client(settings)
    begin = time.monotonic()
    while True:
        missing = wanted - {d["dag_id"] for d in orchestrator.dags(client)}
        if not missing:
            return
        errors = client.call("GET", "/importErrors?limit=10")["import_errors"]
        if errors:
            raise ServiceError(f"Airflow cannot read {errors[0]['filename']}: {errors[0]['stack_trace'].strip().splitlines()[-1]}",
                               "correct the DAG; `tidewatch logs airflow_dag_processor` has the whole trace")
        if time.monotonic() - begin > seconds:
            raise ServiceError(f"Airflow has not read the DAGs {', '.join(sorted(missing))} after {seconds:.0f} s.", "see `tidewatch logs airflow_dag_processor`")
        time.sleep(1)


def services(settings: Settings) -> tuple[Service, ...]:
    """The four rows."""
    local = () if settings.metadata.url else ("postgres",)

    def row(name: str, doc: str, arguments: tuple[str, ...], memory_mb: int, component: str, *, needs: tuple[str, ...] = (),
            after: Callable[[Settings], None] | None = None, ports: tuple[str, ...] = (), url: Callable[[Settings], str] | None = None) -> Service:
        return Service(
            name=name, doc=doc, command=(str(settings.env_python("airflow")), "-m", "airflow", *arguments), memory_mb=memory_mb,
            ready=_healthy(component), needs=(*local, *needs), ports=ports, env=environment(settings),
            files=_files(settings) if name == "airflow_api" else {},  # once: the others start side by side, after it
            prepare=prepare, after=after, stop_seconds=40, nice=10, url=url, ready_timeout=300,
        )

    return (
        row("airflow_api", "Airflow's screens, REST API, and the API that tasks talk to", ("api-server",), 450, "metadatabase",
            after=make_pools, ports=("airflow",), url=lambda s: s.airflow),
        # logs are read from the shared folder: no log server, no port
        row("airflow_scheduler", "starts the tasks of due DAG runs", ("scheduler", "--skip-serve-logs"), 500, "scheduler", needs=("airflow_api",)),
        row("airflow_dag_processor", "reads the DAG files", ("dag-processor",), 250, "dag_processor", needs=("airflow_api",), after=await_dags),
        row("airflow_triggerer", "waits for deferred tasks", ("triggerer", "--skip-serve-logs"), 200, "triggerer", needs=("airflow_api",)),
    )
