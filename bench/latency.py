"""How long an event takes to its row in Pinot and in Delta, and a closed window to its alert, while so many come a second.

    python bench/latency.py [--rate 10000,20000] [--devices 10000] [--seconds 240] [--warm 60] [--lateness SECONDS] [--quick] [--json FILE]

Starts servers of its own (`bench/servers.py`: Kafka, Flink, Pinot, the committer; made-up baselines and models, one entity
in a thousand anomalous). The events are made beforehand and sent when their time comes, whoever keeps up or not, by a
process that shares the machine. The first seconds (`--warm`) are left out: a JVM just started compiles for minutes. Measured:

- Pinot: now minus the event time of the newest row that a query of 200 devices sees, every 200 ms (a query's own time included, and until
  these devices' next event: of 10,000, some ten milliseconds at 5,000 events a second of a kind);
- Delta: the commit's time minus the event time, of every row committed;
- alert: the time that the broker gave the first alert of a window, minus the end of the window; and minus its close, which
  is `stream.lateness` later: so long a window waits for late events; and later by what its view is delayed on purpose.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import requests

from bench.servers import LANDED, Job, Meter, bench_network, knowledge, servers, tidewatch, until
from tidewatch import events, tables
from tidewatch.commands.demo import delta_rows
from tidewatch.detectors import all_detectors
from tidewatch.features import view
from tidewatch.inputs.generate import Generator
from tidewatch.inputs.parcel import Parcel
from tidewatch.inputs.send import Kafka
from tidewatch.settings import Settings, load

SETTLE_SECONDS = 600
"""So long at most the bench waits for the last events' rows in Delta, and SLACK_SECONDS more for the alerts of the last windows."""
SLACK_SECONDS = 15
STEP_MS = 50
LOOK_SECONDS = 0.2
LOOKED_AT = 200
LOOKED_BACK_MS = (5_000, 30_000, 600_000)
"""So many devices' newest rows are looked for, by Pinot's index, and so far back; then farther. To look at everybody's, ten minutes back, took .44 cores, to look
at these 20 seconds back .12 of them (80 % of the rate), for nearly every block of time in full segments was unpacked."""
AHEAD_SECONDS = 30
"""A second of events takes less than a second to make, but nothing is made while time runs."""


