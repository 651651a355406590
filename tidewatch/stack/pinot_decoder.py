"""Compiles Pinot's decoder of event contracts into a jar among Pinot's: `python -m tidewatch.stack.pinot_decoder`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from tidewatch import settings as settings_
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings

SOURCES = Path(__file__).parent / "java"
CLASS = "tidewatch.pinot.ContractDecoder"


def jar_path(settings: Settings) -> Path:
    """Where the jar lies: in the folder that is Pinot's class path."""
    return settings.state_dir / "jars" / "pinot" / "tidewatch-pinot.jar"


def build(settings: Settings) -> bool:
    """Make the jar if it is not current; True if it was made. Raises ServiceError without a JDK or Pinot's jars."""
    jar = jar_path(settings)
    sources = sorted(SOURCES.rglob("*.java"))
    against = sorted(p for p in jar.parent.glob("*.jar") if p.name.startswith(("pinot-spi-", "avro-", "jackson-core-")))
    if not against:
        raise ServiceError("Pinot's jars are not there.", "run `tidewatch install`")
    digest = hashlib.sha256("\n".join(p.name for p in against).encode())
    for p in sources:
        digest.update(p.read_bytes())
    stamp = jar.with_suffix(".stamp")
    if jar.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return False
    javac = shutil.which("javac")
    if javac is None:
        raise ServiceError("there is no Java compiler (javac) on the PATH.", "install a JDK 17, on Debian: apt-get install openjdk-17-jdk-headless")
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            [javac, "--release", "17", "-proc:none", "-cp", ":".join(map(str, against)), "-d", folder, *map(str, sources)],
            capture_output=True, text=True, check=False,
        )
        if made.returncode:
            raise ServiceError(f"Pinot's decoder does not compile:\n{made.stderr.strip()}", "a JDK 17 or newer is needed")
        part = jar.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as z:
            for p in sorted(Path(folder).rglob("*.class")):
                z.write(p, p.relative_to(folder))
        part.replace(jar)
    stamp.write_text(digest.hexdigest())
    return True


if __name__ == "__main__":
    print("compiled" if build(settings_.current()) else "current")
