"""Superset's dashboards as files: datasets from the catalogue, charts and dashboards by hand; checked, imported, exported.

`dashboards/` is a bundle in Superset's own export form (YAML). Its datasets are generated; the connection's address and
each chart's `query_context` (what warms its cache) are put in when the bundle is applied.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tidewatch.errors import ContractError, ServiceError
from tidewatch.settings import ROOT, Settings
from tidewatch.stack import pinot_tables
from tidewatch.tables import Column, catalogue

if TYPE_CHECKING:
    import requests

FOLDER = ROOT / "dashboards"
DATABASE = "tidewatch"
_SPACE = uuid.UUID("6f1d3c52-0b8a-4c57-9a3e-7d1de0a7e001")
SQL_TYPES = {
    "string": "STRING", "long": "LONG", "int": "INT", "double": "DOUBLE", "boolean": "BOOLEAN", "timestamp": "LONG",
    "double[]": "DOUBLE", "string[]": "STRING",
}


def stable_uuid(kind: str, name: str) -> str:
    """The uuid of a thing by its kind and name: the same in every place."""
    return str(uuid.uuid5(_SPACE, f"{kind}/{name}"))


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def _read(path: Path) -> dict[str, Any]:
    import yaml

    found = yaml.safe_load(path.read_text())
    if not isinstance(found, dict):
        raise ContractError(f"{path.relative_to(ROOT)} is no YAML mapping.")
    return found


# -- datasets
# a device's name in the overview opens that device's dashboard, with its filter set (Superset's own `native_filters`)
DEVICE_FILTER = "NATIVE_FILTER-device"
LINKS = {
    "alerts": (
        "device", "the device, as a link to its dashboard",
        "concat(concat(concat('<a href=\"/superset/dashboard/device/?native_filters=(" + DEVICE_FILTER
        + ":(extraFormData:(filters:!((col:device_id,op:IN,val:!(%27', encodeUrl(device_id), ''), "
        + "concat('%27)))),filterState:(value:!(%27', encodeUrl(device_id), ''), ''), "
        + "concat('%27)),id:" + DEVICE_FILTER + ",ownState:()))\">', concat(device_id, '</a>', ''), ''), '')",
    ),
}


def dataset(name: str) -> dict[str, Any]:
    """Superset's dataset of a Pinot table: every column with its meaning, times as milliseconds since 1970."""
    t = catalogue()[name]

    def column(c: Column) -> dict[str, Any]:
        time = c.type == "timestamp"
        return {
            "column_name": c.name, "verbose_name": None, "is_dttm": time, "is_active": True, "type": SQL_TYPES[c.type],
            "advanced_data_type": None, "groupby": not c.type.endswith("[]"), "filterable": True, "expression": None,
            "description": c.doc + (f" ({c.unit})" if c.unit else ""), "python_date_format": "epoch_ms" if time else None, "extra": {},
        }

    columns = [column(c) for c in pinot_tables.columns(t)]
    if name in LINKS:
        link, doc, expression = LINKS[name]
        columns.append(column(Column(link, "string", doc)) | {"expression": expression, "filterable": False})
    return {
        "table_name": name, "main_dttm_col": t.time, "description": t.doc, "default_endpoint": None, "offset": 0,
        "cache_timeout": None, "catalog": None, "schema": None, "sql": None, "params": None, "template_params": None,
        "filter_select_enabled": True, "fetch_values_predicate": None, "extra": None, "normalize_columns": False,
        "always_filter_main_dttm": False, "uuid": stable_uuid("dataset", name),
        "metrics": [{
            "metric_name": "count", "verbose_name": "rows", "metric_type": "count", "expression": "COUNT(*)", "description": None,
            "d3format": None, "currency": None, "extra": {}, "warning_text": None,
        }],
        "columns": columns, "version": "1.0.0", "database_uuid": stable_uuid("database", DATABASE),
    }


def datasets() -> dict[Path, str]:
    """Every generated dataset file with its text."""
    return {FOLDER / "datasets" / DATABASE / f"{n}.yaml": _yaml(dataset(n)) for n in pinot_tables.names()}


def generate() -> None:
    """Write the dataset files."""
    want = datasets()
    for path, text in want.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in set((FOLDER / "datasets").rglob("*.yaml")) - set(want):
        path.unlink()


# -- charts
def _as_list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _axis(params: dict[str, Any]) -> list[Any]:
    axis = params.get("x_axis")
    if not axis:
        return []
    if params.get("time_grain_sqla"):
        return [{"timeGrain": params["time_grain_sqla"], "columnType": "BASE_AXIS", "sqlExpression": axis, "label": axis, "expressionType": "SQL"}]
    return [axis]


