"""Servers of a bench's own, on free ports with a state folder of their own; topics filled once; CPU and memory by process."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from jobs.topics import publish
from streaming import job
from tidewatch import detectors, events, scoring, tables
from tidewatch.errors import ServiceError
from tidewatch.features import view
from tidewatch.inputs.generate import Generator
from tidewatch.inputs.network import Network, network
from tidewatch.inputs.send import Kafka
from tidewatch.pinot import query
from tidewatch.settings import ROOT, Ports, Settings, load
from tidewatch.stack import control

RATE = 81_019
"""Events a second: 7 billion a day."""
SEED = 7
LANDED = ("flow", "reading", "dead_letters")
"""Delta tables that hold every record sent, once all is committed."""


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "TIDEWATCH_STATE_DIR": str(settings.state_dir), "TIDEWATCH_PORTS": json.dumps(settings.ports.model_dump()), "PYTHONPATH": str(ROOT)}


def tidewatch(settings: Settings, *arguments: str) -> None:
    """One `tidewatch` command for these servers; its output is shown only if it fails."""
    done = subprocess.run([str(ROOT / "bin" / "tidewatch"), *arguments], env=environment(settings), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"tidewatch {' '.join(arguments)}:\n{(done.stdout + done.stderr)[-3000:]}")


@contextlib.contextmanager
def servers(name: str, *, keep: bool = False, **overrides: object) -> Iterator[Settings]:
    """Settings of servers in `<state>/<name>`, whose command line is `tidewatch(settings, …)`; all are stopped at the end.

    `keep` leaves the folder as it is, at the beginning and at the end: a topic filled before is used again.
    """
    main = load()
    folder = main.state_dir / name
    known = folder / "ports.json"
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for shared in ("env", "jars"):
        if not (folder / shared).exists():
            (folder / shared).symlink_to((main.state_dir / shared).resolve())
    ports = Ports(**json.loads(known.read_text())) if known.exists() else Ports.free()
    known.write_text(json.dumps(ports.model_dump()))
    settings = load(state_dir=folder, ports=ports, **overrides)
    try:
        yield settings
    finally:
        tidewatch(settings, "down")
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def bench_network(devices: int, rate: float = RATE) -> tuple[Network, int]:
    """A network that sends `rate` events a second, half flows, half readings; and the period of its readings in milliseconds."""
    net = network(devices, rate * 30 / devices, SEED)
    return net, max(1, round(1000 * 2 * len(net.series_device) / rate))


def fill(settings: Settings, net: Network, period_ms: int, count: int, start_ms: int) -> dict[str, int]:
    """Send so many events of the network, as fast as it goes; by topic, and `records`, `unique`, `end_ms`."""
    source, at = Generator(net, start_ms, None, period_ms=period_ms), start_ms
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


def filled(settings: Settings, net: Network, period_ms: int, count: int) -> dict[str, int]:
    """Topics with so many events and all that the stream knows; what an earlier run filled is used again."""
    mark, wanted = settings.state_dir / "filled.json", {"asked": count, "devices": net.size}
    if mark.exists():
        sent: dict[str, int] = json.loads(mark.read_text())
        if {k: sent[k] for k in wanted} == wanted:
            return sent
        raise SystemExit(f"{settings.state_dir} holds {sent['asked']:,} events of {sent['devices']:,} devices: delete it, or ask for those")
    # a third of a minute in: of 10 million events, two minutes, two whole windows of everybody close, and both once it is warm
    start = int(time.time() * 1000) // 60_000 * 60_000 - 3_600_000 + 20_000
    sent = {**fill(settings, net, period_ms, count, start), **wanted}
    knowledge(settings, net, start - 86_400_000)
    mark.write_text(json.dumps(sent))
    return sent


def baselines(d: detectors.Detector, net: Network, valid_from: int, rng: np.random.Generator, share: slice) -> Iterator[dict[str, Any]]:
    """A share of a detector's baselines, of every device and metric; one entity in a thousand is anomalous."""
    expected = np.array([[d.examples[0].expected[s.name] for s in d.signals]])
    hours = np.tile(scoring.transform(expected, [s.transform for s in d.signals])[0], 24)
    metrics = ((net.names[i], net.metrics.values[m]) for i, m in zip(net.series_device, net.series_metric, strict=True))
    pairs = metrics if "metric" in view(d.view).keys else ((n, "") for n in net.names)
    for device, metric in itertools.islice(pairs, share.start, share.stop, share.step):
        center = (hours + rng.normal(scale=0.05, size=len(hours))).round(6).tolist()  # no two hours alike, for state is measured
        scale = [1e-3 if rng.random() < 0.001 else 1e9] * len(d.signals)
        yield {"entity": f"{d.name}|{device}|{metric}", "detector": d.name, "device_id": device, "metric": metric, "kind": "", "source": "device",
               "valid_from": valid_from, "windows": 1, "center": center, "scale": scale}


