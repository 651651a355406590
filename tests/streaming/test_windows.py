"""Windows meet what is needed to score them: their device's metrics, the windows before, baselines and models of their time."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from streaming import job
from streaming.windows import handed, wanted
from tests.test_scoring import model
from tidewatch import scoring
from tidewatch.detectors import all_detectors
from tidewatch.settings import ROOT, current, load

MINUTE, T0 = 60_000, 1_795_474_800_000
WINDOWS, DEVICES = 50, ("a", "b", "gerät-€")
SEEN = next(h for h in handed() if h.lookback > 1 and h.view == "reading_1m")
ALONE = next(h for h in handed() if h.view == "flow_1m" and h.lookback == 1)
EVERY = 10
APART = dataclasses.replace(next(h for h in handed() if h.every_ms > 1), every_ms=EVERY * 60_000)
"""Each tenth minute is kept here, instead of each hour."""
GAP = 20
"""Minute in which device b reports nothing."""
CHANGE = T0 + 30 * MINUTE - 1
"""From here on another model of `lie` holds, and other baselines of device a."""
INPUTS = np.random.default_rng(1).normal(size=(len(DEVICES), 2, WINDOWS, len(SEEN.inputs)))
INPUTS[0, 0, 7, 0] = np.nan
FAR = np.random.default_rng(2).normal(size=(len(DEVICES), WINDOWS, len(APART.inputs)))


def end(window: int) -> int:
    return T0 + (window + 1) * MINUTE


def center(detector: str, d: int, valid_from: int) -> np.ndarray[Any, Any]:
    """(24, d)"""
    return 1e9 + np.random.default_rng([ord(detector[0]), valid_from % 997]).normal(size=(24, d))


def scale(d: int) -> list[float]:
    """Every second so small that the steps of what hours differ would be too coarse for it."""
    return [(0.5, 1e-3)[i % 2] for i in range(d)]


def baseline(detector: str, device: str, metric: str, d: int, valid_from: int, **more: Any) -> dict[str, Any]:
    return {"entity": f"{detector}|{device}|{metric}", "device_id": device, "valid_from": valid_from, "source": "kind", "scale": scale(d),
            "center": center(detector, d, valid_from).ravel().tolist(), **more}


def windows() -> Iterator[dict[str, Any]]:
    for i in range(WINDOWS):
        for d, device in enumerate(DEVICES):
            for h in (SEEN, ALONE, APART):
                for m in range(2) if h is SEEN else (0,):
                    if (d, i) != (1, GAP) or h is not SEEN:
                        yield {
                            "handed": h.text, "device_id": device, "metric": f"m{m}" if h is SEEN else "", "begin_ms": end(i) - MINUTE, "end_ms": end(i),
                            "inputs": [None if np.isnan(x) else x for x in (INPUTS[d, m] if h is SEEN else FAR[d])[i]] if h is not ALONE else [float(i)] * len(h.inputs),
                        }


Rows = dict[tuple[str, str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Flink with the job's own relations from windows to scores, over files."""
    pytest.importorskip("pyflink", reason="the flink environment has it")
    from pyflink.table import EnvironmentSettings, TableEnvironment

    from streaming import build

    build.build(current())
    folder = tmp_path_factory.mktemp("rows")
    uri = {}
    for use_case in ("lie", "leak", "silent"):
        parts = {x.name: model(x).detectors[x.name] for h in (SEEN, ALONE) for x in h.detectors if x.use_case == use_case}
        (folder / f"{use_case}.json").write_text(scoring.dump(scoring.Model(use_case, "pca", parts)))
        uri[use_case] = (folder / f"{use_case}.json").as_uri()
    te = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in {"table.local-time-zone": "UTC", "parallelism.default": "1", "pipeline.jars": build.jar_path(current()).as_uri(),
                       "python.executable": sys.executable, "python.pythonpath": str(ROOT)}.items():
        te.get_config().set(key, value)
    job.register_functions(te, load(state_dir=folder))

    def table(name: str, columns: str, time: str, mark: str, found: list[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in found))
        te.execute_sql(
            f"CREATE TABLE `{name}` ({columns}, `rowtime` AS TO_TIMESTAMP_LTZ({time}, 3), WATERMARK FOR `rowtime` AS TO_TIMESTAMP_LTZ({mark}, 3))"
            f" WITH ('connector'='filesystem', 'path'='{(folder / name).as_uri()}', 'format'='json')")

    table("windows", "`handed` STRING, `device_id` STRING, `bucket` AS tidewatch_bucket(`device_id`), `metric` STRING,"
          " `begin_ms` BIGINT, `end_ms` BIGINT, `inputs` ARRAY<DOUBLE>", "`end_ms` - 1", "`end_ms` - 2", list(windows()))
    never_late = f"COALESCE(`valid_from`, 0) + {job.NEVER_LATE // timedelta(milliseconds=1)}"
    found = [
        baseline(x.name, device, "m0" if h is SEEN else "", len(x.signals), T0 - 1)
        for h in (SEEN, ALONE, APART) for x in h.detectors for device in DEVICES if (x.name, device) != ("corruption", "b")
    ]
    wrong = next(x for x in SEEN.detectors if x.name == "corruption")
    found += [baseline("corruption", "b", "m0", 2, T0 - 1), baseline("corruption", "a", "m0", len(wrong.signals), CHANGE, source="device"), {"entity": None}]
    table("baselines", "`entity` STRING, `device_id` STRING, `bucket` AS tidewatch_bucket(`device_id`), `valid_from` BIGINT, `source` STRING,"
          " `center` ARRAY<DOUBLE>, `scale` ARRAY<DOUBLE>", never_late, "`valid_from`", found)
    table("models", "`use_case` STRING, `version` STRING, `uri` STRING, `shadow_version` STRING, `shadow_uri` STRING, `valid_from` BIGINT", never_late, "`valid_from`", [
        *({"use_case": u, "version": "1", "uri": uri[u], "valid_from": T0 - 1} for u in ("lie", "silent")),
        {"use_case": "leak", "version": "1", "uri": uri["leak"], "valid_from": T0 + 10 * MINUTE},
        {"use_case": "lie", "version": "2", "uri": uri["lie"], "valid_from": CHANGE, "shadow_version": "3", "shadow_uri": uri["lie"]}, {"use_case": None, "version": "3"}, {"use_case": "lie", "version": "3"},
    ])
    for name, sql in job.views_sql(load()):
        if name in ("told", "matched", "scores", "anomalous"):
            te.create_temporary_view(name, te.sql_query(sql))
    # a local Flink runs its Python workers in this process and leaves their environment (PYFLINK_GATEWAY_DISABLED=1) behind
    with mock.patch.dict(os.environ):
        yield te


