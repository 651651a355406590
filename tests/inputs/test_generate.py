"""The generator: the same seed the same bytes, faults that are what they say, incidents that can be seen."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from datetime import timedelta
from ipaddress import ip_address, ip_network

import fastavro
import pytest

from tests.inputs.test_encode import schema
from tidewatch import events
from tidewatch.errors import InputError
from tidewatch.inputs.generate import Faults, Generator, cell_size
from tidewatch.inputs.incidents import BY_KIND, MARGIN_MS, TROUBLES, Incident, checked, labels, plan
from tidewatch.inputs.network import KINDS, MOST_DEVICES, PARTNERS, inventory, network
from tidewatch.settings import Limits

START = 1_763_942_400_000  # 2025-11-24T00:00:00Z
MINUTE = 60_000
NET = network(12, 8, 7)
DIRTY = Faults(malformed=0.01, impossible=0.02, unknown=0.005, duplicates=0.02, late=0.02)
CLEAN = Faults(0, 0, 0, 0, 0, 0)


def taken(start: int, end: int, step: int, *, net=NET, incidents=(), faults=DIRTY) -> tuple[dict[str, list[tuple[bytes, bytes]]], dict[str, Counter]]:
    """Everything of a run: (key, body) of each topic in order, and the tallies."""
    g = Generator(net, start, end, incidents, faults)
    records, tally = defaultdict(list), defaultdict(Counter)
    at = start
    parcels = []
    while at < end:
        at = min(at + step, end)
        parcels += g.advance(at)
    for p in parcels + g.finish(end):
        records[p.topic] += list(zip(p.keys, p.bodies, strict=True))
        tally[p.topic].update(p.tally)
    return records, tally


def decoded(topic: str, body: bytes) -> dict | None:
    """The event, or None if the body is no Avro of the contract."""
    data = io.BytesIO(body)
    try:
        row = fastavro.schemaless_reader(data, schema(topic))
    except (EOFError, IndexError, ValueError, UnicodeDecodeError, OverflowError, MemoryError):
        return None
    if data.read(1) or row.get("value") != row.get("value"):
        return None
    return row


def rows(topic: str, start: int, end: int, **more) -> list[dict]:
    return [decoded(topic, b) for _, b in taken(start, end, 10 * MINUTE, faults=CLEAN, **more)[0][topic]]


def test_rounds_do_not_change_a_byte() -> None:
    """Rounds of any size, and a live run's odd ones, give the same records in the same order."""
    end = START + 7 * MINUTE
    assert taken(START, end, 10 * MINUTE) == taken(START, end, 3_333) == taken(START, end, MINUTE)


def test_two_runs_after_one_another_are_one_run() -> None:
    middle, end = START + 3 * MINUTE + 12_345, START + 6 * MINUTE
    one = taken(START, end, MINUTE)[0]
    two = [taken(START, middle, MINUTE)[0], taken(middle, end, MINUTE)[0]]
    for topic in ("flow", "reading"):
        assert sorted(one[topic]) == sorted(two[0][topic] + two[1][topic])


def test_another_seed_is_another_network() -> None:
    assert taken(START, START + MINUTE, MINUTE)[0] != taken(START, START + MINUTE, MINUTE, net=network(12, 8, 8))[0]


def test_every_kind_is_there_and_rates_are_skewed() -> None:
    net = network(200, 6, 7)
    assert set(net.kind) == set(range(len(KINDS)))
    assert net.rate.mean() == pytest.approx(6, rel=0.05)
    assert net.rate.max() > 4 * net.rate.mean()
    found = inventory(net, START)
    assert len({r["device_id"] for r in found}) == len({r["address"] for r in found}) == 200
    assert len(set(net.addresses.values)) == len(net.addresses.values)


def test_many_devices_have_an_address_each() -> None:
    net = network(130_000, 0.1, 7)
    inside = net.addresses.values[:130_000]
    assert len(set(inside)) == 130_000 and all(ip_address(a) in ip_network("10.0.0.0/8") for a in inside[::1000])
    assert {a.split(".")[1] for a in inside[:60_000]} == {"1", "2", "3", "4", "5"}


