"""MLflow: runs, metrics, the model registry, and the models' files by proxy."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service, metadata


def environment(settings: Settings) -> dict[str, str]:
    """Variables of the server. The database's address holds a password: it is here and not on the command line."""
    return {
        "MLFLOW_BACKEND_STORE_URI": metadata.url(settings, "mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job workers would need 1.4 GB more
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PATH": f"{settings.env_python('spark').parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
    }


def _artifacts(settings: Settings) -> Path:
    return settings.state_dir / "data" / "mlflow"


def prepare(settings: Settings) -> None:
    """Upgrade the database if another version of MLflow made it; an empty one is filled by the server itself. Raises ServiceError."""
    folder = _artifacts(settings)
    folder.mkdir(parents=True, exist_ok=True)
    installed = sorted(settings.env_python("spark").parent.parent.glob("lib/*/site-packages/mlflow-*.dist-info"))
    if not installed:
        raise ServiceError("MLflow is not installed in the spark environment.", "run `tidewatch install`")
    stamp = settings.state_dir / "data" / "mlflow.version"
    if stamp.exists() and stamp.read_text() != installed[-1].name:
        done = subprocess.run(
            [str(settings.env_python("spark")), "-c",
             "import os; from mlflow.store.db import utils; utils._upgrade_db(utils.create_sqlalchemy_engine_with_retry(os.environ['MLFLOW_BACKEND_STORE_URI']))"],
            env={**os.environ, **environment(settings)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )
        if done.returncode:
            raise ServiceError(f"MLflow cannot bring its database up to date: {done.stdout[-800:].strip()}", "see that PostgreSQL runs (`tidewatch status`)")
    stamp.write_text(installed[-1].name)


def ready(settings: Settings) -> bool:
    with urllib.request.urlopen(f"{settings.mlflow}/health", timeout=5) as answer:
        return bool(answer.status == 200)


def services(settings: Settings) -> tuple[Service, ...]:
    """The one row."""
    return (
        Service(
            name="mlflow",
            doc="runs, metrics, model registry",
            command=(
                str(settings.env_python("spark")), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(settings.ports.mlflow),
                "--workers", "1", "--serve-artifacts", "--artifacts-destination", str(_artifacts(settings)),
            ),
            memory_mb=600,
            ready=ready,
            ready_timeout=240,
            needs=() if settings.metadata.url else ("postgres",),
            ports=("mlflow",),
            env=environment(settings),
            prepare=prepare,
            nice=5,
            url=lambda s: s.mlflow,
        ),
    )
