"""The feature store on real Spark and Delta: the stream's windows taken over, consistency, drift, and no look into the future."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.jobs import conftest, synthetic
from tests.jobs.test_chain import content
from tidewatch import detectors, features, settings, tables

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore")]
START, END = synthetic.START, synthetic.START + timedelta(hours=2)
VIEWS = features.names()
PUBLISHED = tuple(n for n in VIEWS if features.view(n).published)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    with conftest.state(tmp_path_factory.mktemp("state")) as s:
        synthetic.fill(s, devices=24, hours=2)
        yield s


@pytest.fixture(scope="module")
def spark(lake: settings.Settings) -> Iterator[Any]:
    from jobs import spark as sp

    with sp.session(lake, "test") as session:
        yield session


def frame(s: settings.Settings, name: str) -> Any:
    from deltalake import DeltaTable

    return DeltaTable(str(tables.table(name).path(s))).to_pandas()


def online(s: settings.Settings, change: Any = None) -> None:
    """Write what the stream would have seen: the feature store's windows, changed."""
    for name in PUBLISHED:
        found = frame(s, name).sort_values(["window_end", "device_id"], ignore_index=True)
        found = change(found) if change else found
        synthetic.write(s, f"{name}_online", {c.name: found[c.name].to_numpy() for c in tables.table(name).columns}, mode="overwrite")


def build(spark: Any, s: settings.Settings, **options: Any) -> dict[str, Any]:
    from jobs import build_features

    return dict(build_features.build(spark, s, START, END, **options).taken)


def test_1_what_the_stream_has_whole_is_taken_over(lake: settings.Settings, spark: Any) -> None:
    assert build(spark, lake) == {}, "there is nothing of the stream yet: all from the events"
    wanted = {n: content(lake, n) for n in VIEWS}
    online(lake)
    taken = build(spark, lake)
    assert set(taken) == set(PUBLISHED)
    for t in taken.values():
        assert t["windows"] == 120 and t["reopened"] == 0 and t["checked"] > 10 and t["parity"]
    assert {n: content(lake, n) for n in VIEWS} == wanted


def test_2_late_events_and_gaps_open_their_windows_again_and_no_others(lake: settings.Settings, spark: Any) -> None:
    def lossy(found: Any) -> Any:
        """Minute 7 is not there, minute 30 lost a device, minute 60 came twice, a device of minute 90 lost an event's count."""
        minute = (found["window_start"] - found["window_start"].min()).dt.total_seconds() // 60
        count = "flows" if "flows" in found else "readings"
        first = found["device_id"] == found["device_id"].max()
        found.loc[(minute == 90) & first, count] -= 1
        import pandas as pd

        return pd.concat([found[~((minute == 7) | ((minute == 30) & first))], found[minute == 60]], ignore_index=True)

    # late: after the stream closed its windows
    ts = np.array([np.datetime64("2026-03-02T00:45:10", "ms"), np.datetime64("2026-03-02T01:10:59.999", "ms")])
    late = {
        "device_id": ["dev-0001", "dev-0003"], "event_id": [-1, -2], "ts": ts, "direction": ["out", "in"], "src_ip": ["10.0.0.1", "192.0.2.1"],
        "src_port": [1, 1], "dst_ip": ["203.0.113.7", "10.0.0.3"], "dst_port": [443, 443], "proto": ["tcp", "tcp"], "bytes_out": [5, 6], "bytes_in": [7, 8],
        "pkts_out": [1, 1], "pkts_in": [1, 1], "duration_ms": [1, 1], "status": ["ok", "ok"], "external": [True, True],
        "ingested_at": ts + np.timedelta64(1, "h"), "kafka_partition": [0, 0], "kafka_offset": [10**9, 10**9 + 1],
    }
    online(lake, lossy)
    synthetic.write(lake, "flow", late)
    taken = build(spark, lake)
    assert taken["flow_1m"]["reopened"] == 6 and taken["reading_1m"]["reopened"] == 4 and all(t["parity"] for t in taken.values())
    got = {n: content(lake, n) for n in VIEWS}
    build(spark, lake, events_only=True)
    assert {n: content(lake, n) for n in VIEWS} == got
    assert frame(lake, "flow_1m")["flows"].sum() == len(frame(lake, "flow"))


