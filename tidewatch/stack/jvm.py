"""Java: where it is, how old it is, and how a server of ours is launched with it."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings

OLDEST, NEWEST = 17, 21
COLLECTOR = ("-XX:+UseParallelGC", "-XX:ParallelGCThreads=2", "-XX:+UseTransparentHugePages")
"""The collector that costs least: G1 spent a quarter of Pinot's CPU time and a sixth of Flink's (docs/measured.md). Where the kernel has no
huge pages to give, Java says so and goes on without."""
FIX = "install Java 17, e.g. `apt-get install openjdk-17-jre-headless`, or point JAVA_HOME at one"


def version(text: str) -> int | None:
    """The major version in the output of `java -version`: `17.0.15` is 17, `1.8.0_392` is 8; None if there is none.

    >>> version('openjdk version "17.0.15" 2025-04-15')
    17
    >>> version('java version "1.8.0_392"')
    8
    """
    found = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if not found:
        return None
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major


def _candidates() -> list[Path]:
    named = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    places = [Path(named)] if named else []
    if on_path:
        places.append(Path(on_path).resolve().parent.parent)
    places += sorted(Path("/usr/lib/jvm").glob("*17*"))
    return [p for p in places if (p / "bin" / "java").is_file()]


@functools.cache
def home() -> Path:
    """The first Java that fits: JAVA_HOME, the one on the PATH, Debian's; raises ServiceError if none does."""
    seen = []
    for place in _candidates():
        done = subprocess.run([str(place / "bin" / "java"), "-version"], capture_output=True, text=True, check=False)
        number = version(done.stderr + done.stdout)
        if number is not None and OLDEST <= number <= NEWEST:
            return place
        seen.append(f"{place} is version {number or 'unknown'}")
    if seen:
        raise ServiceError(f"no Java between {OLDEST} and {NEWEST} was found: {'; '.join(seen)}.", FIX)
    raise ServiceError("Java is not installed (neither JAVA_HOME nor the PATH leads to it).", FIX)


def java() -> str:
    """The program to launch; plain `java` where none is found, so that the service table can always be built."""
    try:
        return str(home() / "bin" / "java")
    except ServiceError:
        return "java"


def classpath(settings: Settings, group: str) -> str:
    return str(settings.state_dir / "jars" / group / "*")


def log_config(settings: Settings, service: str, quiet: tuple[str, ...] = ()) -> tuple[Path, str]:
    """A log4j 2 file that writes to standard output, which the supervisor keeps and rotates."""
    lines = [
        "appender.out.type = Console", "appender.out.name = out", "appender.out.layout.type = PatternLayout",
        "appender.out.layout.pattern = %d{ISO8601} %-5p %c{1.} - %m%n",
        f"rootLogger.level = {settings.log_level.replace('WARNING', 'WARN')}", "rootLogger.appenderRef.out.ref = out",
    ]
    for i, name in enumerate(quiet):
        lines += [f"logger.q{i}.name = {name}", f"logger.q{i}.level = WARN"]
    return settings.state_dir / "conf" / service / "log4j2.properties", "\n".join(lines) + "\n"
