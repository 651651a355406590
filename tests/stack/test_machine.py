"""What the stack asks of the machine: Java, ports, a writable folder, its own processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tidewatch import cli
from tidewatch.errors import ServiceError
from tidewatch.settings import Ports, Settings, load
from tidewatch.stack import control, doctor, install, jvm, processes, table

NAP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(state_dir=tmp_path, ports=Ports.from_base(30600))


@pytest.mark.parametrize(("text", "major"), [
    ('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_392"', 8), ('openjdk version "21" 2023-09-19', 21),
    ('openjdk version "26-ea" 2026-03-17', 26), ("no such thing", None),
])
def test_java_version(text: str, major: int | None) -> None:
    assert jvm.version(text) == major


@pytest.fixture
def old_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text('#!/bin/sh\necho \'openjdk version "11.0.2" 2019-01-15\' >&2\n')
    java.chmod(0o755)
    monkeypatch.setattr(jvm, "_candidates", lambda: [tmp_path / "jdk"])
    jvm.home.cache_clear()
    yield java
    jvm.home.cache_clear()


def test_java_too_old_is_named_with_its_place(old_java: Path) -> None:
    with pytest.raises(ServiceError, match="jdk is version 11") as e:
        jvm.home()
    assert "JAVA_HOME" in e.value.fix


def test_java_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jvm, "_candidates", lambda: [])
    jvm.home.cache_clear()
    with pytest.raises(ServiceError, match="not installed"):
        jvm.home()
    jvm.home.cache_clear()


def test_a_taken_port_is_named_with_its_setting_and_holder(settings: Settings) -> None:
    row = table(settings)["reports"]
    assert control.taken(settings, row) == []
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", settings.ports.reports))
        s.listen()
        (sentence,) = control.taken(settings, row)
    assert str(settings.ports.reports) in sentence
    assert "ports.reports" in sentence
    assert f"pid {os.getpid()}" in sentence


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="cannot be written"):
        control.writable(load(state_dir=tmp_path / "file" / "state"))


def test_sweep_ends_marked_processes_and_their_children_only(settings: Settings) -> None:
    stranger = subprocess.Popen(NAP)
    parent = "import subprocess, sys, time, os; e = dict(os.environ); e.pop('TIDEWATCH_STACK')\n" \
             "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], env=e); print(p.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent], env={**os.environ, processes.MARK: str(settings.state_dir)},
                          stdout=subprocess.PIPE, text=True, start_new_session=True) as mine:
        assert mine.stdout is not None
        child = int(mine.stdout.readline())
        # as after a crash of the supervisor: the caller is not an ancestor of what it ends
        swept = subprocess.run(
            [sys.executable, "-c", "from tidewatch.settings import load; from tidewatch.stack import processes; import sys\n"
             "print(processes.sweep(load(state_dir=sys.argv[1])))", str(settings.state_dir)],
            capture_output=True, text=True, check=True)
        assert swept.stdout.strip() == "2"
        mine.wait(10)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_remembered_pid_that_became_another_process_is_left_alone(settings: Settings) -> None:
    other = subprocess.Popen(NAP)
    processes.remember(settings, other.pid)
    ledger = settings.state_dir / "run" / "processes.json"
    started = psutil.Process(other.pid).create_time()
    ledger.write_text(ledger.read_text().replace(str(started), str(started - 100)))
    assert processes._remembered(settings) == []
    other.kill()
    other.wait()


def test_stamps_tell_what_is_missing(settings: Settings) -> None:
    assert "environment flink" in install.missing(settings)
    home = settings.state_dir / "env" / "flink"
    home.mkdir(parents=True)
    (home / install.STAMP).write_text(install._digest(install._requirements("flink")))
    assert "environment flink" not in install.missing(settings)
    with pytest.raises(ServiceError, match="not installed"):
        control.up(settings, ["reports"], say=lambda line: None)


def test_doctor_looks_at_everything(settings: Settings) -> None:
    found = {f.what: f for f in doctor.examine(settings)}
    assert {"python", "java", "maven", "memory", "disk", "state folder", "installation", "ports"} <= set(found)
    assert not found["installation"].ok
    assert all(f.fix for f in found.values() if not f.ok)


def test_an_error_is_one_line_with_its_fix(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(["config", "no.such"])
    assert e.value.code == 1
    err = capsys.readouterr().err
    assert "error: there is no setting 'no.such'." in err
    assert "fix: " in err
    assert "Traceback" not in err


def test_config_never_shows_a_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tidewatch.commands import stack

    hidden = load(metadata={"url": "postgresql://me:very-secret@db:5432"})
    monkeypatch.setattr(stack, "current", lambda: hidden)
    stack.config(as_json=True, key="")
    assert "very-secret" not in capsys.readouterr().out


def test_every_command_has_help() -> None:
    from typer.main import get_command

    def walk(command: object) -> Iterator[object]:
        yield command
        for sub in getattr(command, "commands", {}).values():
            yield from walk(sub)

    for command in walk(get_command(cli.build())):
        assert getattr(command, "help", ""), command


def test_a_service_that_fails_keeps_back_only_what_needs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[str] = []

    def start(_settings: Settings, service: SimpleNamespace, _say: object, _give_up: object) -> None:
        if service.name == "pinot":
            raise ServiceError("pinot refuses.")
        started.append(service.name)

    monkeypatch.setattr(control, "_start_one", start)
    needs = {"kafka": (), "pinot": ("kafka",), "superset": ("pinot",), "flink_jobmanager": (), "flink_taskmanager": ("flink_jobmanager",)}
    lines: list[str] = []
    with pytest.raises(ServiceError, match="pinot refuses"):
        control._start_all(Settings(state_dir=tmp_path), {n: SimpleNamespace(name=n, needs=x) for n, x in needs.items()}, lines.append)  # type: ignore[misc]
    assert sorted(started) == ["flink_jobmanager", "flink_taskmanager", "kafka"]
    assert "  not started, since they need it: superset" in lines
