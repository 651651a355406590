"""The client of Airflow's API and the `dag` command, against a small server that answers as Airflow does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tidewatch import orchestrator
from tidewatch.errors import InputError, ServiceError
from tidewatch.settings import External, Settings, load


class _Airflow(BaseHTTPRequestHandler):
    answers: dict[str, list[tuple[int, Any]]] = {}
    asked: list[tuple[str, str, Any]] = []

    def _do(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        path = self.path.removeprefix("/api/v2").split("?")[0]
        self.asked.append((self.command, path, body))
        queue = self.answers.get(f"{self.command} {path}", [(404, {"detail": "Not Found"})])
        status, answer = queue.pop(0) if len(queue) > 1 else queue[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_GET = do_POST = _do

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[tuple[Settings, dict[str, list[tuple[int, Any]]], list[tuple[str, str, Any]]]]:
    answers: dict[str, list[tuple[int, Any]]] = {"POST /auth/token": [(201, {"access_token": "t"})]}
    asked: list[tuple[str, str, Any]] = []
    handler = type("Airflow", (_Airflow,), {"answers": answers, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield load(state_dir=tmp_path, external=External(airflow=f"http://127.0.0.1:{server.server_port}")), answers, asked
        server.shutdown()
        thread.join()


def _details(*params: str, paused: bool = False) -> tuple[int, Any]:
    return 200, {"params": dict.fromkeys(params), "is_paused": paused}


def test_trigger_logs_in_and_hands_the_parameters_on(airflow: Any) -> None:
    settings, answers, asked = airflow
    answers["GET /dags/retrain/details"] = [_details("use_case", "force")]
    answers["POST /dags/retrain/dagRuns"] = [(200, {"dag_run_id": "r1", "state": "queued"})]
    assert orchestrator.trigger(orchestrator.Client(settings), "retrain", {"use_case": "leak"})["dag_run_id"] == "r1"
    assert asked[0][2] == {"username": "admin", "password": settings.secret("airflow_admin_password")}
    assert asked[-1] == ("POST", "/dags/retrain/dagRuns", {"logical_date": None, "conf": {"use_case": "leak"}})


def test_trigger_hands_a_word_on_as_text_where_the_parameter_takes_text(airflow: Any) -> None:
    settings, answers, asked = airflow
    kinds = {"verdict": "string", "note": ["null", "string"], "version": ["null", "integer"], "force": "boolean", "either": ["boolean", "string"]}
    answers["GET /dags/d/details"] = [(200, {"params": {k: {"value": None, "schema": {"type": t}} for k, t in kinds.items()}})]
    answers["POST /dags/d/dagRuns"] = [(200, {"dag_run_id": "r1", "state": "queued"})]
    orchestrator.trigger(orchestrator.Client(settings), "d", {"verdict": False, "note": 7, "version": 3, "force": True, "either": True})
    assert asked[-1][2]["conf"] == {"verdict": "false", "note": "7", "version": 3, "force": True, "either": True}
    orchestrator.trigger(orchestrator.Client(settings), "d", {"note": None})
    assert asked[-1][2]["conf"] == {"note": None}


def test_trigger_says_what_is_wrong(airflow: Any) -> None:
    settings, answers, _ = airflow
    client = orchestrator.Client(settings)
    answers["GET /dags"] = [(200, {"dags": [{"dag_id": "retrain"}]})]
    with pytest.raises(InputError, match="choose one of retrain"):
        orchestrator.trigger(client, "nope", {})
    answers["GET /dags/retrain/details"] = [_details("use_case")]
    with pytest.raises(InputError, match="no parameter usecase.*use_case"):
        orchestrator.trigger(client, "retrain", {"usecase": "leak"})
    answers["POST /dags/retrain/dagRuns"] = [(400, {"detail": "Invalid input for param use_case: 'x'\n\nOn instance: x"})]
    with pytest.raises(InputError, match="Invalid input for param use_case: 'x' Fix"):
        orchestrator.trigger(client, "retrain", {"use_case": "x"})
    answers["GET /dags/retrain/details"] = [_details(paused=True)]
    with pytest.raises(ServiceError, match="paused"):
        orchestrator.trigger(client, "retrain", {})


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path, external=External(airflow="http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match="does not answer.*tidewatch up"):
        orchestrator.dags(orchestrator.Client(settings))


def test_a_watcher_is_patient_with_a_server_that_comes_back(airflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, answers, _ = airflow
    answers["GET /dags/d/dagRuns/r"] = [(200, {"state": "success"})]
    client = orchestrator.Client(settings, patience=60)
    client.call("GET", "/dags/d/dagRuns/r")
    real, missed = client._send, []

    def away_once(*arguments: Any) -> Any:
        if not missed:
            missed.append(1)
            raise orchestrator.Unreachable("away")
        return real(*arguments)

    monkeypatch.setattr(client, "_send", away_once)
    monkeypatch.setattr(orchestrator.time, "sleep", lambda s: None)
    assert client.call("GET", "/dags/d/dagRuns/r") == {"state": "success"} and missed


def _task(name: str, state: str | None) -> dict[str, Any]:
    return {"id": name, "task_id": name, "state": state, "duration": 1.0, "dag_id": "d", "dag_run_id": "r", "try_number": 1, "map_index": -1}


def test_watch_tells_each_change_once(airflow: Any) -> None:
    settings, answers, _ = airflow
    answers["GET /dags/d/dagRuns/r"] = [(200, {"state": "running"}), (200, {"state": "running"}), (200, {"state": "failed", "duration": 3.0})]
    answers["GET /dags/d/dagRuns/r/taskInstances"] = [
        (200, {"task_instances": [_task("a", None)]}), (200, {"task_instances": [_task("a", "running")]}),
        (200, {"task_instances": [_task("a", "failed")]}),
    ]
    steps = list(orchestrator.watch(orchestrator.Client(settings), "d", "r", timeout=10, poll=0))
    assert [(s.task, s.state) for s in steps] == [("a", "running"), ("a", "failed"), ("", "failed")]


def test_watch_gives_up_in_the_end(airflow: Any) -> None:
    settings, answers, _ = airflow
    answers["GET /dags/d/dagRuns/r"] = [(200, {"state": "running"})]
    answers["GET /dags/d/dagRuns/r/taskInstances"] = [(200, {"task_instances": []})]
    with pytest.raises(ServiceError, match="has not ended"):
        list(orchestrator.watch(orchestrator.Client(settings), "d", "r", timeout=0, poll=0))


def test_followers_waits_for_every_dag_that_the_asset_starts(airflow: Any) -> None:
    settings, answers, _ = airflow
    answers["GET /dags"] = [(200, {"dags": [{"dag_id": "resting", "is_paused": True}, {"dag_id": "next", "is_paused": False}]})]
    answers["GET /assets/7"] = [(200, {"scheduled_dags": [{"dag_id": "next"}, {"dag_id": "resting"}]})]
    answers["GET /assets/events"] = [
        (200, {"asset_events": [{"asset_id": 7, "created_dagruns": []}]}),
        (200, {"asset_events": [{"asset_id": 7, "created_dagruns": [{"dag_id": "next", "run_id": "n1"}]}]}),
    ]
    assert orchestrator.followers(orchestrator.Client(settings), "d", "r", timeout=10, poll=0) == [("next", "n1")]


def test_log_lines_are_the_events_of_the_log(airflow: Any) -> None:
    settings, answers, _ = airflow
    answers["GET /dags/d/dagRuns/r/taskInstances/a/logs/1"] = [(200, {"content": [
        {"event": "::group::x"}, {"event": "one"}, {"event": "two", "error_detail": [{"exc_type": "ValueError", "exc_value": "bad"}]},
    ]})]
    assert orchestrator.log_lines(orchestrator.Client(settings), _task("a", "failed"), 2) == ["two", "ValueError: bad"]


def test_conf_is_pairs_over_json() -> None:
    from tidewatch.commands import dag

    assert dag.parse_conf(["force=true", "use_case=leak", "start=2026-03-01T00:00:00Z", "version=3"], '{"use_case": "all", "x": 1}') == {
        "use_case": "leak", "x": 1, "force": True, "start": "2026-03-01T00:00:00Z", "version": 3}
    for pairs, text in ((["force"], ""), ([], "{"), ([], "[1]")):
        with pytest.raises(InputError, match="write for instance"):
            dag.parse_conf(pairs, text)


def test_the_configuration_keeps_secrets_in_files_and_listens_on_loopback(tmp_path: Path) -> None:
    from tidewatch.stack.services import airflow as rows
    from tidewatch.stack.services import mlflow

    settings = load(state_dir=tmp_path)
    text = rows.configuration(settings)
    assert "host = 127.0.0.1" in text and settings.secret("airflow_jwt") in text
    for service in (*rows.services(settings), *mlflow.services(settings)):
        assert not any(settings.secret(n) in " ".join(service.command) for n in ("airflow_jwt", "postgres_password", "airflow_admin_password"))
        assert "0.0.0.0" not in " ".join(service.command)
    for service in rows.services(settings):
        assert not any(settings.secret(n) in v for v in service.env.values() for n in ("airflow_jwt", "postgres_password", "airflow_admin_password"))
    passwords = next(t for p, t in rows.services(settings)[0].files.items() if p.name == "passwords.json")
    assert json.loads(passwords) == {a: settings.secret(f"airflow_{a}_password") for a in rows.ACCOUNTS}
