"""The stream's Java: the decoder never fails and never lies, addresses are told apart, rules keep quiet what they name."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

# PyFlink and its libraries warn of each other; that is not ours
pytestmark = [pytest.mark.flink, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("pyflink", reason="the flink environment has it")

import fastavro  # noqa: E402

from streaming import build  # noqa: E402
from tidewatch import events, quiet  # noqa: E402
from tidewatch.settings import Settings, current  # noqa: E402

FLOW = events.contract("flow")
READING = events.contract("reading")
TYPES = {"string": "VarCharType", "long": "BigIntType", "int": "IntType", "double": "DoubleType", "boolean": "BooleanType"}
EXTRA = ("external", "fault", "detail", "original")


@pytest.fixture(scope="module")
def jvm() -> Iterator[Any]:
    """PyFlink's Java with our jar on its class path."""
    build.build(current())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HADOOP_CLASSPATH", str(build.jar_path(current())))
        from pyflink.java_gateway import get_gateway

        yield get_gateway().jvm


class Decoder:
    """The Java decoder of one contract."""

    def __init__(self, jvm: Any, contract: events.Contract) -> None:
        logical = jvm.org.apache.flink.table.types.logical
        names = [*(f.name for f in contract.fields), *EXTRA]
        kinds = [*(TYPES[f.type] for f in contract.fields), "BooleanType", "VarCharType", "VarCharType", "VarBinaryType"]
        from pyflink.java_gateway import get_gateway
        from pyflink.util.java_utils import to_jarray

        types = to_jarray(logical.LogicalType, [
            getattr(logical, k)(2147483647) if k.startswith("Var") else getattr(logical, k)() for k in kinds
        ])
        row = logical.RowType.of(types, to_jarray(get_gateway().jvm.String, names))
        inside = jvm.java.util.ArrayList()
        for n in Settings().network.not_external if contract is FLOW else ():
            inside.add(n)
        self.names = names
        self.java = jvm.tidewatch.stream.AvroDecoder(contract.rules, inside, row, None)

    def __call__(self, value: bytes | None) -> dict[str, Any]:
        row = self.java.deserialize(value)
        found = {}
        for i, n in enumerate(self.names):
            v = row.getField(i)
            found[n] = v.toString() if hasattr(v, "toString") else v
        return found


@pytest.fixture(scope="module")
def flow(jvm: Any) -> Decoder:
    return Decoder(jvm, FLOW)


@pytest.fixture(scope="module")
def reading(jvm: Any) -> Decoder:
    return Decoder(jvm, READING)


def encode(contract: events.Contract, event: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(contract.schema)), event)
    return out.getvalue()


def a_flow(**changes: Any) -> dict[str, Any]:
    return {
        "device_id": "dev-1", "event_id": 7, "ts": 1_795_474_800_123, "direction": "out", "src_ip": "10.0.0.1", "src_port": None,
        "dst_ip": "8.8.8.8", "dst_port": 443, "proto": "tcp", "bytes_out": 2**40, "bytes_in": 0, "pkts_out": 3, "pkts_in": 4,
        "duration_ms": 5, "status": "ok", **changes,
    }


def a_reading(**changes: Any) -> dict[str, Any]:
    return {"device_id": "gerät-€-𝄞", "event_id": 0, "ts": -1, "metric": "cpu", "value": 1.5, "status": "ok", **changes}


def test_what_was_written_is_read(flow: Decoder, reading: Decoder) -> None:
    rng = random.Random(1)
    for _ in range(200):
        event = a_flow(
            event_id=rng.randrange(-2**63, 2**63), ts=rng.randrange(-2**62, 2**62), bytes_out=rng.randrange(2**rng.randrange(1, 63)),
            src_port=rng.choice((None, 0, -2**31, 2**31 - 1)), proto="".join(rng.choices("aé€𝄞 ", k=rng.randrange(5))),
        )
        found = flow(encode(FLOW, event))
        assert found["fault"] != "malformed"
        assert {k: found[k] for k in event} == event
    event = a_reading(value=None)
    found = reading(encode(READING, event))
    assert (found["external"], found["fault"], found["detail"], {k: found[k] for k in event}) == (None, None, None, event)


