"""The command line's frame: finds every module in `tidewatch/commands/` and turns errors into one red line."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Annotated

import typer
from rich.console import Console

from tidewatch import commands
from tidewatch.errors import TidewatchError

_debug = False


def build() -> typer.Typer:
    """The application with every command registered."""
    app = typer.Typer(
        name="tidewatch", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def frame(debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False) -> None:
        """Tidewatch tells which device of a network falls silent, leaks or lies."""
        global _debug
        _debug = debug

    for module in sorted(m.name for m in pkgutil.iter_modules(commands.__path__)):
        importlib.import_module(f"{commands.__name__}.{module}").register(app)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error a user can cause ends as one red line with its fix and exit code 1."""
    try:
        build()(arguments)
    except TidewatchError as e:
        if _debug:
            raise
        err = Console(stderr=True, highlight=False, soft_wrap=True)
        err.print(f"error: {e.reason}", style="bold red", markup=False)
        if e.fix:
            err.print(f"fix: {e.fix}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
