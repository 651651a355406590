"""Installation: one Python environment and one folder of jars a component, skipped when its pins have not changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings
from tidewatch.stack import jvm, pinot_decoder

ENVIRONMENTS = ("tools", "flink", "spark", "airflow", "superset")
JARS = ("kafka", "pinot", "flink", "spark", "compiler", "metrics")
POMS = ROOT / "tidewatch" / "stack" / "jars"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies"
STAMP = ".installed"
Say = Callable[[str], None]


def install(settings: Settings, say: Say = print) -> None:
    """Bring every environment and jar folder to its pins; raises ServiceError naming the part that failed."""
    for group in ENVIRONMENTS:
        _part(say, f"environment {group}", lambda group=group: _environment(settings, group))  # type: ignore[misc]
    for group in JARS:
        _part(say, f"jars {group}", lambda group=group: _jars(settings, group))  # type: ignore[misc]
    _part(say, "Flink's library folder", lambda: flink_library(settings))
    if (ROOT / "streaming" / "build.py").exists():
        _part(say, "the stream's own jar", lambda: _stream_jar(settings))
    _part(say, "Pinot's decoders", lambda: pinot_decoder.build(settings))


def missing(settings: Settings) -> list[str]:
    """What is not installed, or installed from other pins."""
    absent = [f"environment {g}" for g in ENVIRONMENTS if not _current(settings.state_dir / "env" / g, _requirements(g))]
    return absent + [f"jars {g}" for g in JARS if not _current(settings.state_dir / "jars" / g, POMS / g / "pom.xml")]


def flink_library(settings: Settings) -> bool:
    """Gather PyFlink's own jars, the connectors in `jars/flink_lib`, as links; True if that changed it."""
    packages = settings.env_python("flink").parent.parent / "lib"
    wheel = next(packages.glob("python3*/site-packages/pyflink"), packages)
    jars = [*(wheel / "lib").glob("*.jar"), *(wheel / "opt").glob("flink-python-*.jar"), *(settings.state_dir / "jars" / "flink").glob("*.jar")]
    folder = settings.state_dir / "jars" / "flink_lib"
    folder.mkdir(parents=True, exist_ok=True)
    # resolved: another state folder may share these jars by a link, and go away
    wanted = {j.name: j.resolve() for j in jars}
    changed = False
    for link in folder.iterdir():
        target = wanted.get(link.name)
        if target is not None and link.is_symlink() and link.readlink() == target and target.exists():
            del wanted[link.name]
        else:
            link.unlink()
            changed = True
    for name, target in wanted.items():
        (folder / name).symlink_to(target)
    return changed or bool(wanted)


def _part(say: Say, name: str, work: Callable[[], bool]) -> None:
    begin = time.monotonic()
    say(f"  {name} …")
    did = work()
    say(f"  {name}: {'installed in' if did else 'current,'} {time.monotonic() - begin:.0f} s")


def _requirements(group: str) -> Path:
    return ROOT / "requirements" / f"{group}.txt"


def _digest(pins: Path) -> str:
    return hashlib.sha256(pins.read_bytes()).hexdigest()


def _current(folder: Path, pins: Path) -> bool:
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text().strip() == _digest(pins)


def _uv(settings: Settings) -> Path:
    """uv itself, pinned with hashes like everything else (bin/tidewatch makes it first; this repairs it)."""
    home = settings.state_dir / "env" / "uv"
    uv = home / "bin" / "uv"
    if not _current(home, _requirements("uv")) or not uv.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(home)], "environment uv", "install the package python3.11-venv")
        _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(_requirements("uv"))],
             "environment uv", "check that the Python package registry can be reached")
        (home / STAMP).write_text(_digest(_requirements("uv")))
    return uv


def _environment(settings: Settings, group: str) -> bool:
    home, pins = settings.state_dir / "env" / group, _requirements(group)
    if _current(home, pins) and settings.env_python(group).exists():
        return False
    uv = _uv(settings)
    if not settings.env_python(group).exists():
        base = getattr(sys, "_base_executable", sys.executable)
        _run([str(uv), "venv", "--quiet", "--clear", "--python", base, str(home)], f"environment {group}",
             "remove that folder and try again")
    _run([str(uv), "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes", "--python", str(settings.env_python(group)), str(pins)],
         f"environment {group}", "check that the Python package registry can be reached and the disk is not full, then run it again")
    (home / STAMP).write_text(_digest(pins))
    return True


def _jars(settings: Settings, group: str) -> bool:
    folder, pom = settings.state_dir / "jars" / group, POMS / group / "pom.xml"
    if _current(folder, pom):
        return False
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceError("Maven is not installed (no `mvn` on the PATH).", "install it, e.g. `apt-get install maven`")
    new = folder.with_name(f"{group}.new")
    shutil.rmtree(new, ignore_errors=True)
    _run([maven, "-q", "-B", "-f", str(pom), COPY, "-DincludeScope=runtime", f"-DoutputDirectory={new}"], f"jars {group}",
         "check that the Maven registry can be reached; after a failed look-up run it once with MAVEN_ARGS=-U",
         {"JAVA_HOME": str(jvm.home())})
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jar"):
        old.unlink()
    for jar in new.glob("*.jar"):
        jar.rename(folder / jar.name)
    shutil.rmtree(new)
    (folder / STAMP).write_text(_digest(pom))
    return True


def _stream_jar(settings: Settings) -> bool:
    """`streaming.build` knows by itself whether anything changed."""
    jars = settings.state_dir / "jars" / "stream"
    before = {p: p.stat().st_mtime_ns for p in jars.glob("*.jar")}
    _run([str(settings.env_python("tools")), "-m", "streaming.build"], "the stream's own jar", "see the lines above",
         {"PYTHONPATH": str(ROOT), "TIDEWATCH_STATE_DIR": str(settings.state_dir), "JAVA_HOME": str(jvm.home()),
          "PATH": f"{jvm.home() / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"})
    return before != {p: p.stat().st_mtime_ns for p in jars.glob("*.jar")}


def _run(command: list[str], what: str, fix: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise ServiceError(f"{what} could not be installed; {Path(command[0]).name} said:\n{tail}\n", fix)
