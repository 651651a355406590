"""What the jobs' tests share: a state folder with an MLflow server of its own, and how to run a job in this process."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewatch import settings


def port() -> int:
    """A port that was free just now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(ready: Callable[[], bool], seconds: float) -> None:
    """Wait until it is true; an OSError is not yet."""
    stop = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except OSError:
            pass
        assert time.monotonic() < stop, "the server does not come up"
        time.sleep(1)


def start_mlflow(s: settings.Settings, python: str = sys.executable) -> subprocess.Popen[bytes]:
    """MLflow on the settings' port, with its files in the state folder; returns when it answers."""
    home = s.state_dir
    server = subprocess.Popen(
        [python, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination",
         str(home / "mlflow"), "--host", "127.0.0.1", "--port", str(s.ports.mlflow), "--workers", "1"],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    until(lambda: urllib.request.urlopen(f"{s.mlflow}/health", timeout=5).status == 200, 300)
    return server


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server and what it started."""
    os.killpg(server.pid, 15)
    server.wait(60)


@contextlib.contextmanager
def state(home: Path, **variables: str) -> Iterator[settings.Settings]:
    """The settings of an empty state folder, for this process and those it starts; ports are free ones."""
    (home / "jars").symlink_to(settings.load().state_dir / "jars")
    before = dict(os.environ)
    os.environ |= {"TIDEWATCH_STATE_DIR": str(home), "TIDEWATCH_PORTS__MLFLOW": str(port()), "MLFLOW_DISABLE_TELEMETRY": "true", **variables}
    settings.current.cache_clear()
    try:
        yield settings.current()
    finally:
        os.environ.clear()
        os.environ.update(before)
        settings.current.cache_clear()


def run(capsys: pytest.CaptureFixture[str], job: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a job in this process; its summary. What it said on standard error is under `stderr`."""
    capsys.readouterr()
    got = importlib.import_module(f"jobs.{job}").main(list(arguments))
    out, err = capsys.readouterr()
    assert got == code, err[-3000:]
    lines = out.strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return {**found, "stderr": err}
