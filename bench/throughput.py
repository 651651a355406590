"""How many events a second the stream takes, and what a million of them costs each process in CPU seconds.

    python bench/throughput.py [--events 10000000] [--devices 10000] [--modes read,window,score,delta,whole] [--quick] [--json FILE]

Starts servers of its own in `<state>/bench` on free ports, fills the topics once, and lets the stream read them from the
beginning to the end, a step more each time: read (Kafka and decoding), window, score (and every topic), delta, whole
(Pinot consuming at the same time). `spark` is the peer: Structured Streaming from the same topics to Delta with the same
windows (`bench/spark_stream.py`).

Events come at 81,019 a second of event time (7 billion a day), half flows, half readings. What the stream knows, baselines
of every device and models, is made up: one entity in a thousand is set to be anomalous. A figure counts the process and
its children from submission to the last event's row; Flink's client is not counted, Pinot's own start is measured
on empty topics and taken off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from jobs.topics import publish
from streaming import job
from tidewatch import detectors, events, scoring, tables
from tidewatch.commands.demo import delta_rows, pinot
from tidewatch.features import view
from tidewatch.inputs.generate import Generator
from tidewatch.inputs.network import Network, network
from tidewatch.inputs.send import Kafka
from tidewatch.settings import ROOT, Ports, Settings, load
from tidewatch.stack import control

RATE = 81_019
SEED = 7
MODES = ("read", "window", "score", "delta", "whole", "spark")
BAR = 24.7
"""CPU seconds a million events at which 2 cores keep up with RATE."""


class Meter:
    """CPU seconds and memory of the stack's processes while something runs."""

    def __init__(self, settings: Settings, extra: dict[str, int] | None = None) -> None:
        self._pids = {s.service: s.pid for s in control.status(settings) if s.pid} | (extra or {})
        self._stop = threading.Event()
        self.peak: dict[str, float] = defaultdict(float)
        self._first = self._cpu()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _trees(self) -> dict[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {}
        for name, pid in self._pids.items():
            try:
                p = psutil.Process(pid)
                found[name], children = [p], p.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            found["python workers" if name == "flink_taskmanager" else name] = [*found.get(name, [])[: name != "flink_taskmanager"], *children]
        return found

    def _cpu(self) -> dict[str, float]:
        total: dict[str, float] = defaultdict(float)
        for name, processes in self._trees().items():
            for p in processes:
                try:
                    t = p.cpu_times()
                    total[name] += t.user + t.system
                except psutil.NoSuchProcess:
                    pass
        return total

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            for name, processes in self._trees().items():
                size = 0.0
                for p in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        size += p.memory_info().rss
                self.peak[name] = max(self.peak[name], size / 2**20)

    def end(self) -> dict[str, float]:
        """CPU seconds of each process since the beginning."""
        self._stop.set()
        last = self._cpu()
        return {n: last[n] - self._first.get(n, 0.0) for n in last}


def tidewatch(settings: Settings, *arguments: str) -> None:
    subprocess.run([str(ROOT / "bin" / "tidewatch"), *arguments], env=environment(settings), check=True, stdout=subprocess.DEVNULL)


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "TIDEWATCH_STATE_DIR": str(settings.state_dir), "TIDEWATCH_PORTS": json.dumps(settings.ports.model_dump()), "PYTHONPATH": str(ROOT)}


def fill(settings: Settings, net: Network, count: int, start_ms: int) -> dict[str, int]:
    """Send so many events of the network; valid ones by topic, and `records`, `unique`, `end_ms`."""
    source, at = Generator(net, start_ms, None, period_ms=max(1, round(1000 * 60 * len(net.series_device) / (RATE * 30)))), start_ms
    tally: dict[str, int] = defaultdict(int)
    with Kafka(settings, events.names()) as kafka:
        while tally["records"] < count:
            at += 250
            for p in source.advance(at):
                kafka.send(p)
                tally["records"] += p.tally["records"]
                tally["unique"] += p.tally["unique"]
                tally[p.topic] += p.tally["records"]
    tally["end_ms"] = at
    return dict(tally)


