"""What a whole cycle costs, step by step: features, gate, baselines, consistency, training with back-test, promotion, dashboards.

    python bench/cycle.py [--devices 100] [--hours 24] [--stack] [--json FILE]

By itself it makes a lake of that size (the tests' own events, and the stream's windows as the stream would have left them)
and starts an MLflow server; Kafka and Superset are left out (`--no-publish`, no refresh). With `--stack` the jobs run on the
lake and the servers of the stack that is up, for its last 24 hours of data, and the dashboards are refreshed. Each step is a
process of its own, as in Airflow: seconds, CPU seconds and peak memory are those of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.feature_store import machine, measured
from tidewatch import features, tables
from tidewatch.settings import Settings, load

BAR = 600.0


def lake(settings: Settings, devices: int, hours: float) -> datetime:
    """Events, inventory and the stream's windows of them; the end of the window."""
    from tests.jobs import synthetic

    end = synthetic.fill(settings, devices=devices, hours=hours)
    window = ("--start", synthetic.START.isoformat(), "--end", end.isoformat())
    measured(settings, "-m", "jobs.build_features", *window, "--no-publish")
    for name in features.names():
        if features.view(name).published:
            stored = tables.table(name).dataset(settings)
            assert stored is not None
            found = stored.to_table().to_pandas().sort_values(["window_end", "device_id"], ignore_index=True)
            synthetic.write(settings, f"{name}_online", {c.name: found[c.name].to_numpy() for c in tables.table(name).columns}, mode="overwrite")
        shutil.rmtree(tables.table(name).path(settings))
    return end


def last(settings: Settings) -> datetime:
    """The end of the newest window that the stream has written."""
    stored = tables.table("flow_1m_online").dataset(settings)
    assert stored is not None
    found = stored.to_table(columns=["window_end"]).to_pandas()["window_end"].max()
    return datetime.fromtimestamp(int(np.datetime64(found, "s").astype(np.int64)), UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--stack", action="store_true", help="on the stack that is up")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    o = parser.parse_args()
    server = None
    if o.stack:
        settings = load()
        end = last(settings)
        quiet: tuple[str, ...] = ()
    else:
        from tests.jobs import conftest

        home = load().state_dir / "bench" / "cycle"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (home / "jars").symlink_to((load().state_dir / "jars").resolve())
        os.environ |= {"TIDEWATCH_PORTS__MLFLOW": str(conftest.port()), "MLFLOW_DISABLE_TELEMETRY": "true"}
        python = load().env_python("spark")
        settings = load(state_dir=home)
        end = lake(settings, o.devices, o.hours)
        server = conftest.start_mlflow(settings, str(python))
        quiet = ("--no-publish",)
    window = ("--start", (end - timedelta(hours=o.hours)).isoformat(), "--end", end.isoformat())
    steps: list[tuple[str, ...]] = [
        ("build_features", *window, *quiet), ("validate", *window, *quiet), ("build_baselines", *window, *quiet), ("consistency", *window, *quiet),
        ("train", *window), ("promote", "--end", end.isoformat(), *quiet), *([("refresh_dashboards", "--end", end.isoformat())] if o.stack else []),
    ]
    result: dict[str, Any] = {"machine": machine(), "devices": o.devices, "hours": o.hours, "steps": {}}
    try:
        for job, *arguments in steps:
            load_before = os.getloadavg()[0]
            figures, out = measured(settings, "-m", f"jobs.{job}", *arguments)
            result["steps"][job] = {**figures, "load before": load_before, "said": json.loads(out.strip().splitlines()[-1])}
            print(f"{job:20} {figures['seconds']:6.0f} s {figures['cpu seconds']:6.0f} CPU s {figures['peak MB']:7,.0f} MB, load {load_before:.1f}", flush=True)
    finally:
        if server:
            conftest.stop(server)
    total, cpu = (sum(s[k] for s in result["steps"].values()) for k in ("seconds", "cpu seconds"))
    print(f"{'all':20} {total:6.0f} s {cpu:6.0f} CPU s; bar: {BAR:.0f} s: {'held' if total <= BAR else 'missed'}")
    if o.json:
        o.json.write_text(json.dumps(result, indent=1))
    if server:
        shutil.rmtree(settings.state_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
