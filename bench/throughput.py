"""How many events a second the stream takes, and what a million of them costs each process in CPU seconds.

    python bench/throughput.py [--events 10000000] [--devices 10000] [--rate 81019] [--modes read,window,score,delta,whole,spark]
                               [--parallelism 2] [--warm 0.3] [--keep] [--quick] [--json FILE]

Starts servers of its own in `<state>/bench` on free ports, fills the topics once, and lets the stream read them from the
beginning to the end, a step more each time: read (Kafka and decoding), window, score (and every topic), delta, whole
(Pinot consuming at the same time). `spark` is the peer: Structured Streaming from the same topics to Delta with the same
windows (`bench/spark_stream.py`).

Events come at 81,019 a second of event time (7 billion a day), half flows, half readings. What the stream knows, baselines
of every device and models, is made up: one entity in a thousand is set to be anomalous. Two figures a process: of the
whole run, its JVM's start and compilation included, and of what is left once its reader has had the share `--warm` of the
events (a stream runs for weeks; a JVM compiles for a minute). Flink's client is not counted. `--keep` leaves the topics for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.servers import (
    LANDED,
    RATE,
    Job,
    Meter,
    bench_network,
    costs,
    delete_tables,
    environment,
    filled,
    flink,
    outputs_anew,
    rows_in,
    rows_of,
    servers,
    size,
    stop_pinot,
    table_size,
    tidewatch,
    until,
)
from tidewatch import events, tables
from tidewatch.commands.demo import delta_rows
from tidewatch.settings import ROOT, Settings
from tidewatch.stack import pinot_tables

MODES = ("read", "window", "score", "delta", "whole", "spark")
BAR = 24.7
"""CPU seconds a million events at which 2 cores keep up with RATE."""
QUIET_SECONDS = 30
"""So long without a new score, and there come no more."""


def measure(settings: Settings, mode: str, sent: dict[str, int], warm: float, *, scores: bool = False) -> dict[str, Any]:
    """One mode from its beginning to its end: all events read and stored; with `scores` until no more are written, too."""
    n, gap = sent["records"], sent["records"] - sent["unique"]
    outputs_anew(settings)
    if mode in ("delta", "whole"):
        tidewatch(settings, "up", "committer")
    if mode == "whole":
        tidewatch(settings, "up", "pinot")
        delete_tables(settings, events.names())
    meter = Meter(settings)
    meter.sample(read=0)
    run = Job(settings, "delta" if mode == "whole" else mode, f"bench-{mode}-{int(time.time())}")
    begin = flink(settings, f"/jobs/{run.id}")["start-time"] / 1000
    if mode == "whole":
        # only now, so that both read at the same time
        pinot_tables.apply(settings)

    grown = (0, time.time())

    def done() -> bool:
        nonlocal grown
        progress = {"read": run.read()}
        if mode in ("delta", "whole"):
            progress["delta"] = delta_rows(settings, *LANDED)
        if mode == "whole":
            # those that Pinot leaves out, copies for one, count when all else is there
            rows = sum(rows_in(settings, t) for t in events.names())
            progress["pinot"] = rows + gap if rows >= sent["unique"] else rows
        meter.sample(**progress)
        print(f"\r{mode}: {', '.join(f'{k} {v:,}' for k, v in progress.items())} of {n:,} after {time.time() - begin:.0f} s ", end="", flush=True)
        if scores and (rows := rows_of(settings, "scores")) > grown[0]:
            grown = rows, time.time()
        return min(progress.values()) >= n and (not scores or (grown[0] > 0 and time.time() - grown[1] > QUIET_SECONDS))

    until(3600, done, f"{mode} to end")
    wall = (grown[1] if scores else time.time()) - begin
    meter.stop()
    print()
    checkpoints = run.checkpoints()["summary"] if mode in ("score", "delta", "whole") else {}
    run.cancel()
    stored = {"kafka events": sum(size(p) for n in events.names() for p in (settings.state_dir / "data" / "kafka").glob(f"{n}-*"))}
    if mode in ("delta", "whole"):
        tidewatch(settings, "down", "committer")
        stored["delta"] = size(settings.lake)
        stored["delta events"] = sum(size(tables.table(t).path(settings)) for t in events.names())
    if mode == "whole":
        stored["pinot events"] = sum(table_size(settings, t) for t in events.names())
        stop_pinot(settings)
    whole, steady, rate = costs(meter.samples, n, int(n * warm))
    return {"wall s": wall, "events/s": n / wall, "steady events/s": rate, "cpu": whole, "steady cpu": steady, "peak MB": dict(meter.peak),
            "busiest": run.busiest(), "bytes an event": {k: v / n for k, v in stored.items()}, "scored": rows_of(settings, "scores"), "checkpoint": {
                "bytes": checkpoints["state_size"]["max"], "longest s": checkpoints["end_to_end_duration"]["max"] / 1000,
            } if checkpoints else {}}


def peer(settings: Settings, sent: dict[str, int], warm: float) -> dict[str, Any]:
    """Spark Structured Streaming from the same topics to Delta."""
    n, out = sent["records"], settings.state_dir / "peer"
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen([str(settings.env_python("spark")), "bench/spark_stream.py", str(out)], cwd=ROOT, env=environment(settings))
    meter = Meter(settings, {"spark": process.pid})
    meter.sample(read=0)
    while process.poll() is None:
        time.sleep(1)
        meter.sample(read=int((out / "read").read_text()) if (out / "read").exists() else 0)
    meter.stop()
    if process.returncode:
        raise SystemExit("the peer failed")
    del meter.samples[-1]  # the process was gone
    wall = float((out / "seconds").read_text())
    whole, steady, rate = costs(meter.samples, n, int(n * warm))
    return {"wall s": wall, "events/s": n / wall, "steady events/s": rate, "cpu": whole, "steady cpu": steady, "peak MB": dict(meter.peak), "busiest": []}


def show(result: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=220)
    for figure, title in (("steady cpu", "CPU seconds a million events, by process, once warm"), ("cpu", "the same, start and compilation included")):
        names = sorted({k for r in result.values() for k, v in r[figure].items() if v >= 0.05})
        table = Table("mode", "events/s", "all", *names, "peak MB", title=title)
        for mode, r in result.items():
            rate = r["steady events/s" if figure.startswith("steady") else "events/s"]
            table.add_row(mode, f"{rate:,.0f}", f"{sum(r[figure].values()):.1f}", *(f"{r[figure].get(k, 0):.1f}" for k in names), f"{sum(r['peak MB'].values()):,.0f}")
        console.print(table)
    for mode, r in result.items():
        for b in r["busiest"]:
            console.print(f"  {mode}: {b['cores']:.2f} cores busy: {b['operator']}", highlight=False)
    for mode, r in result.items():
        if r.get("bytes an event"):
            console.print(f"  {mode}: bytes an event: " + ", ".join(f"{k} {v:.1f}" for k, v in r["bytes an event"].items()), highlight=False)
    if "whole" in result:
        console.print(f"the bar: {BAR} CPU s a million, {RATE:,} events/s on 2 cores")
    if {"delta", "spark"} <= result.keys():
        stream, spark = (sum(result[m]["steady cpu"].values()) for m in ("delta", "spark"))
        console.print(f"the peer: {result['delta']['steady events/s'] / result['spark']['steady events/s']:.2f} times its events/s, {spark / stream:.2f} times cheaper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=RATE, help="events a second of event time (default 81,019): with fewer, more windows close")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--parallelism", type=int, default=2, help="of the Flink job (default 2)")
    parser.add_argument("--warm", type=float, default=0.3, help="share of the events after which a process counts as warm (default 0.3)")
    parser.add_argument("--keep", action="store_true", help="use the topics of the last run with --keep, and leave them")
    parser.add_argument("--quick", action="store_true", help="200,000 events of 1,000 devices, to see that it works")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    o = parser.parse_args()
    count, devices = (200_000, 1000) if o.quick else (o.events, o.devices)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    result: dict[str, dict[str, Any]] = {}
    stream = {"parallelism": o.parallelism}
    os.environ["TIDEWATCH_STREAM__PARALLELISM"] = str(o.parallelism)
    with servers("bench", keep=o.keep, stream=stream) as settings:
        tidewatch(settings, "up", "kafka", "flink_taskmanager")
        net, period = bench_network(devices, o.rate)
        sent = filled(settings, net, period, count)
        print(f"{sent['records']:,} events ({sent['flow']:,} flows, {sent['reading']:,} readings) of {devices:,} devices in the topics")
        for mode in o.modes.split(","):
            result[mode] = peer(settings, sent, o.warm) if mode == "spark" else measure(settings, mode, sent, o.warm)
            if o.json:
                machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
                o.json.write_text(json.dumps({"machine": machine, "events": sent, "devices": devices, "parallelism": o.parallelism, "modes": result}, indent=1))
    show(result)


if __name__ == "__main__":
    main()
