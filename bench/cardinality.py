"""What the number of devices does to the stream, at the same rate of events: events/s, state, checkpoints.

    python bench/cardinality.py [--devices 1000,10000] [--events 6000000] [--rate 81019]
                                [--backend hashmap|rocksdb] [--heap 1536] [--rocksdb 512] [--quick] [--json FILE]

Each number of devices has servers of its own (`bench/servers.py`), topics filled beforehand with as many events at `--rate` a
second of event time (with few a second, many windows close, as many as detectors look back), and a baseline for every device
and metric; the stream reads them up to scores and alerts (the mode `score` of `bench/throughput.py`), until no more scores come.
Shown: events/s and CPU seconds a million, the job's start, its reading of the baselines and the wait for the last scores included; scored
windows and how many of them a second; the largest checkpoint's size, the same a device, and the longest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

from bench.servers import RATE, bench_network, filled, servers, tidewatch
from bench.throughput import measure
from tidewatch.settings import Stream

SECONDS = 50
"""From where the events begin (`filled`), so many seconds of them close the first window, late events waited for."""


def one(devices: int, events: int, rate: int, stream: dict[str, Any]) -> dict[str, Any]:
    """The figures of one number of devices, with these settings of the stream."""
    os.environ |= {f"TIDEWATCH_STREAM__{k.upper()}": str(v) for k, v in stream.items()}
    with servers("bench-cardinality", stream=stream) as settings:
        tidewatch(settings, "up", "kafka", "flink_taskmanager")
        net, period = bench_network(devices, rate)
        sent = filled(settings, net, period, events)
        found = measure(settings, "score", sent, 0.3, scores=True)
        return {**stream, "devices": devices, "records": sent["records"], **found}


def show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("devices", "backend", "heap MB", "rocksdb MB", "events/s", "CPU s a million", "scored", "scored a second", "state MB", "kB a device", "longest checkpoint s", "peak MB")
    for r in rows:
        state = r["checkpoint"]
        table.add_row(
            f"{r['devices']:,}", r["state_backend"], str(r["task_heap_mb"]), str(r["rocksdb_mb"]) if r["state_backend"] == "rocksdb" else "",
            f"{r['events/s']:,.0f}", f"{sum(r['cpu'].values()):.1f}", f"{r['scored']:,}",
            f"{r['scored'] / r['wall s']:,.0f}", f"{state['bytes'] / 1e6:,.0f}", f"{state['bytes'] / 1e3 / r['devices']:.1f}", f"{state['longest s']:.1f}",
            f"{sum(r['peak MB'].values()):,.0f}",
        )
    Console(width=180).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="1000,10000", help="comma separated (default 1000,10000); 100000 need --heap 4096, or --backend rocksdb")
    parser.add_argument("--events", type=int, default=6_000_000)
    parser.add_argument("--rate", type=int, default=RATE, help="events a second of event time (default 81,019)")
    parser.add_argument("--backend", default="hashmap", choices=("hashmap", "rocksdb"))
    parser.add_argument("--heap", type=int, default=Stream().task_heap_mb, help="MB of the worker's heap for tasks (stream.task_heap_mb)")
    parser.add_argument("--rocksdb", type=int, default=Stream().rocksdb_mb, help="MB of the worker's memory for rocksdb (stream.rocksdb_mb)")
    parser.add_argument("--quick", action="store_true", help="200,000 events of 500 devices, to see that it works")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    o = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    numbers, events, rate = ([500], 200_000, 2000) if o.quick else ([int(n) for n in o.devices.split(",")], o.events, o.rate)
    if events < SECONDS * rate:
        parser.error(f"{events:,} events at {rate:,} a second close no window: at least {SECONDS} seconds of them, {SECONDS * rate:,}")
    rows, stream = [], {"state_backend": o.backend, "task_heap_mb": o.heap, "rocksdb_mb": o.rocksdb}
    for n in numbers:
        rows.append(one(n, events, rate, stream))
        if o.json:
            o.json.write_text(json.dumps({"machine": {"cores": os.cpu_count(), "machine": platform.machine()}, "rows": rows}, indent=1))
    show(rows)


if __name__ == "__main__":
    main()
