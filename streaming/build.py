"""Compiles the stream's Java (format and incident merging) into one jar: `python -m streaming.build`.

Needs a Java runtime, the Flink jars and the compiler's (`tidewatch install` brings them); does nothing when neither the sources nor Flink changed.
"""

from __future__ import annotations

from pathlib import Path

from tidewatch import events
from tidewatch import settings as settings_
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.stack.java_compiler import compile_jar

SOURCES = (Path(__file__).parent / "java" / "src", events.JAVA)


def jar_path(settings: Settings) -> Path:
    """Where the jar lies. It travels with the job (`pipeline.jars`), not on the cluster's class path."""
    return settings.state_dir / "jars" / "stream" / "tidewatch-stream.jar"


def wheel(settings: Settings) -> Path:
    """The folder of the PyFlink package in its environment; raises ServiceError if it is not installed."""
    found = next(settings.env_python("flink").parent.parent.glob("lib/python*/site-packages/pyflink"), None)
    if found is None:
        raise ServiceError("PyFlink is not installed.", "run `tidewatch install`")
    return found


def build(settings: Settings) -> bool:
    """Make the jar, compiled against the jars of the PyFlink wheel, if it is not current; True if it was made. Raises ServiceError."""
    return compile_jar(settings, "the stream's Java", SOURCES, sorted((wheel(settings) / "lib").glob("*.jar")), jar_path(settings))


if __name__ == "__main__":
    print("compiled" if build(settings_.current()) else "current", jar_path(settings_.current()).name)
