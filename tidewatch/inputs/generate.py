"""The generator: what the devices of a made-up network send, from a seed; the same seed gives the same bytes.

Event time is cut into cells (a second to a minute); each cell has its own random numbers, so that neither the size
of the rounds in which events are taken nor where a run starts or stops changes an event. An event's id is its cell's
second and its place in it, so that runs over different times never share one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tidewatch import events
from tidewatch.inputs.encode import Array, Column, Text, Words, encode
from tidewatch.inputs.incidents import Incident
from tidewatch.inputs.network import KINDS, PARTNERS, STRANGERS, Network
from tidewatch.inputs.parcel import Parcel

Rows = dict[str, Array]
FINE, DUPLICATE, MALFORMED, IMPOSSIBLE, UNKNOWN = range(5)
FATES = ("fine", "duplicate", "malformed", "impossible", "unknown")

DIRECTIONS = Words.of([*events.contract("flow")["direction"].values, "sideways"])
OUTCOMES = Words.of([*events.contract("flow")["status"].values, "perhaps"])
OK, REFUSED, RESET, UNANSWERED, OTHER = (OUTCOMES.values.index(s) for s in ("ok", "refused", "reset", "unanswered", "other"))
STATES = Words.of([*events.contract("reading")["status"].values, "perhaps"])
PROTOCOLS = Words.of(["tcp", "udp", "icmp"])
UDP_PORTS = (53, 123, 5683)
NULL = -(2**63)
_YEAR_MS = 365 * 86_400_000
# field, what it becomes; each breaks exactly one rule of the contract, whose name it has in dead_letters
IMPOSSIBLE_FLOWS = ("bytes_out_range", "bytes_in_range", "duration_ms_range", "src_port_range", "event_id_range",
                    "direction_values", "status_values", "device_id_length", "ts_future", "ts_past")
IMPOSSIBLE_READINGS = ("value_range", "event_id_range", "status_values", "device_id_length", "ts_future", "ts_past")
_PORTS = np.array([[k.ports[i % len(k.ports)] for i in range(60)] for k in KINDS])


@dataclass(frozen=True)
class Faults:
    """Shares of events that arrive late, twice, broken or with impossible values, or from a device nobody knows."""

    delayed: float = 0.004
    """Arrive within the stream's lateness."""
    late: float = 0.001
    """Arrive after it: 20 seconds to 3 minutes."""
    duplicates: float = 0.001
    malformed: float = 5e-5
    impossible: float = 5e-5
    unknown: float = 1e-5


