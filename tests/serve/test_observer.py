"""The observer: what it writes, and that the alert rules ask for what it measures."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidewatch import losses, observer, tables
from tidewatch.observer import Measurement
from tidewatch.settings import ROOT


def test_a_row_fits_the_table() -> None:
    row = Measurement("lag", "flow", 3).row(1000)
    assert set(row) == {c.name for c in tables.PIPELINE.columns}
    assert row["unit"] == "events"


def test_exposition() -> None:
    text = observer.exposition([Measurement("lag", "flow", 3), Measurement("lag", "", 1e6), Measurement("dag_failed", "retrain", 0)])
    assert text.splitlines() == [
        "# HELP tidewatch_lag " + observer.METRICS["lag"][1] + " (events)", "# TYPE tidewatch_lag gauge",
        'tidewatch_lag{subject="flow"} 3', 'tidewatch_lag{subject=""} 1000000',
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


def test_charts_ask_for_what_is_measured() -> None:
    asked = {
        m for path in (ROOT / "dashboards" / "charts").glob("*.yaml")
        for m in re.findall(r"metric (?:=|IN) \(?'(\w+)'", path.read_text()) if "pipeline" in path.read_text() or "metric =" in path.read_text()
    }
    assert asked - {""} <= set(observer.METRICS)


def test_events_deleted_unread_are_told_for_a_day_and_over_a_restart(tmp_path: Path) -> None:
    read, begins = {"flow/0": 100, "flow/1": 50}, {"flow/0": 0, "flow/1": 0}
    memory, lost = losses.Memory().seen(0, begins, read)
    assert lost == 0
    memory, lost = memory.seen(60, {"flow/0": 130, "flow/1": 0}, read)  # the stream is down, Kafka deletes
    assert lost == 30
    memory.save(tmp_path / "kept.json")
    memory = losses.Memory.load(tmp_path / "kept.json")
    memory, lost = memory.seen(120, {"flow/0": 140, "flow/1": 0}, {"flow/0": 200, "flow/1": 60})  # it goes on past the gap
    assert lost == 40
    memory, lost = memory.seen(180, {"flow/0": 140, "flow/1": 0}, {"flow/0": 300, "flow/1": 90})
    assert lost == 40
    assert memory.seen(120 + losses.DAY_S, begins, {})[1] == 0
    (tmp_path / "kept.json").write_text("{")
    assert losses.Memory.load(tmp_path / "kept.json") == losses.Memory()


@pytest.mark.stack
def test_it_measures_the_stack(stack: Any) -> None:
    wanted = {"lag", "events_per_second", "stream_state", "checkpoint_age", "late_events", "duplicate_events", "data_age", "champion_age", "dag_seconds"}
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
