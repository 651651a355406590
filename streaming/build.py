"""Compiles the stream's Java (format and incident merging) into one jar: `python -m streaming.build`.

Needs a JDK (javac) and the Flink jars; does nothing when neither the sources nor Flink changed.
"""

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

SOURCES = Path(__file__).parent / "java" / "src"


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
    """Make the jar, compiled against the jars of the PyFlink wheel, if it is not current; True if it was made. Raises ServiceError without a JDK or if javac fails."""
    sources = sorted(p for p in SOURCES.rglob("*") if p.is_file())
    jars = sorted((wheel(settings) / "lib").glob("*.jar"))
    digest = hashlib.sha256("\n".join(j.name for j in jars).encode())
    for p in sources:
        digest.update(p.relative_to(SOURCES).as_posix().encode() + b"\0" + p.read_bytes())
    jar = jar_path(settings)
    stamp = jar.with_suffix(".stamp")
    if jar.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return False
    javac = shutil.which("javac")
    if javac is None:
        raise ServiceError("there is no Java compiler (javac) on the PATH.", "install a JDK 17, on Debian: apt-get install openjdk-17-jdk-headless")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        java = [str(p) for p in sources if p.suffix == ".java"]
        made = subprocess.run(
            [javac, "--release", "17", "-proc:none", "-Xlint:all,-classfile,-processing,-options,-path", "-cp", ":".join(map(str, jars)), "-d", folder, *java],
            capture_output=True, text=True, check=False,
        )
        if made.returncode:
            raise ServiceError(f"the stream's Java does not compile:\n{made.stderr.strip()}", "a JDK 17 or newer is needed")
        jar.parent.mkdir(parents=True, exist_ok=True)
        part = jar.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as z:
            for p in sorted(out.rglob("*.class")):
                z.write(p, p.relative_to(out))
            for p in sources:
                if p.suffix != ".java":
                    z.write(p, p.relative_to(SOURCES))
        part.replace(jar)
    stamp.write_text(digest.hexdigest())
    return True


if __name__ == "__main__":
    print("compiled" if build(settings_.current()) else "current", jar_path(settings_.current()).name)
