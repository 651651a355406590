"""Superset's datasets, generated from the catalogue of tables, with the columns that only Superset has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewatch.dashboards import files
from tidewatch.stack import pinot_tables
from tidewatch.tables import Column, catalogue

SQL_TYPES = {
    "string": "STRING", "long": "LONG", "int": "INT", "double": "DOUBLE", "boolean": "BOOLEAN", "timestamp": "LONG",
    "double[]": "DOUBLE", "string[]": "STRING",
}
# a device's name opens that device's dashboard, with its filter set (Superset's own `native_filters`)
DEVICE_FILTER = "NATIVE_FILTER-device"
LABELS = {"device_id": "device", "dst_ip": "destination", "start": "since (UTC)", "end": "last seen (UTC)", "subject": "of", "column_name": "column", "table_name": "table", "suppressed_by": "kept quiet by"}
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
    """A number that a person can read: 179188188 is 179.2 M."""
    steps = "".join(f"WHEN abs({column}) >= {limit} THEN concat(CAST(roundDecimal({column} / {limit}, 1) AS STRING), '{unit}', ' ') "
                    for limit, unit in ((1_000_000_000, "G"), (1_000_000, "M")))
    return (f"CASE {steps}WHEN abs({column}) >= 1000 THEN CAST(CAST({column} AS LONG) AS STRING) "
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
_WHO = Calculated(
    "device", "device", "the device, as a link to its dashboard; of a group, how many devices",
    f"CASE WHEN device_id <> '*' THEN {LINK.expression} WHEN members > 0 THEN " + _concat("CAST(members AS STRING)", "' devices'") + " ELSE 'all devices' END",
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
        "reason", "'. Also '", "replace(second_signal, '_', ' ')", "' '", _rounded("second_observed"), "', expected '", _rounded("second_expected")) + " END",
)
_HOW_LONG = Calculated("minutes", "minutes", "from the first anomalous window's start to the last one's end", '("end" - "start") / 60000', "double")
_MARK = Calculated("mark", "id", "the alert's id, as a link to the form on which an analyst says whether it was right (Airflow's DAG feedback)",
                   _concat("'<a href=\"${AIRFLOW}/dags/feedback\" target=\"_blank\">'", "alert_id", "'</a>'"))
_WEEKDAYS = ("1 Mon", "2 Tue", "3 Wed", "4 Thu", "5 Fri", "6 Sat", "7 Sun")
_WEEKDAY = Calculated(
    "weekday", "weekday", "day of the week, UTC",
    "CASE " + " ".join(f"WHEN dayOfWeek(window_end) = {i} THEN '{d}'" for i, d in enumerate(_WEEKDAYS, 1)) + " ELSE '' END")
_HOUR = Calculated("hour_of_day", "hour (UTC)", "hour of the day, UTC", "lpad(CAST(hour(window_end) AS STRING), 2, '0')")
_OUTSIDE = Calculated(
    "direction_outside", "way", "outside: the device opened it to an address outside the inside networks; else inside or in",
    "CASE WHEN direction <> 'out' THEN 'in' WHEN external = true THEN 'outside' ELSE 'inside' END", filterable=True)
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
    "alerts": (_WHO, SEVERITY, WHY, _HOW_LONG, _MARK),
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
        "always_filter_main_dttm": False, "uuid": files.stable_uuid("dataset", name),
        "metrics": [{
            "metric_name": "count", "verbose_name": "rows", "metric_type": "count", "expression": "COUNT(*)", "description": None,
            "d3format": None, "currency": None, "extra": {}, "warning_text": None,
        }],
        "columns": columns, "version": "1.0.0", "database_uuid": files.stable_uuid("database", files.DATABASE),
    }


def wanted() -> dict[Path, str]:
    """Every generated dataset file with its text."""
    return {files.FOLDER / "datasets" / files.DATABASE / f"{n}.yaml": files.text_of(dataset(n)) for n in pinot_tables.names()}


def generate() -> None:
    """Write the dataset files."""
    want = wanted()
    for path, text in want.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in set((files.FOLDER / "datasets").rglob("*.yaml")) - set(want):
        path.unlink()