def publish_baselines(settings: Settings, net: Network, valid_from: int, share: slice) -> None:
    """Every detector's, to their topic."""
    rng = np.random.default_rng([SEED, share.start])
    for d in detectors.all_detectors():
        publish(settings, tables.BASELINES, baselines(d, net, valid_from, rng, share), "entity", "valid_from")


def knowledge(settings: Settings, net: Network, valid_from: int) -> None:
    """Baselines of every device and metric, made by as many processes as there are cores, and a model a use case, on their topics."""
    fork, cores = multiprocessing.get_context("fork"), os.cpu_count() or 1
    makers = [fork.Process(target=publish_baselines, args=(settings, net, valid_from, slice(i, None, cores)), daemon=True) for i in range(cores)]
    for m in makers:
        m.start()
    for m in makers:
        m.join()
    if any(m.exitcode for m in makers):
        raise SystemExit("the baselines could not be made")
    rng = np.random.default_rng(SEED)
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


def until(seconds: float, done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        time.sleep(1)


def outputs_anew(settings: Settings) -> None:
    """Forget what the stream has written: its topics, Pinot's data, the lake."""
    from confluent_kafka.admin import AdminClient

    names = [t.name for t, _, topic, _ in job.outputs() if topic]
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    for f in admin.delete_topics(names).values():
        with contextlib.suppress(Exception):  # not there: a run was cut short here
            f.result(30)
    time.sleep(2)
    for folder in (settings.lake, settings.landing):
        shutil.rmtree(folder, ignore_errors=True)
    tidewatch(settings, "up", "kafka")


def rows_of(settings: Settings, topic: str) -> int:
    """Records on a topic, the few marks of transactions included."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": settings.kafka, "group.id": "bench", "enable.auto.commit": False})
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    total = sum(consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in parts)
    consumer.close()
    return total


def rows_in(settings: Settings, name: str, where: str = "") -> int:
    """Rows that Pinot shows of a table; 0 while it cannot say."""
    try:
        found = query(settings, f"SELECT COUNT(*) FROM {name} {where}")
    except ServiceError:  # the broker does not know it yet, or is not there
        return 0
    return int(found[0][0]) if found else 0


def size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def table_size(settings: Settings, name: str) -> int:
    """Bytes of a Pinot table's segments; of those being filled, an estimate."""
    return int(requests.get(f"{settings.pinot_controller}/tables/{name}/size", timeout=60).json()["reportedSizeInBytes"])


def delete_tables(settings: Settings, names: Sequence[str]) -> None:
    """Delete Pinot's tables: made again, they read their topics from the beginning."""
    for name in names:
        requests.delete(f"{settings.pinot_controller}/tables/{name}", timeout=60)


def stop_pinot(settings: Settings) -> None:
    """Stop Pinot; its next start reads the stream's topics anew."""
    # deleting a table with upsert while it consumes can crash Pinot 0.11 (it reads freed memory)
    delete_tables(settings, [t.name for t in tables.catalogue().values() if t.pinot and t.pinot != "upsert" and t.writer == "stream"])
    tidewatch(settings, "down", "pinot")


def flink(settings: Settings, path: str, method: str = "GET") -> Any:
    return requests.request(method, settings.flink_rest + path, json={} if method == "POST" else None, timeout=30).json()


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
        self._looks = 0

    def read(self) -> int:
        """Events that the sources have read."""
        total = 0
        self._looks += 1
        about = flink(self.settings, f"/jobs/{self.id}")
        if about["state"] == "FAILED":
            raise SystemExit(f"the job failed: {flink(self.settings, f'/jobs/{self.id}/exceptions')['root-exception'][:2000]}")
        for v in about["vertices"]:
            base = f"/jobs/{self.id}/vertices/{v['id']}/subtasks/metrics"
            if "_records" in v["name"]:
                names = [m["id"] for m in flink(self.settings, base) if m["id"].endswith("currentOffset") and ".topic." in m["id"]]
                if names:
                    total += sum(int(m["max"]) + 1 for m in flink(self.settings, f"{base}?get={','.join(names)}&agg=max"))
            # asking costs the JobManager and the TaskManager CPU time, too
            for m in flink(self.settings, f"{base}?get=busyTimeMsPerSecond&agg=sum") if self._looks % 10 == 9 else ():
                if m["sum"] == m["sum"]:
                    self.busy[v["name"][:70]].append(m["sum"] / 1000)
        return total

    def checkpoints(self) -> Any:
        """Flink's statistics of the job's checkpoints, one at this moment among them."""
        until(300, self._checkpoint, "a checkpoint")
        return flink(self.settings, f"/jobs/{self.id}/checkpoints")

    def _checkpoint(self) -> bool:
        """Take one; False if there can be none yet, for instance while a task is still starting."""
        ask = f"/jobs/{self.id}/checkpoints"
        trigger = flink(self.settings, ask, "POST")["request-id"]
        until(300, lambda: flink(self.settings, f"{ask}/{trigger}")["status"]["id"] == "COMPLETED", "a checkpoint's end")
        return "failureCause" not in flink(self.settings, f"{ask}/{trigger}")["operation"]

    def busiest(self, n: int = 6) -> list[dict[str, Any]]:
        """The operators that were busy most, in cores."""
        found = sorted(((float(np.mean(x)), v) for v, x in self.busy.items() if x), reverse=True)[:n]
        return [{"cores": b, "operator": v} for b, v in found]

    def cancel(self) -> None:
        flink(self.settings, f"/jobs/{self.id}?mode=cancel", "PATCH")
        until(60, lambda: flink(self.settings, f"/jobs/{self.id}")["state"] in ("CANCELED", "FAILED"), "the job to end")


@dataclass
class Sample:
    """One look: when, CPU seconds of every process so far, how far each reader is."""

    at: float
    cpu: dict[str, float]
    progress: dict[str, int]


@dataclass
class Meter:
    """CPU seconds and memory of the servers' processes, looked at by `sample`."""

    settings: Settings
    extra: dict[str, int] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    peak: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._pids = {s.service: s.pid for s in control.status(self.settings) if s.pid} | self.extra
        self._dead: dict[str, float] = defaultdict(float)
        self._seen: dict[int, tuple[str, float]] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def _trees(self) -> Iterator[tuple[str, psutil.Process]]:
        for name, pid in self._pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                p = psutil.Process(pid)
                yield name, p
                for child in p.children(recursive=True):
                    yield "python workers" if name == "flink_taskmanager" else name, child

    def cpu(self) -> dict[str, float]:
        """CPU seconds of every process so far, those that ended included."""
        total: dict[str, float] = defaultdict(float)
        seen = {}
        for name, p in self._trees():
            with contextlib.suppress(psutil.NoSuchProcess):
                t = p.cpu_times()
                seen[p.pid] = name, t.user + t.system
        for pid in self._seen.keys() - seen.keys():
            name, t = self._seen[pid]
            self._dead[name] += t
        self._seen = seen
        for name, x in seen.values():
            total[name] += x
        for name, x in self._dead.items():
            total[name] += x
        return total

    def sample(self, **progress: int) -> None:
        self.samples.append(Sample(time.time(), self.cpu(), progress))

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            now: dict[str, float] = defaultdict(float)
            for name, p in self._trees():
                with contextlib.suppress(psutil.NoSuchProcess):
                    now[name] += p.memory_info().rss / 2**20
            for name, size in now.items():
                self.peak[name] = max(self.peak[name], size)

    def stop(self) -> None:
        self._stop.set()


READER = {"pinot": "pinot", "committer": "delta"}
"""Whose progress a process's cost is measured by; of all others, `read`."""


def costs(samples: list[Sample], n: int, warm: int) -> tuple[dict[str, float], dict[str, float], float]:
    """CPU seconds a million events by process: of the whole run, and from the moment its reader had `warm` events; and the
    events a second between the moment when all had and the end."""
    first, last = samples[0], samples[-1]
    whole = {p: (x - first.cpu.get(p, 0.0)) / n * 1e6 for p, x in last.cpu.items()}
    steady = {}
    for p, x in last.cpu.items():
        reader = READER.get(p, "read")
        start = next(s for s in samples if s.progress.get(reader, s.progress["read"]) >= warm)
        left = n - min(n, start.progress.get(reader, start.progress["read"]))
        if left:
            steady[p] = (x - start.cpu.get(p, 0.0)) / left * 1e6
    start = next(s for s in samples if min(s.progress.values()) >= warm)
    left = n - min(n, *start.progress.values())
    rate = left / (last.at - start.at) if left and last.at > start.at else float("nan")
    return whole, steady, rate
