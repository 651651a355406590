"""Compiles Pinot's decoders, of event contracts and of the stream's JSON, into a jar among Pinot's: `python -m tidewatch.stack.pinot_decoder`."""

from __future__ import annotations

from pathlib import Path

from tidewatch import events
from tidewatch import settings as settings_
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.stack.java_compiler import compile_jar

SOURCES = (Path(__file__).parent / "java", events.JAVA)
CONTRACT_CLASS = "tidewatch.pinot.ContractDecoder"
JSON_CLASS = "tidewatch.pinot.JsonDecoder"


def jar_path(settings: Settings) -> Path:
    """Where the jar lies: in the folder that is Pinot's class path."""
    return settings.state_dir / "jars" / "pinot" / "tidewatch-pinot.jar"


def build(settings: Settings) -> bool:
    """Make the jar if it is not current; True if it was made. Raises ServiceError without Pinot's jars or the compiler."""
    jar = jar_path(settings)
    against = sorted(p for p in jar.parent.glob("*.jar") if p.name.startswith(("pinot-spi-", "avro-", "jackson-core-", "slf4j-api-")))
    if not against:
        raise ServiceError("Pinot's jars are not there.", "run `tidewatch install`")
    return compile_jar(settings, "Pinot's decoders", SOURCES, against, jar)


if __name__ == "__main__":
    print("compiled" if build(settings_.current()) else "current")
