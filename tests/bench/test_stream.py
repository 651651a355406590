"""The stream's benches: their arithmetic, and their quick modes on real servers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psutil", reason="the tools environment has it")

from bench.servers import Sample, costs  # noqa: E402
from tidewatch.dashboards import files  # noqa: E402
from tidewatch.settings import ROOT, load  # noqa: E402


def test_costs_count_from_where_each_reader_was_warm() -> None:
    samples = [
        Sample(0.0, {"flink": 10.0, "pinot": 50.0}, {"read": 0}),
        Sample(10.0, {"flink": 30.0, "pinot": 60.0}, {"read": 500, "pinot": 0}),
        Sample(20.0, {"flink": 35.0, "pinot": 70.0}, {"read": 1000, "pinot": 500}),
        Sample(30.0, {"flink": 36.0, "pinot": 75.0, "late": 2.0}, {"read": 1000, "pinot": 1000}),
    ]
    whole, steady, rate = costs(samples, 1000, 400)
    assert whole == {"flink": 26_000.0, "pinot": 25_000.0, "late": 2000.0}
    assert (steady["flink"], steady["pinot"]) == (12_000.0, 10_000.0)  # 6 seconds for 500 events; 5 for 500
    assert rate == 50.0  # both warm at 20 s, 500 left, 10 s


def test_a_reader_that_was_never_seen_half_way_has_no_steady_cost() -> None:
    samples = [Sample(0.0, {"flink": 0.0}, {"read": 0}), Sample(1.0, {"flink": 5.0}, {"read": 100})]
    assert costs(samples, 100, 30)[1] == {}


def quick(bench: str, folder: Path, *arguments: str) -> Any:
    """What a bench's quick mode finds, on servers of its own."""
    figures = folder / "figures.json"
    process = subprocess.Popen(
        [str(load().env_python("tools")), f"bench/{bench}.py", "--quick", *arguments, "--json", str(figures)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    try:
        said, _ = process.communicate(timeout=1500)
    finally:
        if process.poll() is None:  # it took too long, or the tests were interrupted: it ends its servers first
            process.terminate()
            process.communicate(timeout=120)
    assert process.returncode == 0, said[-6000:]
    return json.loads(figures.read_text())


@pytest.mark.stack
def test_throughput_runs_every_step(tmp_path: Path) -> None:
    found = quick("throughput", tmp_path, "--modes", "read,whole")
    assert set(found["modes"]) == {"read", "whole"}
    assert {"kafka", "pinot", "flink_taskmanager", "committer"} <= {k for k, v in found["modes"]["whole"]["cpu"].items() if v > 0}


@pytest.mark.stack
def test_latency_sees_every_kind_of_row(tmp_path: Path) -> None:
    found = quick("latency", tmp_path)[0]
    assert all(f["n"] for name, f in found["figures"].items() if "alert" not in name), found


@pytest.mark.stack
def test_cardinality_scores_windows_with_state_on_disk(tmp_path: Path) -> None:
    row = quick("cardinality", tmp_path, "--backend", "rocksdb")["rows"][0]
    assert row["devices"] == 500 and row["scored"] >= 500 and row["checkpoint"]["bytes"] > 0


@pytest.mark.stack
def test_dashboards_asks_every_chart(tmp_path: Path) -> None:
    found = quick("dashboards", tmp_path)
    shown = {(b["slug"], c["slice_name"]) for b in files.read().dashboards.values() for c in files.read().shown(b)}
    assert {(c["dashboard"], c["chart"]) for c in found["charts"]} == shown
    assert not [c for c in found["charts"] if c["error"]]
    assert all(found["rows"][t] >= 60 * 100 for t in ("flow_1m", "reading_1m", "scores")), found["rows"]
    assert sum(c["rows"] > 0 for c in found["charts"]) > 0.9 * len(shown)
    assert found["scored"] > 0, "the stream ran"
