"""The dashboards' files, without a server."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from typing import Any

import pytest
import yaml

from tidewatch.dashboards import charts, check, files, server, style
from tidewatch.settings import load


def test_nothing_is_wrong() -> None:
    assert check.problems() == ()


def test_wrong_column_filter_and_chart_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    b = files.read()
    shown: dict[str, Any] = copy.deepcopy(b.charts)
    boards: dict[str, Any] = copy.deepcopy(b.dashboards)
    shown["charts/alerts_total.yaml"]["params"]["metric"] = {"expressionType": "SQL", "sqlExpression": "MAX(nonsense)", "label": "x"}
    shown["charts/alerts_table.yaml"]["description"] = "a table"
    boards["dashboards/overview.yaml"]["position"]["CHART-alerts_open"]["meta"]["uuid"] = "gone"
    boards["dashboards/overview.yaml"]["metadata"]["native_filter_configuration"][1]["targets"][0]["column"]["name"] = "nowhere"
    metric = next(f for f in boards["dashboards/device.yaml"]["metadata"]["native_filter_configuration"] if f["cascadeParentIds"])
    metric["requiredFirst"] = True
    hunt = boards["dashboards/leak_hunt.yaml"]["metadata"]["native_filter_configuration"]
    assert [f["defaultDataMask"]["extraFormData"]["time_range"] for f in hunt if f["filterType"] == "filter_time"] == ["Last week", "Last hour"]
    hunt[0]["scope"]["excluded"].remove(35)
    monkeypatch.setattr(files, "read", lambda: files.Bundle(shown, boards, b.datasets))
    wrong = "\n".join(check.problems())
    assert "alerts has no column 'nonsense'" in wrong
    assert "shows a chart that is not there" in wrong
    assert "charts/alerts_open.yaml: no dashboard shows it" in wrong
    assert "'nowhere'" in wrong
    assert f"waits for the filter {metric['name']!r}" in wrong
    assert "alerts_table.yaml: the description does not end" in wrong
    assert "CHART-leak_pairs gets its time from 'Time' and 'Time of single flows'" in wrong


@pytest.mark.parametrize(("sql", "columns"), [
    ("SUM(value_sum) / SUM(readings - missing)", {"value_sum", "readings", "missing"}),
    ("\"end\" >= now() - 900000 AND status = 'end'", {"end", "status"}),
    ("SUM(CASE WHEN success = true THEN 1 ELSE 0 END)", {"success"}),
])
def test_columns_in_sql(sql: str, columns: set[str]) -> None:
    assert charts._columns_in(sql) == columns


def test_archive() -> None:
    settings = load()
    content = server.archive(settings)
    assert content == server.archive(settings)
    with zipfile.ZipFile(io.BytesIO(content)) as z:
        contents = {n: yaml.safe_load(z.read(n)) for n in z.namelist()}
    assert contents["assets/metadata.yaml"]["type"] == "assets"
    database = contents[f"assets/databases/{files.DATABASE}.yaml"]
    assert database["sqlalchemy_uri"] == server.sqlalchemy_uri(settings)
    made = [v for n, v in contents.items() if n.startswith("assets/charts/")]
    assert made
    for chart in made:
        queries = json.loads(chart["query_context"])["queries"]
        assert len(queries) == 1
        assert queries[0]["columns"] or queries[0]["metrics"]
    assert {v["database_uuid"] for n, v in contents.items() if "/datasets/" in n} == {database["uuid"]}


def test_places_are_filled_in_and_come_back() -> None:
    settings = load()
    with zipfile.ZipFile(io.BytesIO(server.archive(settings))) as z:
        text = "".join(z.read(n).decode() for n in z.namelist())
    assert "${" not in text
    places = server._places(settings)
    assert not [n for n, c in files.read().charts.items() if "${" in json.dumps(charts.page_request(server.filled(settings, c), 1, 1, []))], "what refreshing sends"
    back = {v: k for k, v in places.items()}
    assert len(back) == len(places)
    board = files.read().dashboards["dashboards/pipeline.yaml"]
    assert server._filled(server._filled(board, places), back) == board


def test_every_dashboard_says_when_it_was_refreshed_and_every_chart_what_it_is() -> None:
    b = files.read()
    assert {d["slug"] for d in b.dashboards.values()} == {"overview", "device", "leak-hunt", "data-quality", "models", "pipeline"}
    assert all("CHART-refreshed" in d["position"] for d in b.dashboards.values())
    assert all(c["description"] for c in b.charts.values())


def test_an_empty_chart_says_what_is_missing() -> None:
    with zipfile.ZipFile(io.BytesIO(server.archive(load()))) as z:
        board = yaml.safe_load(z.read("assets/dashboards/overview.yaml"))
    assert "If nothing arrives at all, Pipeline tells" in board["css"]
    assert board["css"].count("data-test-chart-name") == len(files.read().shown(board))
    assert style.without("b { color: red; }\n" + board["css"]) == "b { color: red; }"
    assert 'content: "A \\"b\\""' in style.sheet([{"slice_name": "x", "description": 'y; empty: a "b"'}])


def test_time_axis_in_query() -> None:
    made = charts.query({
        "viz_type": "echarts_timeseries_line", "x_axis": "end", "time_grain_sqla": "PT1M", "metrics": ["count"], "groupby": ["severity"],
        "adhoc_filters": [{"expressionType": "SQL", "sqlExpression": "score > 0.5", "clause": "WHERE"}],
    })
    assert made["columns"][0]["timeGrain"] == "PT1M"
    assert made["columns"][1] == "severity"
    assert made["extras"]["where"] == "(score > 0.5)"
