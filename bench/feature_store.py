"""What a 4-hour cycle of the feature store costs: from the stream's own windows, and beside it from the raw events.

    python bench/feature_store.py [--devices 10000] [--minutes 240] [--scales 1,2,4] [--quick] [--json FILE]

For each scale a lake of its own is written in the form in which the stream's committer leaves it: one file a minute and
writer of `flow_1m_online` and `reading_1m_online`, a row a device and minute (2.4 million a view at 1x; the scale multiplies
the devices), and in bronze one event for each row, so that the completeness check and the parity sample of every build
run as always. Then `python -m jobs.build_features` builds the cycle: seconds, CPU seconds and peak memory are those of
the process and its children, the start of Spark included.

Bronze of a real cycle has not one event a row but 244 (1.17 billion in all). So the same build from the events is measured
on a sample of that density, `--sample` flows of some minutes, and multiplied: by Spark (`--source events`, the view's own
query) and by DuckDB. So is what the completeness check would cost at that density if it had to read every file's time
column (it takes the files' statistics where they tell). The parity sample reads one minute at that density, which is measured as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidewatch import events, features, tables
from tidewatch.features import render
from tidewatch.settings import ROOT, Settings, load

START = datetime(2026, 3, 2, tzinfo=UTC)
CYCLE_EVENTS = 7e9 / 6
"""Raw events of 4 hours at 7 billion a day, half flows."""
WRITERS = 2
BAR = 120.0


# -- the lake
def write(settings: Settings, name: str, part: str, columns: dict[str, Any]) -> None:
    """One finished file of a table in its landing folder, as Flink leaves it."""
    from streaming.committer import schema

    table = tables.table(name)
    first = np.asarray(columns[table.time])[0].astype("datetime64[D]")
    path = settings.landing / name / f"date={first}" / f"{part}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [f for f in schema(table) if f.name != "date"]
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(len(columns[table.time]), f.type) for f in fields]
    pq.write_table(pa.table(arrays, schema=pa.schema(fields)), path, compression="snappy")


def flows(device: np.ndarray, ts: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Flow events of these devices at these times (milliseconds)."""
    n = len(ts)
    out = rng.random(n) < 0.6
    host = np.char.add("198.51.100.", np.arange(1, 251).astype(str))[rng.integers(0, 250, n)]
    mine = np.char.add("10.0.0.", np.arange(1, 251).astype(str))[rng.integers(0, 250, n)]
    return {
        "device_id": device, "event_id": np.arange(n), "ts": ts, "direction": np.where(out, "out", "in"), "src_ip": np.where(out, mine, host),
        "dst_ip": np.where(out, host, mine), "src_port": rng.integers(1024, 60_000, n), "dst_port": rng.integers(1, 1024, n), "proto": np.full(n, "tcp"),
        "bytes_out": rng.integers(40, 10**6, n), "bytes_in": rng.integers(40, 10**6, n), "pkts_out": rng.integers(1, 99, n),
        "pkts_in": rng.integers(1, 99, n), "duration_ms": rng.integers(0, 5000, n), "status": np.full(n, "ok"), "external": np.full(n, True),
        "ingested_at": ts, "kafka_partition": np.zeros(n, int), "kafka_offset": np.arange(n),
    }


def cycle(settings: Settings, devices: int, minutes: int) -> int:
    """Write windows and one event for each; rows a view."""
    from streaming import committer

    rng = np.random.default_rng(1)
    names = np.char.add("device-", np.char.zfill(np.arange(devices).astype(str), 6))
    start = np.datetime64(START.replace(tzinfo=None), "ms")
    for m in range(minutes):
        begin, end = start + np.timedelta64(m, "m"), start + np.timedelta64(m + 1, "m")
        for w in range(WRITERS):
            who = names[w::WRITERS]
            n = len(who)
            ts = begin + rng.integers(0, 60_000, n).astype("timedelta64[ms]")
            last = ts.astype("datetime64[ms]").astype(np.int64)
            span = {"device_id": who, "window_start": np.full(n, begin), "window_end": np.full(n, end)}
            f = flows(who, ts, rng)
            out = f["direction"] == "out"
            one, zero = np.ones(n, int), np.zeros(n, int)
            write(settings, "flow", f"{m:04}-{w}", f)
            write(settings, "flow_1m_online", f"{m:04}-{w}", {
                **span, "flows": one, "bytes_out": f["bytes_out"], "bytes_in": f["bytes_in"], "external_flows": one, "external_bytes_out": f["bytes_out"],
                "external_bytes_in": f["bytes_in"], "destinations": out.astype(int), "external_destinations": out.astype(int),
                "inbound_flows": (~out).astype(int), "inbound_sources": (~out).astype(int), "failed_flows": zero, "last_ts": last,
            })
            value = rng.normal(20, 1, n)
            write(settings, "reading", f"{m:04}-{w}", {
                "device_id": who, "event_id": np.arange(n), "ts": ts, "metric": np.full(n, "temperature_c"), "value": value, "status": np.full(n, "ok"),
                "ingested_at": ts, "kafka_partition": zero, "kafka_offset": np.arange(n),
            })
            write(settings, "reading_1m_online", f"{m:04}-{w}", {
                **span, "metric": np.full(n, "temperature_c"), "readings": one, "missing": zero, "errors": zero, "value_sum": value, "value_min": value,
                "value_max": value, "last_ts": last,
            })
    committer.prepare(settings)
    while committer.drain(settings):
        pass
    return devices * minutes