@pytest.mark.parametrize("contract", [FLOW, READING], ids=lambda c: c.name)
def test_every_limit_is_a_fault_on_its_far_side_alone(contract: events.Contract, jvm: Any) -> None:
    decoder, good = Decoder(jvm, contract), a_flow() if contract is FLOW else a_reading()
    cases: list[tuple[str, Any, str | None]] = []
    for f in contract.fields:
        step = 1e3 if f.type == "double" else 1
        for bound, away in ((f.minimum, -step), (f.maximum, step)):
            if bound is not None:
                kind = float if f.type == "double" else int
                cases += [(f.name, kind(bound), None), (f.name, kind(bound) + kind(away), f"{f.name}_range")]
        for bound, away in ((f.min_length, -1), (f.max_length, 1)):
            if bound is not None:
                cases += [(f.name, "€" * bound, None), (f.name, "€" * (bound + away), f"{f.name}_length")]
        cases += [(f.name, v, None) for v in f.values] + ([(f.name, "martian", f"{f.name}_values")] if f.values else [])
    for name, value, fault in cases:
        found = decoder(encode(contract, good | {name: value}))
        assert (name, value, found["fault"]) == (name, value, fault)
        assert found["detail"] is None if fault is None else found["detail"].startswith(f"{name} is ")
        assert found[name] == value


def test_of_two_faults_the_first_field_is_told_and_malformed_before_all(flow: Decoder) -> None:
    body = encode(FLOW, a_flow(event_id=-3, status="martian"))
    assert (flow(body)["fault"], flow(body)["detail"]) == ("event_id_range", "event_id is -3")
    assert flow(body[:-1])["fault"] == "malformed"


def test_a_record_cut_anywhere_is_malformed_and_keeps_its_bytes(flow: Decoder) -> None:
    whole = encode(FLOW, a_flow())
    for n in range(len(whole)):
        found = flow(whole[:n])
        assert found["fault"] == "malformed", n
        assert bytes(found["original"]) == whole[:n]
        assert all(found[f.name] is None for f in FLOW.fields[1:])
        assert found["device_id"] == ("dev-1" if n >= 6 else None)


@pytest.mark.parametrize(("value", "error"), [
    (None, "the record has no value"),
    (b"", "device_id: the record ends early"),
    (encode(FLOW, a_flow()) + b"\x00\x00", "2 bytes after the last field"),
    (b"\x04\xff\xfe" + encode(FLOW, a_flow())[6:], "device_id: not UTF-8"),
    (b"\x01" + encode(FLOW, a_flow()), "device_id: a text of -1 bytes"),
    (b"\xff" * 30, "device_id: a number longer than 64 bits"),
    (b"\xfe\xff\xff\xff\x0f" + b"x" * 20, "device_id: a text of 2147483647 bytes"),
])
def test_malformed_flows(flow: Decoder, value: bytes | None, error: str) -> None:
    assert flow(value)["detail"].startswith(error)


@pytest.mark.parametrize(("event", "old", "new", "error"), [
    (a_reading(value=1.5), b"\x02\x00\x00\x00\x00\x00\x00\xf8\x3f", b"\x04", "value: union branch 2"),
    (a_reading(value=float("nan")), b"", b"", "value: not a finite number"),
    (a_reading(value=float("-inf")), b"", b"", "value: not a finite number"),
])
def test_malformed_readings(reading: Decoder, event: dict[str, Any], old: bytes, new: bytes, error: str) -> None:
    assert reading(encode(READING, event).replace(old, new) if old else encode(READING, event))["detail"].startswith(error)


def test_an_int_beyond_its_range_is_malformed(flow: Decoder) -> None:
    schema = json.loads(FLOW.schema)
    for f in schema["fields"]:
        if f["name"] == "dst_port":
            f["type"] = ["null", "long"]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), a_flow(dst_port=2**31))
    assert flow(out.getvalue())["detail"].startswith("dst_port: 2147483648 is no int")


def test_noise_never_raises(flow: Decoder) -> None:
    rng = random.Random(2)
    good = encode(FLOW, a_flow())
    for _ in range(2000):
        noise = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            noise[rng.randrange(len(noise))] = rng.randrange(256)
        found = flow(bytes(noise))
        if found["fault"] != "malformed":
            assert all(found[f.name] is not None for f in FLOW.fields if not f.nullable)


