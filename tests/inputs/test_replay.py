"""The replay: a set in the documented form becomes events that say what the set says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import fastavro
import pandas as pd
import pytest

from tests.inputs.test_encode import schema
from tidewatch.errors import InputError
from tidewatch.inputs.replay import Replay, between, differing_inside, load
from tidewatch.settings import Settings

T0 = pd.Timestamp("2020-03-01T12:00:00Z")
MS0 = int(T0.timestamp() * 1000)


def seconds(*at: float) -> list[pd.Timestamp]:
    return [T0 + pd.Timedelta(seconds=s) for s in at]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set with flows, readings and labels, as small as it can be and as odd as real ones are."""
    (tmp_path / "set.json").write_text(json.dumps({"name": "odd", "inside_networks": ["10.0.0.0/8", "198.18.0.0/15"]}))
    pd.DataFrame({
        "device_id": ["10.0.0.1", "10.0.0.1", "b8:27:eb:00:00:01", "10.0.0.1"], "ts": seconds(0, 1, 2, 3),
        "duration": [5.5, None, 0.25, 0.0], "src_ip": ["10.0.0.1", "8.8.8.8", "b8:27:eb:00:00:01", "10.0.0.1"],
        "src_port": pd.array([1234, 53, None, 7], dtype="Int64"), "dst_ip": ["8.8.8.8", "10.0.0.1", "ff:ff:ff:ff:ff:ff", "10.0.0.2"],
        "dst_port": pd.array([443, 999, None, 8], dtype="Int64"), "proto": ["TCP", "udp", "ARP", "tcp"],
        "bytes_out": pd.array([10, None, 180, 1], dtype="Int64"), "bytes_in": pd.array([20, None, 0, 1], dtype="Int64"),
        "pkts_out": pd.array([1, 2, 3, 4], dtype="Int64"), "pkts_in": pd.array([1, 2, 3, 4], dtype="Int64"),
        "status": ["SF", "S0", None, "RSTO"], "split": ["train", "train", "train", "test"],
    }).to_parquet(tmp_path / "flows.parquet")
    pd.DataFrame({
        "device_id": ["m1", "m2", "m1", "m1"], "ts": seconds(0, 0, 10, 10), "split": ["train", "train", "test", "test"],
        "hum": pd.array([1.5, None, None, 2.0], dtype="Float32"), "temp": pd.array([20.0, 21.0, 22.0, 23.0], dtype="Float32"),
    }).to_parquet(tmp_path / "readings.parquet")
    pd.DataFrame({
        "device_id": ["m1", "m2"], "start": seconds(9, 86400), "end": seconds(11, 86500), "use_case": ["lie", "silent"], "kind": ["stuck", "gone"],
    }).to_parquet(tmp_path / "incidents.parquet")
    return tmp_path


def sent(folder: Path, *, split="all", shift_to=None, step=1000) -> dict[str, list[dict]]:
    found = load(folder, split, shift_to)
    source, rows = Replay(found), {"flow": [], "reading": []}
    for at in range(found.start_ms, found.end_ms + step, step):
        for p in source.advance(at):
            for key, body in zip(p.keys, p.bodies, strict=True):
                row = fastavro.schemaless_reader(io.BytesIO(body), schema(p.topic))
                assert key == row["device_id"].encode() and row["ts"] < at
                rows[p.topic].append(row)
    return rows


def test_flows_are_sent_when_they_end(folder: Path) -> None:
    flows = sent(folder)["flow"]
    assert [(f["device_id"], f["ts"] - MS0) for f in flows] == [
        ("10.0.0.1", 1000), ("b8:27:eb:00:00:01", 2250), ("10.0.0.1", 3000), ("10.0.0.1", 5500),
    ]
    assert [f["status"] for f in flows] == ["unanswered", "ok", "reset", "ok"]
    assert [f["direction"] for f in flows] == ["in", "out", "out", "out"]
    assert [f["proto"] for f in flows] == ["udp", "arp", "tcp", "tcp"]
    assert flows[0]["bytes_out"] == flows[0]["bytes_in"] == flows[0]["duration_ms"] == 0
    assert flows[1]["src_port"] is None and flows[3]["duration_ms"] == 5500 and flows[3]["src_port"] == 1234


def test_a_reading_for_each_metric_a_device_has(folder: Path) -> None:
    readings = sent(folder)["reading"]
    # m2 never has hum: it is none of its metrics; m1 has, so its null is one
    assert [(r["device_id"], r["metric"], r["value"]) for r in readings] == [
        ("m1", "hum", 1.5), ("m1", "temp", 20.0), ("m2", "temp", 21.0),
        ("m1", "hum", None), ("m1", "temp", 22.0), ("m1", "hum", 2.0), ("m1", "temp", 23.0),
    ]
    assert len({(r["device_id"], r["event_id"]) for r in readings}) == 7


def test_same_events_however_they_are_taken(folder: Path) -> None:
    assert sent(folder, step=100) == sent(folder, step=60_000)


def test_a_shift_moves_events_labels_and_ids(folder: Path) -> None:
    to = MS0 + 3_600_000
    found, plain = load(folder, "all", to), load(folder)
    assert found.start_ms == to and plain.start_ms == MS0
    assert found.labels[0]["start"] == MS0 + 9000 + 3_600_000 and plain.labels[0]["end"] == MS0 + 11_000
    assert not {r["event_id"] for r in sent(folder)["reading"]} & {r["event_id"] for r in sent(folder, shift_to=to)["reading"]}


def test_splits_and_labels(folder: Path) -> None:
    assert len(sent(folder, split="test")["flow"]) == 1 and len(sent(folder, split="train")["reading"]) == 3
    # the second label lies after the last event
    assert [(r["device_id"], r["use_case"], r["kind"], r["origin"]) for r in load(folder).labels] == [("m1", "lie", "stuck", "odd")]
    assert {d["device_id"] for d in load(folder).devices} == {"10.0.0.1", "b8:27:eb:00:00:01", "m1", "m2"}


def test_a_set_is_cut_at_a_moment(folder: Path) -> None:
    found = load(folder)
    early, late = between(found, None, MS0 + 5500), between(found, MS0 + 5500, None)
    assert early.events + late.events == found.events and len(early.columns["flow"]["ts"]) == 3 and len(late.columns["reading"]["ts"]) == 4
    assert early.end_ms == MS0 + 3001 and late.start_ms == MS0 + 5500 and late.end_ms == found.end_ms
    assert early.labels == [] and late.labels == found.labels
    assert set(between(found, None, MS0 + 500).columns) == {"reading"}
    with pytest.raises(InputError, match=r"reaches from 2020-03-01T12:00:00Z"):
        between(found, MS0 + 60_000, None)


def test_other_inside_networks_are_told(folder: Path) -> None:
    said = differing_inside(load(folder), Settings())
    assert said.startswith("TIDEWATCH_NETWORK__INSIDE=") and "198.18.0.0/15" in said
    assert not differing_inside(load(folder), Settings(network={"inside": ["10.0.0.0/8", "198.18.0.0/15"]}))


def test_what_is_no_set_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=r"no set\.json"):
        load(empty)
    (empty / "set.json").write_text("{}")
    with pytest.raises(InputError, match=r"set\.json is wrong"):
        load(empty)
    (empty / "set.json").write_text('{"name": "x"}')
    with pytest.raises(InputError, match="neither flows"):
        load(empty)
    (empty / "flows.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        load(empty)
    pd.DataFrame({"device_id": ["a"]}).to_parquet(folder / "readings.parquet")
    with pytest.raises(InputError, match="no column ts"):
        load(folder)
