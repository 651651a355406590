"""`tidewatch install|up|down|status|logs|doctor|config`: the servers and what they stand on."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tidewatch.errors import ServiceError, SettingsError
from tidewatch.settings import current
from tidewatch.stack import control, supervisor, table
from tidewatch.stack import doctor as doctor_
from tidewatch.stack import install as install_

Json = Annotated[bool, typer.Option("--json", help="print JSON for a script")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[SERVICE]...", help="only these, with what they need; all if none is named")]
console = Console(highlight=False)


def _say() -> Callable[[str], None]:
    """Prints whole lines, also when several services report at once."""
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            print(line, flush=True)

    return say


def install() -> None:
    """Install every component's environment and jars, as pinned; does nothing where the pins have not changed."""
    settings = current()
    begin = time.monotonic()
    control.writable(settings)
    install_.install(settings, _say())
    print(f"installed in {settings.state_dir} ({time.monotonic() - begin:.0f} s)")


def up(services: Names = None) -> None:
    """Start servers and wait until they serve. What already runs is kept."""
    control.up(current(), services or (), _say())


def down(services: Names = None) -> None:
    """Stop servers and everything that needs them; without names everything, leaving no process behind."""
    control.down(current(), services or (), _say())


def status(as_json: Json = False) -> None:
    """Show every server: state, pid, uptime, memory with its children, address."""
    found = control.status(current())
    if as_json:
        print(json.dumps([s.as_dict() for s in found], indent=1))
        return
    shown = Table("service", "state", "pid", "up", "MB", "address", box=None, pad_edge=False)
    colours = {"ready": "green", "starting": "yellow", "failed": "red", "stopped": "dim"}
    for s in found:
        shown.add_row(s.service, f"[{colours[s.state]}]{s.state}[/]", str(s.pid or ""), _duration(s.uptime_s), str(s.memory_mb or ""), s.url)
    console.print(shown)
    console.print(f"{sum(s.state == 'ready' for s in found)} of {len(found)} ready, {sum(s.memory_mb or 0 for s in found):,} MB in all")


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return ""
    minutes, hours = seconds // 60, seconds // 3600
    return f"{seconds} s" if minutes < 2 else f"{minutes} min" if hours < 2 else f"{hours} h"


def logs(
    service: Annotated[str, typer.Argument(help="a service, or `supervisord`")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="how many of the last lines")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on with new lines until Ctrl-C")] = False,
) -> None:
    """Show a server's log."""
    settings = current()
    if service != "supervisord":
        control.chosen(table(settings), [service])
    path = supervisor.log_file(settings, service)
    if not path.exists():
        raise ServiceError(f"{service} has not written anything yet.", f"start it: `tidewatch up {service}`")
    if follow:
        sys.stdout.flush()
        os.execvp("tail", ["tail", "-n", str(lines), "-F", str(path)])
    for line in control.tail(path, lines):
        print(line)


def doctor(as_json: Json = False) -> None:
    """Look at this machine: what is missing for Tidewatch, and how to mend it. Exit code 1 if something serious is."""
    found = doctor_.examine(current())
    if as_json:
        print(json.dumps([f.as_dict() for f in found], indent=1))
    else:
        for f in found:
            mark = "[green]ok  [/]" if f.ok else "[red]bad [/]" if f.serious else "[yellow]weak[/]"
            console.print(mark, f"{f.what}:", end=" ")
            console.print(f.seen, markup=False)
            if f.fix:
                console.print(f"      fix: {f.fix}", markup=False)
    if any(not f.ok and f.serious for f in found):
        raise typer.Exit(1)


def config(
    as_json: Json = False,
    key: Annotated[str, typer.Argument(help="one setting, e.g. ports.kafka; all if none is named")] = "",
) -> None:
    """Show the effective settings; a password in an address is not shown."""
    tree: Any = _hidden(current().model_dump(mode="json"))
    for part in key.split(".") if key else ():
        if not isinstance(tree, dict) or part not in tree:
            raise SettingsError(f"there is no setting {key!r}.", "`tidewatch config` lists them")
        tree = tree[part]
    if as_json:
        print(json.dumps(tree, indent=1))
        return
    for name, value in _flat(key, tree):
        print(f"{name} = {value if isinstance(value, str) and key else json.dumps(value)}" if name != key else value)


def _hidden(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _hidden(v) for k, v in tree.items()}
    if isinstance(tree, str):
        return re.sub(r"(://[^/@]*?):[^/]*@", r"\1:…@", tree)
    return tree


def _flat(prefix: str, tree: Any) -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [pair for k, v in tree.items() for pair in _flat(f"{prefix}.{k}" if prefix else k, v)]
    return [(prefix, tree)]


def register(app: typer.Typer) -> None:
    for command in (install, up, down, status, logs, doctor, config):
        app.command()(command)