def test_2b_late_events_of_the_cycle_before_open_its_windows_again(lake: settings.Settings, spark: Any) -> None:
    """A build of the second hour also mends the first one, but not what lies further back than the limit."""
    from jobs import build_features

    half = START + timedelta(hours=1)
    build(spark, lake, events_only=True)
    before = {n: content(lake, n) for n in VIEWS}
    at = np.array([np.datetime64(t, "ms") for t in ("2026-03-02T00:05:30", "2026-03-02T00:50:30", "2026-03-02T00:50:40")])
    flow = frame(lake, "flow").head(3).assign(ts=at, ingested_at=at + np.timedelta64(65, "m"), device_id=["dev-0004", "dev-0005", "dev-0005"], kafka_offset=[1, 2, 3], kafka_partition=9)
    synthetic.write(lake, "flow", {c.name: flow[c.name].to_numpy() for c in tables.table("flow").columns})
    near = lake.model_copy(update={"batch": lake.batch.model_copy(update={"lateness": timedelta(minutes=30)})})
    done = build_features.build(spark, near, half, END)
    assert done.late == {"flow_1m": 1, "activity_10m": 1, "egress_1h": 1} and done.outside == {"flow": 1, "reading": 0}
    got = {n: content(lake, n) for n in VIEWS}
    changed = set(got["flow_1m"]) ^ set(before["flow_1m"])
    assert {(r[0], str(r[1])) for r in changed} == {("dev-0005", "2026-03-02 00:50:00")}, "their windows, and no others"
    assert got["reading_1m"] == before["reading_1m"]
    moved = {str(r[2]) for r in set(got["activity_10m"]) ^ set(before["activity_10m"])}
    assert moved == {f"2026-03-02 {m // 60:02}:{m % 60:02}:00" for m in range(51, 61)}
    done = build_features.build(spark, lake, half, END)
    assert done.late == {"flow_1m": 1, "activity_10m": 1, "egress_1h": 1} and frame(lake, "flow_1m")["flows"].sum() == len(frame(lake, "flow"))
    assert not build_features.build(spark, lake, half, END).late, "twice is nothing new"


def test_2c_a_sliding_view_from_panes_is_what_every_row_in_every_window_gives(lake: settings.Settings, spark: Any) -> None:
    """Against pandas, on devices with long gaps."""
    import pandas as pd

    from tidewatch.features import render

    rng = np.random.default_rng(3)
    minute = np.sort(rng.choice(400, 60, replace=False))
    rows = pd.DataFrame({"device_id": rng.choice(["a", "b", "c"], 60), "window_end": pd.Timestamp("2026-03-02") + pd.to_timedelta(minute, "min"), "flows": rng.integers(1, 9, 60)})
    rows["last_ts"] = rows["window_end"].astype("datetime64[ms]").astype("int64") - 1
    spark.createDataFrame(rows).selectExpr("device_id", "CAST(window_end AS TIMESTAMP_NTZ) AS window_end", "flows", "last_ts").createOrReplaceTempView("panes_flow")
    spark.sql("SELECT device_id, window_end, flows AS readings, last_ts FROM panes_flow WHERE FALSE").createOrReplaceTempView("panes_reading")
    start = int(pd.Timestamp("2026-03-02T01:00", tz="UTC").timestamp() * 1000)
    sql = render.spark_view_sql(features.view("activity_10m"), {"flow_1m": "panes_flow", "reading_1m": "panes_reading"}, start_ms=start, end_ms=start + 5 * 3_600_000)
    got = {(r.device_id, r.window_end_ms): (r.events, r.last_ts) for r in spark.sql(sql).collect()}
    want: dict[Any, Any] = {}
    for r in rows.itertuples():
        end = int(r.window_end.tz_localize("UTC").timestamp() * 1000)
        for e in range(end, end + 600_000, 60_000):
            if start < e <= start + 5 * 3_600_000:
                n, last = want.get((r.device_id, e), (0, 0))
                want[r.device_id, e] = (n + r.flows, max(last, r.last_ts))
    assert got == want and len(got) > 300


