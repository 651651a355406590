"""What it costs to match windows with their baselines and models, and how much state a device has, without servers.

    python bench/match_windows.py [--devices 600] [--windows 32]      (in the Flink environment)

Runs the job's own relations from windows to what is scored (`streaming/sql/matched.sql`) in a Flink of its own, from files to
nothing, a checkpoint a second; every window is kept that a detector may look back to, so that all have as many as they can. Shown: CPU seconds of the JVM (start, compilation and reading JSON included), the same a
million windows, and the largest checkpoint a device. Numbers are random, so that they do not compress.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from streaming import build, job
from streaming.windows import Handed, handed
from tidewatch.detectors import USE_CASES
from tidewatch.settings import current, load

T0, MINUTE = 1_795_474_800_000, 60_000
METRICS = (2, 3, 3, 3, 2)
"""Of a device, by its number: about as many as the generator's devices have."""


def series(devices: int) -> Iterator[tuple[str, Handed, str]]:
    """(device, what is handed over, metric)"""
    for d in range(devices):
        for h in handed():
            for m in range(METRICS[d % len(METRICS)]) if h.view == "reading_1m" else (None,):
                yield f"device-{d:06}", h, "" if m is None else f"metric_{m}"


def write(folder: Path, devices: int, windows: int) -> int:
    """The three inputs as files; how many windows."""
    rng, n = np.random.default_rng(1), 0
    with (folder / "windows").open("w") as f:
        for w in range(windows):
            for device, h, metric in series(devices):
                n += 1
                f.write(json.dumps({
                    "handed": dataclasses.replace(h, every_ms=1).text, "device_id": device, "metric": metric,
                    "begin_ms": T0 + (w - 1) * MINUTE, "end_ms": T0 + w * MINUTE, "inputs": rng.random(len(h.inputs)).tolist(),
                }) + "\n")
    with (folder / "baselines").open("w") as f:
        for device, h, metric in series(devices):
            for x in h.detectors:
                k = len(x.signals)
                f.write(json.dumps({"entity": f"{x.name}|{device}|{metric}", "device_id": device, "valid_from": T0 - MINUTE, "source": "device",
                                    "scale": rng.random(k).tolist(), "center": rng.normal(size=24 * k).tolist()}) + "\n")
    (folder / "models").write_text("".join(json.dumps({"use_case": u, "version": "1", "uri": "", "valid_from": T0 - MINUTE}) + "\n" for u in USE_CASES))
    return n


def prepare(folder: Path) -> Any:
    """Flink with the inputs and the relations over them."""
    from pyflink.table import EnvironmentSettings, TableEnvironment

    build.build(current())
    te = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    config = job.configuration(load(state_dir=folder))
    kept = {k: v for k, v in config.items() if k.startswith(("table.", "state.")) or k in ("pipeline.object-reuse", "execution.checkpointing.snapshot-compression")}
    kept |= {"pipeline.jars": build.jar_path(current()).as_uri(), "parallelism.default": "1", "execution.checkpointing.interval": "1 s",
             "execution.checkpointing.dir": (folder / "checkpoints").as_uri()}
    for key, value in kept.items():
        te.get_config().set(key, value)
    for name, of in job.JAVA_FUNCTIONS.items():
        te.execute_sql(f"CREATE TEMPORARY SYSTEM FUNCTION {name} AS 'tidewatch.stream.{of}' LANGUAGE JAVA")
    bucket = "`bucket` AS tidewatch_bucket(`device_id`)"
    fact = f"`valid_from` + {job.NEVER_LATE // timedelta(milliseconds=1)}"
    for name, columns, at, mark in (
        ("windows", f"`handed` STRING, `device_id` STRING, {bucket}, `metric` STRING, `begin_ms` BIGINT, `end_ms` BIGINT, `inputs` ARRAY<DOUBLE>", "`end_ms` - 1", "`end_ms` - 2"),
        ("baselines", f"`entity` STRING, `device_id` STRING, {bucket}, `valid_from` BIGINT, `source` STRING, `center` ARRAY<DOUBLE>, `scale` ARRAY<DOUBLE>",
         fact, "`valid_from`"),
        ("models", "`use_case` STRING, `version` STRING, `uri` STRING, `shadow_version` STRING, `shadow_uri` STRING, `valid_from` BIGINT", fact, "`valid_from`"),
    ):
        te.execute_sql(f"CREATE TABLE `{name}` ({columns}, `rowtime` AS TO_TIMESTAMP_LTZ({at}, 3), WATERMARK FOR `rowtime` AS TO_TIMESTAMP_LTZ({mark}, 3))"
                       f" WITH ('connector'='filesystem', 'path'='{(folder / name).as_uri()}', 'format'='json')")
    for name, sql in job.views_sql(load()):
        if name in ("told", "matched"):
            te.create_temporary_view(name, te.sql_query(sql))
    te.execute_sql("CREATE TABLE `nowhere` (`detector` STRING, `asked` STRING, `inputs` BYTES, `source` STRING, `baseline` BYTES) WITH ('connector'='blackhole')")
    return te


def largest(folder: Path, stop: threading.Event, found: list[int]) -> None:
    """The size of the largest checkpoint, looked at until told to stop."""
    while not stop.wait(0.1):
        for p in folder.glob("checkpoints/*/chk-*/*"):
            if p.exists():
                found[0] = max(found[0], p.stat().st_size)


def jvm_seconds() -> float:
    """CPU seconds of the JVM, this process's child, so far."""
    stats = (p.read_text().rpartition(")")[2].split() for p in Path("/proc").glob("[0-9]*/stat") if p.exists())
    return sum(int(x[11]) + int(x[12]) for x in stats if int(x[1]) == os.getpid()) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=600)
    parser.add_argument("--windows", type=int, default=32, help="of each series, one a minute (default 32: more than any detector looks back)")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n, te = write(folder, o.devices, o.windows), prepare(folder)
        stop, found, begin = threading.Event(), [0], time.monotonic()
        watch = threading.Thread(target=largest, args=(folder, stop, found))
        watch.start()
        te.execute_sql("INSERT INTO `nowhere` SELECT `detector`, `asked`, `inputs`, `source`, `baseline` FROM `matched`").wait()
        stop.set()
        watch.join()
        cpu = jvm_seconds()
        print(f"{o.devices:,} devices, {n:,} windows in {time.monotonic() - begin:.1f} s: {cpu:.1f} CPU s, {cpu / n * 1e6:,.0f} a million; "
              f"the largest checkpoint {found[0] / 1e6:.1f} MB, {found[0] / 1e3 / o.devices:.1f} kB a device")


if __name__ == "__main__":
    main()
