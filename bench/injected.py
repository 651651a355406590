"""Incidents put into clean generated traffic, every kind at five strengths: what is found, what is named, what is false."""

from __future__ import annotations

import sys
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import measures, quality
from tidewatch.detectors import USE_CASES, of_use_case
from tidewatch.features import SUM_GROUPS, view
from tidewatch.inputs import network, replay
from tidewatch.inputs.encode import Text
from tidewatch.inputs.generate import Faults, Generator, leaked_to
from tidewatch.inputs.incidents import TROUBLES, Incident, Trouble

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START_MS = 1_767_571_200_000
SEED = 11
STRENGTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""1 is what the demonstration sends; from 0.5 on an incident counts as clear."""
CLEAR = 0.5
_SENT = frozenset({"external_bytes_out", "external_ratio", "bytes_out", "external_bytes_out_1h", "external_ratio_1h", "bytes_out_1h"})
NAMES: Mapping[str, frozenset[str]] = {
    "silent": frozenset({"silent_seconds", "events"}), "flood": frozenset({"inbound_flows", "inbound_sources", "failed_flows"}),
    # each goes to addresses that the device does not know
    "fast_leak": _SENT | {"new_destinations"}, "slow_leak": _SENT | {"external_minutes", "beacon_minutes", "new_destinations"},
    "new_destination": _SENT - {"bytes_out", "bytes_out_1h"} | {"external_destinations", "new_destinations"},
    "stuck": frozenset({"still_minutes"}), "drift": frozenset({"value_trend", "value_level", "level_log"}),
    "noise": frozenset({"value_noise", "value_range", "value_jump", "jump_log", "range_log"}),
    "spike": frozenset({"value_jump", "value_range", "jump_log", "range_log"}),
    "missing": frozenset({"missing_share"}),
}
"""The signals that name each kind's fault; of a lie, the metric must be the struck one too, of a group of outside addresses the one that was leaked to."""
_PAIR = frozenset(f"pair_rate_{k}" for k in range(1, SUM_GROUPS + 1))


def names(label: Mapping[str, Any], signal: str, metric: str) -> bool:
    """Whether a signal names what is wrong in the label's incident."""
    if signal in _PAIR:
        return label["use_case"] == "leak" and label["group"] in (None, int(signal.rpartition("_")[2]))
    return signal in NAMES[label["kind"]] and (label["use_case"] != "lie" or metric == label["metric"])


@dataclass(frozen=True)
class Size:
    """How much is generated."""

    devices: int
    train_hours: int
    cycles: int
    """So many times, evenly, baselines are built in the train part."""
    test_hours: int
    each: int
    """Incidents of each kind and strength."""
    flows: float
    """A device and minute."""
    kinds: tuple[Trouble, ...] = TROUBLES
    strengths: tuple[float, ...] = STRENGTHS


FULL = Size(200, 168, 7, 122, 20, 1.5)
"""A week, as `batch.training_window` has it, with baselines built each day."""
FIRST = replace(FULL, train_hours=48, cycles=1)
"""A first training: two days, whose windows are judged by a baseline made of them."""
DAY = replace(FULL, devices=100, each=8, kinds=(Trouble("slow_leak", "leak", (480, 960)),), strengths=tuple(x / 16 for x in STRENGTHS))
"""Leaks of eight to sixteen hours that no hour shows."""
QUICK = Size(40, 12, 2, 12, 1, 1.5)


