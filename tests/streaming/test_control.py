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


def test_a_flink_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings: Settings = load(state_dir=tmp_path, external={"flink_rest": "http://127.0.0.1:1"})
    for ask in (control.status, control.start, control.stop):
        with pytest.raises(ServiceError, match=r"Flink does not answer at http://127\.0\.0\.1:1"):
            ask(settings)
