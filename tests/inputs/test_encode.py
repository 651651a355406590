"""The vectorized encoder writes what fastavro reads, and the same bytes as fastavro."""

from __future__ import annotations

import io
import json

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewatch import events
from tidewatch.errors import InputError
from tidewatch.inputs.encode import ROWS, Text, encode, varint

LONGS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-300, 300))
READING = st.fixed_dictionaries({
    "device_id": st.text(max_size=300), "event_id": LONGS, "ts": LONGS, "metric": st.text(max_size=20),
    "value": st.one_of(st.none(), st.floats(allow_nan=False)), "status": st.sampled_from(["ok", "error", "ä" * 100]),
})


def schema(name: str) -> dict[str, object]:
    """The contract's schema, times as plain numbers."""
    raw = json.loads(events.contract(name).schema)
    for f in raw["fields"]:
        if isinstance(f["type"], dict):
            f["type"] = f["type"]["type"]
    return fastavro.parse_schema(raw)


def by_fastavro(name: str, row: dict[str, object]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema(name), row)
    return out.getvalue()


def columns(name: str, rows: list[dict]) -> dict:
    found = {}
    for f in events.contract(name).fields:
        values = [r[f.name] for r in rows]
        if f.type == "string":
            found[f.name] = Text.of(values)
        else:
            kind = np.float64 if f.type == "double" else np.int64
            null = [v is None for v in values]
            found[f.name] = np.ma.masked_array(np.array([0 if v is None else v for v in values], dtype=kind), null)
    return found


@settings(deadline=None)
@given(st.lists(READING, min_size=1, max_size=12))
def test_readings_as_fastavro(rows: list[dict]) -> None:
    assert encode(events.contract("reading"), columns("reading", rows)).split() == [by_fastavro("reading", r) for r in rows]


def random_flows(n: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    wide = 2 ** rng.integers(0, 62, (n, 7))
    return [
        {
            "device_id": "d" * int(rng.integers(0, 200)), "event_id": int(w[0]), "ts": -int(w[1]), "direction": "out",
            "src_ip": "fe80::1", "src_port": None if rng.random() < 0.3 else int(rng.integers(-5, 70000)), "dst_ip": "ü",
            "dst_port": None if rng.random() < 0.3 else int(rng.integers(0, 65536)), "proto": "tcp", "bytes_out": int(w[2]),
            "bytes_in": -int(w[3]), "pkts_out": int(w[4]), "pkts_in": int(w[5]), "duration_ms": int(w[6]), "status": "ok",
        }
        for w in wide
    ]


def test_flows_as_fastavro() -> None:
    rows = random_flows(300, 1)
    assert encode(events.contract("flow"), columns("flow", rows)).split() == [by_fastavro("flow", r) for r in rows]


def test_many_rows_are_the_rows_one_by_one() -> None:
    rows = random_flows(100, 2) * (ROWS // 100 + 2)
    whole = encode(events.contract("flow"), columns("flow", rows)).split()
    assert whole[:100] == whole[-100:] == encode(events.contract("flow"), columns("flow", rows[:100])).split()
    assert len(whole) == len(rows)


def test_no_rows() -> None:
    assert encode(events.contract("reading"), columns("reading", [])).split() == []


@pytest.mark.parametrize(("change", "says"), [
    (lambda c: c.pop("metric"), "column 'metric' is missing"),
    (lambda c: c.update(ts=np.ma.masked_array([1], [True])), "ts: may not be null"),
    (lambda c: c.update(value=np.zeros(2)), "different lengths"),
    (lambda c: c.update(status=np.zeros(1)), "status: expected a column of type string"),
])
def test_what_cannot_be_encoded_is_refused(change, says: str) -> None:
    row = {"device_id": "a", "event_id": 1, "ts": 1, "metric": "m", "value": 1.0, "status": "ok"}
    given_columns = columns("reading", [row])
    change(given_columns)
    with pytest.raises(InputError, match=says):
        encode(events.contract("reading"), given_columns)


@settings(deadline=None)
@given(LONGS)
def test_varint_as_fastavro(value: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    assert varint(value) == out.getvalue()