@pytest.mark.parametrize("devices", [0, MOST_DEVICES + 1])
def test_an_impossible_number_of_devices_is_refused(devices: int) -> None:
    with pytest.raises(InputError, match=f"{devices} devices"):
        network(devices, 6, 7)


def test_cells_shrink_as_rates_grow() -> None:
    assert cell_size(network(200, 6, 7), 30_000) == 60_000
    assert cell_size(network(200, 60_000, 7), 30_000) == 1_000


@pytest.mark.parametrize("topic", ["flow", "reading"])
def test_the_tally_is_what_a_reader_finds(topic: str) -> None:
    """Malformed records cannot be decoded, impossible ones break one rule, the rest is valid, and ids are unique."""
    records, tallies = taken(START, START + 30 * MINUTE, MINUTE)
    tally, contract = tallies[topic], events.contract(topic)
    found: Counter[str] = Counter()
    ids: Counter[tuple[str, int]] = Counter()
    total = 0
    for key, body in records[topic]:
        row = decoded(topic, body)
        if row is None:
            found["malformed"] += 1
            continue
        assert key == row["device_id"].encode()
        broken = broken_rules(contract, row)
        if broken:
            assert len(broken) == 1
            found[f"impossible.{broken[0]}"] += 1
            continue
        assert START <= row["ts"] < START + 30 * MINUTE
        if not ids[row["device_id"], row["event_id"]]:
            total += row["event_id"]
        ids[row["device_id"], row["event_id"]] += 1
    assert found["malformed"] == tally["malformed"] > 5
    assert {n: c for n, c in found.items() if n != "malformed"} == {n: c for n, c in tally.items() if n.startswith("impossible.")}
    assert len(ids) == tally["unique"] and ids.total() == tally["valid"] and total == tally["event_id_sum"]
    assert tally["duplicates"] > 5 and tally["unknown_device"] > 0 and tally["late"] > 5
    assert tally["records"] == len(records[topic]) == tally["valid"] + tally["malformed"] + tally["impossible"]


def broken_rules(contract: events.Contract, row: dict) -> list[str]:
    """The contract's rules that a decoded event breaks, had the broker received it a year later."""
    received = START + 365 * 86_400_000
    limits = Limits()
    broken = []
    if row["ts"] > received + limits.max_future / timedelta(milliseconds=1):
        broken.append("ts_future")
    if row["ts"] < received - limits.max_past / timedelta(milliseconds=1):
        broken.append("ts_past")
    for f in contract.fields:
        v = row[f.name]
        if v is None:
            continue
        if (f.minimum is not None and v < f.minimum) or (f.maximum is not None and v > f.maximum):
            broken.append(f"{f.name}_range")
        if (f.min_length is not None and len(v) < f.min_length) or (f.max_length is not None and len(v) > f.max_length):
            broken.append(f"{f.name}_length")
        if f.values and v not in f.values:
            broken.append(f"{f.name}_values")
    return broken


def test_without_faults_there_are_none() -> None:
    tally = taken(START, START + 10 * MINUTE, MINUTE, faults=CLEAN)[1]
    for t in tally.values():
        assert t["records"] == t["unique"] and not t["late"]


def test_readings_come_at_a_steady_period() -> None:
    times = defaultdict(list)
    for r in rows("reading", START, START + 5 * MINUTE):
        times[r["device_id"], r["metric"]].append(r["ts"])
    assert len(times) == len(NET.series_device)
    assert {b - a for t in times.values() for a, b in zip(t, t[1:], strict=False)} == {30_000}


# -- incidents
HOUR = 60 * MINUTE


def test_a_plan_has_every_kind_and_leaves_devices_in_peace() -> None:
    net = network(60, 6, 7)
    found = plan(net, START, START + HOUR, 2)
    assert Counter(i.kind for i in found) == {t.kind: 2 for t in TROUBLES}
    assert all(START <= i.start_ms < i.end_ms <= START + HOUR for i in found)
    for n, a in enumerate(found):
        assert all(a.clear_of(b) for b in found[:n])
    assert found == plan(net, START, START + HOUR, 2)
    more = plan(net, START, START + HOUR, 1, beside=found, seed=1)
    assert all(a.clear_of(b) for a in more for b in found)


def test_too_many_incidents_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        plan(network(2, 6, 7), START, START + HOUR, 2)


