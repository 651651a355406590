"""Our own Java, compiled at install into a jar: once, and again when a source or what it is compiled against changes."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.stack import jvm

OPTIONS = ("-17", "-proc:none", "-nowarn")


def compile_jar(settings: Settings, what: str, sources: Sequence[Path], against: Sequence[Path], jar: Path) -> bool:
    """Make `jar` of the folders `sources` if it is not current; True if it was made.

    The compiler is Eclipse's, a jar, so that a Java runtime does. Files that are not Java are packed as they are.
    Raises ServiceError if the compiler is not installed or refuses the sources.
    """
    files = {p: p.relative_to(folder) for folder in sources for p in sorted(folder.rglob("*")) if p.is_file()}
    digest = hashlib.sha256("\n".join(p.name for p in against).encode())
    for p, name in files.items():
        digest.update(name.as_posix().encode() + b"\0" + p.read_bytes())
    stamp = jar.with_suffix(".stamp")
    if jar.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return False
    compiler = next((settings.state_dir / "jars" / "compiler").glob("ecj-*.jar"), None)
    if compiler is None:
        raise ServiceError("the Java compiler is not installed.", "run `tidewatch install`")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        made = subprocess.run(
            [jvm.java(), "-jar", str(compiler), *OPTIONS, "-cp", ":".join(map(str, against)),
             "-d", folder, *(str(p) for p in files if p.suffix == ".java")],
            capture_output=True, text=True, check=False,
        )
        if made.returncode:
            raise ServiceError(f"{what} does not compile:\n{made.stderr.strip()}", "see the lines above")
        jar.parent.mkdir(parents=True, exist_ok=True)
        part = jar.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as z:
            for p in sorted(out.rglob("*.class")):
                z.write(p, p.relative_to(out))
            for p, name in files.items():
                if p.suffix != ".java":
                    z.write(p, name)
        part.replace(jar)
    stamp.write_text(digest.hexdigest())
    return True
