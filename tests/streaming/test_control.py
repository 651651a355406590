"""What an operator is told: the deepest cause, the newest state, a server that is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streaming import control
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings, load

TRACE = """java.util.concurrent.CompletionException: outer
\tat a.B.c(B.java:1)
Caused by: java.lang.RuntimeException: middle
\t... 3 more
Caused by: java.io.IOException: inner
\tat d.E.f(E.java:2)
\t... 5 more"""


def test_the_deepest_cause_is_told() -> None:
    assert control.cause(TRACE) == "java.io.IOException: inner"
    assert control.cause("plain text") == "plain text"
    assert control.cause("") == "no message"


def test_the_newest_state_is_resumed(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    assert control.newest_state(settings) == ""
    data = tmp_path / "data" / "flink"
    for age, name in enumerate(("checkpoints/a/chk-3", "savepoints/savepoint-b", "checkpoints/c/chk-9")):
        (data / name).mkdir(parents=True)
        (data / name / "_metadata").touch()
        os.utime(data / name / "_metadata", (1000 - age, 1000 - age))
    (data / "checkpoints" / "c" / "chk-10").mkdir()  # not finished
    assert control.newest_state(settings) == (data / "checkpoints/a/chk-3").as_uri()


def test_a_job_that_initializes_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flink refuses some questions for a moment, whichever state it tells, and the stream's start must not end there."""
    refused = "Flink refuses it: 500 Unable to get JobMasterGateway for initializing job. The requested operation is not available"

    def call(_: Settings, path: str) -> dict[str, object]:
        if path.endswith("/checkpoints"):
            raise ServiceError(refused, "")
        if "exceptions" in path:
            return {}
        return {"state": "CREATED", "duration": 5, "status-counts": {}, "vertices": [{"status": "CREATED", "parallelism": 1}]}

    monkeypatch.setattr(control, "_call", call)
    now = control.status(load(), "abc")
    assert (now.state, now.tasks_running, now.checkpoints) == ("CREATED", 0, 0)
    refused = "Flink refuses it: 404 not found"
    with pytest.raises(ServiceError, match="404"):
        control.status(load(), "abc")


def test_a_flink_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings: Settings = load(state_dir=tmp_path, external={"flink_rest": "http://127.0.0.1:1"})
    for ask in (control.status, control.start, control.stop):
        with pytest.raises(ServiceError, match=r"Flink does not answer at http://127\.0\.0\.1:1"):
            ask(settings)
