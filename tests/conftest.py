"""What tests share: one whole stack, started once on free ports with a state folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tidewatch.settings import ROOT, Ports, Settings, load


def pytest_configure() -> None:
    """To be ended is to be interrupted: the servers that tests started are ended too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of the stack also waits for it to start; the test that takes it down comes last."""
    for item in items:
        if item.get_closest_marker("stack"):
            item.add_marker(pytest.mark.timeout(3600))
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test of the stack that fails says how the stream stood then: its logs may not outlive the machine."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.when == "call" and report.failed and isinstance(stack, Stack):
        done = subprocess.run(["timeout", "60", str(ROOT / "bin" / "tidewatch"), "stream", "status"], env=stack.env, text=True, capture_output=True, check=False)
        worst = [line[:300] for name in ("flink_jobmanager", "flink_taskmanager", "committer", "superset", "supervisord")
                 for line in _matching(stack.settings.logs / f"{name}.log", (" ERROR ", ":ERROR:", " exited: ", " spawned: ", " gave up: ", "Job tidewatch ", " to FAILED"))[-8:]]
        # why a worker that was started again is not let in
        worst += [line[:300] for name in ("flink_jobmanager", "flink_taskmanager")
                  for line in _matching(stack.settings.logs / f"{name}.log", ("egist", "quarantine", "ssociation"))[-12:]]
        report.sections.append(("the stream when it failed", "\n".join([_tail(done, 20), *worst])))
    return report


def _matching(log: Path, words: tuple[str, ...]) -> list[str]:
    """A log's lines with one of the words, each after the log's name."""
    if not log.exists():
        return []
    return [f"{log.stem}: {line}" for line in log.read_text(errors="replace").splitlines() if any(w in line for w in words)]


def _tail(done: subprocess.CompletedProcess[str], lines: int) -> str:
    return "\n".join((done.stdout + done.stderr).splitlines()[-lines:])


@dataclass(frozen=True)
class Stack:
    """A running stack: its settings, and how to call its command line."""

    settings: Settings
    env: dict[str, str]

    def run(self, *arguments: str, check: bool = True, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """One `tidewatch` command; its output goes to the test's log, an error fails the test with it."""
        done = subprocess.run([str(ROOT / "bin" / "tidewatch"), *arguments], env=self.env, text=True, timeout=timeout,
                              capture_output=True, check=False)
        print(f"$ tidewatch {' '.join(arguments)}\n{_tail(done, 12)}")
        if check and done.returncode:
            pytest.fail(f"`tidewatch {' '.join(arguments)}` exited with {done.returncode}:\n{_tail(done, 60)}")
        return done

    def python(self, group: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One Python program in a component's environment."""
        done = subprocess.run([str(self.settings.env_python(group)), *arguments], env=self.env, cwd=ROOT, text=True,
                              timeout=900, capture_output=True, check=False)
        print(f"$ python {' '.join(arguments)}\n{_tail(done, 12)}")
        if check and done.returncode:
            pytest.fail(f"`{' '.join(arguments)}` exited with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
        return done


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole stack after one small `tidewatch demo`.

    `TIDEWATCH_TEST_STACK=1` uses the stack that the settings name and that is already up, and leaves it running.
    """
    if os.environ.get("TIDEWATCH_TEST_STACK"):
        yield Stack(load(), {**os.environ, "PYTHONPATH": str(ROOT)})
        return
    main = load()
    folder = Path(tempfile.mkdtemp(prefix="tidewatch-test-"))
    for shared in ("env", "jars"):
        (folder / shared).symlink_to(main.state_dir / shared)
    ports = Ports.free()
    # other tests set Airflow's variables for themselves
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}, "PYTHONPATH": str(ROOT), "TIDEWATCH_STATE_DIR": str(folder), "TIDEWATCH_PORTS": json.dumps(ports.model_dump()),
    }
    made = Stack(load(state_dir=folder, ports=ports), env)
    kept = Path(os.environ.get("TIDEWATCH_TEST_LOGS", main.state_dir / "test-logs"))
    try:
        made.run("demo", "--devices", "40", "--hours", "3", "--live-minutes", "40")
        yield made
    finally:
        made.run("down", check=False)
        shutil.rmtree(kept, ignore_errors=True)
        if made.settings.logs.exists():
            shutil.copytree(made.settings.logs, kept)
        shutil.rmtree(folder, ignore_errors=True)
