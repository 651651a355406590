"""A small lake written straight to Delta: bronze events, inventory and labels, independent of the generator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from tidewatch import tables
from tidewatch.settings import Settings

START = datetime(2026, 3, 2, tzinfo=UTC)
ARROW = {
    "string": pa.string(), "long": pa.int64(), "int": pa.int32(), "double": pa.float64(), "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"), "double[]": pa.list_(pa.float64()), "string[]": pa.list_(pa.string()),
}
KINDS = ("server", "workstation", "sensor")


def write(settings: Settings, name: str, columns: dict[str, Any], *, mode: str = "append") -> None:
    """Append columns to a table as the stream's committer does: its columns, and the partition `date`."""
    table = tables.table(name)
    arrays = {}
    for c in table.columns:
        values = columns[c.name]
        if c.type == "timestamp":
            values = np.asarray(values).astype("datetime64[us]")
        arrays[c.name] = pa.array(values, ARROW[c.type], from_pandas=True)
    partition = table.delta in ("bronze", "silver")
    if partition:
        arrays["date"] = pa.array(np.datetime_as_string(np.asarray(columns[table.time]).astype("datetime64[D]")))
    if len(next(iter(arrays.values()))):
        write_deltalake(str(table.path(settings)), pa.table(arrays), mode=mode, partition_by=["date"] if partition else None)  # type: ignore[arg-type]


def device(i: int) -> str:
    return f"dev-{i:04d}"


def fill(settings: Settings, *, devices: int, hours: float, per_minute: float = 3.0, seed: int = 1, start: datetime = START) -> datetime:
    """Write events of `devices` over `hours` and the inventory; returns the end of the window.

    Device i is of kind i mod 3. Every device sends flows (Poisson, with a daily rhythm); sensors also send readings of
    two metrics, each every 30 s. The last device of the inventory never sends anything.
    """
    rng = np.random.default_rng(seed)
    minutes = round(hours * 60)
    begin = np.datetime64(start.replace(tzinfo=None), "ms")
    base = rng.lognormal(0, 0.4, devices - 1) * per_minute
    hour = (np.arange(minutes) // 60 + start.hour) % 24
    rhythm = 1 + 0.5 * np.sin(hour / 24 * 2 * np.pi)
    counts = rng.poisson(base[:, None] * rhythm)
    who = np.repeat(np.repeat(np.arange(devices - 1), minutes), counts.ravel())
    minute = np.repeat(np.tile(np.arange(minutes), devices - 1), counts.ravel())
    n = len(who)
    ts = begin + (minute * 60_000 + rng.integers(0, 60_000, n)).astype("timedelta64[ms]")
    order = np.argsort(ts, kind="stable")
    who, ts = who[order], ts[order]
    out = rng.random(n) < 0.6
    external = rng.random(n) < 0.3
    names = np.array([device(i) for i in range(devices)])
    mine = np.array([f"10.0.{i // 250}.{i % 250 + 1}" for i in range(devices)])[who]
    other = np.where(external, np.char.add("198.51.100.", rng.integers(1, 20, n).astype(str)), np.char.add("10.0.9.", rng.integers(1, 40, n).astype(str)))
    write(settings, "flow", {
        "device_id": names[who], "event_id": np.arange(n), "ts": ts, "direction": np.where(out, "out", "in"),
        "src_ip": np.where(out, mine, other), "src_port": rng.integers(1024, 60_000, n), "dst_ip": np.where(out, other, mine),
        "dst_port": rng.choice([53, 80, 443], n), "proto": np.full(n, "tcp"), "bytes_out": rng.lognormal(7, 0.7, n).astype(np.int64),
        "bytes_in": rng.lognormal(8, 0.7, n).astype(np.int64), "pkts_out": rng.integers(1, 50, n), "pkts_in": rng.integers(1, 50, n),
        "duration_ms": rng.integers(0, 5000, n), "status": rng.choice(["ok", "refused", "other"], n, p=[0.96, 0.03, 0.01]),
        "external": external, "ingested_at": ts + np.timedelta64(1, "s"), "kafka_partition": who % 4, "kafka_offset": np.arange(n),
    })
    sensors = np.arange(2, devices - 1, 3)
    steps = minutes * 2
    who = np.tile(np.repeat(sensors, 2), steps)
    metric = np.tile(np.array(["temperature_c", "battery_percent"]), len(sensors) * steps)
    ts = begin + (np.repeat(np.arange(steps), 2 * len(sensors)) * 30_000 + rng.integers(0, 20_000, len(who))).astype("timedelta64[ms]")
    level = np.where(metric == "temperature_c", 20 + who % 7 + 3 * np.sin((ts - begin).astype(np.int64) / 86_400_000 * 2 * np.pi), 80.0)
    value = level + rng.normal(0, 0.3, len(who))
    value[rng.random(len(who)) < 0.005] = np.nan
    m = len(who)
    write(settings, "reading", {
        "device_id": names[who], "event_id": np.arange(m), "ts": ts, "metric": metric, "value": value,
        "status": np.where(np.isnan(value), "warning", "ok"), "external": np.full(m, None), "ingested_at": ts + np.timedelta64(1, "s"),
        "kafka_partition": who % 4, "kafka_offset": np.arange(m),
    })
    write(settings, "devices", {
        "device_id": names, "kind": np.array([KINDS[i % 3] for i in range(devices)]), "site": np.full(devices, "north"),
        "address": np.array([f"10.0.{i // 250}.{i % 250 + 1}" for i in range(devices)]), "added_at": np.full(devices, begin),
    }, mode="overwrite")
    return start + timedelta(minutes=minutes)
