"""Superset's dashboards as files: datasets from the catalogue, charts and dashboards by hand; checked, imported, exported.

`dashboards/` is a bundle in Superset's own export form (YAML). Its datasets are generated; the connection's address and
each chart's `query_context` (what warms its cache) are put in when the bundle is applied.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
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
# a device's name opens that device's dashboard, with its filter set (Superset's own `native_filters`)
DEVICE_FILTER = "NATIVE_FILTER-device"
LABELS = {"device_id": "device", "dst_ip": "destination", "start": "since (UTC)", "end": "last seen (UTC)", "subject": "of", "column_name": "column", "table_name": "table"}
"""Headings that are not the column's own name with blanks."""


@dataclass(frozen=True)
class Calculated:
    """A column that only Superset has: a Pinot expression; `${…}` is filled in when the bundle is applied."""

    name: str
    label: str
    doc: str
    expression: str
    type: str = "string"
    filterable: bool = False


def _concat(*parts: str) -> str:
    """Pinot's `concat` takes two texts and what stands between them."""
    made = parts[0]
    for part in parts[1:]:
        made = f"concat({made}, {part}, '')"
    return made


def _rounded(column: str) -> str:
    return (f"CASE WHEN abs({column}) >= 1000 THEN CAST(CAST({column} AS LONG) AS STRING) "
            f"ELSE CAST(roundDecimal({column}, 2) AS STRING) END")


def _of_inventory(column: str, doc: str) -> Calculated:
    """What the inventory says of a device, as a filter: Pinot cannot join, so the chosen value becomes a set of devices."""
    quoted = "{{ \"''\" }}{{ filter_values('" + column + "')|map('replace', \"'\", '')|join(\"'',''\") }}{{ \"''\" }}"
    first = "{{ (filter_values('" + column + "')|first)|replace(\"'\", '') }}"
    subquery = f"SELECT IDSET(device_id) FROM devices WHERE {column} IN ({quoted})"
    return Calculated(column, column, doc, (
        "{% if filter_values('" + column + "') %}CASE WHEN IN_SUBQUERY(device_id, '" + subquery + "') = 1 THEN '" + first
        + "' ELSE '' END{% else %}''{% endif %}"
    ), filterable=True)


LINK = Calculated(
    "device", "device", "the device, as a link to its dashboard",
    _concat(f"'<a href=\"/superset/dashboard/device/?native_filters=({DEVICE_FILTER}:(extraFormData:(filters:!((col:device_id,op:IN,val:!(%27'",
            "encodeUrl(device_id)", "'%27)))),filterState:(value:!(%27'", "encodeUrl(device_id)", f"'%27)),id:{DEVICE_FILTER},ownState:()))\">'", "device_id", "'</a>'"),
)
INVENTORY = (_of_inventory("kind", "what the device is, from the inventory"), _of_inventory("site", "where the device stands, from the inventory"))
_DOTS = {"critical": ("#b3261e", "●●●●"), "high": ("#d9652b", "●●●○"), "medium": ("#c98f12", "●●○○"), "low": ("#5f93b0", "●○○○")}
SEVERITY = Calculated(
    "how_severe", "severity", "severity, of the highest score: more filled dots, more severe",
    "CASE severity " + " ".join(f"WHEN '{s}' THEN '<span style=\"color:{c}\">{d}</span> {s}'" for s, (c, d) in _DOTS.items()) + " ELSE severity END",
)
WHY = Calculated(
    "why", "why", "the heaviest signal in words, and the one after it: observed and expected",
    "CASE WHEN second_signal = '' THEN reason ELSE " + _concat(
        "reason", "'. Also '", "second_signal", "' '", _rounded("second_observed"), "', expected '", _rounded("second_expected")) + " END",
)
_HOW_LONG = Calculated("minutes", "minutes", "from the first anomalous window's start to the last one's end", '("end" - "start") / 60000', "double")
_WEEKDAYS = ("1 Mon", "2 Tue", "3 Wed", "4 Thu", "5 Fri", "6 Sat", "7 Sun")
_WEEKDAY = Calculated(
    "weekday", "weekday", "day of the week, UTC",
    "CASE " + " ".join(f"WHEN dayOfWeek(window_end) = {i} THEN '{d}'" for i, d in enumerate(_WEEKDAYS, 1)) + " ELSE '' END")
