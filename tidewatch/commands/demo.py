"""`tidewatch demo`: the whole way once, from servers to alerts, with the same commands that a user can type."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from tidewatch import tables
from tidewatch.errors import ServiceError
from tidewatch.pinot import query
from tidewatch.settings import ROOT, Settings, current

console = Console(highlight=False)


def run(*arguments: str, capture: bool = False, check: bool = True) -> str:
    """Run one `tidewatch` command, shown as typed; its output if `capture`. Raises ServiceError if it fails and `check`."""
    console.print(f"\n[bold cyan]$ tidewatch {' '.join(arguments)}[/]")
    done = subprocess.run([str(ROOT / "bin" / "tidewatch"), *arguments], stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if check and done.returncode:
        raise ServiceError(f"`tidewatch {' '.join(arguments)}` failed with exit code {done.returncode}.",
                           "read the lines above; `tidewatch status` and `tidewatch logs SERVICE` tell more")
    return done.stdout or ""


def wait(what: str, seconds: float, figure: Callable[[], tuple[float, float]]) -> float:
    """Wait until `figure()` gives (have, want) with have >= want, showing both; returns the seconds it took."""
    begin = time.monotonic()
    shown = ""
    with console.status(what) as status:
        while True:
            have, want = figure()
            took = time.monotonic() - begin
            if have >= want:
                console.print(f"  {what}: {have:,.0f} of {want:,.0f} after {took:.0f} s")
                return took
            if took > seconds:
                raise ServiceError(f"{what}: {have:,.0f} of {want:,.0f} after {took:.0f} s.",
                                   "`tidewatch stream status` and `tidewatch logs committer` tell why")
            text = f"{what}: {have:,.0f} of {want:,.0f}"
            if text != shown:
                status.update(text)
                shown = text
            time.sleep(2)


def delta_rows(settings: Settings, *names: str) -> int:
    """Rows of Delta tables, from their log; a table that is not there yet has none."""
    from deltalake import DeltaTable

    total = 0
    for name in names:
        path = str(tables.table(name).path(settings))
        if DeltaTable.is_deltatable(path):
            total += DeltaTable(path).count()
    return total


def iso(t: datetime) -> str:
    return t.strftime("%Y-%m-%dT%H:%M:%SZ")


def _feed(start: datetime, end: datetime, devices: int, seed: int, incidents: str) -> dict[str, Any]:
    out = run("generate", "--start", iso(start), "--end", iso(end), "--devices", str(devices), "--seed", str(seed),
              "--incidents", incidents, "--json", capture=True)
    return dict(json.loads(out[out.index("{"):]))


def _stream() -> None:
    """Start the stream unless it runs, or is about to, after a restart of Flink."""
    state = json.loads(run("stream", "status", "--json", capture=True, check=False)).get("state")
    if state in ("RUNNING", "RESTARTING", "CREATED", "INITIALIZING"):
        console.print(f"  it is {state} already")
    else:
        run("stream", "start")


def demo(
    devices: int = typer.Option(100, min=30, help="devices in the generated network"),
    hours: float = typer.Option(24, min=2, help="hours of history from which baselines and models are learned"),
    live_minutes: int = typer.Option(60, min=20, help="minutes of events with labelled incidents that the new champions score"),
    seed: int = typer.Option(7, help="seed of the generated network"),
) -> None:
    """Start everything, feed it, let Airflow learn, and show the alerts found against the labels.

    A second run reuses what is there: servers, history and models; it adds the newest minutes only.
    """
    settings = current()
    begin = time.monotonic()
    steps: list[tuple[str, float]] = []

    def step(name: str, work: Callable[[], object]) -> Any:
        console.rule(f"[bold]{name}[/] ({time.monotonic() - begin:.0f} s)", align="left")
        t = time.monotonic()
        result = work()
        steps.append((name, time.monotonic() - t))
        return result

    record = settings.state_dir / "data" / "demo.json"
    done: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}

    def save(**more: Any) -> None:
        done.update(more)
        record.parent.mkdir(parents=True, exist_ok=True)
        new = record.with_suffix(".new")
        new.write_text(json.dumps(done, indent=1))
        new.replace(record)

    step("servers", lambda: run("up"))
    step("stream", _stream)
    # between its parts, and after its end, the demonstration sends nothing: no outage to tell anybody of
    run("snooze", "add", "--detector", "outage", "--until", "+24h", "--reason", "the demonstration pauses", "--who", "demo")
    step("dashboards", lambda: run("dashboards", "apply"))
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    if "history_end" not in done:
        end = now - timedelta(minutes=live_minutes)
        start = end - timedelta(hours=hours)
        made = step("history", lambda: _feed(start, end, devices, seed, "none"))
        save(history_start=iso(start), history_end=iso(end), live_end=iso(end), devices=devices, seed=seed,
             produced=made["produced_total"])
    step("history in the lake", lambda: wait(
        "events in Delta", 900, lambda: (delta_rows(settings, "flow", "reading", "dead_letters"), done["produced"])))
    if "learned" not in done:
        step("learning, by Airflow", lambda: run(
            "dag", "trigger", "feature_store", "--conf", f"start={done['history_start']}", "--conf", f"end={done['history_end']}",
            "--wait", "--follow"))
        save(learned=True)
    live_start = datetime.fromisoformat(done["live_end"])
    live_end = datetime.now(UTC).replace(second=0, microsecond=0)
    if live_end - live_start >= timedelta(minutes=15):
        made = step("live events with incidents", lambda: _feed(live_start, live_end, done["devices"], done["seed"], "all"))
        save(live_end=iso(live_end), produced=done["produced"] + made["produced_total"])
    want = datetime.fromisoformat(done["live_end"]).timestamp() * 1000 - 60_000

    def scored() -> tuple[float, float]:
        rows = query(settings, "SELECT MAX(window_end) FROM scores")
        newest = max(0.0, float(rows[0][0])) if rows and rows[0][0] not in (None, "null") else 0.0
        return (newest - want) / 60_000 + 1, 1

    step("windows scored", lambda: wait("minutes left to score", 600, scored))
    step("alerts against labels", lambda: run("alerts", "--labels"))
    _summary(settings, steps, time.monotonic() - begin)


def _summary(settings: Settings, steps: list[tuple[str, float]], total: float) -> None:
    times = Table("step", "seconds", title="what took how long")
    for name, seconds in [*steps, ("all", total)]:
        times.add_row(name, f"{seconds:.0f}")
    console.print(times)
    console.print("\n[bold]where to look[/]")
    for what, address, secret in (
        ("Superset: alerts, devices, pipeline", f"{settings.superset}/superset/dashboard/overview/", "superset_admin_password"),
        ("Airflow: runs, retraining", settings.airflow, "airflow_admin_password"),
        ("MLflow: models", settings.mlflow, ""),
        ("Start page: everything with its state, data quality reports", settings.reports, ""),
        ("Flink: the stream", settings.flink_rest, ""),
        ("Pinot: queries", settings.pinot_controller, ""),
    ):
        # lines, not a table: an address or a password that is cut is none
        console.print(f"  {what}\n    {address}", soft_wrap=True)
        if secret:
            console.print(f"    login admin, password {settings.secret(secret)}", soft_wrap=True, markup=False)
    console.print("Click first: Superset's overview, then the device of the first alert. `tidewatch down` stops everything.")


def register(app: typer.Typer) -> None:
    app.command()(demo)