# -- measuring
class Meter(threading.Thread):
    """Peak memory (sum of resident sets) and CPU seconds of a process and all that it starts."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.cpu = pid, 0, {}  # type: ignore[var-annotated]

    def run(self) -> None:
        import psutil

        try:
            top = psutil.Process(self.pid)
            while True:
                memory = 0
                for p in [top, *top.children(recursive=True)]:
                    try:
                        memory += p.memory_info().rss
                        t = p.cpu_times()
                        self.cpu[p.pid] = t.user + t.system
                    except psutil.Error:
                        continue
                self.peak = max(self.peak, memory)
                time.sleep(0.2)
        except psutil.Error:
            return


def measured(settings: Settings, *command: str) -> tuple[dict[str, float], str]:
    """Run a program of the Spark environment: its figures and its standard output."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TIDEWATCH_STATE_DIR": str(settings.state_dir)}
    begin = time.monotonic()
    p = subprocess.Popen([str(load().env_python("spark")), *command], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    meter = Meter(p.pid)
    meter.start()
    out, _ = p.communicate()
    if p.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {p.returncode}")
    return {"seconds": time.monotonic() - begin, "cpu seconds": sum(meter.cpu.values()), "peak MB": meter.peak / 1e6}, out


def spark_on_events(minutes: str) -> None:
    """In the Spark environment: the view from a sample of raw events, and the parity sample's reading of one minute; seconds as JSON."""
    from jobs import cli, incremental
    from jobs import spark as sp

    settings = load()
    view = features.view("flow_1m")
    end = START + timedelta(minutes=int(minutes))
    names = ", ".join(f"'device-{i:06}'" for i in range(incremental.SAMPLE_DEVICES))
    with sp.session(settings, "bench") as spark:
        found: dict[str, float] = {}
        queries = {
            "view": incremental.from_events(settings, view, START, end),
            "parity": incremental.from_events(settings, view, START, START + timedelta(minutes=1), f"device_id IN ({names})"),
        }
        for name, sql in queries.items():
            for _ in range(2):  # the first warms the JVM up
                begin = time.monotonic()
                spark.sql(sql).write.format("noop").mode("overwrite").save()
                found[name] = time.monotonic() - begin
            cli.say(f"{name}: {found[name]:.1f} s")
        found["CPU of both, twice"] = sp._jvm_seconds(spark)
    print(json.dumps(found))


def counts_of_events(settings: Settings, minutes: int) -> tuple[float, float]:
    """What the completeness check costs if no file's statistics help: the time column of all of them; seconds and CPU seconds."""
    from jobs import counts

    known = counts.files
    counts.files = lambda *a: [replace(f, rows=None) for f in known(*a)]  # type: ignore[assignment]
    begin, cpu = time.monotonic(), time.process_time()
    found = counts.events(settings, tables.table("flow"), START, START + timedelta(minutes=minutes), 60_000)
    took = time.monotonic() - begin, time.process_time() - cpu
    counts.files = known
    if found != counts.events(settings, tables.table("flow"), START, START + timedelta(minutes=minutes), 60_000):
        raise SystemExit("the files' statistics and their columns do not count the same")
    return took


def duckdb_on_events(settings: Settings) -> tuple[float, float]:
    """The same view by DuckDB over the same files; seconds and CPU seconds."""
    import duckdb

    view = features.view("flow_1m")
    names = [f.name for f in events.contract("flow").fields] + ["external"]
    columns = ", ".join(f"{render.expression(f.expression, names)} AS {f.name}" for f in view.features).replace("`", '"').replace('MAX("ts")', "MAX(epoch_ms(\"ts\"))")
    path = tables.table("flow").path(settings)
    db = duckdb.connect()
    db.execute("SET threads = 2")
    begin, cpu = time.monotonic(), time.process_time()
    db.execute(f"CREATE TABLE made AS SELECT device_id, time_bucket(INTERVAL 1 MINUTE, ts) AS window_start, {columns} FROM read_parquet('{path}/*/*.parquet') GROUP BY ALL")
    return time.monotonic() - begin, time.process_time() - cpu


def sample(settings: Settings, devices: int, count: int) -> int:
    """Write raw flows at the density of the full scale; the minutes that they cover."""
    from streaming import committer

    rng = np.random.default_rng(2)
    names = np.char.add("device-", np.char.zfill(np.arange(devices).astype(str), 6))
    a_minute = CYCLE_EVENTS / 2 / 240 * devices / 10_000
    minutes = max(1, round(count / a_minute))
    start = np.datetime64(START.replace(tzinfo=None), "ms")
    part = 500_000
    for i in range(max(1, round(minutes * a_minute / part))):
        ts = start + np.sort(rng.integers(i * minutes * 60_000 * part // int(minutes * a_minute), max(1, (i + 1) * minutes * 60_000 * part // int(minutes * a_minute)), part)).astype("timedelta64[ms]")
        ts = np.minimum(ts, start + np.timedelta64(minutes * 60_000 - 1, "ms"))
        write(settings, "flow", f"{i:04}", flows(names[rng.integers(0, devices, part)], ts, rng))
    committer.prepare(settings)
    while committer.drain(settings):
        pass
    return minutes


def state(name: str) -> Settings:
    """An empty state folder beside the installed one."""
    home = load().state_dir / "bench" / f"feature_store-{name}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "jars").symlink_to((load().state_dir / "jars").resolve())
    return load(state_dir=home)


def machine() -> dict[str, Any]:
    import psutil

    return {"cores": os.cpu_count(), "memory GB": round(psutil.virtual_memory().total / 1e9, 1), "machine": platform.machine(), "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=240)
    parser.add_argument("--scales", default="1,2,4")
    parser.add_argument("--sample", type=int, default=10_000_000, help="raw flows (default 10 million)")
    parser.add_argument("--quick", action="store_true", help="1,000 devices, an hour, 1x and 2x, a million raw flows")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--spark-on-events", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.spark_on_events:
        spark_on_events(o.spark_on_events)
        return
    if o.quick:
        o.devices, o.minutes, o.scales, o.sample = 1000, 60, "1,2", 1_000_000
    result: dict[str, Any] = {"machine": machine(), "devices": o.devices, "minutes": o.minutes, "cycles": {}}
    end = (START + timedelta(minutes=o.minutes)).isoformat()
    for scale in (int(x) for x in o.scales.split(",")):
        settings = state(str(scale))
        rows = cycle(settings, o.devices * scale, o.minutes)
        load_before = os.getloadavg()[0]
        figures, out = measured(settings, "-m", "jobs.build_features", "--start", START.isoformat(), "--end", end)
        said = json.loads(out.strip().splitlines()[-1])
        if not all(t["parity"] and not t["reopened"] for t in said["stream"].values()):
            raise SystemExit(f"the build did not take the stream's windows over: {said['stream']}")
        result["cycles"][f"{scale}x"] = {"rows a view": rows, "rows built": said["rows"], **figures, "load before": load_before}
        if o.json:
            o.json.write_text(json.dumps(result, indent=1))
        print(f"{scale}x: {rows:,} rows a view, {figures['seconds']:.0f} s, {figures['cpu seconds']:.0f} CPU s, {figures['peak MB']:,.0f} MB, load {load_before:.1f}", flush=True)
        if scale != 1:
            shutil.rmtree(settings.state_dir)
    settings = state("sample")
    minutes = sample(settings, o.devices, o.sample)
    raw = sum(pq.read_metadata(p).num_rows for p in tables.table("flow").path(settings).rglob("*.parquet"))
    share = CYCLE_EVENTS / 2 / raw
    figures, out = measured(settings, str(Path(__file__).resolve()), "--spark-on-events", str(minutes))
    spark = json.loads(out.strip().splitlines()[-1])
    duck, duck_cpu = duckdb_on_events(settings)
    check, check_cpu = counts_of_events(settings, minutes)
    shutil.rmtree(settings.state_dir)
    e = {"spark s": spark["view"] * share, "duckdb s": duck * share, "duckdb CPU s": duck_cpu * share, "completeness check s": check * share, "completeness check CPU s": check_cpu * share}
    result["raw flows"] = {
        "events": raw, "minutes": minutes, "spark s": spark, "spark peak MB": figures["peak MB"], "duckdb s": duck, "duckdb CPU s": duck_cpu,
        "parity sample s": spark["parity"], "extrapolated to the cycle's flows": e,
    }
    print(f"raw: {raw:,} flows: Spark {spark['view']:.1f} s, DuckDB {duck:.1f} s ({duck_cpu:.0f} CPU s); extrapolated to a cycle's {CYCLE_EVENTS / 2:,.0f} flows: "
          f"Spark {e['spark s']:,.0f} s, DuckDB {e['duckdb s']:,.0f} s ({e['duckdb CPU s']:,.0f} CPU s); of the build from windows: "
          f"completeness check at most {e['completeness check s']:,.0f} s ({e['completeness check CPU s']:,.0f} CPU s), parity sample {spark['parity']:.1f} s")
    if first := result["cycles"].get("1x"):
        print(f"flow_1m from the events costs {e['spark s'] / first['seconds']:.0f} times the whole build from windows by Spark, {e['duckdb s'] / first['seconds']:.0f} times by DuckDB")
        for name, c in result["cycles"].items():
            print(f"{name}: {1e6 * c['cpu seconds'] / c['rows a view']:.1f} CPU s a million rows a view")
    if first and not o.quick and o.devices == 10_000:
        print(f"bar: {BAR:.0f} s for 1x: {'held' if first['seconds'] <= BAR else 'missed'}")
    shutil.rmtree(load().state_dir / "bench" / "feature_store-1", ignore_errors=True)
    if o.json:
        o.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
