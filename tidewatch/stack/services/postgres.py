"""PostgreSQL: the metadata of Airflow, MLflow and Superset; a generated password, loopback only."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.stack import Service, metadata, postgres


def services(settings: Settings) -> tuple[Service, ...]:
    try:
        command: tuple[str, ...] = (*postgres.prefix(settings), str(postgres.bin_dir(settings) / "postgres"))
    except ServiceError:
        command = ("postgres",)  # `prepare` says what is missing
    return (
        Service(
            name="postgres",
            doc="metadata of Airflow, MLflow and Superset",
            command=(*command, "-D", str(_data(settings)), "-p", str(settings.ports.postgres), *(w for k, v in _options().items() for w in ("-c", f"{k}={v}"))),
            memory_mb=300,
            ready=_ready,
            ready_timeout=90,
            ports=("postgres",),
            prepare=_create,
            after=_databases,
            stop_signal="INT",  # fast shutdown: clients are disconnected
            stop_seconds=30,
        ),
    )


def _data(settings: Settings) -> Path:
    return settings.state_dir / "data" / "postgres"


def _options() -> dict[str, object]:
    return {
        "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 150, "shared_buffers": "64MB",
        "password_encryption": "scram-sha-256", "log_min_messages": "warning", "logging_collector": "off",
    }


def _ready(settings: Settings) -> bool:
    program = postgres.bin_dir(settings) / "pg_isready"
    words = [str(program), "-q", "-h", "127.0.0.1", "-p", str(settings.ports.postgres), "-t", "3"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _create(settings: Settings) -> None:
    """Make the data folder, once, with its password from the secrets."""
    data, programs, words = _data(settings), postgres.bin_dir(settings), postgres.prefix(settings)
    if (data / "PG_VERSION").exists():
        have, want = (data / "PG_VERSION").read_text().strip(), programs.parent.name
        if want.isdigit() and have != want:
            raise ServiceError(f"{data} was made by PostgreSQL {have}, the programs here are version {want}.",
                               "set metadata.postgres_bin to the folder of the older programs, or move the data folder away")
        postgres.hand_over(settings, data)
        return
    new = data.with_name("postgres.new")
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(parents=True, mode=0o700)
    postgres.hand_over(settings, new)
    with tempfile.NamedTemporaryFile("w", prefix="tidewatch-") as f:  # mode 600, gone afterwards
        f.write(settings.secret("postgres_password"))
        f.flush()
        if words and words[0].endswith("runuser"):
            os.chown(f.name, new.stat().st_uid, -1)
        done = subprocess.run(
            [*words, str(programs / "initdb"), "-D", str(new), "-U", metadata.USER, f"--pwfile={f.name}", "--auth=scram-sha-256",
             "--encoding=UTF8", "--locale=C", "--data-checksums"],
            capture_output=True, text=True, check=False, cwd="/",
        )
    if done.returncode:
        raise ServiceError(f"PostgreSQL's data folder could not be made: {(done.stderr or done.stdout).strip()[-600:]}",
                           "`tidewatch doctor` checks what it needs")
    new.rename(data)



def _databases(settings: Settings) -> None:
    there = _sql(settings, "SELECT datname FROM pg_database").split()
    for name in metadata.DATABASES:
        if name not in there:
            _sql(settings, f'CREATE DATABASE "{name}"')


def _sql(settings: Settings, statement: str) -> str:
    done = subprocess.run(
        [str(postgres.bin_dir(settings) / "psql"), "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
         "-p", str(settings.ports.postgres), "-U", metadata.USER, "-d", "postgres", "-c", statement],
        env={**os.environ, "PGPASSWORD": settings.secret("postgres_password"), "PGCONNECT_TIMEOUT": "10"},
        capture_output=True, text=True, check=False,
    )
    if done.returncode:
        raise ServiceError(f"PostgreSQL refused `{statement}`: {done.stderr.strip()}",
                           "if the secret postgres_password was replaced, put the old one back")
    return done.stdout
