"""How long an event takes to its row in Pinot and in Delta, and a closed window to its alert, on the stack that runs.

    python bench/latency.py [--rate 20] [--seconds 180] [--quick] [--json FILE]

The generator sends in real time and does not wait for anyone; with floods, leaks and lies among it. Measured:

- Pinot: now minus the event time of the newest row that a query sees, every 200 ms (a query's own time included);
- Delta: the commit's time minus the event time, of every row committed;
- alert: the time that the broker gave the first alert of a window, minus the end of the window. It includes
  `stream.lateness` (5 s), for which a window waits for late events.

Needs champions (`make demo`): without a model there are no alerts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import requests

from tidewatch import tables
from tidewatch.inputs.network import network
from tidewatch.settings import ROOT, Settings, load

SETTLE_SECONDS = 60
SEED = 7


def newest(settings: Settings, table: str) -> float:
    """Event time in milliseconds of the newest row that Pinot shows; NaN if there is none."""
    now = int(time.time() * 1000)
    sql = f"SELECT MAX(ts) FROM {table} WHERE ts BETWEEN {now - 600_000} AND {now}"
    rows = requests.post(f"{settings.pinot_broker}/query/sql", json={"sql": sql}, timeout=10).json().get("resultTable", {}).get("rows", [])
    found = float(rows[0][0]) if rows else float("nan")
    return found if found > 0 else float("nan")


def delta_ages(settings: Settings, name: str, since_ms: int, until_ms: int) -> np.ndarray[Any, Any]:
    """Seconds from event to commit, of every row with an event time in [since, until)."""
    folder, found = tables.table(name).path(settings), []
    for entry in sorted((folder / "_delta_log").glob("*.json")):
        if entry.stat().st_mtime * 1000 < since_ms:
            continue
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        commit = next(a["commitInfo"]["timestamp"] for a in actions if "commitInfo" in a)
        for a in actions:
            if "add" in a:
                ts = pq.read_table(folder / a["add"]["path"], columns=["ts"])["ts"].to_numpy().astype("datetime64[ms]").astype(np.int64)
                found.append((commit - ts[(ts >= since_ms) & (ts < until_ms)]) / 1000)
    return np.concatenate(found) if found else np.zeros(0)


def alert_ages(settings: Settings, since_ms: int) -> np.ndarray[Any, Any]:
    """Seconds from the end of a window to its alert in the topic, the first for each incident and window."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": settings.kafka, "group.id": "bench-latency", "enable.auto.commit": False, "isolation.level": "read_committed"})
    parts = consumer.list_topics("alerts", timeout=10).topics["alerts"].partitions
    consumer.assign(consumer.offsets_for_times([TopicPartition("alerts", p, since_ms) for p in parts], timeout=10))
    found: dict[tuple[str, int], float] = {}
    while messages := consumer.consume(500, timeout=5):
        for m in messages:
            if m.error() is None and m.value() is not None:
                row = json.loads(m.value())
                key = (row["alert_id"], row["end"])
                if row["end"] < since_ms:  # a window of before, which only the first new events closed
                    continue
                found[key] = min(found.get(key, np.inf), (m.timestamp()[1] - row["end"]) / 1000)
    consumer.close()
    return np.array(list(found.values()))


def figures(ages: np.ndarray[Any, Any]) -> dict[str, float]:
    ages = ages[np.isfinite(ages)]
    if not len(ages):
        return {"n": 0}
    p50, p95, p99 = np.quantile(ages, (0.5, 0.95, 0.99))
    return {"n": len(ages), "p50 s": float(p50), "p95 s": float(p95), "p99 s": float(p99), "max s": float(ages.max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=20, help="events a second (default 20, what the champions of `make demo` know; more is a flood to them)")
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--devices", type=int, default=100, help="devices of the network that the champions know (default 100)")
    parser.add_argument("--quick", action="store_true", help="60 seconds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    o = parser.parse_args()
    settings, seconds = load(), 60 if o.quick else o.seconds
    begin = datetime.now(UTC)
    end = begin + timedelta(seconds=seconds)
    # half flows, half readings (2.5 metrics a device on average)
    flows, period = o.rate * 30 / o.devices, 2.5 * o.devices / (o.rate / 2)
    names = network(o.devices, flows, SEED).names
    minutes = max(1, seconds // 60)
    incidents = [x for i, kind in enumerate(("flood", "fast_leak", "noise", "spike", "missing")) for x in ("--incident", f"{kind}:{names[i]}:{minutes}:now")]
    send = subprocess.Popen([
        str(ROOT / "bin" / "tidewatch"), "generate", "--live", "--start", "now", "--end", f"+{seconds}s", "--devices", str(o.devices),
        "--seed", str(SEED), "--flows", f"{flows:.3f}", "--period", f"{max(period, 0.1):.3f}", "--incidents", "none", *incidents, "--json",
    ], stdout=subprocess.PIPE, text=True)
    ages: dict[str, list[float]] = {"flow": [], "reading": []}
    while datetime.now(UTC) < end:
        for name, found in ages.items():
            age = newest(settings, name)
            if datetime.now(UTC) > begin + timedelta(seconds=10):
                found.append(time.time() - age / 1000)
        time.sleep(0.2)
    sent = json.loads("{" + (send.communicate()[0] or "{}").split("{", 1)[1])
    time.sleep(SETTLE_SECONDS)
    since, until = int(begin.timestamp() * 1000), int(end.timestamp() * 1000)
    result = {
        **{f"event to Pinot row, {n}": figures(np.array(a)) for n, a in ages.items()},
        **{f"event to Delta row, {n}": figures(delta_ages(settings, n, since + 10_000, until)) for n in ages},
        "window's end to alert": figures(alert_ages(settings, since + 60_000)),
    }
    print(f"{sent.get('produced_total', 0) / seconds:,.0f} events/s for {seconds} s, {o.devices} devices")
    print(f"{'':28} {'n':>9} {'p50 s':>8} {'p95 s':>8} {'p99 s':>8} {'max s':>8}")
    for name, f in result.items():
        print(f"{name:28} {f['n']:>9,} " + " ".join(f"{f.get(k, float('nan')):8.2f}" for k in ("p50 s", "p95 s", "p99 s", "max s")))
    if o.json:
        o.json.write_text(json.dumps({"rate": o.rate, "seconds": seconds, "devices": o.devices, **result}, indent=1))


if __name__ == "__main__":
    main()
