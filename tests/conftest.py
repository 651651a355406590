"""What tests share: one whole stack, started once on free ports with a state folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tidewatch.settings import ROOT, Ports, Settings, load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of the stack also waits for it to start; the test that takes it down comes last."""
    for item in items:
        if item.get_closest_marker("stack"):
            item.add_marker(pytest.mark.timeout(3600))
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@dataclass(frozen=True)
class Stack:
    """A running stack: its settings, and how to call its command line."""

    settings: Settings
    env: dict[str, str]

    def run(self, *arguments: str, check: bool = True, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """One `tidewatch` command; its output goes to the test's log, an error fails the test with it."""
        done = subprocess.run([str(ROOT / "bin" / "tidewatch"), *arguments], env=self.env, text=True, timeout=timeout,
                              capture_output=True, check=False)
        print(f"$ tidewatch {' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
        if check and done.returncode:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
            pytest.fail(f"`tidewatch {' '.join(arguments)}` exited with {done.returncode}:\n{tail}")
        return done

    def python(self, group: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One Python program in a component's environment."""
        done = subprocess.run([str(self.settings.env_python(group)), *arguments], env=self.env, cwd=ROOT, text=True,
                              timeout=900, capture_output=True, check=False)
        print(f"$ python {' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
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
