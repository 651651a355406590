"""The bench of detection on a small set in the documented form, in the spark environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("pyspark", reason="the spark environment has it")

START = np.datetime64("2026-03-02T00:00", "us")


def write(folder: Path) -> None:
    """Two devices, two metrics, a reading each half minute over ten hours; the last part is test, one lie in it."""
    import pandas as pd

    rng = np.random.default_rng(1)
    n = 1200
    ts = pd.to_datetime(START + (30_000_000 * np.arange(n)).astype("timedelta64[us]"), utc=True)
    parts = []
    for d in ("a", "b"):
        value = 20 + rng.normal(0, 0.2, n)
        load = np.abs(50 + 5 * rng.normal(size=n))
        if d == "a":
            value[1000:1040] += 5 * rng.normal(size=40)
        parts.append(pd.DataFrame({"device_id": d, "ts": ts, "split": np.where(np.arange(n) < 700, "train", "test"),
                                   "temperature": value.astype("float32"), "load": load.astype("float32")}))
    folder.mkdir()
    pd.concat(parts).to_parquet(folder / "readings.parquet")
    pd.DataFrame({"device_id": ["a"], "start": [ts[1000]], "end": [ts[1040]], "use_case": ["lie"], "kind": ["noise"]}).to_parquet(folder / "incidents.parquet")
    about = {"name": "small", "use_cases": ["lie"], "licence": "none", "inside_networks": [], "note": "made by a test"}
    (folder / "set.json").write_text(json.dumps(about))


def test_a_lie_is_found_and_the_rivals_stand_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench import quality, rivals

    write(tmp_path / "small")
    out = tmp_path / "figures.json"
    assert quality.main(["--data", str(tmp_path), "--cache", str(tmp_path / "cache"), "--json", str(out)]) == 0
    found: dict[str, Any] = {r["who"]: r for r in json.loads(out.read_text())["results"]}
    assert list(found) == ["tidewatch", *rivals.NAMES]
    ours = found["tidewatch"]
    assert ours["recall"] == 1 and ours["precision"] >= 0.5 and ours["incidents"] == 1 and ours["delay"] <= 5
    assert ours["vus_pr"] > 0.7 > found["random"]["vus_pr"]
    assert "VUS-PR" in capsys.readouterr().out


def test_injected_incidents_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench import injected, quality

    out = tmp_path / "figures.json"
    assert quality.main(["--injected", "--quick", "--cache", str(tmp_path / "cache"), "--json", str(out)]) == 0
    found: dict[str, Any] = json.loads(out.read_text())["injected"]
    assert found["device_days"] == injected.QUICK.devices * injected.QUICK.test_hours / 24
    assert {(k["kind"], k["strength"]) for k in found["kinds"]} == {(t.kind, x) for t in injected.TROUBLES for x in injected.STRENGTHS}
    at = {(k["kind"], k["strength"]): k["recall"] for k in found["kinds"]}
    assert at["flood", 2.0] == at["fast_leak", 2.0] == 1 and found["clear_recall"] > 0.5
    assert set(found["false_alerts"]) == {"silent", "leak", "lie"} and "recall (named first)" in capsys.readouterr().out


def test_baselines_are_built_evenly_until_the_test_part() -> None:
    from bench import injected

    begin, hour = injected.START_MS, 3_600_000
    assert injected.cycles(injected.QUICK) == (begin + 6 * hour, begin + 12 * hour)
    assert injected.cycles(injected.FIRST) == (begin + 48 * hour,)
    assert np.all(np.diff((begin, *injected.cycles(injected.FULL))) == 24 * hour)