@pytest.mark.parametrize(("address", "external"), [
    ("8.8.8.8", True), ("10.0.0.1", False), ("172.15.255.255", True), ("172.16.0.0", False), ("172.31.255.255", False), ("172.32.0.0", True),
    ("192.168.1.1", False), ("255.255.255.255", False), ("0.0.0.0", False), ("0.0.0.1", True), ("224.0.0.251", False),
    ("2001:db8::1", True), ("fe80::1", False), ("fe80::1%eth0", False), ("febf::1", False), ("fec0::1", True), ("fd00::1", False), ("::1", False), ("::2", True), ("ff02::fb", False),
    ("::ffff:8.8.8.8", True), ("::ffff:10.0.0.1", False),
    ("aa:bb:cc:dd:ee:ff", False), ("host.example", False), ("1.2.3", False), ("1.2.3.4.5", False), ("256.1.1.1", False), ("1..2.3", False), ("", False), ("é", False),
])
def test_addresses(flow: Decoder, address: str, external: bool) -> None:
    assert flow(encode(FLOW, a_flow(dst_ip=address)))["external"] is external
    assert flow(encode(FLOW, a_flow(direction="in", src_ip=address, dst_ip="10.0.0.1")))["external"] is external


def test_times_and_days(jvm: Any) -> None:
    """To and fro, also before 1970 and when a late event is of the day before."""
    time, millis, day = jvm.tidewatch.stream.Time(), jvm.tidewatch.stream.Millis(), jvm.tidewatch.stream.Day()
    midnight = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)
    for ms in (midnight - 1, midnight, midnight + 1, midnight - 1, 0, -1, -86_400_000, -86_400_001):
        at = time.eval(ms)
        assert millis.eval(at) == ms
        assert day.eval(at).toString() == f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms):%Y-%m-%d}"
    assert time.eval(None) is day.eval(None) is millis.eval(None) is None


def test_a_jar_that_is_current_is_not_built_again() -> None:
    build.build(current())
    assert build.build(current()) is False
    assert os.access(build.jar_path(current()), os.R_OK)


def rule(**more: Any) -> dict[str, Any]:
    return dataclasses.asdict(quiet.Rule("r", **more))


@pytest.mark.parametrize(("found", "rules"), [
    ("r", rule()), ("r", rule(device="cam-*")), ("r", rule(device="cam-?", kind="camera", site="*")), ("", rule(device="cam")),
    ("", rule(device="cam-??")), ("", rule(device="CAM-1")), ("", rule(site="south")), ("r", rule(detector="silence")), ("", rule(detector="flood")),
    ("", rule(device="cam.1")), ("r", rule(device="tv-?,cam-?", detector="flood,silence")), ("", rule(device="cam,tv-?")), ("r", rule(until_ms=60_001)), ("", rule(until_ms=60_000)), ("", rule(from_ms=120_000)), ("r", rule(from_ms=119_999)),
])
def test_a_rule_matches_and_overlaps(jvm: Any, found: str, rules: dict[str, Any]) -> None:
    assert jvm.tidewatch.stream.SuppressedBy().eval("silence", "cam-1", "camera", "north", 60_000, 120_000, json.dumps([rules])) == found


def test_the_first_rule_that_applies_is_named(jvm: Any) -> None:
    function = jvm.tidewatch.stream.SuppressedBy()
    rules = [rule(site="south"), {**rule(), "rule": "second"}, {**rule(), "rule": "third"}]
    assert function.eval("silence", "cam-1", "camera", "north", 0, 1, json.dumps(rules)) == "second"
    assert function.eval("silence", "cam-1", "camera", "north", 0, 1, "[]") == ""
    assert function.eval("silence", "cam-1", "camera", "north", 0, 1, None) == ""


@pytest.mark.parametrize(("start", "end", "quiet_"), [
    # Berlin is an hour ahead of UTC in November: 22:00 to 04:00 there is 21:00 to 03:00 UTC
    ("2026-11-23T20:50", "2026-11-23T21:00", False), ("2026-11-23T20:51", "2026-11-23T21:01", True), ("2026-11-24T02:59", "2026-11-24T03:00", True),
    ("2026-11-24T03:00", "2026-11-24T03:01", False), ("2026-11-24T21:30", "2026-11-24T21:31", False), ("2026-11-22T22:00", "2026-11-22T22:01", False),
    # in summer it is two
    ("2026-07-06T20:00", "2026-07-06T20:01", True),
])
def test_weekly_hours_pass_midnight_in_their_own_zone(jvm: Any, start: str, end: str, quiet_: bool) -> None:
    rules = [rule(days=(1,), begins="22:00:00", ends="04:00:00", zone="Europe/Berlin")]
    at = [round(datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp() * 1000) for t in (start, end)]
    assert (jvm.tidewatch.stream.SuppressedBy().eval("silence", "cam-1", "", "", *at, json.dumps(rules)) == "r") is quiet_