def query(params: dict[str, Any]) -> dict[str, Any]:
    """The query of a chart, from its parameters, for the kinds of chart that the bundle uses."""
    filters, where, time_range = [], [], "No filter"
    for f in params.get("adhoc_filters") or []:
        if f["expressionType"] == "SQL":
            where.append(f"({f['sqlExpression']})")
        elif f["operator"] == "TEMPORAL_RANGE":
            time_range = f["comparator"]
            filters.append({"col": f["subject"], "op": f["operator"], "val": f["comparator"]})
        else:
            filters.append({"col": f["subject"], "op": f["operator"]} | ({"val": f["comparator"]} if f.get("comparator") is not None else {}))
    kind = params["viz_type"]
    metrics = _as_list(params.get("metrics")) + _as_list(params.get("metric"))
    groups = _as_list(params.get("groupby"))
    made: dict[str, Any] = {
        "time_range": time_range, "filters": filters, "extras": {"having": "", "where": " AND ".join(where)}, "applied_time_extras": {},
        "columns": [*_axis(params), *groups], "metrics": metrics, "annotation_layers": params.get("annotation_layers") or [],
        "row_limit": params.get("row_limit", 1000), "series_limit": 0, "order_desc": True, "url_params": {}, "custom_params": {}, "custom_form_data": {},
    }
    if params.get("granularity_sqla"):
        made["granularity"] = params["granularity_sqla"]
    if kind == "table" and params.get("query_mode") == "raw":
        made |= {"columns": params["all_columns"], "metrics": None, "orderby": [json.loads(o) for o in params.get("order_by_cols") or []]}
        made["post_processing"] = []
    elif kind == "table":
        made["orderby"] = [[metrics[0], not params.get("order_desc", True)]] if metrics else []
        made["post_processing"] = []
    elif kind.startswith("echarts_timeseries"):
        labels = [m if isinstance(m, str) else m["label"] for m in metrics]
        made |= {"series_columns": groups, "orderby": [[metrics[0], False]]}
        made["post_processing"] = [
            {"operation": "pivot", "options": {
                "index": [params["x_axis"]], "columns": groups, "drop_missing_columns": False,
                "aggregates": {label: {"operator": "mean"} for label in labels},
            }},
            *([{"operation": "rename", "options": {"columns": {labels[0]: None}, "level": 0, "inplace": True}}] if groups and len(labels) == 1 else []),
            {"operation": "flatten"},
        ]
    return made


def query_context(params: dict[str, Any]) -> str:
    """What Superset runs to warm a chart's cache; it puts the dataset's number in itself."""
    return json.dumps({
        "datasource": {"id": 0, "type": "table"}, "force": False, "queries": [query(params)], "form_data": params,
        "result_format": "json", "result_type": "full",
    })


# -- the bundle
@dataclass(frozen=True)
class Bundle:
    """The files of `dashboards/`, by the path inside it."""

    charts: dict[str, dict[str, Any]]
    dashboards: dict[str, dict[str, Any]]
    datasets: dict[str, dict[str, Any]]


def bundle() -> Bundle:
    """Read the folder."""

    def part(name: str) -> dict[str, dict[str, Any]]:
        return {p.relative_to(FOLDER).as_posix(): _read(p) for p in sorted((FOLDER / name).rglob("*.yaml"))}

    return Bundle(part("charts"), part("dashboards"), part("datasets"))


def sqlalchemy_uri(settings: Settings) -> str:
    """Pinot's address as Superset wants it."""
    broker = urlsplit(settings.pinot_broker)
    scheme = "pinot+https" if broker.scheme == "https" else "pinot"
    return f"{scheme}://{broker.netloc}/query/sql?controller={settings.pinot_controller}/"


def _database(settings: Settings) -> dict[str, Any]:
    return {
        "database_name": DATABASE, "sqlalchemy_uri": sqlalchemy_uri(settings), "cache_timeout": None, "expose_in_sqllab": True,
        "allow_run_async": False, "allow_ctas": False, "allow_cvas": False, "allow_dml": False, "allow_file_upload": False,
        "extra": {"allows_virtual_table_explore": True, "metadata_params": {}, "engine_params": {}},
        "uuid": stable_uuid("database", DATABASE), "version": "1.0.0",
    }