def test_3_windows_that_do_not_agree_are_built_from_the_events(lake: settings.Settings, spark: Any) -> None:
    wanted = {n: content(lake, n) for n in VIEWS}
    online(lake, lambda found: found.assign(last_ts=found["last_ts"] + 1))
    taken = build(spark, lake)
    assert all(not t["parity"] and t["reopened"] == t["windows"] for t in taken.values())
    assert {n: content(lake, n) for n in VIEWS} == wanted


def scored(s: settings.Settings, spark: Any, start: datetime, end: datetime, change: Any = None, version: str = "7", mode: str = "overwrite") -> dict[str, int]:
    """Write what the stream would have logged of the windows in (start, end]; how many by detector."""
    from jobs import cli, train

    counts = {}
    for d in detectors.all_detectors():
        found = train.read_windows(spark, s, d, start - timedelta(hours=1), end)
        found = found[found["end_ms"] > cli.millis(start)].reset_index(drop=True)
        if change:
            found = change(d, found)
        n, width = len(found), len(d.signals)
        counts[d.name] = n
        end_us = found["end_ms"].to_numpy().astype("datetime64[ms]")
        signals = [list(row) for row in found[[f"signal_{i}" for i in range(width)]].to_numpy(dtype=float)]
        metric = found["entity"].str.split("|").str[2].to_numpy()
        blank = np.full(n, None)
        size = np.timedelta64(features.view(d.view).size_seconds, "s")
        synthetic.write(s, "scores", {
            "use_case": np.full(n, d.use_case), "detector": np.full(n, d.name), "device_id": found["device_id"].to_numpy(), "metric": metric,
            "window_start": end_us - size, "window_end": end_us, "score": np.random.default_rng(1).uniform(0, 0.3, n), "anomalous": np.zeros(n, bool),
            "model_version": np.full(n, f"{d.use_case}/{version}"), "baseline": np.full(n, "device"), "top_signals": blank, "top_observed": blank,
            "top_expected": blank, "top_shares": blank, "signals": signals, "expected": blank, "usual_low": blank, "usual_high": blank, "shadow_version": blank, "shadow_score": blank, "shadow_anomalous": blank,
        }, mode=mode if not counts or len(counts) == 1 else "append")
    return counts


def test_4_consistency_is_counted(lake: settings.Settings, spark: Any) -> None:
    from jobs import consistency

    online(lake)
    counts = scored(lake, spark, START, END)
    done = consistency.check(spark, lake, START, END, publish=False)
    assert done["missing"] == done["extra"] == done["mismatched"] == 0 and done["online"] == done["offline"] > 0
    assert set(done["compared"]) == {*PUBLISHED, *(d.name for d in detectors.all_detectors() if counts[d.name])}

    def other(found: Any) -> Any:
        found = found.copy()
        found.loc[found.index[:3], "last_ts"] += 1
        moved = found.iloc[3:5].assign(device_id="dev-9999")
        import pandas as pd

        return pd.concat([found.drop(index=found.index[3:5]), moved], ignore_index=True)

    online(lake, other)
    d = detectors.all_detectors()[0]
    scored(lake, spark, START, END, lambda x, found: found.assign(signal_0=found["signal_0"] * np.where(found.index == 5, 3, 1) + np.where(found.index == 5, 1, 0)) if x.name == d.name else found)
    done = consistency.check(spark, lake, START, END, publish=False)
    for name in PUBLISHED:
        c = done["compared"][name]
        assert (c["missing"], c["extra"], c["mismatched"], c["worst"]) == (2, 2, 3, "last_ts") and 0 < c["largest_difference"] < 1e-9 * 10**6
    c = done["compared"][d.name]
    assert (c["missing"], c["extra"], c["mismatched"], c["worst"]) == (0, 0, 1, d.signals[0].name) and c["largest_difference"] > 0.6
    again = consistency.check(spark, lake, START, END, publish=False)
    assert again == done and len(content(lake, "consistency")) == len(done["compared"])