def newest(settings: Settings, table: str, devices: Sequence[str]) -> float:
    """Event time in milliseconds of the newest row that Pinot shows of these devices; NaN if there is none."""
    now = int(time.time() * 1000)
    for back in LOOKED_BACK_MS:
        sql = f"SELECT MAX(ts) FROM {table} WHERE device_id IN ({', '.join(map(repr, devices))}) AND ts BETWEEN {now - back} AND {now}"
        rows = requests.post(f"{settings.pinot_broker}/query/sql", json={"sql": sql}, timeout=10).json().get("resultTable", {}).get("rows", [])
        if rows and float(rows[0][0]) > 0:
            return float(rows[0][0])
    return float("nan")


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
    """Seconds from the end of a window to its alert in the topic, the first for each incident and window, and how much of them its view is
    delayed on purpose: shape (alerts, 2)."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": settings.kafka, "group.id": "bench-latency", "enable.auto.commit": False, "isolation.level": "read_committed"})
    parts = consumer.list_topics("alerts", timeout=10).topics["alerts"].partitions
    consumer.assign(consumer.offsets_for_times([TopicPartition("alerts", p, since_ms) for p in parts], timeout=10))
    found: dict[tuple[str, int], tuple[float, int]] = {}
    delays = {d.name: view(d.view).delay_seconds for d in all_detectors()}
    while messages := consumer.consume(500, timeout=5):
        for m in messages:
            if m.error() is None and m.value() is not None:
                row = json.loads(m.value())
                key = (row["alert_id"], row["end"])
                if row["end"] < since_ms:  # a window of before, which only the first new events closed
                    continue
                found[key] = min(found.get(key, (np.inf, 0)), ((m.timestamp()[1] - row["end"]) / 1000, delays.get(row["detector"], 0)))
    consumer.close()
    return np.array(list(found.values())).reshape(-1, 2)


def figures(ages: np.ndarray[Any, Any]) -> dict[str, float]:
    ages = ages[np.isfinite(ages)]
    if not len(ages):
        return {"n": 0}
    p50, p95, p99 = np.quantile(ages, (0.5, 0.95, 0.99))
    return {"n": len(ages), "p50 s": float(p50), "p95 s": float(p95), "p99 s": float(p99), "max s": float(ages.max())}


def send(settings: Settings, rounds: list[tuple[int, list[Parcel]]]) -> None:
    """Send each round when its time comes, late ones at once; in a process of its own."""
    with Kafka(settings, events.names()) as kafka:
        for at, parcels in rounds:
            time.sleep(max(0.0, at / 1000 - time.time()))
            for p in parcels:
                kafka.send(p)


def run(rate: int, devices: int, seconds: int, warm: int, lateness: float) -> dict[str, Any]:
    """The figures of one rate."""
    os.environ["TIDEWATCH_STREAM__LATENESS"] = f"PT{lateness}S"
    with servers("bench-latency", stream={"lateness": f"PT{lateness}S"}) as settings:
        tidewatch(settings, "up", "kafka", "pinot", "flink_taskmanager", "committer")
        net, period = bench_network(devices, rate)
        knowledge(settings, net, int(time.time() * 1000) - 86_400_000)
        job = Job(settings, "delta", "bench-latency")
        begin_made = time.monotonic()
        Generator(net, 0, None, period_ms=period).advance(2000)  # how long do two seconds take?
        lead = AHEAD_SECONDS + (time.monotonic() - begin_made) / 2 * (seconds + warm) * 4
        start = int((time.time() + lead) * 1000)
        end = start + (seconds + warm) * 1000
        source, rounds = Generator(net, start, None, period_ms=period), []
        for at in range(start + STEP_MS, end, STEP_MS):
            rounds.append((at, source.advance(at)))
        if time.time() * 1000 > start:
            raise SystemExit("making the events took longer than foreseen: run it again, with a lower rate or fewer seconds")
        sent = sum(p.tally["records"] for _, parcels in rounds for p in parcels)
        sender = multiprocessing.get_context("fork").Process(target=send, args=(settings, rounds), daemon=True)
        sender.start()
        del rounds  # the sender's alone: a page that it touches would be there twice
        since, meter = start + warm * 1000, Meter(settings, {"sender": sender.pid or 0})
        time.sleep(max(0.0, since / 1000 - time.time()))
        meter.sample(read=0)
        ages: dict[str, list[float]] = {n: [] for n in events.names()}
        while time.time() * 1000 < end:
            for name, found in ages.items():
                found.append(-newest(settings, name, net.names[:LOOKED_AT]) / 1000 + time.time())
            time.sleep(LOOK_SECONDS)
        meter.sample(read=0)
        meter.stop()
        sender.join()
        until(SETTLE_SECONDS, lambda: job.read() >= 0 and delta_rows(settings, *LANDED) >= sent, f"{sent:,} events in Delta")
        time.sleep(SLACK_SECONDS)
        first, last = meter.samples
        cores = {k: (v - first.cpu.get(k, 0.0)) / (last.at - first.at) for k, v in last.cpu.items()}
        after_end = alert_ages(settings, since)
        return {
            "rate": rate, "sent a second": sent / (seconds + warm), "devices": devices, "lateness s": lateness, "cores": cores,
            "figures": {
                **{f"event to Pinot row, {n}": figures(np.array(a)) for n, a in ages.items()},
                **{f"event to Delta row, {n}": figures(delta_ages(settings, n, since, end)) for n in ages},
                "window's end to alert": figures(after_end[:, 0]),
                "window's close to alert": figures(after_end[:, 0] - lateness - after_end[:, 1]),
            },
        }


def show(r: dict[str, Any]) -> None:
    print(f"\n{r['sent a second']:,.0f} events/s, {r['devices']:,} devices, lateness {r['lateness s']} s; cores busy: "
          + ", ".join(f"{k} {v:.2f}" for k, v in sorted(r["cores"].items(), key=lambda x: -x[1]) if v >= 0.01) + f", all {sum(r['cores'].values()):.2f}")
    print(f"{'':28} {'n':>9} {'p50 s':>8} {'p95 s':>8} {'p99 s':>8} {'max s':>8}")
    for name, f in r["figures"].items():
        print(f"{name:28} {f['n']:>9,} " + " ".join(f"{f.get(k, float('nan')):8.2f}" for k in ("p50 s", "p95 s", "p99 s", "max s")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="10000,20000", help="events a second, comma separated, as a mean of the network's day: by night a fifth less comes, by day a fifth more (default 10000,20000)")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=240, help="so long is measured (default 240)")
    parser.add_argument("--warm", type=int, default=60, help="seconds before that, which are left out (default 60)")
    parser.add_argument("--lateness", type=float, default=load().stream.lateness.total_seconds(), help="stream.lateness in seconds (default: the setting)")
    parser.add_argument("--quick", action="store_true", help="500 events a second of 100 devices for a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    o = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    rates, devices, seconds, warm = ([500], 100, 30, 30) if o.quick else ([int(x) for x in o.rate.split(",")], o.devices, o.seconds, o.warm)
    found = []
    for rate in rates:
        found.append(run(rate, devices, seconds, warm, o.lateness))
        show(found[-1])
        if o.json:
            o.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
