"""Pinot's own segments of the first made-up windows, and their copies at later times, until the hours are full."""

from __future__ import annotations

import io
import math
import shutil
import struct
import tarfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests

from bench.made_up import MINUTE, WINDOWS, Maker
from bench.servers import SEED, rows_in, until
from tidewatch.settings import Settings

TIMES = ("window_start", "window_end")
BATCH = 40
"""Segments uploaded before Pinot must show them."""
SPARE_BYTES = 5_000_000_000
"""Of the disk, left to all else."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@dataclass(frozen=True)
class Segment:
    """A segment that Pinot has closed: its files, and how many minutes it holds."""

    table: str
    name: str
    files: dict[str, bytes]
    minutes: int


def ask(settings: Settings, path: str) -> requests.Response:
    r = requests.get(settings.pinot_controller + path, timeout=120)
    if not r.ok:
        raise SystemExit(f"Pinot: GET {path}: {r.text[:500]}")
    return r


def unpacked(content: bytes) -> dict[str, bytes]:
    """The files of a segment's archive, by their names without folders."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return {Path(m.name).name: f.read() for m in tar if m.isfile() and (f := tar.extractfile(m))}


def packed(name: str, parts: Mapping[str, bytes]) -> bytes:
    """The archive that Pinot takes; not compressed, for its columns are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=0) as tar:
        for folder in (name, f"{name}/v3"):
            about = tarfile.TarInfo(folder)
            about.type, about.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(about)
        for part, content in parts.items():
            about = tarfile.TarInfo(f"{name}/v3/{part}")
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return out.getvalue()


def properties(text: str) -> dict[str, str]:
    return {k.strip(): v.strip() for k, _, v in (line.partition("=") for line in text.splitlines()) if k.strip() and not k.startswith("#")}


def moved(s: Segment, name: str, by_ms: int) -> dict[str, bytes]:
    """The segment's files under another name and with its windows' times moved.

    The times stand in two dictionaries (sorted numbers of 8 bytes; rows and indexes hold places in it) and in what describes
    the segment. Raises SystemExit if they do not look like that.
    """
    about, index = properties(s.files["metadata.properties"].decode()), properties(s.files["index_map"].decode())
    columns = bytearray(s.files["columns.psf"])
    changed = {"segment.name": name}
    for c in TIMES:
        n, size = int(about[f"column.{c}.cardinality"]), int(index[f"{c}.dictionary.size"])
        start = int(index[f"{c}.dictionary.startOffset"]) + size - 8 * n  # a mark stands before it
        values = np.frombuffer(columns, ">i8", n, start)
        ends = int(about[f"column.{c}.minValue"]), int(about[f"column.{c}.maxValue"])
        if (values[0], values[-1]) != ends or (np.diff(values) <= 0).any():
            raise SystemExit(f"the dictionary of {c} in {s.name} is not what this bench knows of Pinot 0.11's segments")
        struct.pack_into(f">{n}q", columns, start, *(values + by_ms).tolist())
        changed |= {f"column.{c}.minValue": str(ends[0] + by_ms), f"column.{c}.maxValue": str(ends[1] + by_ms)}
    for k in ("segment.start.time", "segment.end.time"):
        changed[k] = str(int(about[k]) + by_ms)
    lines = [
        f"{k} = {changed[k]}" if (k := line.partition("=")[0].strip()) in changed else line
        for line in s.files["metadata.properties"].decode().splitlines()
    ]
    return {**s.files, "metadata.properties": ("\n".join(lines) + "\n").encode(), "columns.psf": bytes(columns)}


def first_segments(settings: Settings, make: Maker, name: str, hours: float, end_ms: int) -> list[Segment]:
    """Let Pinot read the first records of the hours, so many that it closes one segment a partition; these."""
    from confluent_kafka import Producer

    rng = np.random.default_rng([SEED, WINDOWS.index(name)])
    full = settings.pinot.flush_rows // make.partitions
    begin = time.monotonic()
    minutes = max(math.ceil(full / (len(make.minute(name, p, 0, 0, rng)) - (name == "scores"))) for p in range(make.partitions))
    start_ms = end_ms - math.ceil(hours * 60 / minutes) * minutes * MINUTE
    producer = Producer({
        "bootstrap.servers": settings.kafka, "compression.type": "lz4", "linger.ms": 20, "log_level": 0,
        "queue.buffering.max.messages": 500_000,
    })
    for p in range(make.partitions):
        sent = at = 0
        while sent < full:
            for body in make.minute(name, p, at, start_ms + (at + 1) * MINUTE, rng)[: full - sent]:
                while True:
                    try:
                        producer.produce(name, body, partition=p)
                        break
                    except BufferError:
                        producer.poll(0.05)
                sent += 1
            producer.poll(0)
            at += 1
    if producer.flush(120):
        raise SystemExit(f"Kafka did not take all records of {name}")
    say(f"{name}: {full * make.partitions:,} records, {minutes} minutes, sent in {time.monotonic() - begin:.0f} s; Pinot reads them")
    found: dict[str, str] = {}

    def closed() -> bool:
        for segment in ask(settings, f"/segments/{name}?type=REALTIME").json()[0]["REALTIME"]:
            about = ask(settings, f"/segments/{name}_REALTIME/{segment}/metadata").json()
            if about.get("segment.realtime.status") == "DONE" and int(about["segment.total.docs"]) == full:
                found[segment.split("__")[1]] = segment
        return len(found) == make.partitions

    until(1800, closed, f"Pinot to close {make.partitions} segments of {name}")
    return [Segment(name, s, unpacked(ask(settings, f"/segments/{name}/{s}").content), minutes) for s in found.values()]


def upload(settings: Settings, s: Segment, number: int) -> None:
    """A copy of the segment, `number` times its own length later."""
    name = f"{s.table}_{s.name.split('__')[1]}_{number}"
    body = packed(name, moved(s, name, number * s.minutes * MINUTE))
    r = requests.post(f"{settings.pinot_controller}/v2/segments", params={"tableName": s.table, "tableType": "REALTIME"},
                      files={name: (f"{name}.tar.gz", body, "application/octet-stream")}, timeout=300)
    if not r.ok:
        raise SystemExit(f"Pinot refuses the segment {name}: {r.text[:500]}")


def copies(settings: Settings, firsts: Iterable[Segment], hours: float, end_ms: int) -> None:
    """Upload so many copies that windows fill the hours; the newest end where the hours do."""
    store = settings.state_dir / "data" / "pinot" / "controller"
    for name in WINDOWS:
        mine, begin = [s for s in firsts if s.table == name], time.monotonic()
        rows, count = settings.pinot.flush_rows // len(mine), math.ceil(hours * 60 / mine[0].minutes)
        todo = [(s, i) for i in range(1, count) for s in mine]
        # the stream's own windows end later
        where = f"WHERE window_end <= {end_ms}"
        need, free = sum(sum(map(len, s.files.values())) for s in mine) * (count - 1), shutil.disk_usage(settings.state_dir).free
        if need > free - SPARE_BYTES:
            raise SystemExit(f"{name} takes {need / 1e9:,.0f} GB, {free / 1e9:,.0f} GB are free: ask for fewer --hours or --devices")
        with ThreadPoolExecutor(2) as pool:
            for at in range(0, len(todo), BATCH):
                list(pool.map(lambda x: upload(settings, *x), todo[at : at + BATCH]))
                want = (len(mine) + min(at + BATCH, len(todo))) * rows
                until(600, lambda: rows_in(settings, name, where) >= want, f"Pinot to show {want:,} rows of {name}")  # noqa: B023
                # the server has them: the disk need not hold them twice
                for path in (store / name).glob(f"{name}_[0-9]*"):
                    path.unlink()
                say(f"{name}: {min(at + BATCH, len(todo))} of {len(todo)} segments uploaded")
        say(f"{name}: {rows_in(settings, name):,} rows, {need / max(1, len(todo)) / rows:.0f} bytes each, {time.monotonic() - begin:.0f} s")