def test_incidents_by_hand_are_checked() -> None:
    one = Incident(0, "flood", START, START + MINUTE)
    assert checked(NET, [one]) == (one,)
    for bad, says in (
        (Incident(0, "fire", START, START + 1), "no kind"), (Incident(99, "flood", START, START + 1), "no device"),
        (Incident(0, "flood", START, START), "ends before"), (Incident(0, "drift", START + MARGIN_MS, START + HOUR), "closer than"),
    ):
        with pytest.raises(InputError, match=says):
            checked(NET, [one, bad])


def test_labels_tell_what_has_happened() -> None:
    a, b = Incident(0, "flood", START, START + HOUR), Incident(1, "stuck", START + 2 * HOUR, START + 3 * HOUR)
    assert labels(NET, [a, b], START + HOUR // 2) == [
        {"device_id": NET.names[0], "start": START, "end": START + HOUR // 2, "use_case": "silent", "kind": "flood", "origin": "generator"},
    ]
    assert [r["use_case"] for r in labels(NET, [a, b], START + 9 * HOUR)] == ["silent", "lie"]


def during(kind: str, topic: str) -> tuple[list[dict], list[dict]]:
    """What device 0 sends in ten minutes, without and with an incident of this kind."""
    one = Incident(0, kind, START + 5 * MINUTE, START + 15 * MINUTE)

    def of(incidents):
        return [
            r for r in rows(topic, START, START + 20 * MINUTE, incidents=incidents)
            if r["device_id"] == NET.names[0] and one.start_ms <= r["ts"] < one.end_ms
        ]

    return of(()), of((one,))


def test_incidents_leave_everything_else_alone() -> None:
    incidents = [Incident(i, k, START + 5 * MINUTE, START + 15 * MINUTE) for i, k in enumerate(BY_KIND)]

    def others(given) -> list:
        made = rows("reading", START, START + 20 * MINUTE, incidents=given) + rows("flow", START, START + 20 * MINUTE, incidents=given)
        ids = {NET.names[i.device] for i in incidents}
        return [{**r, "event_id": 0} for r in made if r["device_id"] not in ids or r["ts"] < incidents[0].start_ms]

    assert others(()) == others(incidents)


def test_silent_says_nothing() -> None:
    for topic in ("flow", "reading"):
        normal, struck = during("silent", topic)
        assert normal and not struck


def test_flood_comes_from_many() -> None:
    normal, struck = during("flood", "flow")
    assert len(struck) > 20 * len(normal) + 1000
    assert len({r["src_ip"] for r in struck}) > 1000 and sum(r["status"] != "ok" for r in struck) > len(struck) / 2


def test_leaks_go_outside() -> None:
    known = set(NET.addresses.values[: NET.size + PARTNERS])
    for kind, strangers, sent in (("fast_leak", 1, 1e9), ("slow_leak", 1, 1e6), ("new_destination", 50, 3e5)):
        normal, struck = during(kind, "flow")
        new = [r for r in struck if r["dst_ip"] not in known]
        assert len({r["dst_ip"] for r in new}) >= strangers and sum(r["bytes_out"] for r in new) > sent
        assert all(r["direction"] == "out" for r in new) and not [r for r in normal if r["dst_ip"] not in known]


@pytest.mark.parametrize("kind", ["stuck", "drift", "noise", "spike", "missing"])
def test_lies_change_one_metric(kind: str) -> None:
    normal, struck = during(kind, "reading")
    metric = sorted({r["metric"] for r in normal}, key=lambda m: [x.name for x in KINDS[NET.kind[0]].metrics].index(m))[0]
    for a, b in zip(normal, struck, strict=True):
        assert a["metric"] == b["metric"]
        if a["metric"] != metric:
            assert a["value"] == b["value"]
    a, b = ([r["value"] for r in x if r["metric"] == metric] for x in (normal, struck))
    values = [v for v in b if v is not None]

    def spread(x: list[float]) -> float:
        return max(x) - min(x)

    if kind == "stuck":
        assert spread(values) == 0
    elif kind == "missing":
        assert len(values) < len(b) * 0.6
    else:
        assert spread(values) > 1.8 * spread(a)
