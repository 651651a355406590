"""The stack: one row a server; the local supervisor's configuration and the compose file both come from it.

Each module in `tidewatch/stack/services/` offers `services(settings) -> tuple[Service, ...]`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidewatch.errors import ContractError
from tidewatch.settings import Settings


@dataclass(frozen=True)
class Service:
    """One server as a plain process on 127.0.0.1."""

    name: str
    doc: str
    command: tuple[str, ...]
    """Program and arguments; the supervisor runs it in the foreground and restarts it when it dies."""
    memory_mb: int
    """What it needs at most, for `doctor` and the compose file."""
    ready: Callable[[Settings], bool]
    """True when it can serve; it may raise OSError (the same as False). Must return within a few seconds."""
    ready_timeout: float = 180.0
    needs: tuple[str, ...] = ()
    """Services that must be ready before this one starts."""
    ports: tuple[str, ...] = ()
    """Names in `settings.ports` that it listens on."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the supervisor's own."""
    files: Mapping[Path, str] = field(default_factory=dict)
    """Configuration files written before each start (mode 600)."""
    prepare: Callable[[Settings], None] | None = None
    """Run before the start, each time; does once what needs doing once (format, create, migrate)."""
    after: Callable[[Settings], None] | None = None
    """Run once the service is ready, each time; idempotent (make topics, tables, accounts)."""
    stop_signal: str = "TERM"
    stop_seconds: int = 30
    nice: int = 0
    """How far it and what it starts stand back where the cores are full (nice(1))."""
    url: Callable[[Settings], str] | None = None
    """What a person opens in a browser, if there is something to see."""


def elsewhere(settings: Settings) -> frozenset[str]:
    """Services that need not run here, because the settings give an external address."""
    e = settings.external
    given = {
        ("kafka",): e.kafka, ("pinot",): e.pinot_controller and e.pinot_broker, ("mlflow",): e.mlflow, ("superset",): e.superset,
        ("flink_jobmanager", "flink_taskmanager"): e.flink_rest, ("postgres",): settings.metadata.url,
    }
    return frozenset(name for names, address in given.items() if address for name in names)


def table(settings: Settings) -> dict[str, Service]:
    """Every service that runs here, in an order in which a service comes after what it needs."""
    package = importlib.import_module("tidewatch.stack.services")
    found: dict[str, Service] = {}
    for m in pkgutil.iter_modules(package.__path__):
        for s in importlib.import_module(f"{package.__name__}.{m.name}").services(settings):
            found[s.name] = s
    absent = elsewhere(settings)
    found = {n: replace(s, needs=tuple(x for x in s.needs if x not in absent)) for n, s in found.items() if n not in absent}
    ordered: dict[str, Service] = {}
    while len(ordered) < len(found):
        ready = [s for s in found.values() if s.name not in ordered and all(n in ordered for n in s.needs)]
        if not ready:
            raise ContractError(f"services need each other in a circle or need one that is not there: {sorted(set(found) - set(ordered))}.")
        ordered.update({s.name: s for s in ready})
    return ordered
