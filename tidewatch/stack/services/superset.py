"""Superset: the dashboards, read from Pinot; its own data are in the metadata database."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import urllib.request
from pathlib import Path

from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service, metadata

ACCOUNTS = ("admin", "operator", "analyst", "viewer")
"""Their roles are in `superset_accounts.py`; the passwords are the secrets `superset_<account>_password`."""


def _home(settings: Settings) -> Path:
    return settings.state_dir / "data" / "superset"


def _place(settings: Settings) -> Path:
    return settings.state_dir / "conf" / "superset" / "superset.json"


def _files(settings: Settings) -> dict[Path, str]:
    return {_place(settings): json.dumps({
        "secret_key": settings.secret("superset_key"),
        "database": metadata.url(settings, "superset"),
        "folder": str(_home(settings)),
        "accounts": {name: settings.secret(f"superset_{name}_password") for name in ACCOUNTS},
    })}


def environment(settings: Settings) -> dict[str, str]:
    """Variables of the server (and of `superset` by hand)."""
    return {
        "SUPERSET_CONFIG_PATH": str(ROOT / "tidewatch" / "stack" / "superset_config.py"),
        "SUPERSET_HOME": str(_home(settings)),
        "TIDEWATCH_SUPERSET": str(_place(settings)),
        "FLASK_APP": "superset.app:create_app()",
        "PATH": f"{settings.env_python('superset').parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONWARNINGS": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def prepare(settings: Settings) -> None:
    """Migrate the database and make the accounts, once a version, database and password. Raises ServiceError."""
    home = _home(settings)
    home.mkdir(parents=True, exist_ok=True)
    installed = sorted(settings.env_python("superset").parent.parent.glob("lib/*/site-packages/apache_superset-*.dist-info"))
    if not installed:
        raise ServiceError("Superset is not installed in its environment.", "run `tidewatch install`")
    files = _files(settings)
    program = ROOT / "tidewatch" / "stack" / "superset_accounts.py"
    database = settings.state_dir / "data" / "postgres" / "PG_VERSION"
    identity = [installed[-1].name, *files.values(), program.read_text(), str(database.stat().st_mtime_ns) if database.exists() else ""]
    mark = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    stamp = home / "prepared"
    if stamp.exists() and stamp.read_text() == mark:
        return
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(text)
    done = subprocess.run(
        [str(settings.env_python("superset")), str(program)], env={**os.environ, **environment(settings)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=home,
    )
    if done.returncode:
        raise ServiceError(f"Superset cannot bring its database up to date: {done.stdout[-800:].strip()}", "see that PostgreSQL runs (`tidewatch status`)")
    stamp.write_text(mark)


def ready(settings: Settings) -> bool:
    with urllib.request.urlopen(f"{settings.superset}/health", timeout=5) as answer:
        return bool(answer.status == 200)


def after(settings: Settings) -> None:
    """Bring in the dashboards if their files changed."""
    from tidewatch.dashboards import server

    server.apply(settings, only_if_changed=True)


def services(settings: Settings) -> tuple[Service, ...]:
    """The one row."""
    return (
        Service(
            name="superset",
            doc="dashboards",
            command=(
                str(settings.env_python("superset")), "-m", "gunicorn", "--bind", f"127.0.0.1:{settings.ports.superset}",
                "--workers", "1", "--worker-class", "gthread", "--threads", "8", "--timeout", "300", "--log-level", "warning",
                "--limit-request-line", "0", "--limit-request-field_size", "0", "superset.app:create_app()",
            ),
            memory_mb=500,
            ready=ready,
            ready_timeout=240,
            needs=() if settings.metadata.url else ("postgres",),
            ports=("superset",),
            env=environment(settings),
            files=_files(settings),
            prepare=prepare,
            after=after,
            url=lambda s: s.superset,
        ),
    )