_HOUR = Calculated("hour_of_day", "hour (UTC)", "hour of the day, UTC", "lpad(CAST(hour(window_end) AS STRING), 2, '0')")
_OUTSIDE = Calculated(
    "direction_outside", "way", "outside: the device opened it to an address outside the inside networks; else inside or in",
    "CASE WHEN direction <> 'out' THEN 'in' WHEN regexpReplace(dst_ip, '${INSIDE}.*', '') = '' THEN 'inside' ELSE 'outside' END", filterable=True)
_PORT = Calculated("port", "port", "port the flow went to; empty where the protocol has none", "CASE WHEN dst_port < 0 THEN '' ELSE CAST(dst_port AS STRING) END")
_VERSION = Calculated(
    "model", "model", "the version, as a link to its page in MLflow",
    _concat("'<a href=\"${MLFLOW}/#/models/tidewatch-'", "use_case", "'/versions/'", "version", "'\" target=\"_blank\">'", "use_case", "' '", "version", "'</a>'"))
_REPORT = Calculated("report_link", "report", "the report of Great Expectations",
                     _concat("'<a href=\"'", "report", "'\" target=\"_blank\">open</a>'"))
_HELD = Calculated("outcome", "outcome", "whether the expectation held",
                   "CASE WHEN success = true THEN '<span style=\"color:#2e7d4f\">✔</span> held' ELSE '<span style=\"color:#b3261e\">✘</span> failed' END")
_VERDICT = Calculated("verdict", "decision", "what became of the candidate",
                      "CASE WHEN promoted = true THEN '<span style=\"color:#2e7d4f\">▲</span> promoted' ELSE '<span style=\"color:#7a8aa0\">–</span> refused' END")
_FIGURE = Calculated("figure", "figure", "what was observed, as a number (of the table window_figures)", "CAST(observed AS DOUBLE)", "double")
_DAG = Calculated(
    "dag", "DAG", "the DAG, as a link to it in Airflow",
    _concat("'<a href=\"${AIRFLOW}/dags/'", "subject", "'\" target=\"_blank\">'", "subject", "'</a>'"),
)
CALCULATED: dict[str, tuple[Calculated, ...]] = {
    "alerts": (LINK, SEVERITY, WHY, _HOW_LONG, *INVENTORY),
    "scores": (LINK, *INVENTORY),
    "flow": (LINK, _OUTSIDE, _PORT, *INVENTORY),
    "flow_1m": (LINK, _WEEKDAY, _HOUR, *INVENTORY),
    "reading": INVENTORY,
    "reading_1m": INVENTORY,
    "dead_letters": (LINK, *INVENTORY),
    "validations": (_REPORT, _HELD, _FIGURE),
    "models": (_VERSION,),
    "decisions": (_VERSION, _VERDICT),
    "pipeline": (_DAG,),
}


def inside_pattern(networks: tuple[str, ...]) -> str:
    """A regular expression for the texts of addresses in the networks, cut to whole octets (IPv4) or groups (IPv6).

    >>> inside_pattern(("10.0.0.0/8", "172.16.0.0/14", "fe80::/10"))
    '^(10[.]|172[.](16|17|18|19)[.]|fe[89ab][0-9a-f]:)'
    """
    made = []
    for text in networks:
        n = ipaddress.ip_network(text)
        if n.version == 4:
            octets = str(n.network_address).split(".")
            whole, rest = divmod(n.prefixlen, 8)
            parts = octets[:whole]
            if rest:
                first = int(octets[whole])
                parts.append("(" + "|".join(str(first + i) for i in range(2 ** (8 - rest))) + ")")
            made.append("[.]".join(parts) + ("[.]" if len(parts) < 4 else "$"))
        elif n.prefixlen == 128:
            made.append(str(n.network_address) + "$")
        else:
            digits = n.network_address.exploded.replace(":", "")
            whole, rest = divmod(min(n.prefixlen, 16), 4)
            some = "[" + "".join(f"{int(digits[whole], 16) + i:x}" for i in range(2 ** (4 - rest))) + "]" if rest else ""
            made.append(digits[:whole] + some + "[0-9a-f]" * (4 - whole - bool(rest)) + ":")
    return "^(" + "|".join(made) + ")"