def archive(settings: Settings) -> bytes:
    """The bundle as the zip that Superset imports."""
    b = bundle()
    files: dict[str, dict[str, Any]] = {
        "metadata.yaml": {"version": "1.0.0", "type": "assets", "timestamp": "2026-01-01T00:00:00+00:00"},
        f"databases/{DATABASE}.yaml": _database(settings),
        **b.datasets, **b.dashboards,
        **{name: chart | {"query_context": chart.get("query_context") or query_context(chart["params"])} for name, chart in b.charts.items()},
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, value in files.items():
            z.writestr(zipfile.ZipInfo(f"assets/{name}", (2026, 1, 1, 0, 0, 0)), _yaml(value))
    return out.getvalue()


# -- checks
_WORD = re.compile(r"'(?:[^']|'')*'|\"(?P<quoted>\w+)\"|(?P<name>[A-Za-z_]\w*)(?P<call>\s*\()?")
_SQL_WORDS = frozenset(
    ["case", "when", "then", "else", "end", "and", "or", "not", "is", "null", "in", "between", "like", "as", "distinct", "cast", "double", "long", "string", "timestamp", "true", "false", "filter", "where", "asc", "desc"]
)


def _columns_in(sql: str) -> set[str]:
    """The column names in an SQL expression: every word that is no function and no SQL word."""
    found = set()
    for m in _WORD.finditer(sql):
        if m["quoted"]:
            found.add(m["quoted"])
        elif m["name"] and not m["call"] and m["name"].lower() not in _SQL_WORDS:
            found.add(m["name"])
    return found


def columns_of(params: dict[str, Any]) -> set[str]:
    """Every dataset column that a chart names."""
    found: set[str] = set()
    for key in ("x_axis", "granularity_sqla", "groupby", "all_columns", "columns"):
        for c in _as_list(params.get(key)):
            found |= {c} if isinstance(c, str) else _columns_in(c["sqlExpression"])
    for m in _as_list(params.get("metrics")) + _as_list(params.get("metric")):
        if isinstance(m, dict):
            found |= _columns_in(m["sqlExpression"]) if m["expressionType"] == "SQL" else {m["column"]["column_name"]}
    for f in params.get("adhoc_filters") or []:
        found |= _columns_in(f["sqlExpression"]) if f["expressionType"] == "SQL" else {f["subject"]}
    for o in params.get("order_by_cols") or []:
        found.add(json.loads(o)[0])
    return found


def problems() -> tuple[str, ...]:
    """What is wrong with the bundle, walking dashboard, chart, dataset, column; empty if nothing is."""
    wrong = [f"{p.relative_to(ROOT)} is not current" for p, text in datasets().items() if not p.exists() or p.read_text() != text]
    b = bundle()
    by_uuid = {d["uuid"]: d for d in b.datasets.values()}
    charts = {c["uuid"]: c for c in b.charts.values()}
    everything = [*b.charts.values(), *b.dashboards.values(), *b.datasets.values()]
    if len({x["uuid"] for x in everything}) != len(everything):
        wrong.append("two files have the same uuid")
    for name, chart in b.charts.items():
        data = by_uuid.get(chart["dataset_uuid"])
        if data is None:
            wrong.append(f"{name}: there is no dataset {chart['dataset_uuid']}")
            continue
        if chart["viz_type"] != chart["params"]["viz_type"]:
            wrong.append(f"{name}: viz_type differs from that in params")
        known = {c["column_name"] for c in data["columns"]}
        wrong += [f"{name}: {data['table_name']} has no column {c!r}" for c in sorted(columns_of(chart["params"]) - known)]
    used = set()
    slugs = [d["slug"] for d in b.dashboards.values()]
    if len(set(slugs)) != len(slugs):
        wrong.append("two dashboards have the same slug")
    for name, dashboard in b.dashboards.items():
        for key, item in dashboard["position"].items():
            if not isinstance(item, dict):
                continue
            wrong += [f"{name}: {key} has a child {c!r} that is not there" for c in item.get("children", ()) if c not in dashboard["position"]]
            if item["type"] == "CHART":
                used.add(item["meta"]["uuid"])
                if item["meta"]["uuid"] not in charts:
                    wrong.append(f"{name}: {key} shows a chart that is not there")
        for f in dashboard["metadata"].get("native_filter_configuration", ()):
            for target in f["targets"]:
                if not target:
                    continue
                data = by_uuid.get(target.get("datasetUuid"))
                if data is None:
                    wrong.append(f"{name}: the filter {f['name']!r} reads a dataset that is not there")
                elif target["column"]["name"] not in {c["column_name"] for c in data["columns"]}:
                    wrong.append(f"{name}: the filter {f['name']!r} reads {target['column']['name']!r}, which {data['table_name']} has not")
    wrong += [f"{name}: no dashboard shows it" for name, c in b.charts.items() if c["uuid"] not in used]
    return tuple(wrong)


# -- a running Superset
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
    return {d["slug"] for d in bundle().dashboards.values()} <= {d["slug"] for d in found}


def export(settings: Settings) -> tuple[str, ...]:
    """Write charts and dashboards as they are on the server back to the files; the names of those that changed.

    Numbers that only the server knows are dropped; generated datasets and the connection stay as they are.
    """
    r = session(settings).get(f"{settings.superset}/api/v1/assets/export/", timeout=300)
    if not r.ok:
        raise ServiceError(f"Superset does not export: {r.text[:400]}", "see `tidewatch logs superset`")
    import yaml

    changed = []
    names = {x["uuid"]: n for part in (bundle().charts, bundle().dashboards) for n, x in part.items()}
    with zipfile.ZipFile(io.BytesIO(r.content)) as z:
        for path in z.namelist():
            kind = path.split("/", 2)[1] if path.count("/") > 1 else ""
            if kind not in ("charts", "dashboards"):
                continue
            value = yaml.safe_load(z.read(path))
            if kind == "charts":
                value["query_context"] = None
                value["params"].pop("datasource", None)
                value["params"].pop("slice_id", None)
                value["params"].pop("dashboards", None)
            name = names.get(value["uuid"], f"{kind}/{path.rsplit('/', 1)[1]}")
            target = FOLDER / name
            text = _yaml(value)
            if not target.exists() or yaml.safe_load(target.read_text()) != value:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                changed.append(name)
    return tuple(changed)
