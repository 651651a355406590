"""`tidewatch dag`: start Airflow's DAGs, watch them, see how they stand."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tidewatch import orchestrator
from tidewatch.errors import InputError, ServiceError
from tidewatch.settings import current

app = typer.Typer(help="Start Airflow's DAGs, watch them, see how they stand.", no_args_is_help=True)
console = Console(highlight=False)
COLOURS = {"success": "green", "failed": "red", "upstream_failed": "red", "up_for_retry": "yellow", "running": "cyan"}

AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def _state(state: str | None) -> str:
    text = state or "waiting"
    return f"[{COLOURS[text]}]{text}[/]" if text in COLOURS else text


def parse_conf(pairs: list[str], text: str) -> dict[str, Any]:
    """`key=value` pairs over a JSON object; a value that reads as JSON (true, 3, null) is taken so, anything else is a string."""
    try:
        conf = json.loads(text) if text else {}
    except ValueError as e:
        raise InputError(f"--json-conf is not JSON: {e}.", """write for instance --json-conf '{"use_case": "leak"}'""") from e
    if not isinstance(conf, dict):
        raise InputError("--json-conf is not a JSON object.", """write for instance --json-conf '{"use_case": "leak"}'""")
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key:
            raise InputError(f"--conf {pair!r} is not key=value.", "write for instance --conf use_case=leak")
        try:
            conf[key] = json.loads(value)
        except ValueError:
            conf[key] = value
    return conf


def _watch(client: orchestrator.Client, dag: str, run_id: str, timeout: float, quiet: bool) -> dict[str, Any]:
    """Show a run until its end; its outcome. Prints the failing task's last lines if it failed."""
    last: dict[str, orchestrator.Step] = {}
    for step in orchestrator.watch(client, dag, run_id, timeout=timeout):
        last[step.task] = step
        took = f" in {step.took:.0f} s" if step.took is not None and step.state not in ("running", "queued") else ""
        if not quiet:
            console.print(f"  {step.seconds:5.0f} s  {dag + ('.' + step.task if step.task else ''):<42} {_state(step.state)}{took}")
    end = last[""]
    failed = [s for s in last.values() if s.task and s.state == "failed"]
    if not quiet:
        for s in failed:
            console.print(f"\nthe last lines of [bold]{dag}.{s.task}[/]:")
            for line in orchestrator.log_lines(client, s.detail):
                console.print(f"  {line}", markup=False)
    return {"dag": dag, "run": run_id, "state": end.state, "seconds": end.took, "failed": [s.task for s in failed],
            "tasks": {s.task: {"state": s.state, "seconds": s.took} for s in last.values() if s.task}}


@app.command()
def trigger(
    name: Annotated[str, typer.Argument(help="the DAG, for instance feature_store")],
    conf: Annotated[list[str] | None, typer.Option("--conf", help="a parameter, key=value; repeatable")] = None,
    json_conf: Annotated[str, typer.Option("--json-conf", help="parameters as one JSON object")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="watch the run until it ends; exit 1 if it fails")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="with --wait: also watch the runs that its assets start, and theirs")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="seconds to wait for each run")] = 7200,
    as_json: AsJson = False,
) -> None:
    """Start a run of a DAG."""
    settings = current()
    client = orchestrator.Client(settings, patience=300 if wait or follow else 0)
    started = orchestrator.trigger(client, name, parse_conf(conf or [], json_conf))
    results: list[dict[str, Any]] = [{"dag": name, "run": started["dag_run_id"], "state": started["state"]}]
    if not as_json:
        console.print(f"started {name}, run {started['dag_run_id']}: {settings.airflow}/dags/{name}/runs/{started['dag_run_id']}")
    if wait or follow:
        waiting = [(name, started["dag_run_id"])]
        results = []
        while waiting:
            dag, run_id = waiting.pop(0)
            results.append(_watch(client, dag, run_id, timeout, as_json))
            if follow and results[-1]["state"] == "success":
                known = {(r["dag"], r["run"]) for r in results} | set(waiting)
                waiting += [r for r in orchestrator.followers(client, dag, run_id) if r not in known]
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    failed = [r for r in results if r["state"] == "failed"]
    if failed:
        r = failed[0]
        raise ServiceError(f"the run {r['run']} of {r['dag']} failed{' in ' + ', '.join(r['failed']) if r['failed'] else ''}.",
                           f"see {settings.airflow}/dags/{r['dag']}/runs/{r['run']}")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every DAG: what starts it, and how its newest run went."""
    client = orchestrator.Client(current())
    rows = []
    for d in orchestrator.dags(client):
        newest = next(iter(orchestrator.runs(client, d["dag_id"], 1)), None)
        rows.append({"dag": d["dag_id"], "paused": d["is_paused"], "schedule": d["timetable_summary"], "next": d.get("next_dagrun_run_after"),
                     "tags": [t["name"] for t in d["tags"]], "newest": newest and newest["state"], "newest_at": newest and newest["run_after"]})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("dag", "starts", "next", "newest run", "tags")
    for r in rows:
        starts = ("paused, " if r["paused"] else "") + (r["schedule"] or "by hand")
        table.add_row(r["dag"], starts, _short(r["next"]), f"{_state(r['newest'])} {_short(r['newest_at'])}" if r["newest"] else "none yet", ", ".join(r["tags"]))
    console.print(table)


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="the DAG")],
    limit: Annotated[int, typer.Option("-n", min=1, max=100, help="how many runs")] = 5,
    as_json: AsJson = False,
) -> None:
    """A DAG's newest runs and the state of each task."""
    client = orchestrator.Client(current())
    rows = [
        {"run": r["dag_run_id"], "state": r["state"], "run_after": r["run_after"], "seconds": r.get("duration"), "conf": r.get("conf") or {},
         "tasks": {t["task_id"]: {"state": t["state"], "seconds": t.get("duration")} for t in orchestrator.tasks(client, name, r["dag_run_id"])}}
        for r in orchestrator.runs(client, name, limit)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("run", "due", "state", "seconds", "tasks")
    for r in rows:
        parts = [f"{k} {_state(v['state'])}" + (f" {v['seconds']:.0f} s" if v["seconds"] else "") for k, v in r["tasks"].items()]
        table.add_row(r["run"], _short(r["run_after"]), _state(r["state"]), f"{r['seconds'] or 0:.0f}", "\n".join(parts))
    console.print(table)


def _short(time: str | None) -> str:
    return (time or "")[:16].replace("T", " ")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="dag")
