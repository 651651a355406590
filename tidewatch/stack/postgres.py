"""PostgreSQL's programs: where they are, and how to run them when we are root, which its server refuses."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings

FIX = "install PostgreSQL's server, e.g. `apt-get install postgresql`, or set metadata.postgres_bin, or metadata.url to a server of yours"
NEEDED = ("initdb", "postgres", "psql", "pg_isready")


def bin_dir(settings: Settings) -> Path:
    """The folder of the newest PostgreSQL here; raises ServiceError if there is none."""
    named = settings.metadata.postgres_bin
    places = [Path(named)] if named else sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_number, reverse=True)
    if not named and (on_path := shutil.which("initdb")):
        places.append(Path(on_path).resolve().parent)
    for place in places:
        if all((place / program).exists() for program in NEEDED):
            return place
    where = f"in {named}" if named else "in /usr/lib/postgresql or on the PATH"
    raise ServiceError(f"PostgreSQL's server programs ({', '.join(NEEDED)}) are not {where}.", FIX)


def _number(place: Path) -> int:
    return int(place.parent.name) if place.parent.name.isdigit() else 0


@functools.cache
def _mapped() -> tuple[str, ...]:
    """How root becomes someone else without leaving its files: a user namespace; () if the kernel refuses one."""
    unshare = shutil.which("unshare")
    for name in ("postgres", "nobody", "daemon"):
        try:
            who = pwd.getpwnam(name)
        except KeyError:
            continue
        if unshare:
            words = (unshare, "--user", f"--map-user={who.pw_uid}", f"--map-group={who.pw_gid}", "--")
            if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
                return words
    return ()


def prefix(settings: Settings) -> tuple[str, ...]:
    """Words before a server program: none for a user; for root a user namespace, else the account `postgres`."""
    if os.geteuid() != 0:
        return ()
    if words := _mapped():
        return words
    runuser = shutil.which("runuser")
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        runuser = None
    if runuser is None:
        raise ServiceError("PostgreSQL refuses to run as root, this kernel refuses user namespaces, and there is no account `postgres`.",
                           "run Tidewatch as another user, or set metadata.url to a PostgreSQL of yours")
    return (runuser, "-u", "postgres", "--")


def hand_over(settings: Settings, folder: Path) -> None:
    """Where root acts as the account `postgres`, give it the data folder; raises ServiceError if it cannot reach it."""
    words = prefix(settings)
    if not words or not words[0].endswith("runuser"):
        return
    who = pwd.getpwnam("postgres")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, who.pw_uid, who.pw_gid, follow_symlinks=False)
    if subprocess.run([*words, "test", "-w", str(folder)], capture_output=True, check=False).returncode:
        raise ServiceError(f"the account `postgres` cannot reach {folder}: a folder above it is closed to others.",
                           "set state_dir to a folder whose parents others may pass, e.g. below /var/lib, or run Tidewatch as another user")