def test_5_drift_is_told_and_starts_a_cycle_early(lake: settings.Settings, spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion learned from the first hour; the second is like it, or it is not."""
    from jobs import champions, drift, registry

    half = START + timedelta(hours=1)
    champion = SimpleNamespace(version="7", tags={"window_start": "2026-03-02T00:00:00Z", "window_end": "2026-03-02T01:00:00Z"})
    monkeypatch.setattr(registry, "client", lambda _: None)
    monkeypatch.setattr(registry, "champion", lambda *_: champion)
    monkeypatch.setattr(registry, "versions", lambda *_: [])
    monkeypatch.setattr(champions, "history", lambda *_: [])
    scored(lake, spark, half, END)
    calm = drift.look(spark, lake, half, END, publish=False)
    assert calm["compared"] > 5 and len(calm["drifted"]) < calm["compared"] / 2, calm
    d = next(d for d in detectors.all_detectors() if len(d.signals) > 1 and d.name == "flood")
    scored(lake, spark, half, END, lambda x, found: found.assign(signal_0=found["signal_0"] * 4 + 20) if x.name == d.name else found)
    done = drift.look(spark, lake, half, END, publish=False)
    assert f"{d.name}.{d.signals[0].name}" in done["drifted"] and done["largest"] > 1 and done["retrain"]
    monkeypatch.setattr(registry, "versions", lambda *_: [champion])
    assert not drift.look(spark, lake, half, END, publish=False)["retrain"], "trained in this cycle already"
    rows = [r for r in content(lake, "drift") if r[3] == d.name and r[4] == d.signals[0].name]
    assert len(rows) == 1 and rows[0][7], "a run replaces its own rows"
    assert drift.look(spark, lake, END + timedelta(hours=3), END + timedelta(hours=4), publish=False)["compared"] == 0


def test_6_nothing_of_the_future_reaches_a_training_set(lake: settings.Settings, spark: Any) -> None:
    """The windows read for training are the same whatever comes after their end."""
    from jobs import train

    half = START + timedelta(hours=1)
    before = {d.name: train.read_windows(spark, lake, d, START, half) for d in detectors.all_detectors()}
    for name in VIEWS:
        found = frame(lake, name)
        later = found["window_end"] > np.datetime64(half.replace(tzinfo=None))
        numbers = [f.name for f in features.view(name).features]
        found[numbers] = found[numbers].where(~later, 10**12)
        synthetic.write(lake, name, {c.name: found[c.name].to_numpy() for c in tables.table(name).columns}, mode="overwrite")
    for d in detectors.all_detectors():
        after = train.read_windows(spark, lake, d, START, half)
        assert after.equals(before[d.name]), d.name
        assert (after["end_ms"] <= half.timestamp() * 1000).all()


def test_7_a_build_killed_halfway_leaves_the_tables_and_the_next_repairs(lake: settings.Settings, spark: Any) -> None:
    """Kill the whole process as soon as it has begun to write."""
    spark.stop()
    before = {n: content(lake, n) for n in VIEWS}
    command = [sys.executable, "-m", "jobs.build_features", "--start", START.isoformat(), "--end", END.isoformat(), "--source", "events"]
    process = subprocess.Popen(command, cwd=settings.ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    known = {n: set(tables.table(n).path(lake).rglob("*.parquet")) for n in VIEWS}
    stop = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < stop:
        if any(set(tables.table(n).path(lake).rglob("*.parquet")) - known[n] for n in VIEWS):
            break
        time.sleep(0.02)
    assert process.poll() is None, "it was too quick to be killed"
    import os
    import signal

    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    after = {n: content(lake, n) for n in VIEWS}
    assert sum(after[n] == before[n] for n in VIEWS) >= len(VIEWS) - 1, "a view is the old one or the new one, never half"
    # the next one repairs, also if it is two at once
    both = [subprocess.Popen(command, cwd=settings.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate(timeout=900) for p in both]
    assert [p.returncode for p in both] == [0, 0] and all("rows" in out for out, _ in said)
    assert sum("waiting for it" in err for _, err in said) == 1, "one after the other"
    assert frame(lake, "flow_1m")["flows"].sum() == len(frame(lake, "flow"))