def knowledge(settings: Settings, net: Network, valid_from: int) -> None:
    """Baselines of every device and metric, and a model a use case, on their topics."""
    rng = np.random.default_rng(SEED)
    rows = []
    for d in detectors.all_detectors():
        expected = np.array([[d.examples[0].expected[s.name] for s in d.signals]])
        center = np.tile(scoring.transform(expected, [s.transform for s in d.signals])[0], 24)
        pairs = [(net.names[i], net.metrics.values[m]) for i, m in zip(net.series_device, net.series_metric, strict=True)] if "metric" in view(d.view).keys else [(n, "") for n in net.names]
        for device, metric in pairs:
            scale = np.full(len(d.signals), 1e-3 if rng.random() < 0.001 else 1e9)
            rows.append({"entity": f"{d.name}|{device}|{metric}", "detector": d.name, "device_id": device, "metric": metric, "kind": "", "source": "device",
                         "valid_from": valid_from, "windows": 1, "center": center.tolist(), "scale": scale.tolist()})
    publish(settings, tables.BASELINES, rows, "entity", "valid_from")
    for use_case in detectors.USE_CASES:
        parts = {}
        for d in detectors.of_use_case(use_case):
            n = len(d.signals)
            z = np.abs(rng.normal(size=(5000, n))) * [1 if s.direction >= 0 else -1 for s in d.signals]
            arrays = scoring.pca_arrays(z.mean(axis=0), np.eye(n)[: max(1, n - 1)], z.var(axis=0)[: max(1, n - 1)], float(z.var(axis=0).sum()))
            parts[d.name] = scoring.fit(d, "pca", arrays, np.zeros(n), np.ones(n), z)
        path = settings.state_dir / "models" / f"{use_case}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(scoring.dump(scoring.Model(use_case, "pca", parts)))
        row = {"use_case": use_case, "version": "1", "valid_from": valid_from, "uri": path.as_uri(), "promoted_at": valid_from, "reason": "bench"}
        publish(settings, tables.MODELS, [row], "use_case", "valid_from")


def flink(settings: Settings, path: str, method: str = "GET") -> Any:
    return requests.request(method, settings.flink_rest + path, timeout=30).json()


class Job:
    """One Flink job: submitted, watched, cancelled."""

    def __init__(self, settings: Settings, mode: str, group: str) -> None:
        from streaming.control import client_env

        self.settings = settings
        done = subprocess.run([str(settings.env_python("flink")), "bench/stream_modes.py", mode, group], cwd=ROOT, capture_output=True, text=True,
                              env={**client_env(settings), **environment(settings)}, check=False)
        if done.returncode:
            raise SystemExit(f"{mode}: not submitted:\n{done.stderr[-3000:]}")
        self.id = done.stdout.split()[-1]
        self.busy: dict[str, list[float]] = defaultdict(list)

    def read(self) -> int:
        """Events that the sources have read."""
        total = 0
        for v in flink(self.settings, f"/jobs/{self.id}")["vertices"]:
            base = f"/jobs/{self.id}/vertices/{v['id']}/subtasks/metrics"
            if "_records" in v["name"]:
                names = [m["id"] for m in flink(self.settings, base) if m["id"].endswith("currentOffset") and ".topic." in m["id"]]
                if names:
                    total += sum(int(m["max"]) + 1 for m in flink(self.settings, f"{base}?get={','.join(names)}&agg=max"))
            for m in flink(self.settings, f"{base}?get=busyTimeMsPerSecond&agg=sum"):
                if m["sum"] == m["sum"]:
                    self.busy[v["name"][:70]].append(m["sum"] / 1000)
        return total

    def cancel(self) -> None:
        flink(self.settings, f"/jobs/{self.id}?mode=cancel", "PATCH")
        until(60, lambda: flink(self.settings, f"/jobs/{self.id}")["state"] in ("CANCELED", "FAILED"), "the job to end")


