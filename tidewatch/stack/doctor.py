"""The doctor: what this machine lacks, why it matters, and how to mend it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tidewatch.errors import TidewatchError
from tidewatch.settings import Settings
from tidewatch.stack import control, install, jvm, postgres, supervisor, table

GB = 2**30
DISK_INSTALL_GB, DISK_RUN_GB = 8, 3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    seen: str
    fix: str = ""
    serious: bool = True
    """False: it runs all the same, less well."""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Look at everything that the stack needs from the machine."""
    looks: list[Callable[[Settings], Finding]] = [_python, _java, _maven, _postgres, _cores, _memory, _disk, _state, _installed]
    found = []
    for look in looks:
        try:
            found.append(look(settings))
        except TidewatchError as e:
            found.append(Finding(look.__name__.strip("_"), False, e.reason, e.fix))
    return [*found, *_ports(settings)]


def _python(settings: Settings) -> Finding:
    ok = sys.version_info[:2] == (3, 11)
    return Finding("python", ok, sys.version.split()[0], "" if ok else "install Python 3.11, e.g. `apt-get install python3.11 python3.11-venv`")


def _java(settings: Settings) -> Finding:
    return Finding("java", True, str(jvm.home()))


def _maven(settings: Settings) -> Finding:
    maven = shutil.which("mvn")
    if maven:
        done = subprocess.run([maven, "-B", "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return Finding("maven", True, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).strip().splitlines()[0])
        return Finding("maven", False, (done.stderr or done.stdout).strip()[:200], "mend it, e.g. `apt-get install --reinstall maven`")
    have = not any(m.startswith("jars") for m in install.missing(settings))
    return Finding("maven", False, "no `mvn` on the PATH", "install it, e.g. `apt-get install maven`", serious=not have)


def _postgres(settings: Settings) -> Finding:
    if settings.metadata.url:
        return Finding("postgres", True, "an external server (metadata.url)")
    folder, words = postgres.bin_dir(settings), postgres.prefix(settings)
    how = "" if not words else f", as another user by {Path(words[0]).name} because you are root"
    return Finding("postgres", True, f"{folder}{how}")


def _cores(settings: Settings) -> Finding:
    n = len(os.sched_getaffinity(0))
    return Finding("cores", n >= 2, f"{n}", "" if n >= 2 else "2 cores at least; on one everything takes twice as long", serious=False)


def _memory(settings: Settings) -> Finding:
    states = supervisor.states(settings)
    need = sum(s.memory_mb for s in table(settings).values() if states.get(s.name, {}).get("statename") != "RUNNING") / 1024
    need += 1.5  # a Spark job beside the servers
    have = psutil.virtual_memory().available / GB
    return Finding("memory", have >= need, f"{have:.1f} GB available, what does not run yet needs {need:.1f} GB at most",
                   "" if have >= need else "end other programs; or start fewer services: `tidewatch up kafka pinot …`", serious=have < need * 0.6)


def _disk(settings: Settings) -> Finding:
    folder = next(p for p in (settings.state_dir, *settings.state_dir.parents) if p.exists())
    need = DISK_INSTALL_GB if install.missing(settings) else DISK_RUN_GB
    have = shutil.disk_usage(folder).free / GB
    return Finding("disk", have >= need, f"{have:.0f} GB free in {folder}, {need} GB needed", "" if have >= need else "free some, or set state_dir to a larger disk")


def _state(settings: Settings) -> Finding:
    control.writable(settings)
    return Finding("state folder", True, f"{settings.state_dir} can be written")


def _installed(settings: Settings) -> Finding:
    absent = install.missing(settings)
    return Finding("installation", not absent, f"missing or from older pins: {', '.join(absent)}" if absent else "complete", "run `make install`" if absent else "")


def _ports(settings: Settings) -> list[Finding]:
    states = supervisor.states(settings)
    rows = table(settings).values()
    stopped = [s for s in rows if states.get(s.name, {}).get("statename") not in supervisor.UP]
    busy = [sentence for s in stopped for sentence in control.taken(settings, s)]
    twice = [p for p in set(vars(settings.ports).values()) if list(vars(settings.ports).values()).count(p) > 1]
    found = [Finding("ports", False, sentence, "end that program, or set another port in tidewatch.toml or TIDEWATCH_PORTS__…") for sentence in busy]
    found += [Finding("ports", False, f"two settings name port {p}.", "give each its own") for p in twice]
    return found or [Finding("ports", True, f"{sum(len(s.ports) for s in stopped)} free" if stopped else "all in use by this stack")]