@pytest.fixture(scope="module")
def rows(flink: Any) -> Rows:
    """What Flink matches, by (detector, device, window)."""
    columns = ("detector", "device_id", "window_end_ms", "asked", "metric", "source", "inputs", "baseline")
    with flink.execute_sql(f"SELECT {', '.join(columns)} FROM `matched`").collect() as answer:
        made = [dict(zip(columns, r, strict=True)) for r in answer]
    for r in made:
        numbers = np.frombuffer(r["baseline"], dtype="<f8").reshape(len(r["metric"]), 2, -1)
        r |= {"asked": r["asked"].split("\n"), "inputs": np.frombuffer(r["inputs"], dtype="<f8").tolist(), "center": numbers[:, 0], "scale": numbers[:, 1]}
    keyed = {(r["detector"], r["device_id"], (r["window_end_ms"] - T0) // MINUTE - 1): r for r in made}
    assert len(keyed) == len(made)
    return keyed


@pytest.mark.flink
@pytest.mark.filterwarnings("ignore")
def test_each_window_is_there_once_if_its_use_case_has_a_model(rows: Rows) -> None:
    want = {(x.name, d, i) for h in (SEEN, ALONE, APART) for x in h.detectors for d in DEVICES for i in range(WINDOWS)
            if (h is not SEEN or (d, i) != ("b", GAP)) and (x.use_case != "leak" or i >= 10)}
    assert rows.keys() == want
    told = [rows["corruption", "b", i]["asked"] for i in (0, 28, 29, 49)]
    assert {tuple(m[:2]) for m in told} == {("lie", "corruption")}
    assert [(m[2], *m[4:]) for m in told] == [("1", "", ""), ("1", "", ""), ("2", "3", told[3][3]), ("2", "3", told[3][3])]


@pytest.mark.flink
@pytest.mark.filterwarnings("ignore")
def test_windows_of_a_lookback_are_handed_over_as_the_batch_side_sees_them(rows: Rows) -> None:
    detector = next(x for x in SEEN.detectors if x.name == "corruption")
    back = detector.lookback
    assert back is not None
    places = [SEEN.inputs.index(sql) for sql in wanted(detector)]
    for (name, device, i), row in rows.items():
        if name != "corruption":
            continue
        d = DEVICES.index(device)
        assert row["metric"] == ["m0", "m1"]
        got = SEEN.observe(detector, SEEN.read(np.array(row["inputs"])))
        there = [k for k in range(WINDOWS) if (d, k) != (1, GAP) and k <= i][-back.windows:]
        ends = np.full((2, back.windows), -np.inf)
        inputs = np.full((2, len(places), back.windows), np.nan)
        ends[:, back.windows - len(there):] = [end(k) for k in there]
        inputs[:, :, back.windows - len(there):] = INPUTS[d][:, there][:, :, places].transpose(0, 2, 1)
        np.testing.assert_array_equal(got, back.signals(ends, inputs))
    for (name, _, i), row in rows.items():
        if name == "exfiltration":
            assert row["metric"] == [""] and row["inputs"] == [end(i), *[float(i)] * len(ALONE.inputs)]


@pytest.mark.flink
@pytest.mark.filterwarnings("ignore")
def test_of_the_windows_before_those_apart_are_handed_over_if_asked(rows: Rows) -> None:
    for (name, device, i), row in rows.items():
        if name == APART.detectors[0].name:
            there = [k for k in range(i) if (k + 1) % EVERY == 0] + [i]  # the window k ends with the minute k + 1
            got = APART.read(np.array(row["inputs"]))[0, :, -len(there):]
            np.testing.assert_array_equal(got[0], [end(k) for k in there])
            np.testing.assert_array_equal(got[1:], FAR[DEVICES.index(device)][there].T)
            assert np.isnan(APART.read(np.array(row["inputs"]))[0, :, : -len(there)]).all()


@pytest.mark.flink
@pytest.mark.filterwarnings("ignore")
def test_the_baseline_is_that_of_the_time_and_hour(rows: Rows) -> None:
    hours, exact = set(), True
    for (name, device, i), row in rows.items():
        d = len(next(x for x in all_detectors() if x.name == name).signals)
        got = row["center"]
        assert got.shape == row["scale"].shape == (len(row["metric"]), d) and np.isnan(got[1:]).all() and row["source"][1:] in ("", " ")
        if (name, device) == ("corruption", "b"):  # its baseline has other signals
            assert row["source"] == "  " and np.isnan(got).all() and np.isnan(row["scale"]).all()
            continue
        new = (name, device) == ("corruption", "a") and i >= 29
        assert row["source"][0] == ("d" if new else "k") and row["scale"][0].tolist() == scale(d)
        hour = end(i) // 3_600_000 % 24
        hours.add(hour)
        want = center(name, d, CHANGE if new else T0 - 1)[hour]
        off = np.abs(got[0] - want)
        assert off[::2].max() < 0.5 / 512, "a 512th of the scale"
        assert off[1::2].max(initial=0) < 1e-6, "2^-24 of what differs between hours, and what a double has at 1e9"
        exact = exact and off.max() < 1e-6
    assert not exact, "steps were never used"
    assert len(hours) == 1 or max(hours) - min(hours) == 1


@pytest.mark.flink
@pytest.mark.filterwarnings("ignore")
def test_they_are_scored_in_a_python_worker_as_they_are_here(flink: Any, rows: Rows, tmp_path: Path) -> None:
    from streaming.scorer import Scorer
    from tests.streaming.test_scorer import context, packed

    here = Scorer(str(tmp_path))
    here.open(context([]))
    columns = [["\n".join(r["asked"]), packed(r["inputs"]), r["source"], r["baseline"]] for r in rows.values()]
    want = here.eval(*(pd.Series(list(c)) for c in zip(*columns, strict=True)))
    want = {k: w | {"metric": rows[k]["metric"][w["place"] - 1]} for k, w in zip(rows, want.to_dict("records"), strict=True) if w["score"] is not None}
    for w in want.values():
        w["reason"] = f"{w['metric']}: {w['reason']}" if w["reason"] and w["metric"] else w["reason"]
    numbers, others = ("score", "usual_low", "shadow_score"), ("metric", "anomalous", "model_version", "baseline", "severity", "reason", "shadow_version")
    names = ("detector", "device_id", "window_end_ms", *numbers, *others)
    sql = ", ".join(f"`{n}`" for n in names)
    with flink.execute_sql(f"SELECT {sql}, CAST(`top_observed` AS STRING) AS `top` FROM `scores`").collect() as answer:
        got = {(r[0], r[1], (r[2] - T0) // MINUTE - 1): dict(zip((*names, "top"), r, strict=True)) for r in answer}
    assert got.keys() == want.keys() and len(got) > 250
    for k, w in want.items():
        for n in numbers:
            assert (w[n] is None or np.isnan(w[n])) if got[k][n] is None else got[k][n] == pytest.approx(w[n], rel=1e-12), (k, n)
        assert {n: got[k][n] for n in others} == {n: w[n] for n in others}, k
        assert [float(x) for x in got[k]["top"][1:-1].split(", ")] == w["top_observed"].tolist()


@pytest.mark.flink
@pytest.mark.filterwarnings("ignore")
def test_what_is_anomalous_says_what_its_detector_stands_for(flink: Any) -> None:
    with flink.execute_sql("SELECT `detector`, `technique`, `title`, `window_end_ms` - `window_start_ms` FROM `anomalous`").collect() as answer:
        got = {tuple(r) for r in answer}
    assert got and got <= {(d.name, d.technique, d.title, MINUTE) for d in all_detectors()}


def test_what_several_detectors_read_is_handed_over_once() -> None:
    for h in handed():
        assert len(set(h.inputs)) == len(h.inputs)
        seen = h.read(np.arange(2.0 * (1 + len(h.inputs)) * h.lookback))
        for d in h.detectors:
            assert h.observe(d, seen).shape == (2, len(d.signals))
    assert sorted(d.name for h in handed() for d in h.detectors) == [d.name for d in all_detectors()]
