"""Airflow as seen from outside: a small client of its REST API (v2), in the standard library alone."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidewatch.errors import InputError, ServiceError
from tidewatch.settings import Settings

FINAL = ("success", "failed")


def health(settings: Settings, timeout: float = 5) -> dict[str, Any]:
    """What each component says of itself; raises OSError if the API server does not answer."""
    with urllib.request.urlopen(f"{settings.airflow}/api/v2/monitor/health", timeout=timeout) as answer:
        return dict(json.load(answer))


@dataclass
class Client:
    """A logged-in session; `account` is one of Airflow's accounts (`admin`, `operator`, `analyst`, `viewer`), its password is a secret of the stack."""

    settings: Settings
    account: str = "admin"
    patience: float = 0
    """Seconds for which a read is repeated while the server does not answer: it may be busy or restarting."""
    _token: str = field(default="", repr=False)

    def call(self, method: str, path: str, body: object = None, *, timeout: float = 60) -> Any:
        """One request; path below /api/v2. Raises ServiceError if Airflow cannot be reached or refuses."""
        if not self._token:
            login = {"username": self.account, "password": self.settings.secret(f"airflow_{self.account}_password")}
            self._token = self._send("POST", "/auth/token", login, {}, timeout)["access_token"]
        begin = time.monotonic()
        while True:
            try:
                return self._send(method, f"/api/v2{path}", body, {"Authorization": f"Bearer {self._token}"}, timeout)
            except Unreachable:
                if method != "GET" or time.monotonic() - begin > self.patience:
                    raise
                time.sleep(1)

    def _send(self, method: str, path: str, body: object, headers: dict[str, str], timeout: float) -> Any:
        request = urllib.request.Request(
            self.settings.airflow + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as e:
            raise Refused(e.code, method, path, e.read().decode(errors="replace")) from e
        except OSError as e:
            raise Unreachable(f"Airflow does not answer at {self.settings.airflow} ({e}).", "start it with `tidewatch up`, see `tidewatch logs airflow_api`") from e


class Unreachable(ServiceError):
    """Airflow did not answer."""


class Refused(ServiceError):
    """Airflow answered with an error status."""

    def __init__(self, status: int, method: str, path: str, text: str) -> None:
        try:
            detail = json.loads(text).get("detail", text)
        except (ValueError, AttributeError):
            detail = text
        super().__init__(f"Airflow refused {method} {path}: {status}, {str(detail)[:500]}.")
        self.status = status
        self.detail = detail


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def dags(client: Client) -> list[dict[str, Any]]:
    """All DAGs as Airflow describes them, by name."""
    found = client.call("GET", "/dags?limit=100&order_by=dag_id")
    return [d for d in found["dags"] if not d.get("is_stale")]


def runs(client: Client, dag: str, limit: int = 5) -> list[dict[str, Any]]:
    """A DAG's newest runs, newest first; raises InputError for a DAG that does not exist."""
    try:
        return list(client.call("GET", f"/dags/{_quote(dag)}/dagRuns?limit={limit}&order_by=-run_after")["dag_runs"])
    except Refused as e:
        raise _unknown(client, dag, e) from e


def run(client: Client, dag: str, run_id: str) -> dict[str, Any]:
    return dict(client.call("GET", f"/dags/{_quote(dag)}/dagRuns/{_quote(run_id)}"))


def annotate(client: Client, dag: str, run_id: str, note: str) -> None:
    """Set a run's note (Markdown, at most 1,000 characters)."""
    client.call("PATCH", f"/dags/{_quote(dag)}/dagRuns/{_quote(run_id)}?update_mask=note", {"note": note})


def tasks(client: Client, dag: str, run_id: str) -> list[dict[str, Any]]:
    """The task instances of a run."""
    return list(client.call("GET", f"/dags/{_quote(dag)}/dagRuns/{_quote(run_id)}/taskInstances?limit=100")["task_instances"])


def _as_taken(value: Any, schema: Mapping[str, Any]) -> Any:
    """A number or truth value as text, where the parameter takes text and nothing of that kind: `verdict=false`."""
    kinds = {bool: ("boolean",), int: ("integer", "number"), float: ("number",)}.get(type(value), ())
    known = schema.get("type") or ()
    types = (known,) if isinstance(known, str) else tuple(known)
    return json.dumps(value) if kinds and "string" in types and not set(kinds) & set(types) else value


def trigger(client: Client, dag: str, conf: dict[str, Any]) -> dict[str, Any]:
    """Start a run with parameters; raises InputError if the DAG or a parameter is not known or not valid, ServiceError if it is paused."""
    try:
        known = client.call("GET", f"/dags/{_quote(dag)}/details")
        unknown = sorted(set(conf) - set(known.get("params") or {}))
        if unknown:
            raise InputError(f"the DAG {dag} has no parameter {', '.join(unknown)}.", f"use {', '.join(known.get('params') or ()) or 'none'}")
        if known.get("is_paused"):
            raise ServiceError(f"the DAG {dag} is paused: a run would wait for ever.", f"unpause it at {client.settings.airflow}/dags/{dag}")
        conf = {k: _as_taken(v, (known["params"][k] or {}).get("schema") or {}) for k, v in conf.items()}
        return dict(client.call("POST", f"/dags/{_quote(dag)}/dagRuns", {"logical_date": None, "conf": conf}))
    except Refused as e:
        raise _unknown(client, dag, e) from e


def _unknown(client: Client, dag: str, e: Refused) -> Exception:
    if e.status == 404:
        return InputError(f"there is no DAG {dag!r}.", "choose one of " + ", ".join(d["dag_id"] for d in dags(client)))
    if e.status in (400, 422):
        return InputError(f"Airflow does not take these parameters for {dag}: {str(e.detail).splitlines()[0]}", f"see them at {client.settings.airflow}/dags/{dag}")
    return e


def log_lines(client: Client, task: dict[str, Any], last: int = 25) -> list[str]:
    """The last lines that a task's newest attempt wrote."""
    path = (f"/dags/{_quote(task['dag_id'])}/dagRuns/{_quote(task['dag_run_id'])}/taskInstances/{_quote(task['task_id'])}"
            f"/logs/{max(1, task['try_number'])}?map_index={task['map_index']}&full_content=true")
    try:
        content = client.call("GET", path)["content"]
    except ServiceError as e:
        return [f"(no log: {e.reason})"]
    lines: list[str] = []
    for entry in content:
        if isinstance(entry, str):
            lines.append(entry)
        elif not str(entry.get("event", "")).startswith("::"):
            lines.extend(str(entry.get("event", "")).splitlines())
            for error in entry.get("error_detail") or ():
                lines.append(f"{error.get('exc_type')}: {error.get('exc_value')}")
    return lines[-last:]


@dataclass(frozen=True)
class Step:
    """One change while a run is watched: of a task (`task` set) or of the run itself."""

    seconds: float
    dag: str
    run_id: str
    task: str
    state: str
    took: float | None
    detail: dict[str, Any]


def watch(client: Client, dag: str, run_id: str, *, timeout: float, poll: float = 2) -> Iterator[Step]:
    """Every change of state until the run has ended; raises ServiceError after `timeout` seconds."""
    begin = time.monotonic()
    seen: dict[str, str] = {}
    while True:
        now = run(client, dag, run_id)
        for t in sorted(tasks(client, dag, run_id), key=lambda t: (t.get("start_date") or "9", t["task_id"])):
            state = t["state"] or "waiting"
            if seen.get(t["id"]) != state:
                seen[t["id"]] = state
                if state not in ("waiting", "scheduled"):
                    yield Step(time.monotonic() - begin, dag, run_id, t["task_id"], state, t.get("duration"), t)
        if now["state"] in FINAL:
            yield Step(time.monotonic() - begin, dag, run_id, "", now["state"], now.get("duration"), now)
            return
        if time.monotonic() - begin > timeout:
            raise ServiceError(f"the run {run_id} of {dag} has not ended after {timeout:.0f} s; it is {now['state']}.",
                               f"it goes on; look at {client.settings.airflow}/dags/{dag}/runs/{_quote(run_id)}")
        time.sleep(poll)


def followers(client: Client, dag: str, run_id: str, *, timeout: float = 90, poll: float = 2) -> list[tuple[str, str]]:
    """The runs (dag, run id) that this run's assets have started; waits until each unpaused DAG scheduled on them has one."""
    begin = time.monotonic()
    query = urllib.parse.urlencode({"source_dag_id": dag, "source_run_id": run_id, "limit": 100})
    paused = {d["dag_id"] for d in dags(client) if d["is_paused"]}
    while True:
        events = client.call("GET", f"/assets/events?{query}")["asset_events"]
        started = {(r["dag_id"], r["run_id"]) for e in events for r in e["created_dagruns"]}
        expected: set[str] = set()
        for asset in {e["asset_id"] for e in events}:
            expected |= {d["dag_id"] for d in client.call("GET", f"/assets/{asset}")["scheduled_dags"]} - paused
        late = expected - {d for d, _ in started}
        if not late:
            return sorted(started)
        if time.monotonic() - begin > timeout:
            raise ServiceError(f"{', '.join(sorted(late))} did not start within {timeout:.0f} s after {dag} had published its asset.",
                               "see `tidewatch logs airflow_scheduler`")
        time.sleep(poll)
