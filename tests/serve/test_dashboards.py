"""The dashboards' files, without a server."""

from __future__ import annotations

import copy
import io
import json
import re
import zipfile
from typing import Any

import pytest
import yaml

from tidewatch import dashboards
from tidewatch.settings import load


def test_nothing_is_wrong() -> None:
    assert dashboards.problems() == ()


def test_wrong_column_filter_and_chart_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    b = dashboards.bundle()
    charts: dict[str, Any] = copy.deepcopy(b.charts)
    boards: dict[str, Any] = copy.deepcopy(b.dashboards)
    charts["charts/alerts_total.yaml"]["params"]["metric"] = {"expressionType": "SQL", "sqlExpression": "MAX(nonsense)", "label": "x"}
    boards["dashboards/overview.yaml"]["position"]["CHART-alerts_open"]["meta"]["uuid"] = "gone"
    boards["dashboards/overview.yaml"]["metadata"]["native_filter_configuration"][1]["targets"][0]["column"]["name"] = "nowhere"
    monkeypatch.setattr(dashboards, "bundle", lambda: dashboards.Bundle(charts, boards, b.datasets))
    wrong = "\n".join(dashboards.problems())
    assert "alerts has no column 'nonsense'" in wrong
    assert "shows a chart that is not there" in wrong
    assert "charts/alerts_open.yaml: no dashboard shows it" in wrong
    assert "'nowhere'" in wrong


@pytest.mark.parametrize(("sql", "columns"), [
    ("SUM(value_sum) / SUM(readings - missing)", {"value_sum", "readings", "missing"}),
    ("\"end\" >= now() - 900000 AND status = 'end'", {"end", "status"}),
    ("SUM(CASE WHEN success = true THEN 1 ELSE 0 END)", {"success"}),
])
def test_columns_in_sql(sql: str, columns: set[str]) -> None:
    assert dashboards._columns_in(sql) == columns


def test_archive() -> None:
    settings = load()
    content = dashboards.archive(settings)
    assert content == dashboards.archive(settings)
    with zipfile.ZipFile(io.BytesIO(content)) as z:
        files = {n: yaml.safe_load(z.read(n)) for n in z.namelist()}
    assert files["assets/metadata.yaml"]["type"] == "assets"
    database = files[f"assets/databases/{dashboards.DATABASE}.yaml"]
    assert database["sqlalchemy_uri"] == dashboards.sqlalchemy_uri(settings)
    charts = [v for n, v in files.items() if n.startswith("assets/charts/")]
    assert charts
    for chart in charts:
        queries = json.loads(chart["query_context"])["queries"]
        assert len(queries) == 1
        assert queries[0]["columns"] or queries[0]["metrics"]
    assert {v["database_uuid"] for n, v in files.items() if "/datasets/" in n} == {database["uuid"]}


def test_places_are_filled_in_and_come_back() -> None:
    settings = load()
    with zipfile.ZipFile(io.BytesIO(dashboards.archive(settings))) as z:
        text = "".join(z.read(n).decode() for n in z.namelist())
    assert "${" not in text
    places = dashboards._places(settings)
    back = {v: k for k, v in places.items()}
    assert len(back) == len(places)
    board = dashboards.bundle().dashboards["dashboards/pipeline.yaml"]
    assert dashboards._filled(dashboards._filled(board, places), back) == board


@pytest.mark.parametrize(("address", "inside"), [
    ("10.1.2.3", True), ("100.1.2.3", False), ("172.16.0.1", True), ("172.31.0.1", True), ("172.32.0.1", False), ("192.168.1.1", True),
    ("192.169.1.1", False), ("8.8.8.8", False), ("239.1.1.1", True), ("255.255.255.255", True), ("fe80::1", True), ("fd00::1", True), ("2001:db8::1", False), ("::1", True),
])
def test_inside_pattern_says_what_the_networks_say(address: str, inside: bool) -> None:
    assert bool(re.match(dashboards.inside_pattern(load().network.inside), address)) is inside


def test_every_dashboard_says_when_it_was_refreshed_and_every_chart_what_it_is() -> None:
    b = dashboards.bundle()
    assert {d["slug"] for d in b.dashboards.values()} == {"overview", "device", "leak-hunt", "data-quality", "models", "pipeline"}
    assert all("CHART-refreshed" in d["position"] for d in b.dashboards.values())
    assert all(c["description"] for c in b.charts.values())


def test_time_axis_in_query() -> None:
    made = dashboards.query({
        "viz_type": "echarts_timeseries_line", "x_axis": "end", "time_grain_sqla": "PT1M", "metrics": ["count"], "groupby": ["severity"],
        "adhoc_filters": [{"expressionType": "SQL", "sqlExpression": "score > 0.5", "clause": "WHERE"}],
    })
    assert made["columns"][0]["timeGrain"] == "PT1M"
    assert made["columns"][1] == "severity"
    assert made["extras"]["where"] == "(score > 0.5)"