def cycles(size: Size) -> tuple[int, ...]:
    """When baselines are built, milliseconds: the last time where the train part ends."""
    return tuple(START_MS + size.train_hours * 3_600_000 * k // size.cycles for k in range(1, size.cycles + 1))


def plan(net: network.Network, size: Size, begin_ms: int, end_ms: int) -> tuple[Incident, ...]:
    """Incidents at random times of the test part on random devices, in peace from each other."""
    rng = np.random.default_rng(SEED)
    mine: dict[int, list[Incident]] = defaultdict(list)
    for trouble in size.kinds:
        for strength in size.strengths:
            for _ in range(size.each):
                while True:
                    length = int(rng.uniform(*trouble.minutes) * 60_000)
                    start = int(rng.integers(begin_ms, end_ms - length)) // 1000 * 1000
                    one = Incident(int(rng.integers(net.size)), trouble.kind, start, start + length, int(rng.integers(8)), strength)
                    if all(one.clear_of(o) for o in mine[one.device]):
                        mine[one.device].append(one)
                        break
    return tuple(sorted((i for found in mine.values() for i in found), key=lambda i: i.start_ms))


def made(size: Size) -> tuple[replay.LabelledSet, int]:
    """The traffic with its incidents as a labelled set (a label's `kind` is the incident's, beside `strength`, `metric` and `group`),
    and where the test part begins."""
    net = network.network(size.devices, size.flows, SEED)
    begin = START_MS + size.train_hours * 3_600_000
    end = begin + size.test_hours * 3_600_000
    incidents = plan(net, size, begin + 3_600_000, end)
    none = replace(Faults(), duplicates=0.0, malformed=0.0, impossible=0.0, unknown=0.0)
    columns = Generator(net, START_MS, end, incidents, none, period_ms=60_000).whole()
    labels: list[dict[str, Any]] = []
    for i in incidents:
        series = np.flatnonzero(net.series_device == i.device)
        metric = net.metrics.values[int(net.series_metric[series[i.metric % len(series)]])]
        labels.append({"device_id": net.names[i.device], "start": i.start_ms, "end": i.end_ms, "use_case": i.use_case, "kind": i.kind,
                       "origin": "injected", "strength": i.strength, "metric": metric, "group": _group(net, i)})
    return replay.LabelledSet("injected", (), columns, labels, network.inventory(net, START_MS), START_MS, end), begin


def _group(net: network.Network, i: Incident) -> int | None:
    """The group of the address that a leak to one address sends to; None: there are many, or none."""
    return zlib.crc32(net.addresses.values[leaked_to(net, i)].encode()) % SUM_GROUPS + 1 if i.kind in ("fast_leak", "slow_leak") else None


def run(spark: SparkSession, cache: Path, jars: Path, families: dict[str, str], size: Size) -> dict[str, Any]:
    """Figures by kind and strength, and false alerts of each use case."""
    found, begin = made(size)
    for columns in found.columns.values():
        assert isinstance(columns["device_id"], Text)
    code = [Path(__file__), *(quality.ROOT / "tidewatch" / "inputs").glob("*.py")]
    settings = quality.home(cache, f"injected-{quality._key(code, str(size))}", jars)
    s = quality.Set("injected", USE_CASES, settings, found, {d["device_id"]: begin for d in found.devices}, cycles(size))
    quality.build(s, spark)
    kinds: dict[tuple[str, float], list[tuple[bool, bool, bool]]] = defaultdict(list)
    false: dict[str, int] = {}
    gap = settings.stream.alert_gap // timedelta(milliseconds=1)
    for use_case in dict.fromkeys(t.use_case for t in size.kinds):
        every = quality.windows(spark, s, use_case, families)
        assert every is not None
        fired = every[every["fired"] & (every["end_ms"] <= found.end_ms)].sort_values(["device_id", "end_ms"])
        # so long after an incident may each detector still see it
        glow = fired["detector"].map({
            d.name: (d.afterglow + timedelta(seconds=view(d.view).size_seconds, minutes=15)) // timedelta(milliseconds=1) for d in of_use_case(use_case)
        }).to_numpy()
        device, end = fired["device_id"].to_numpy(), fired["end_ms"].to_numpy()
        excused = np.zeros(len(fired), dtype=bool)
        for label in found.labels:
            a, b = np.searchsorted(device, label["device_id"], "left"), np.searchsorted(device, label["device_id"], "right")
            mine = fired.iloc[a:b]
            near = (end[a:b] > label["start"]) & (end[a:b] - quality.MINUTE_MS <= label["end"] + glow[a:b])
            excused[a:b] |= near
            if label["use_case"] != use_case:
                continue
            hit = mine[(end[a:b] > label["start"]) & (end[a:b] - (1 + measures.GRACE) * quality.MINUTE_MS < label["end"])]
            named = highest = False
            if len(hit):
                # what is named while it lasts: that a drifted value falls back at the end is a jump
                during = hit[hit["end_ms"] <= label["end"]]
                named, highest = (
                    names(label, best["signal"], best["metric"])
                    for best in (part.loc[part["score"].idxmax()] for part in (during if len(during) else hit, hit))
                )
            kinds[label["kind"], label["strength"]].append((bool(len(hit)), named, highest))
        wrong_device, wrong_end = device[~excused], end[~excused]
        false[use_case] = int(((wrong_device[1:] != wrong_device[:-1]) | (np.diff(wrong_end) > gap)).sum()) + 1 if len(wrong_end) else 0
    days = size.devices * size.test_hours / 24
    print(f"injected: {size}", file=sys.stderr)
    return {
        "device_days": days, "devices": size.devices, "train_hours": size.train_hours, "false_alerts": false,
        "false_alerts_per_1000": {u: 1000 * n / days for u, n in false.items()},
        "kinds": [
            {"kind": k, "strength": x, "incidents": len(v), "recall": float(np.mean([f for f, *_ in v])),
             "named_first": float(np.mean([n for f, n, _ in v if f])) if any(f for f, *_ in v) else None}
            for (k, x), v in sorted(kinds.items())
        ],
        "clear_recall": _mean([f for (_, x), v in kinds.items() if x >= CLEAR for f, *_ in v]),
        "clear_named_first": _mean([n for (_, x), v in kinds.items() if x >= CLEAR for f, n, _ in v if f]),
        "clear_named_at_highest": _mean([h for (_, x), v in kinds.items() if x >= CLEAR for f, _, h in v if f]),
    }


def _mean(values: Sequence[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def table(found: Mapping[str, Any]) -> str:
    """The figures as text."""
    rows: Sequence[Mapping[str, Any]] = found["kinds"]
    strengths = sorted({r["strength"] for r in rows})
    lines = ["", f"{'kind':18}" + "".join(f"{f'x{x:.3g}':>14}" for x in strengths) + "   recall (named first)"]
    for kind in dict.fromkeys(r["kind"] for r in rows):
        cells = {r["strength"]: f"{r['recall']:.2f}" + ("" if r["named_first"] is None else f" ({r['named_first']:.2f})") for r in rows if r["kind"] == kind}
        lines.append(f"{kind:18}" + "".join(f"{cells[x]:>14}" for x in strengths))
    lines.append(f"false alerts per 1,000 device-days, of {found['device_days']:.0f}: "
                 + ", ".join(f"{u} {n:.1f}" for u, n in found["false_alerts_per_1000"].items()))
    if found["clear_recall"] is not None and found["clear_named_first"] is not None:
        lines.append(f"clear incidents (x{CLEAR:g} on): recall {found['clear_recall']:.3f}, named first {found['clear_named_first']:.3f} "
                     f"({found['clear_named_at_highest']:.3f} with the window after the end)")
    return "\n".join(lines)
