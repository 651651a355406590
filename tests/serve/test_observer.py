"""The observer: what it writes, and that the alert rules ask for what it measures."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from typing import Any

import pytest
import yaml

from tidewatch import observer, tables
from tidewatch.observer import Measurement
from tidewatch.settings import ROOT, load


def test_a_row_fits_the_table() -> None:
    row = Measurement("lag", "flow", 3).row(1000)
    assert set(row) == {c.name for c in tables.PIPELINE.columns}
    assert row["unit"] == "events"


def test_exposition() -> None:
    text = observer.exposition([Measurement("lag", "flow", 3), Measurement("lag", "", 1e6), Measurement("dag_failed", "retrain", 0)])
    assert text.splitlines() == [
        "# HELP tidewatch_lag " + observer.METRICS["lag"][1] + " (events)", "# TYPE tidewatch_lag gauge",
        'tidewatch_lag{subject="flow"} 3', 'tidewatch_lag{subject=""} 1e+06',
        "# HELP tidewatch_dag_failed " + observer.METRICS["dag_failed"][1], "# TYPE tidewatch_dag_failed gauge", 'tidewatch_dag_failed{subject="retrain"} 0',
    ]


def test_alert_rules_ask_for_what_is_measured() -> None:
    rules = [r for g in yaml.safe_load((ROOT / "docker" / "alerts.yaml").read_text())["groups"] for r in g["rules"]]
    asked = {m for r in rules for m in re.findall(r"tidewatch_(\w+)", r["expr"])}
    assert asked <= set(observer.METRICS)
    assert {"lag", "lost", "data_age", "champion_age", "dag_age", "checkpoint_age", "pinot_halted"} <= asked
    for r in rules:
        assert r["labels"]["severity"] in ("warning", "critical") and r["annotations"]["summary"] and r["annotations"]["fix"], r["alert"]
        assert r["expr"].count("(") == r["expr"].count(")"), r["alert"]


def test_prometheus_reads_the_reports_server() -> None:
    target = yaml.safe_load((ROOT / "docker" / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"][0]["targets"][0]
    assert load().reports.endswith(target)


def test_charts_ask_for_what_is_measured() -> None:
    asked = {
        m for path in (ROOT / "dashboards" / "charts").glob("*.yaml")
        for m in re.findall(r"metric (?:=|IN) \(?'(\w+)'", path.read_text()) if "pipeline" in path.read_text() or "metric =" in path.read_text()
    }
    assert asked - {""} <= set(observer.METRICS)


@pytest.mark.stack
def test_it_measures_the_stack(stack: Any) -> None:
    wanted = {"lag", "events_per_second", "stream_state", "checkpoint_age", "late_events", "data_age", "champion_age", "dag_seconds"}
    until, found = time.monotonic() + 300, set[str]()
    while not wanted <= found and time.monotonic() < until:
        time.sleep(5)
        try:
            with urllib.request.urlopen(f"{stack.settings.reports}/state.json", timeout=10) as answer:
                found = {f["metric"] for f in json.load(answer)["figures"]}
        except OSError:
            continue
    assert wanted <= found, wanted - found
    with urllib.request.urlopen(f"{stack.settings.reports}/metrics.txt", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert b'tidewatch_service_up{subject="kafka"} 1' in answer.read()
