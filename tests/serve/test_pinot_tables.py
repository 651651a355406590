"""Pinot's tables: what the files say, and that a real Pinot reads what it should and skips what it must."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve import samples
from tidewatch import scoring
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings, load
from tidewatch.stack import pinot_tables
from tidewatch.tables import catalogue


def test_files_are_current() -> None:
    assert pinot_tables.stale() == ()


def test_stale_names_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinot_tables, "ROOT", tmp_path)
    monkeypatch.setattr(pinot_tables, "FOLDER", tmp_path / "pinot_tables")
    pinot_tables.generate()
    assert pinot_tables.stale() == ()
    (tmp_path / "pinot_tables" / "flow" / "table.json").write_text("{}\n")
    (tmp_path / "pinot_tables" / "gone").mkdir()
    (tmp_path / "pinot_tables" / "gone" / "schema.json").write_text("{}\n")
    assert pinot_tables.stale() == ("pinot_tables/flow/table.json is not current", "pinot_tables/gone/schema.json belongs to no table")


@pytest.mark.parametrize("name", pinot_tables.names())
def test_table(name: str) -> None:
    t = catalogue()[name]
    shape = pinot_tables.schema(t)
    specs = [s for kind in ("dimension", "metric", "dateTime") for s in shape[f"{kind}FieldSpecs"]]
    assert sorted(s["name"] for s in specs) == sorted(c.name for c in pinot_tables.columns(t))
    table = pinot_tables.filled(json.dumps(pinot_tables.config(t)), load())
    stream = table["tableIndexConfig"]["streamConfigs"]
    assert "${" not in json.dumps(table)
    assert stream["stream.kafka.isolation.level"] == "read_committed"
    assert stream["stream.kafka.topic.name"] == name
    if t.pinot == "upsert":
        assert shape["primaryKeyColumns"] == list(t.keys)
        # a topic is keyed by the device or the use case: only then do the rows of one key meet in one partition
        assert {"device_id", "alert_id", "use_case"} & set(t.keys)
    indexed = {c for k, v in table["tableIndexConfig"].items() if k.endswith("Columns") for c in v}
    assert indexed <= {s["name"] for s in specs}


def test_array_elements_become_columns() -> None:
    table = pinot_tables.config(catalogue()["scores"])
    elements = table["tableIndexConfig"]["streamConfigs"]["stream.kafka.decoder.prop.elements"].split(",")
    assert elements[:5] == [
        "first_signal=top_signals[0]", "first_observed=top_observed[0]", "first_expected=top_expected[0]", "observed_1=signals[0]", "expected_1=expected[0]"]
    assert f"observed_{pinot_tables.signal_count()}=signals[{pinot_tables.signal_count() - 1}]" in elements


@pytest.mark.parametrize("name", pinot_tables.LEFT_OUT)
def test_what_pinot_does_without_stands_in_columns_of_its_own(name: str) -> None:
    arrays = {d.array for d in pinot_tables.derived(name)}
    assert pinot_tables.LEFT_OUT[name] <= arrays <= {c.name for c in catalogue()[name].columns}
    assert not pinot_tables.LEFT_OUT[name] & {c.name for c in pinot_tables.columns(catalogue()[name])}


def test_a_window_is_unusual_as_one_ordinary_one_in_a_hundred() -> None:
    assert list(pinot_tables.COMPUTED["scores"].values()) == [f"greaterThanOrEqual(score, {scoring.to_score(np.array(2.0))})"]


def _broker(monkeypatch: pytest.MonkeyPatch, *refusals: str) -> list[str]:
    """A broker that refuses as many queries with these words, then answers; the queries that it got."""
    asked: list[str] = []
    left = list(refusals)

    def query(_: Settings, sql: str) -> list[Any]:
        asked.append(sql)
        if left:
            raise ServiceError(left.pop(0))
        return [[0]]

    monkeypatch.setattr(pinot_tables, "query", query)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return asked


def test_a_table_is_there_when_the_broker_routes_to_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _broker(monkeypatch, "4 segments unavailable", "BrokerResourceMissingError")
    pinot_tables.await_routes(load(), ["flow", "alerts"])
    assert asked == ["SELECT COUNT(*) FROM flow"] * 3 + ["SELECT COUNT(*) FROM alerts"]


def test_a_table_that_stays_away_is_told_with_the_brokers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    _broker(monkeypatch, *["4 segments [alerts__0__0] unavailable"] * 9)
    with pytest.raises(ServiceError, match=r"the table alerts after -1 s: 4 segments \[alerts__0__0\] unavailable"):
        pinot_tables.await_routes(load(), ["alerts"], seconds=-1)


# -- a real Pinot
def _ask(settings: Settings, sql: str) -> list[list[Any]]:
    import requests

    answer = requests.post(f"{settings.pinot_broker}/query/sql", json={"sql": sql}, timeout=30).json()
    # 410, or no resultTable: the broker has not heard of a new table yet
    assert not [e for e in answer.get("exceptions", ()) if e["errorCode"] != 410], answer["exceptions"]
    rows: list[list[Any]] = answer.get("resultTable", {}).get("rows", [])
    return rows


@contextlib.contextmanager
def scratch(settings: Settings, of: str) -> Iterator[str]:
    """A table like this one beside the stack's, on a topic of its own; its name."""
    import requests
    from confluent_kafka.admin import AdminClient, NewTopic

    name = f"{of}_test_{time.time_ns()}"
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(60)
    shape = pinot_tables.schema(catalogue()[of]) | {"schemaName": name}
    table = pinot_tables.filled(json.dumps(pinot_tables.config(catalogue()[of])), settings) | {"tableName": name}
    table["segmentsConfig"]["schemaName"] = name
    table["tableIndexConfig"]["streamConfigs"]["stream.kafka.topic.name"] = name
    try:
        assert requests.post(f"{settings.pinot_controller}/schemas", json=shape, timeout=60).ok
        assert requests.post(f"{settings.pinot_controller}/tables", json=table, timeout=60).ok
        yield name
    finally:
        requests.delete(f"{settings.pinot_controller}/tables/{name}", timeout=60)
        requests.delete(f"{settings.pinot_controller}/schemas/{name}", timeout=60)
        admin.delete_topics([name])


