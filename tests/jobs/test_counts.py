"""Counting events and windows by the files' statistics, and where those do not tell, by a column."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("deltalake", reason="the tools environment has it")

from jobs import counts, lake
from tests.jobs import synthetic
from tidewatch import features, settings, tables
from tidewatch.errors import ServiceError

START, FLOW = synthetic.START, tables.table("flow")
FIRST = int(START.timestamp() * 1000)


@pytest.fixture
def s(tmp_path: Path) -> settings.Settings:
    s = settings.load(state_dir=tmp_path)
    synthetic.fill(s, devices=6, hours=0.5)
    return s


def more(s: settings.Settings, times: list[str], arrived: list[str], device: str = "dev-0001") -> None:
    from deltalake import DeltaTable

    rows = DeltaTable(str(FLOW.path(s))).to_pandas().head(len(times))
    rows = rows.assign(ts=np.array(times, dtype="datetime64[ms]"), ingested_at=np.array(arrived, dtype="datetime64[ms]"), device_id=device)
    synthetic.write(s, "flow", {c.name: rows[c.name].to_numpy() for c in FLOW.columns})


def pandas_counts(s: settings.Settings) -> dict[int, int]:
    from deltalake import DeltaTable

    ts = DeltaTable(str(FLOW.path(s))).to_pandas()["ts"].astype("datetime64[ms]").astype("int64")
    found: dict[int, int] = ((ts // 60_000 + 1) * 60_000).value_counts().to_dict()
    return found


def test_events_are_counted_by_window(s: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    more(s, ["2026-03-02T00:07:10", "2026-03-02T00:07:50"], ["2026-03-02T01:00:00"] * 2)
    end = START + timedelta(minutes=30)
    assert counts.events(s, FLOW, START, end, 60_000) == pandas_counts(s)
    some = counts.events(s, FLOW, START + timedelta(minutes=5), START + timedelta(minutes=9), 60_000)
    assert some == {e: n for e, n in pandas_counts(s).items() if FIRST + 5 * 60_000 < e <= FIRST + 9 * 60_000}
    # a file of one window is not read at all
    read: list[Any] = []
    real = counts._read
    monkeypatch.setattr(counts, "_read", lambda f, columns: read.append(f) or real(f, columns))
    counts.events(s, FLOW, START, end, 60_000)
    assert len(read) == 1 and len(counts.files(s, FLOW, START, end)) == 2
    assert counts.events(s, FLOW, START + timedelta(days=3), end + timedelta(days=3), 60_000) == {}


def test_windows_that_lack_events_are_told_by_device(s: settings.Settings) -> None:
    view, ends = features.view("flow_1m"), [FIRST + 3 * 60_000, FIRST + 8 * 60_000]
    whole = counts.events_by_key(s, view, ends)
    assert sorted(set(whole["end_ms"].to_pylist())) == ends
    assert {e: sum(n for x, n in zip(whole["end_ms"].to_pylist(), whole["n"].to_pylist(), strict=True) if x == e) for e in ends} == {e: pandas_counts(s)[e] for e in ends}
    import pyarrow as pa

    seen = whole.append_column("rows", pa.array([1] * len(whole)))
    assert counts.differing(view, whole, seen, ends) == []
    more(s, ["2026-03-02T00:07:10"], ["2026-03-02T01:00:00"], "dev-0003")
    assert counts.differing(view, counts.events_by_key(s, view, ends), seen, ends) == ["dev-0003"]
    assert counts.differing(view, whole, pa.concat_tables([seen.slice(1), seen.slice(2, 1)]), ends[:1]), "missing, or there twice"


def test_what_arrives_after_the_limit_is_counted(s: settings.Settings) -> None:
    start = START + timedelta(minutes=30)
    more(s, ["2026-03-02T00:07:10", "2026-03-02T00:20:00"], ["2026-03-02T00:40:00", "2026-03-02T00:40:00"])
    assert counts.arrived_late(s, FLOW, START + timedelta(minutes=10), start, start + timedelta(minutes=30)) == 1
    assert counts.arrived_late(s, FLOW, START + timedelta(minutes=25), start, start + timedelta(minutes=30)) == 2
    assert counts.arrived_late(s, FLOW, START + timedelta(minutes=25), start + timedelta(hours=1), start + timedelta(hours=2)) == 0


def test_batches_replace_exactly_their_windows(s: settings.Settings) -> None:
    import pyarrow as pa

    view = tables.table("reading_1m")

    def batch(minutes: list[int], value: int) -> pa.RecordBatch:
        start = np.array([np.datetime64("2026-03-02T00:00", "us") + np.timedelta64(m, "m") for m in minutes])
        columns: dict[str, Any] = {c.name: pa.array([value] * len(minutes), pa.int64() if c.type == "long" else pa.float64()) for c in view.columns if c.type in ("long", "double")}
        columns |= {"device_id": ["a"] * len(minutes), "metric": ["m"] * len(minutes), "window_start": start, "window_end": start + np.timedelta64(1, "m")}
        return pa.RecordBatch.from_pydict(columns)

    def held() -> dict[int, int]:
        return {(e - FIRST) // 60_000: n for e, n in counts.held(s, view, features.view("reading_1m"), "readings", START, START + timedelta(days=2)).events().items()}

    assert lake.overwrite(s, view, [], "true") == 0 and held() == {}
    assert lake.overwrite(s, view, [batch([0, 1], 1), batch([2, 1440], 1)], "true") == 4
    where = f"window_end > {lake.instant(START + timedelta(minutes=1))} AND window_end <= {lake.instant(START + timedelta(minutes=3))}"
    assert lake.overwrite(s, view, [batch([2], 5)], where) == 1
    assert held() == {1: 1, 3: 5, 1441: 1}
    assert lake.overwrite(s, view, [], where) == 0 and held() == {1: 1, 1441: 1}


def test_who_comes_second_changes_nothing_and_says_so(s: settings.Settings) -> None:
    """A real conflict: the same windows are replaced while they are being replaced."""
    from deltalake import DeltaTable

    rows = DeltaTable(str(FLOW.path(s))).to_pyarrow_table()
    limit = f"ts >= {lake.instant(START)}"
    assert lake.overwrite(s, FLOW, rows.to_batches(), limit) == len(rows)

    def slow() -> Any:
        yield from rows.slice(0, 10).to_batches()
        other = threading.Thread(target=lake.overwrite, args=(s, FLOW, rows.slice(0, 3).to_batches(), limit))
        other.start()
        other.join()
        yield from rows.slice(10, 10).to_batches()

    with pytest.raises(ServiceError, match="another writer") as told:
        lake.overwrite(s, FLOW, slow(), limit)
    assert "run the job again" in told.value.fix
    assert lake.count(s, FLOW) == 3, "what came first stays, whole"
    assert lake.overwrite(s, FLOW, rows.to_batches(), limit) == len(rows) == lake.count(s, FLOW)


def test_mended_windows_are_told_as_the_stream_tells_them(s: settings.Settings) -> None:
    import pyarrow as pa

    view = tables.table("flow_1m")
    columns: dict[str, Any] = {c.name: pa.array([7]) for c in view.columns if c.type == "long"}
    start = np.array(["2026-03-02T00:05"], dtype="datetime64[us]")
    rows = lake.plain(view, pa.table({"device_id": ["a"], "window_start": start, "window_end": start + np.timedelta64(1, "m"), **columns}))
    assert rows[0]["window_end"] == FIRST + 6 * 60_000 and rows[0]["flows"] == 7 and list(rows[0]) == [c.name for c in view.columns]


def test_what_is_built_both_ways_is_the_first_window_and_some_that_change_with_each_build() -> None:
    from jobs import incremental

    view, end = features.view("flow_1m"), START + timedelta(hours=4)
    first = FIRST + 60_000
    found = incremental.sample(view, START, end, {})
    assert found[0] == first and 10 <= len(found) <= 11 and found == incremental.sample(view, START, end, {})
    assert found[1:] != incremental.sample(view, START, end + timedelta(minutes=1), {})[1:]
    busy = dict.fromkeys(range(first, first + 240 * 60_000, 60_000), 2_400_000)
    assert len(incremental.sample(view, START, end, busy)) == 2, "a minute at full scale is enough to read"
    assert incremental.sample(view, START, START + timedelta(seconds=59), {}) == []
    assert incremental.sample(view, START, START + timedelta(minutes=1), {}) == [first]


def test_two_ways_differ_by_number_and_by_rounding() -> None:
    import pandas as pd

    from jobs import incremental

    one = pd.DataFrame({"k": ["a", "b", "c", "d"], "n": [1, 2, 3, 4], "x": [1.0, 2.0, np.nan, 4.0]})
    assert incremental.different(one, one, ["k"], ["n", "x"]) == (4, 0)
    near = one.assign(x=[1 + 1e-12, 2.0, np.nan, 4.0])
    assert incremental.different(one, near, ["k"], ["n", "x"]) == (4, 0)
    other = one.assign(n=[1, 3, 3, 4], x=[1.1, 2.0, 5.0, 4.0]).iloc[:3]
    assert incremental.different(one, other, ["k"], ["n", "x"]) == (4, 4)
