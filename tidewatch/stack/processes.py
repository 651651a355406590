"""Processes of this stack: found by a mark in their environment or by what was remembered of them, never by name.

Every process that the supervisor starts inherits `TIDEWATCH_STACK=<state folder>`. Some programs overwrite the memory
where the kernel shows their environment (PostgreSQL, gunicorn), so each start also remembers pid and start time.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tidewatch.settings import Settings

MARK = "TIDEWATCH_STACK"
_noting = threading.Lock()


def _ledger(settings: Settings) -> Path:
    return settings.state_dir / "run" / "processes.json"


def remember(settings: Settings, root: int) -> None:
    """Note a process and its descendants, with their start times, in the ledger."""
    with _noting, contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(root)
        known = {p.pid: p.create_time() for p in _remembered(settings)}
        for p in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                known[p.pid] = p.create_time()
        path = _ledger(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(known))
        new.replace(path)


def _remembered(settings: Settings) -> list[psutil.Process]:
    try:
        noted = json.loads(_ledger(settings).read_text())
    except (FileNotFoundError, ValueError):
        return []
    found = []
    for pid, started in noted.items():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            p = psutil.Process(int(pid))
            if abs(p.create_time() - started) < 0.1:
                found.append(p)
    return found


def _marked(settings: Settings) -> list[psutil.Process]:
    wanted = str(settings.state_dir)
    found = []
    for p in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if p.environ().get(MARK) == wanted:
                found.append(p)
    return found


def ours(settings: Settings) -> list[psutil.Process]:
    """Every living process of this stack: marked, remembered, or descended from one; never the caller or its ancestors."""
    me = psutil.Process()
    spared = {me.pid, *(p.pid for p in me.parents())}
    found: dict[int, psutil.Process] = {}
    for p in (*_remembered(settings), *_marked(settings)):
        found[p.pid] = p
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update({c.pid: c for c in p.children(recursive=True)})
    mine = {me.pid, *(c.pid for c in me.children(recursive=True))} if me.environ().get(MARK) is None else set()
    return [p for pid, p in found.items() if pid not in spared | mine and _alive(p)]


def _alive(p: psutil.Process) -> bool:
    try:
        return bool(p.is_running() and p.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end(processes: Iterable[psutil.Process], patience: float = 15.0) -> int:
    """Ask them to end, then make them; returns how many there were. psutil checks the start time before each signal."""
    them = list(processes)
    for p in them:
        with contextlib.suppress(psutil.NoSuchProcess):
            p.terminate()
    _, stubborn = psutil.wait_procs(them, timeout=patience)
    for p in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            p.kill()
    psutil.wait_procs(stubborn, timeout=5)
    return len(them)


def sweep(settings: Settings) -> int:
    """End whatever of this stack is left; returns how many processes that were."""
    ended, until = 0, time.monotonic() + 60
    while (left := ours(settings)) and time.monotonic() < until:
        ended += end(left)
    _ledger(settings).unlink(missing_ok=True)
    return ended


def memory(pid: int) -> int:
    """Resident bytes of a process and its descendants; pages that they share are counted once where the kernel says so."""
    total = 0
    with _noting, contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for p in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                try:
                    total += p.memory_full_info().pss
                except (psutil.AccessDenied, AttributeError):
                    total += p.memory_info().rss
    return total


def holder(port: int) -> str:
    """Who listens on a port, as far as the kernel tells this user: 'pid 123 (java -Xmx1g …)' or ''."""
    with contextlib.suppress(psutil.AccessDenied):
        for c in psutil.net_connections(kind="tcp"):
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    words = " ".join(psutil.Process(c.pid).cmdline())
                    return f"pid {c.pid} ({words[:80]}{'…' if len(words) > 80 else ''})"
                return f"pid {c.pid}"
    return ""


def lowered(environ: dict[str, str] | None = None) -> dict[str, str]:
    """The caller's variables without those that would bend a server of ours towards another installation."""
    alien = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
    prefixes = ("FLINK_", "SPARK_", "PYSPARK_", "AIRFLOW", "SUPERSET_", "MLFLOW_", "KAFKA_", "PG", "HADOOP_", "SUPERVISOR_")
    given = dict(os.environ) if environ is None else environ
    return {k: v for k, v in given.items() if k not in alien and not k.startswith(prefixes)}