def _await(settings: Settings, sql: str, wanted: list[list[Any]]) -> None:
    until = time.monotonic() + 120
    while (rows := _ask(settings, sql)) != wanted and time.monotonic() < until:
        time.sleep(0.5)
    assert rows == wanted


@pytest.mark.stack
def test_pinot_takes_each_possible_event_once_and_skips_the_rest(stack: Any) -> None:
    """Malformed, impossible and repeated events mixed in."""
    from confluent_kafka import Producer

    settings: Settings = stack.settings
    with scratch(settings, "flow") as name:
        now = time.time_ns() // 1_000_000
        good = [samples.encoded("flow", samples.event("flow", i, now - i)) for i in range(300)]
        malformed = [b"", b"\x00", b"\x0cabc", b"\xff" * 30, b'{"json":1}', b"\x01\x02", good[0] + b"x", good[0][:-3]]
        impossible = [
            samples.encoded("flow", samples.event("flow", 9000, now) | changes)
            for changes in ({"ts": now + 86_400_000}, {"bytes_out": -5}, {"status": "martian"}, {"src_port": 70000}, {"event_id": -1}, {"device_id": ""})
        ]
        producer = Producer({"bootstrap.servers": settings.kafka})
        for i, value in enumerate(good):
            producer.produce(name, value, b"server-01")
            producer.produce(name, (malformed + impossible)[i % 14], b"server-01")
            if i % 10 == 0:
                producer.produce(name, value, b"server-01")
        assert producer.flush(30) == 0
        _await(settings, f"SELECT COUNT(*) FROM {name}", [[300]])
        assert _ask(settings, f"SELECT DISTINCTCOUNT(event_id), MIN(bytes_out), MAX(event_id) FROM {name}") == [[300, 900.0, 299.0]]


@pytest.mark.stack
def test_pinot_takes_the_elements_of_a_scores_arrays_and_skips_what_is_broken(stack: Any) -> None:
    from confluent_kafka import Producer

    settings: Settings = stack.settings
    now = time.time_ns() // 1_000_000
    with scratch(settings, "scores") as name:
        producer = Producer({"bootstrap.servers": settings.kafka})
        for i in range(50):
            row = {
                "use_case": "leak", "detector": "beacon", "device_id": "gerät", "metric": "", "window_start": now - 60_000, "window_end": now, "score": i / 100,
                "anomalous": i >= 40, "top_signals": ["b", "a"], "top_observed": [4.5, i], "signals": [i, 4.5] if i else None, "expected": [None, 1.5],
            }
            for value in (json.dumps(row).encode(), b"", b"[]", b'{"score": 1', None):
                producer.produce(name, value, b"gerat")
        assert producer.flush(30) == 0
        _await(settings, f"SELECT COUNT(*) FROM {name}", [[50]])
        assert _ask(settings, f"SELECT SUM(observed_1), MAX(observed_2), SUM(expected_2), MIN(first_observed) FROM {name}") == [[1225.0, 4.5, 75.0, 4.5]]
        assert _ask(settings, f"SELECT COUNT(*) FROM {name} WHERE observed_1 IS NOT NULL AND expected_1 IS NULL AND first_signal = 'b'") == [[49]]
        assert _ask(settings, f"SELECT COUNT(*) FROM {name} WHERE anomalous = true AND device_id = 'gerät'") == [[10]]
        assert _ask(settings, f"SELECT SUM(unusual), COUNT(*) FROM {name}") == [[25.0, 50]]


@pytest.mark.stack
def test_apply_twice_changes_nothing(stack: Any) -> None:
    pinot_tables.apply(stack.settings)
    assert set(pinot_tables.apply(stack.settings).values()) == {"current"}
