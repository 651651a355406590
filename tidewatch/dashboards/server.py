"""The bundle in a running Superset: packed for this place, imported, taken back.

The connection's address and each chart's `query_context` (what warms its cache) are put in when the bundle is applied.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tidewatch.dashboards import files, style
from tidewatch.dashboards.charts import query_context
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings

if TYPE_CHECKING:
    import requests


def sqlalchemy_uri(settings: Settings) -> str:
    """Pinot's address as Superset wants it."""
    broker = urlsplit(settings.pinot_broker)
    scheme = "pinot+https" if broker.scheme == "https" else "pinot"
    # pinotdb gives up after 10 s by itself; Pinot's own limit is 30 s
    return f"{scheme}://{broker.netloc}/query/sql?controller={settings.pinot_controller}/&timeout=35"


def _database(settings: Settings) -> dict[str, Any]:
    return {
        "database_name": files.DATABASE, "sqlalchemy_uri": sqlalchemy_uri(settings), "cache_timeout": None, "expose_in_sqllab": True,
        "allow_run_async": False, "allow_ctas": False, "allow_cvas": False, "allow_dml": False, "allow_file_upload": False,
        "extra": {"allows_virtual_table_explore": True, "metadata_params": {}, "engine_params": {}},
        "uuid": files.stable_uuid("database", files.DATABASE), "version": "1.0.0",
    }


def _places(settings: Settings) -> dict[str, str]:
    """What stands for `${NAME}` here."""
    return {
        "${MLFLOW}": settings.mlflow, "${AIRFLOW}": settings.airflow,
        "${REPORTS}": settings.reports, "${FLINK}": settings.flink_rest, "${PINOT}": settings.pinot_controller,
    }


def _filled(value: Any, places: dict[str, str]) -> Any:
    """A value of the bundle with each key of `places` in its texts replaced by its value."""
    if isinstance(value, dict):
        return {k: _filled(v, places) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, places) for v in value]
    if isinstance(value, str):
        for name, text in places.items():
            value = value.replace(name, text)
    return value


def filled(settings: Settings, value: Any) -> Any:
    """A value of the bundle as it is in this Superset: every `${NAME}` replaced."""
    return _filled(value, _places(settings))


def archive(settings: Settings) -> bytes:
    """The bundle as the zip that Superset imports."""
    b = files.read()
    contents: dict[str, dict[str, Any]] = {
        "metadata.yaml": {"version": "1.0.0", "type": "assets", "timestamp": "2026-01-01T00:00:00+00:00"},
        f"databases/{files.DATABASE}.yaml": _database(settings),
        **b.datasets,
        **{name: board | {"css": "\n".join(filter(None, (board["css"], style.sheet(b.shown(board)))))} for name, board in b.dashboards.items()},
        **{name: chart | {"query_context": chart.get("query_context") or query_context(chart["params"])} for name, chart in b.charts.items()},
    }
    places = _places(settings)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, value in contents.items():
            z.writestr(zipfile.ZipInfo(f"assets/{name}", (2026, 1, 1, 0, 0, 0)), files.text_of(_filled(value, places)))
    return out.getvalue()


def session(settings: Settings, account: str = "admin") -> requests.Session:
    """A session that is logged in; raises ServiceError if Superset does not answer or refuses."""
    import requests

    base = settings.superset
    s = requests.Session()
    try:
        r = s.post(f"{base}/api/v1/security/login", timeout=120, json={
            "username": account, "password": settings.secret(f"superset_{account}_password"), "provider": "db", "refresh": True,
        })
        if r.status_code == 401:
            raise ServiceError(f"Superset at {base} refuses the account {account!r}.", "restart it, which sets the passwords: `tidewatch down superset`, `tidewatch up superset`")
        r.raise_for_status()
        s.headers["Authorization"] = f"Bearer {r.json()['access_token']}"
        r = s.get(f"{base}/api/v1/security/csrf_token/", timeout=60)
        r.raise_for_status()
    except requests.RequestException as e:
        raise ServiceError(f"Superset at {base} does not answer ({e}).", "start it: `tidewatch up`") from e
    s.headers.update({"X-CSRFToken": r.json()["result"], "Referer": base})
    return s


def apply(settings: Settings, *, only_if_changed: bool = False) -> bool:
    """Import the bundle, replacing what is there; True if it was. Raises ServiceError if Superset refuses."""
    content = archive(settings)
    digest = hashlib.sha256(content + settings.superset.encode()).hexdigest()
    stamp = settings.state_dir / "data" / "superset" / "imported"
    if only_if_changed and stamp.exists() and stamp.read_text() == digest and _present(settings):
        return False
    s = session(settings)
    r = s.post(f"{settings.superset}/api/v1/assets/import/", timeout=300, data={"passwords": "{}"},
               files={"bundle": ("assets.zip", content, "application/zip")})
    if not r.ok:
        raise ServiceError(f"Superset refuses the dashboards: {r.text[:800]}", "`tidewatch dashboards validate` may tell what is wrong")
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)
    return True


def _present(settings: Settings) -> bool:
    found = session(settings).get(f"{settings.superset}/api/v1/dashboard/", timeout=60).json()["result"]
    return {d["slug"] for d in files.read().dashboards.values()} <= {d["slug"] for d in found}


def export(settings: Settings) -> tuple[str, ...]:
    """Write charts and dashboards as they are on the server back to the files; the names of those that changed.

    Numbers that only the server knows are dropped; generated datasets and the connection stay as they are.
    """
    r = session(settings).get(f"{settings.superset}/api/v1/assets/export/", timeout=300)
    if not r.ok:
        raise ServiceError(f"Superset does not export: {r.text[:400]}", "see `tidewatch logs superset`")
    import yaml

    changed = []
    names = {x["uuid"]: n for part in (files.read().charts, files.read().dashboards) for n, x in part.items()}
    with zipfile.ZipFile(io.BytesIO(r.content)) as z:
        for path in z.namelist():
            kind = path.split("/", 2)[1] if path.count("/") > 1 else ""
            if kind not in ("charts", "dashboards"):
                continue
            value = _filled(yaml.safe_load(z.read(path)), {text: name for name, text in _places(settings).items()})
            if kind == "charts":
                value["query_context"] = None
                value["params"].pop("datasource", None)
                value["params"].pop("slice_id", None)
                value["params"].pop("dashboards", None)
            else:
                value["css"] = style.without(value["css"] or "")
            name = names.get(value["uuid"], f"{kind}/{path.rsplit('/', 1)[1]}")
            target = files.FOLDER / name
            text = files.text_of(value)
            if not target.exists() or yaml.safe_load(target.read_text()) != value:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                changed.append(name)
    return tuple(changed)