def until(seconds: float, done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        time.sleep(1)


def outputs_anew(settings: Settings) -> None:
    """Delete the topics that the stream writes and make them again."""
    from confluent_kafka.admin import AdminClient

    names = [t.name for t, _, topic, _ in job.outputs() if topic]
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    for f in admin.delete_topics(names).values():
        f.result(30)
    time.sleep(2)
    tidewatch(settings, "up", "kafka")


def measure(settings: Settings, mode: str, sent: dict[str, int], pinot_start: float) -> dict[str, Any]:
    """One mode from its beginning to its end."""
    n, before, extra = sent["records"], 0, {}
    landed = lambda: delta_rows(settings, "flow", "reading", "dead_letters")  # noqa: E731
    outputs_anew(settings)
    if mode in ("delta", "whole"):
        tidewatch(settings, "up", "committer")
        before = landed()
    if mode == "whole":
        tidewatch(settings, "up", "pinot")
    run = Job(settings, "delta" if mode == "whole" else mode, f"bench-{mode}")
    meter = Meter(settings, extra)
    begin = flink(settings, f"/jobs/{run.id}")["start-time"] / 1000

    def done() -> bool:
        got = run.read()
        print(f"\r{mode}: {min(got, n):,} of {n:,} after {time.time() - begin:.0f} s ", end="", flush=True)
        return got >= n and (mode not in ("delta", "whole") or landed() - before >= n) and (
            mode != "whole" or sum(pinot(settings, f"SELECT COUNT(*) FROM {t}")[0][0] for t in events.names()) >= sent["unique"])

    until(3600, done, f"{mode} to end")
    wall = time.time() - begin
    cpu = meter.end()
    print()
    run.cancel()
    if mode in ("delta", "whole"):
        tidewatch(settings, "down", "committer")
    if mode == "whole":
        # it began to consume when it started, before the meter ran
        cpu["pinot"] = psutil_cpu(settings, "pinot") - pinot_start
        tidewatch(settings, "down", "pinot")
    busiest = sorted(((float(np.mean(x)), v) for v, x in run.busy.items()), reverse=True)[:6]
    return {"wall s": wall, "events/s": n / wall, "cpu": {k: v / n * 1e6 for k, v in cpu.items() if v >= 0.01}, "peak MB": dict(meter.peak),
            "busiest": [{"cores": b, "operator": v} for b, v in busiest]}


def psutil_cpu(settings: Settings, service: str) -> float:
    pid = next(s.pid for s in control.status(settings) if s.service == service)
    t = psutil.Process(pid).cpu_times()
    return t.user + t.system


def peer(settings: Settings, sent: dict[str, int]) -> dict[str, Any]:
    """Spark Structured Streaming from the same topics to Delta."""
    out = settings.state_dir / "peer"
    shutil.rmtree(out, ignore_errors=True)
    begin = time.time()
    process = subprocess.Popen([str(settings.env_python("spark")), "bench/spark_stream.py", str(out)], cwd=ROOT, env=environment(settings))
    meter = Meter(settings, {"spark": process.pid})
    while process.poll() is None:
        time.sleep(1)
        last = meter._cpu()
    if process.returncode:
        raise SystemExit("the peer failed")
    wall = float((out / "seconds").read_text())
    meter._stop.set()
    cpu = {n: last[n] - meter._first.get(n, 0.0) for n in last}
    return {"wall s": wall, "events/s": sent["records"] / wall, "cpu": {k: v / sent["records"] * 1e6 for k, v in cpu.items() if v >= 0.01},
            "peak MB": dict(meter.peak), "busiest": [], "with start s": time.time() - begin}


def show(result: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = sorted({k for r in result.values() for k in r["cpu"]})
    table = Table("mode", "events/s", "wall s", "CPU s a million", *names, "peak MB", title="CPU seconds a million events, by process")
    for mode, r in result.items():
        total = sum(r["cpu"].values())
        table.add_row(mode, f"{r['events/s']:,.0f}", f"{r['wall s']:.0f}", f"{total:.1f}", *(f"{r['cpu'].get(k, 0):.1f}" for k in names), f"{sum(r['peak MB'].values()):,.0f}")
    console = Console(width=200)
    console.print(table)
    for mode, r in result.items():
        for b in r["busiest"]:
            console.print(f"  {mode}: {b['cores']:.2f} cores busy: {b['operator']}", highlight=False)
    if "whole" in result:
        console.print(f"the bar: {BAR} CPU s a million, {RATE:,} events/s on 2 cores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--quick", action="store_true", help="200,000 events, to see that it works")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    o = parser.parse_args()
    count, devices = (200_000, 1000) if o.quick else (o.events, o.devices)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    main_settings = load()
    folder = main_settings.state_dir / "bench"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for shared in ("env", "jars"):
        (folder / shared).symlink_to((main_settings.state_dir / shared).resolve())
    settings = load(state_dir=folder, ports=Ports.free())
    result: dict[str, dict[str, Any]] = {}
    try:
        pinot_start = 0.0
        if "whole" in o.modes:
            tidewatch(settings, "up", "pinot")
            time.sleep(5)
            pinot_start = psutil_cpu(settings, "pinot")
            tidewatch(settings, "down", "pinot")
        tidewatch(settings, "up", "kafka", "flink_taskmanager")
        net = network(devices, RATE * 30 / devices, SEED)
        start = int(time.time() * 1000) // 60_000 * 60_000 - 3_600_000
        sent = fill(settings, net, count, start)
        knowledge(settings, net, start - 86_400_000)
        print(f"{sent['records']:,} events ({sent['flow']:,} flows, {sent['reading']:,} readings) of {devices:,} devices in the topics")
        for mode in o.modes.split(","):
            result[mode] = peer(settings, sent) if mode == "spark" else measure(settings, mode, sent, pinot_start)
            if o.json:
                machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
                o.json.write_text(json.dumps({"machine": machine, "events": sent, "devices": devices, "modes": result}, indent=1))
    finally:
        tidewatch(settings, "down")
    show(result)


if __name__ == "__main__":
    main()