def dataset(name: str) -> dict[str, Any]:
    """Superset's dataset of a Pinot table: every column with its meaning, times as milliseconds since 1970."""
    t = catalogue()[name]

    def column(c: Column) -> dict[str, Any]:
        time = c.type == "timestamp"
        return {
            "column_name": c.name, "verbose_name": LABELS.get(c.name, c.name.replace("_", " ") + (" (UTC)" if time else "")), "is_dttm": time, "is_active": True, "type": SQL_TYPES[c.type],
            "advanced_data_type": None, "groupby": not c.type.endswith("[]"), "filterable": True, "expression": None,
            "description": c.doc + (f" ({c.unit})" if c.unit else ""), "python_date_format": "epoch_ms" if time else None, "extra": {},
        }

    columns = [column(c) for c in pinot_tables.columns(t)]
    for extra in CALCULATED.get(name, ()):
        columns.append(column(Column(extra.name, extra.type, extra.doc)) | {
            "expression": extra.expression, "filterable": extra.filterable, "verbose_name": extra.label, "groupby": True})
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
        "row_limit": params.get("row_limit", 1000), "series_limit": params.get("series_limit", 0), "order_desc": True, "url_params": {}, "custom_params": {}, "custom_form_data": {},
    }
    if params.get("granularity_sqla"):
        made["granularity"] = params["granularity_sqla"]
    if kind == "table" and params.get("query_mode") == "raw":
        made |= {"columns": params["all_columns"], "metrics": None, "orderby": [json.loads(o) for o in params.get("order_by_cols") or []]}
        made["post_processing"] = []
    elif kind == "table":
        made["orderby"] = [[metrics[0], not params.get("order_desc", True)]] if metrics else []
        made["post_processing"] = []
    elif kind == "heatmap_v2":
        made["post_processing"] = [{"operation": "rank", "options": {"metric": metrics[0] if isinstance(metrics[0], str) else metrics[0]["label"]}}]
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
    # pinotdb gives up after 10 s by itself; Pinot's own limit is 30 s
    return f"{scheme}://{broker.netloc}/query/sql?controller={settings.pinot_controller}/&timeout=35"


def _database(settings: Settings) -> dict[str, Any]:
    return {
        "database_name": DATABASE, "sqlalchemy_uri": sqlalchemy_uri(settings), "cache_timeout": None, "expose_in_sqllab": True,
        "allow_run_async": False, "allow_ctas": False, "allow_cvas": False, "allow_dml": False, "allow_file_upload": False,
        "extra": {"allows_virtual_table_explore": True, "metadata_params": {}, "engine_params": {}},
        "uuid": stable_uuid("database", DATABASE), "version": "1.0.0",
    }


def _places(settings: Settings) -> dict[str, str]:
    """What stands for `${NAME}` here."""
    return {
        "${INSIDE}": inside_pattern(settings.network.inside), "${MLFLOW}": settings.mlflow, "${AIRFLOW}": settings.airflow,
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


def archive(settings: Settings) -> bytes:
    """The bundle as the zip that Superset imports."""
    b = bundle()
    files: dict[str, dict[str, Any]] = {
        "metadata.yaml": {"version": "1.0.0", "type": "assets", "timestamp": "2026-01-01T00:00:00+00:00"},
        f"databases/{DATABASE}.yaml": _database(settings),
        **b.datasets, **b.dashboards,
        **{name: chart | {"query_context": chart.get("query_context") or query_context(chart["params"])} for name, chart in b.charts.items()},
    }
    places = _places(settings)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, value in files.items():
            z.writestr(zipfile.ZipInfo(f"assets/{name}", (2026, 1, 1, 0, 0, 0)), _yaml(_filled(value, places)))
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
            value = _filled(yaml.safe_load(z.read(path)), {text: name for name, text in _places(settings).items()})
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
