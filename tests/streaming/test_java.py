"""The stream's Java: the decoder never fails and never lies, addresses are told apart, windows merge into incidents."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# PyFlink and its libraries warn of each other; that is not ours
pytestmark = [pytest.mark.flink, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("pyflink", reason="the flink environment has it")

import fastavro  # noqa: E402

from streaming import build, job  # noqa: E402
from tidewatch import events  # noqa: E402
from tidewatch.settings import Settings, current  # noqa: E402

FLOW = events.contract("flow")
READING = events.contract("reading")
TYPES = {"string": "VarCharType", "long": "BigIntType", "int": "IntType", "double": "DoubleType", "boolean": "BooleanType"}
EXTRA = ("external", "decode_error", "original")


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
        kinds = [*(TYPES[f.type] for f in contract.fields), "BooleanType", "VarCharType", "VarBinaryType"]
        from pyflink.java_gateway import get_gateway
        from pyflink.util.java_utils import to_jarray

        types = to_jarray(logical.LogicalType, [
            getattr(logical, k)(2147483647) if k.startswith("Var") else getattr(logical, k)() for k in kinds
        ])
        row = logical.RowType.of(types, to_jarray(get_gateway().jvm.String, names))
        inside = jvm.java.util.ArrayList()
        for n in Settings().network.inside if contract is FLOW else ():
            inside.add(n)
        self.names = names
        self.java = jvm.tidewatch.stream.AvroDecoder(job.avro_fields(contract), inside, row, None)

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
        assert found["decode_error"] is None
        assert {k: found[k] for k in event} == event
    event = a_reading(value=None)
    found = reading(encode(READING, event))
    assert (found["external"], found["decode_error"], {k: found[k] for k in event}) == (None, None, event)


def test_a_record_cut_anywhere_is_malformed_and_keeps_its_bytes(flow: Decoder) -> None:
    whole = encode(FLOW, a_flow())
    for n in range(len(whole)):
        found = flow(whole[:n])
        assert found["decode_error"], n
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
    assert flow(value)["decode_error"].startswith(error)


@pytest.mark.parametrize(("event", "old", "new", "error"), [
    (a_reading(value=1.5), b"\x02\x00\x00\x00\x00\x00\x00\xf8\x3f", b"\x04", "value: union branch 2"),
    (a_reading(value=float("nan")), b"", b"", "value: not a finite number"),
    (a_reading(value=float("-inf")), b"", b"", "value: not a finite number"),
])
def test_malformed_readings(reading: Decoder, event: dict[str, Any], old: bytes, new: bytes, error: str) -> None:
    assert reading(encode(READING, event).replace(old, new) if old else encode(READING, event))["decode_error"].startswith(error)


def test_an_int_beyond_its_range_is_malformed(flow: Decoder) -> None:
    schema = json.loads(FLOW.schema)
    for f in schema["fields"]:
        if f["name"] == "dst_port":
            f["type"] = ["null", "long"]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), a_flow(dst_port=2**31))
    assert flow(out.getvalue())["decode_error"].startswith("dst_port: 2147483648 is no int")


def test_noise_never_raises(flow: Decoder) -> None:
    rng = random.Random(2)
    good = encode(FLOW, a_flow())
    for _ in range(2000):
        noise = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            noise[rng.randrange(len(noise))] = rng.randrange(256)
        found = flow(bytes(noise))
        if found["decode_error"] is None:
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


def test_windows_merge_into_incidents(jvm: Any, tmp_path: Path) -> None:
    """Two incidents of one device, told apart by the gap; another device and another use case stay by themselves."""
    from pyflink.table import EnvironmentSettings, TableEnvironment

    minute, t0 = 60_000, 1_795_474_800_000

    def window(device: str, use_case: str, at: int, score: float, metric: str = "") -> dict[str, Any]:
        return {
            "use_case": use_case, "device_id": device, "detector": "d", "metric": metric, "window_start_ms": t0 + (at - 1) * minute,
            "window_end_ms": t0 + at * minute, "severity": "low", "score": score, "model_version": "m/1", "baseline": "device",
            "top_signals": ["a"], "top_observed": [1.0], "top_expected": [None], "top_shares": [1.0], "technique": "T1", "title": "t",
            "reason": f"score {score}",
        }

    found = [
        window("a", "leak", 1, 0.6), window("a", "leak", 2, 0.9), window("b", "leak", 2, 0.5), window("a", "leak", 12, 0.7),
        window("a", "lie", 12, 0.7, "cpu"), window("a", "lie", 12, 0.8, "temp"), window("a", "leak", 23, 0.55),
    ]
    (tmp_path / "w.json").write_text("".join(json.dumps(w) + "\n" for w in found))
    te = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    te.get_config().set("table.local-time-zone", "UTC")
    te.get_config().set("parallelism.default", "1")
    te.get_config().set("pipeline.jars", build.jar_path(current()).as_uri())
    te.execute_sql("CREATE TEMPORARY SYSTEM FUNCTION tidewatch_incidents AS 'tidewatch.stream.MergeIncidents' LANGUAGE JAVA")
    te.execute_sql(f"""CREATE TABLE `anomalous` (
      `use_case` STRING, `device_id` STRING, `detector` STRING, `metric` STRING, `window_start_ms` BIGINT, `window_end_ms` BIGINT,
      `severity` STRING, `score` DOUBLE, `model_version` STRING, `baseline` STRING, `top_signals` ARRAY<STRING>,
      `top_observed` ARRAY<DOUBLE>, `top_expected` ARRAY<DOUBLE>, `top_shares` ARRAY<DOUBLE>, `technique` STRING, `title` STRING,
      `reason` STRING, `rowtime` AS TO_TIMESTAMP_LTZ(`window_end_ms`, 3), WATERMARK FOR `rowtime` AS `rowtime`
    ) WITH ('connector'='filesystem', 'path'='{(tmp_path / 'w.json').as_uri()}', 'format'='json')""")
    te.create_temporary_view("alerts", te.sql_query(job.fill("alerts", {"gap_ms": str(10 * minute)})))
    with te.execute_sql("SELECT `alert_id`, `windows`, `score`, `metric`, `reason` FROM `alerts`").collect() as answer:
        rows = [list(r) for r in answer]
    start = {at: t0 + (at - 1) * minute for at in (1, 2, 12, 23)}
    assert rows == [
        [f"leak:a:{start[1]}", 1, 0.6, "", "score 0.6"],
        [f"leak:a:{start[1]}", 2, 0.9, "", "score 0.9"],
        [f"leak:b:{start[2]}", 1, 0.5, "", "score 0.5"],
        [f"leak:a:{start[1]}", 3, 0.9, "", "score 0.9"],  # ten minutes after the last window: the same incident still
        [f"lie:a:{start[12]}", 1, 0.7, "cpu", "score 0.7"],
        [f"lie:a:{start[12]}", 1, 0.8, "temp", "score 0.8"],  # two metrics, one window
        [f"leak:a:{start[23]}", 1, 0.55, "", "score 0.55"],
    ]


def test_a_jar_that_is_current_is_not_built_again() -> None:
    build.build(current())
    assert build.build(current()) is False
    assert os.access(build.jar_path(current()), os.R_OK)
