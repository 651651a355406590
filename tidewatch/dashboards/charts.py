"""What a chart asks of its dataset: its query, as Superset's own pages build it, and the columns that it names."""

from __future__ import annotations

import json
import re
from typing import Any

_WORD = re.compile(r"'(?:[^']|'')*'|\"(?P<quoted>\w+)\"|(?P<name>[A-Za-z_]\w*)(?P<call>\s*\()?")
_SQL_WORDS = frozenset(
    ["case", "when", "then", "else", "end", "and", "or", "not", "is", "null", "in", "between", "like", "as", "distinct", "cast", "double", "long", "string", "timestamp", "true", "false", "filter", "where", "asc", "desc"]
)


def _as_list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _axis(params: dict[str, Any]) -> list[Any]:
    axis = params.get("x_axis")
    if not axis:
        return []
    grain = {"timeGrain": params["time_grain_sqla"]} if params.get("time_grain_sqla") else {}
    return [{**grain, "columnType": "BASE_AXIS", "sqlExpression": axis, "label": axis, "expressionType": "SQL", "isColumnReference": True}]


def query(params: dict[str, Any]) -> dict[str, Any]:
    """The query of a chart, from its parameters, for the kinds of chart that the bundle uses.

    Equal to what Superset's own page sends, to the last key: the cache is found by it (`tests/serve/test_ui.py`).
    """
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
        "row_limit": None if kind == "big_number_total" else params.get("row_limit", 1000), "group_others_when_limit_reached": False, "series_limit": params.get("series_limit", 0), "order_desc": True, "url_params": {}, "custom_params": {}, "custom_form_data": {},
    }
    if params.get("x_axis") and params.get("time_grain_sqla"):
        made["extras"]["time_grain_sqla"] = params["time_grain_sqla"]
    if kind == "table" or kind.startswith("echarts_timeseries"):
        made["time_offsets"] = []
    if params.get("granularity_sqla"):
        made["granularity"] = params["granularity_sqla"]
    if kind == "table" and params.get("query_mode") == "raw":
        made |= {"columns": params["all_columns"], "metrics": None, "orderby": [json.loads(o) for o in params.get("order_by_cols") or []]}
        made["post_processing"] = []
    elif kind == "table":
        made["orderby"] = [[metrics[0], not params.get("order_desc", True)]] if metrics else []
        made["post_processing"] = []
    elif kind == "heatmap_v2":
        made["columns"] = [params["x_axis"], *groups]
        made["orderby"] = [[c, "desc" not in params[f"sort_{axis}_axis"]] for c, axis in zip(made["columns"], "xy", strict=True)]
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


def page_request(chart: dict[str, Any], number: int, dataset: int, chosen: list[dict[str, Any]]) -> dict[str, Any]:
    """What a dashboard's page sends for one of its charts; `force`d past the cache, so that the answer in it is new.

    `number` and `dataset` are the chart's and its dataset's numbers in this Superset, `chosen` what each filter adds
    (its `extraFormData`: a `time_range`, or `filters`).
    """
    params = chart["params"] | {"slice_id": number}
    made = query(params)
    for extra in chosen:
        made["time_range"] = extra.get("time_range", made["time_range"])
    # the page's filters stand before the chart's own: another order would be another answer in the cache
    made["filters"] = [*(f for extra in chosen for f in extra.get("filters", ())), *made["filters"]]
    return {
        "datasource": {"id": dataset, "type": "table"}, "force": True, "queries": [made], "form_data": params,
        "result_format": "json", "result_type": "full",
    }


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
