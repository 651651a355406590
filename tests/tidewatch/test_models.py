"""The models' versions by MLflow's REST API, against a server that answers as MLflow does."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tidewatch import models
from tidewatch.cli import main
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings, load


def version(number: int, **tags: str) -> dict[str, Any]:
    return {"name": "tidewatch-lie", "version": str(number), "run_id": f"r{number}", "tags": [{"key": k, "value": v} for k, v in tags.items()]}


ANSWERS: dict[str, Any] = {
    "registered-models/get": {"registered_model": {"name": "tidewatch-lie", "aliases": [{"alias": "champion", "version": "1"}]}},
    "model-versions/search": {"model_versions": [
        version(1, family="pca", window_end="2026-03-02T04:00:00Z", decision="promoted", rolled_back="rolled back from version 2"),
        version(2, family="gmm", decision="promoted", refused="rolled back to version 1 at 2026-03-02T09:00:00Z"),
        version(3, family="kmeans", decision="refused: it finds nothing"), version(4, family="pca"), version(5, decision="promoted"),
    ]},
    "runs/get": {"run": {"data": {"metrics": [{"key": "detection", "value": 0.9}, {"key": "false_alerts", "value": 0.01}, {"key": "x", "value": 1}]}}},
}


class Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        answer = ANSWERS.get(url.path.removeprefix("/api/2.0/mlflow/"))
        if answer is None or "name" in urllib.parse.parse_qs(url.query) and "tidewatch-lie" not in url.query:
            self.send_error(404)
            return
        if "filter" in urllib.parse.parse_qs(url.query) and "lie" not in url.query:
            answer = {}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def settings() -> Iterator[Settings]:
    server = HTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield load(external={"mlflow": f"http://127.0.0.1:{server.server_port}"})
    server.shutdown()
    thread.join()
    server.server_close()


def test_versions_tell_how_they_stand(settings: Settings) -> None:
    found = {v.version: v for v in models.versions(settings, ("leak", "lie"), 10)}
    assert {n: v.state for n, v in found.items()} == {1: "champion", 2: "refused", 3: "refused", 4: "challenger", 5: "past"}
    assert found[3].reason == "it finds nothing" and "version 1" in found[2].reason and found[1].window_end.startswith("2026")
    assert found[1].figures == {"detection": 0.9, "false_alerts": 0.01} and list(found) == [5, 4, 3, 2, 1]


def test_the_champion_is_shown_however_old(settings: Settings) -> None:
    assert [v.version for v in models.versions(settings, ("lie",), 2)] == [5, 4, 1]


def test_without_mlflow_there_is_one_line(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        models.versions(load(external={"mlflow": "http://127.0.0.1:9"}), ("lie",), 1)
    for arguments in (["model", "list", "moon"], ["model", "rollback", "moon"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "no use case 'moon'" in capsys.readouterr().err


def test_the_list_is_a_table(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewatch.commands.model.current", lambda: settings)
    with pytest.raises(SystemExit) as done:
        main(["model", "list"])
    out = capsys.readouterr().out
    assert done.value.code == 0 and "champion" in out and "it finds nothing" in out and "0.01" in out
    with pytest.raises(SystemExit):
        main(["model", "list", "lie", "--json"])
    assert json.loads(capsys.readouterr().out)[-1]["state"] == "champion"