@dataclass
class Generator:
    """Takes a network through time. `advance` and `finish` give parcels in the order in which they arrive."""

    net: Network
    start_ms: int
    end_ms: int | None
    incidents: Sequence[Incident] = ()
    faults: Faults = Faults()
    period_ms: int = 30_000
    """Between two readings of a metric."""
    lateness_ms: int = 5_000
    """An event that arrives later than this counts as late."""
    _next_ms: int = field(init=False)
    _pending: dict[str, Rows] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.cell_ms = cell_size(self.net, self.period_ms)
        self._next_ms = self.start_ms // self.cell_ms * self.cell_ms

    def advance(self, until_ms: int) -> list[Parcel]:
        """What arrives before `until_ms` and has not been given yet."""
        made: dict[str, list[Rows]] = {}
        while self._next_ms < until_ms and (self.end_ms is None or self._next_ms < self.end_ms):
            for topic, rows in self._cell(self._next_ms).items():
                made.setdefault(topic, []).append(rows)
            self._next_ms += self.cell_ms
        parcels = []
        for topic in TOPICS:
            parts = [r for r in (self._pending.get(topic), *made.get(topic, ())) if r is not None and len(r["ts"])]
            if not parts:
                continue
            rows = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]} if len(parts) > 1 else parts[0]
            here = rows["arrival"] < until_ms
            if here.all():
                self._pending.pop(topic, None)
            else:
                self._pending[topic] = _take(rows, ~here)
                rows = _take(rows, here)
            parcels += self._parcel(topic, rows)
        return parcels

    def finish(self, cut_ms: int) -> list[Parcel]:
        """What happened before `cut_ms` and is still on its way; afterwards all of [start, cut) has been given."""
        parcels = []
        for topic, rows in sorted(self._pending.items()):
            parcels += self._parcel(topic, _take(rows, rows["origin"] < cut_ms))
        self._pending = {}
        return parcels

    def whole(self) -> dict[str, dict[str, Column]]:
        """All possible events from start to end, each once, as columns in the order of time: for who needs no broker."""
        assert self.end_ms is not None, "a network without an end has no whole"
        cells = [self._cell(ms) for ms in range(self.start_ms // self.cell_ms * self.cell_ms, self.end_ms, self.cell_ms)]
        found = {}
        for topic in TOPICS:
            rows = {n: np.concatenate([c[topic][n] for c in cells]) for n in cells[0][topic]}
            rows = _take(rows, rows["fate"] == FINE)
            found[topic] = _columns(self.net, topic, _take(rows, np.argsort(rows["ts"], kind="stable")))
        return found

    def _cell(self, cell_ms: int) -> dict[str, Rows]:
        cell: dict[str, Rows] = {}
        for number, topic in enumerate(TOPICS):
            make = _flows if topic == "flow" else _readings
            rng = np.random.default_rng([self.net.seed, 3, cell_ms // 1000, number])
            near = [i for i in self.incidents if i.start_ms < cell_ms + self.cell_ms and cell_ms < i.end_ms]
            rows = make(self, cell_ms, rng, near)
            rows["event_id"] = cell_ms // 1000 * 2**22 + np.arange(len(rows["ts"]))
            rows = _with_faults(self, topic, rows, rng)
            inside = rows["origin"] >= self.start_ms
            if self.end_ms is not None:
                inside &= rows["origin"] < self.end_ms
            cell[topic] = _take(rows, inside)
        return cell

    def _parcel(self, topic: str, rows: Rows) -> list[Parcel]:
        if not len(rows["ts"]):
            return []
        rows = _take(rows, np.argsort(rows["arrival"], kind="stable"))
        bodies = encode(events.contract(topic), _columns(self.net, topic, rows)).split()
        for i in np.flatnonzero(rows["fate"] == MALFORMED).tolist():
            bodies[i] = _broken(bodies[i], int(rows["how"][i]))
        keys = _keys(self.net)
        return [Parcel(topic, [keys[d] for d in rows["device"].tolist()], bodies, self._tally(topic, rows), int(rows["arrival"][-1]))]

    def _tally(self, topic: str, rows: Rows) -> Counter[str]:
        fate = rows["fate"]
        good = (fate == FINE) | (fate == UNKNOWN)
        per = np.bincount(fate, minlength=len(FATES))
        tally = Counter({
            "records": len(fate), "valid": int(per[FINE] + per[UNKNOWN] + per[DUPLICATE]), "unique": int(good.sum()),
            "duplicates": int(per[DUPLICATE]), "malformed": int(per[MALFORMED]), "impossible": int(per[IMPOSSIBLE]),
            "unknown_device": int(per[UNKNOWN]), "late": int((good & (rows["arrival"] - rows["ts"] > self.lateness_ms)).sum()),
            "event_id_sum": int(rows["event_id"][good].astype(object).sum()) if good.any() else 0,
        })
        if topic == "flow":
            tally["bytes_out_sum"] = int(rows["bytes_out"][good].sum())
        else:
            tally["missing"] = int(np.isnan(rows["value"][good]).sum())
        names = _impossible(topic)
        for how in rows["how"][fate == IMPOSSIBLE].tolist():
            tally[f"impossible.{names[how % len(names)]}"] += 1
        return tally


TOPICS = ("flow", "reading")


def expected_rate(net: Network, period_ms: int) -> float:
    """Events a second, averaged over a day."""
    return float(net.rate.sum()) / 60 + len(net.series_device) * 1000 / period_ms


def cell_size(net: Network, period_ms: int) -> int:
    """How much event time is made at once, milliseconds: a divisor of a minute with at most some 100,000 events."""
    rate = max(expected_rate(net, period_ms), 1)
    return next((s for s in (60_000, 30_000, 20_000, 10_000, 5_000, 2_000) if s / 1000 * rate <= 100_000), 1_000)


def _take(rows: Rows, which: Array) -> Rows:
    return {n: a[which] for n, a in rows.items()}


def _impossible(topic: str) -> tuple[str, ...]:
    return IMPOSSIBLE_FLOWS if topic == "flow" else IMPOSSIBLE_READINGS


def _keys(net: Network) -> list[bytes]:
    return [n.encode() for n in net.devices.values]


def _hours(ms: float) -> float:
    return ms / 3_600_000 % 24


def _flows(g: Generator, cell_ms: int, rng: np.random.Generator, near: Sequence[Incident]) -> Rows:
    net, minutes = g.net, g.cell_ms / 60_000
    hour = _hours(cell_ms + g.cell_ms / 2)
    rhythm = 1 + net.habit("rhythm") * np.cos((hour - net.habit("peak")) * np.pi / 12)
    counts = rng.poisson(net.rate * rhythm * minutes * rng.gamma(12, 1 / 12, net.size))
    device = np.repeat(np.arange(net.size), counts)
    n = len(device)
    kind = net.kind[device]
    ts = cell_ms + rng.integers(0, g.cell_ms, n)
    inbound = rng.random(n) < net.habit("inbound")[device]
    external = rng.random(n) < net.habit("external")[device] * np.where(inbound, 0.3, 1)
    often = rng.random(n) ** 2.2
    inner = net.peers[device, (often * net.peers_known[device]).astype(int)]
    inner = np.where(inner == device, (device + 1) % net.size, inner)
    outer = net.partners[device, (often * net.partners_known[device]).astype(int)]
    outer = np.where(rng.random(n) < 0.003, net.size + rng.integers(0, PARTNERS, n), outer)
    status = np.searchsorted([0.975, 0.983, 0.99, 0.997], rng.random(n))
    status = np.array([OK, REFUSED, RESET, UNANSWERED, OTHER])[status]
    spread = net.habit("sigma")[device]
    sent = np.where(external, net.habit("out_external")[device], net.habit("out")[device]) * np.exp(spread * rng.standard_normal(n))
    received = net.habit("back")[device] * np.exp(spread * rng.standard_normal(n))
    rows = _conversation(
        net, device, ts, np.where(external, outer, inner), inbound, _PORTS[kind, rng.integers(0, _PORTS.shape[1], n)],
        np.where(status == OK, sent, np.minimum(sent, 120)), np.where(status == OK, received, 0),
        800 * np.exp(rng.standard_normal(n)), status, rng,
    )
    icmp = rng.random(n) < 0.01
    rows["proto"] = np.where(icmp, 2, rows["proto"])
    rows["src_port"] = np.where(icmp, NULL, rows["src_port"])
    rows["dst_port"] = np.where(icmp, NULL, rows["dst_port"])
    extra = []
    for i in near:
        own = np.random.default_rng([net.seed, 4, cell_ms // 1000, i.device, i.start_ms // 1000])
        if i.kind in ("silent", "flood"):
            struck = (rows["device"] == i.device) & (rows["ts"] >= i.start_ms) & (rows["ts"] < i.end_ms)
            rows = _take(rows, ~(struck & (own.random(len(struck)) < (1.0 if i.kind == "silent" else 0.5) * i.strength)))
        extra.append(_trouble(g, i, cell_ms, own))
    rows = {n: np.concatenate([rows[n], *(e[n] for e in extra if e)]) for n in rows}
    return _take(rows, np.argsort(rows["ts"], kind="stable"))


def _conversation(
    net: Network, device: Array, ts: Array, other: Array, inbound: Array, port: Array,
    sent: Array, received: Array, duration: Array, status: Array, rng: np.random.Generator,
) -> Rows:
    sent, received = sent.astype(np.int64), received.astype(np.int64)
    return {
        "device": device, "ts": ts, "direction": inbound.astype(np.int64),
        "src_ip": np.where(inbound, other, device), "dst_ip": np.where(inbound, device, other),
        "src_port": rng.integers(32768, 61000, len(device)), "dst_port": port, "proto": np.isin(port, UDP_PORTS).astype(np.int64),
        "bytes_out": sent, "bytes_in": received, "pkts_out": sent // 900 + 1, "pkts_in": (received + 899) // 900,
        "duration_ms": duration.astype(np.int64), "status": status,
    }


def leaked_to(net: Network, i: Incident) -> int:
    """The stranger that a leak to one address sends to, the same all through the incident: its number in `net.addresses`."""
    return net.size + PARTNERS + int(np.random.default_rng([net.seed, 5, i.device, i.start_ms // 1000]).integers(STRANGERS))


def _trouble(g: Generator, i: Incident, cell_ms: int, rng: np.random.Generator) -> Rows | None:
    """Flows that an incident adds to a cell."""
    net = g.net
    start, end = max(i.start_ms, cell_ms), min(i.end_ms, cell_ms + g.cell_ms)
    minutes = (end - start) / 60_000
    sent: Array
    received: Array
    kind = KINDS[int(net.kind[i.device])]
    rate = float(net.rate[i.device])
    strangers = net.size + PARTNERS
    one = leaked_to(net, i)
    if i.kind == "flood":
        n = int(rng.poisson(i.strength * min(3000.0, max(400.0, 30 * rate)) * minutes))
        status = np.where(rng.random(n) < 0.75, UNANSWERED, np.where(rng.random(n) < 0.6, REFUSED, OK))
        other, inbound, port = strangers + rng.integers(0, STRANGERS, n), np.ones(n, bool), kind.ports[0]
        sent, received, lasted = rng.integers(0, 60, n), rng.integers(40, 120, n), rng.integers(0, 3000, n)
    elif i.kind == "fast_leak":
        n = int(rng.poisson(6 * minutes))
        status, other, inbound, port = np.full(n, OK), np.full(n, one), np.zeros(n, bool), 443
        sent = i.strength * 3e7 * np.exp(0.6 * rng.standard_normal(n))
        received, lasted = sent / 400, rng.integers(2000, 20000, n)
    elif i.kind == "slow_leak":
        n = int(rng.poisson(1.5 * minutes))
        usual = rate * kind.external * (1 - kind.inbound) * kind.out_external * float(np.exp(kind.sigma**2 / 2))
        status, other, inbound, port = np.full(n, OK), np.full(n, one), np.zeros(n, bool), 443
        sent = i.strength * max(1.5e5, 6 * usual) * np.exp(0.4 * rng.standard_normal(n))
        received, lasted = sent / 100, rng.integers(500, 8000, n)
    elif i.kind == "new_destination":
        n = int(rng.poisson(i.strength * max(12, 2 * rate) * minutes))
        status, other, inbound, port = np.full(n, OK), strangers + rng.integers(0, STRANGERS, n), np.zeros(n, bool), 8443
        sent, received, lasted = rng.integers(3000, 30000, n), rng.integers(300, 3000, n), rng.integers(100, 2000, n)
    else:
        return None
    return _conversation(
        net, np.full(n, i.device), start + rng.integers(0, end - start, n), other, inbound, np.full(n, port),
        sent, received, lasted, status, rng,
    )


def _readings(g: Generator, cell_ms: int, rng: np.random.Generator, near: Sequence[Incident]) -> Rows:
    net, period = g.net, g.period_ms
    offset = (net.series_phase * period).astype(np.int64)
    first = -((offset - cell_ms) // period)
    ticks = -((offset - cell_ms - g.cell_ms) // period) - first
    series = np.repeat(np.arange(len(offset)), ticks)
    nth = np.arange(len(series)) - np.repeat(np.cumsum(ticks) - ticks, ticks)
    ts = offset[series] + (first[series] + nth) * period
    order = np.argsort(ts, kind="stable")
    series, ts = series[order], ts[order]
    n = len(series)
    noise = net.series_noise[series]
    value = _level(net, series, ts) + noise * rng.standard_normal(n)
    value = np.clip(value, net.series_low[series], net.series_high[series])
    value[rng.random(n) < 0.001] = np.nan
    status = (rng.random(n) < 0.001).astype(np.int64)
    keep = np.ones(n, bool)
    for i in near:
        device = net.series_device[series] == i.device
        struck = device & (ts >= i.start_ms) & (ts < i.end_ms)
        if i.kind == "silent":
            keep &= ~(struck & (np.random.default_rng([net.seed, 7, cell_ms // 1000, i.device]).random(n) < i.strength))
        if i.use_case != "lie":
            continue
        own = np.random.default_rng([net.seed, 6, cell_ms // 1000, i.device, i.start_ms // 1000])
        of_device = np.flatnonzero(net.series_device == i.device)
        one = int(of_device[i.metric % len(of_device)])
        at = np.flatnonzero(struck & (series == one))
        sigma, wave = float(net.series_noise[one]), abs(float(net.series_daily[one]))
        if i.kind == "stuck":
            held = _level(net, np.array([one]), np.array([i.start_ms]))[0]
            value[at] = held + max(0.0, 1 - i.strength) * (value[at] - held)
        elif i.kind == "drift":
            value[at] += i.strength * (15 * sigma + wave) * (ts[at] - i.start_ms) / (i.end_ms - i.start_ms)
        elif i.kind == "noise":
            value[at] += i.strength * 8 * sigma * own.standard_normal(len(at))
        elif i.kind == "spike":
            up = own.random(len(at)) < 0.12
            value[at] += np.where(up, i.strength * (40 * sigma + wave) * np.where(own.random(len(at)) < 0.5, 1, -1), 0)
        elif i.kind == "missing":
            gone = own.random(len(at)) < 0.7 * i.strength
            value[at] = np.where(gone, np.nan, value[at])
            status[at] = np.where(gone, STATES.values.index("error"), status[at])
    rows = {"device": net.series_device[series], "ts": ts, "metric": net.series_metric[series], "value": np.round(value, 3), "status": status}
    return _take(rows, keep)


def _level(net: Network, series: Array, ts: Array) -> Array:
    """What a metric would read without noise: its level, its daily wave and two slow ones."""
    wave = net.series_waves[series]
    slow = np.sin(ts[:, None] * (2 * np.pi / 1000) / wave[:, :, 0] + wave[:, :, 1]).sum(axis=1)
    day = np.cos((_hours_array(ts) - 15) * np.pi / 12)
    level: Array = net.series_level[series] + net.series_daily[series] * day + 0.8 * net.series_noise[series] * slow
    return level


def _hours_array(ms: Array) -> Array:
    hours: Array = ms / 3_600_000 % 24
    return hours


def _with_faults(g: Generator, topic: str, rows: Rows, rng: np.random.Generator) -> Rows:
    """Arrival times, and the copies that arrive twice, broken, impossible or from nobody; `origin` keeps the true time."""
    n, f = len(rows["ts"]), g.faults
    delay = np.minimum(rng.exponential(120, n), 2000)
    chance = rng.random(n)
    delay = np.where(chance < f.delayed, rng.uniform(0, 0.8 * g.lateness_ms, n), delay)
    late = (chance >= f.delayed) & (chance < f.delayed + f.late)
    delay = np.where(late, rng.uniform(max(20_000, 2 * g.lateness_ms), 180_000, n), delay)
    rows["arrival"] = rows["ts"] + delay.astype(np.int64)
    rows["origin"] = rows["ts"]
    rows["fate"], rows["how"] = np.zeros(n, np.int64), np.zeros(n, np.int64)
    copies = [rows]
    for fate, share in ((DUPLICATE, f.duplicates), (MALFORMED, f.malformed), (IMPOSSIBLE, f.impossible), (UNKNOWN, f.unknown)):
        copy = _take(rows, rng.random(n) < share)
        m = len(copy["ts"])
        copy["fate"] = np.full(m, fate)
        copy["how"] = rng.integers(0, 2**31, m)
        copy["arrival"] = copy["arrival"] + rng.integers(1, 30_000 if fate == DUPLICATE else 1000, m)
        if fate == UNKNOWN:
            copy["device"] = np.full(m, g.net.size)
        copies.append(copy)
    _spoil(topic, copies[3], g.net)
    return {name: np.concatenate([c[name] for c in copies]) for name in rows}


def _spoil(topic: str, rows: Rows, net: Network) -> None:
    names = _impossible(topic)
    for at, how in enumerate(rows["how"].tolist()):
        rule = names[how % len(names)]
        if rule == "device_id_length":
            rows["device"][at] = net.size + 1
        elif rule == "direction_values":
            rows["direction"][at] = len(DIRECTIONS.values) - 1
        elif rule == "status_values":
            rows["status"][at] = len((OUTCOMES if topic == "flow" else STATES).values) - 1
        elif rule == "ts_future":
            rows["ts"][at] += 60 * _YEAR_MS
        elif rule == "ts_past":
            rows["ts"][at] %= 5 * _YEAR_MS
        elif rule == "bytes_in_range":
            rows["bytes_in"][at] = 2 * 10**15
        elif rule == "src_port_range":
            rows["src_port"][at] = 70_000
        elif rule == "value_range":
            rows["value"][at] = 1e18
        else:
            rows[rule.removesuffix("_range")][at] = -1 - how % 1000


def _broken(body: bytes, how: int) -> bytes:
    """A body that is no Avro of its contract: cut short, noise, empty, or (a reading) not a number."""
    kind = how % 4
    if kind == 0:
        return b""
    if kind == 1:
        # its first byte says that a string of negative length follows
        noise = np.random.default_rng(how)
        return bytes([int(noise.integers(0, 64)) * 2 + 1]) + noise.bytes(int(noise.integers(4, 80)))
    if kind == 2 and body.endswith(b"\x04ok") and body[-12] == 2:
        return body[:-11] + b"\0\0\0\0\0\0\xf8\x7f" + body[-3:]
    return body[: 1 + how % (len(body) - 1)]


def _columns(net: Network, topic: str, rows: Rows) -> dict[str, Column]:
    device = Text(rows["device"], net.devices)
    if topic == "reading":
        return {
            "device_id": device, "event_id": rows["event_id"], "ts": rows["ts"], "metric": Text(rows["metric"], net.metrics),
            "value": np.ma.masked_invalid(rows["value"]), "status": Text(rows["status"], STATES),
        }
    return {
        "device_id": device, "event_id": rows["event_id"], "ts": rows["ts"], "direction": Text(rows["direction"], DIRECTIONS),
        "src_ip": Text(rows["src_ip"], net.addresses), "src_port": np.ma.masked_equal(rows["src_port"], NULL),
        "dst_ip": Text(rows["dst_ip"], net.addresses), "dst_port": np.ma.masked_equal(rows["dst_port"], NULL),
        "proto": Text(rows["proto"], PROTOCOLS), "status": Text(rows["status"], OUTCOMES),
        **{n: rows[n] for n in ("bytes_out", "bytes_in", "pkts_out", "pkts_in", "duration_ms")},
    }
