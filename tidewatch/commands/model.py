"""`tidewatch model`: the versions of the models, which of them scores, which beside it, and the way back."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidewatch.settings import current

app = typer.Typer(help="The models: versions, champions, and the way back.", no_args_is_help=True)
COLOURS = {"champion": "bold green", "shadow": "magenta", "refused": "red", "challenger": "cyan", "past": ""}

AsJson = Annotated[bool, typer.Option("--json", help="print JSON for a script")]


def _known(use_case: str) -> str:
    from tidewatch.detectors import USE_CASES
    from tidewatch.errors import InputError

    if use_case not in USE_CASES:
        raise InputError(f"there is no use case {use_case!r}.", f"one of: {', '.join(USE_CASES)}")
    return use_case


@app.command("list")
def list_(
    use_case: Annotated[str, typer.Argument(help="silent, leak or lie; all of them without")] = "",
    limit: Annotated[int, typer.Option("-n", min=1, help="how many versions of a use case, newest first; its champion always")] = 6,
    as_json: AsJson = False,
) -> None:
    """Show the versions: what they found in their back-test, which is champion, why the others are not."""
    from tidewatch import models
    from tidewatch.detectors import USE_CASES

    found = models.versions(current(), (_known(use_case),) if use_case else USE_CASES, limit)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(v) for v in found], indent=1))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    table = Table("use case", "version", "family", "trained until", "state", "detection", "false alerts\na device and day", "why", box=None, pad_edge=False)
    for v in found:
        colour = COLOURS[v.state]
        table.add_row(
            v.use_case, str(v.version), v.family, v.window_end[:16].replace("T", " "), f"[{colour}]{v.state}[/]" if colour else v.state,
            *(f"{v.figures[k]:.3g}" if k in v.figures else "" for k in ("detection", "false_alerts")), v.reason,
        )
    if found:
        console.print(table)
    else:
        console.print("no model was trained yet: `tidewatch dag trigger retrain`")


@app.command()
def rollback(
    use_case: Annotated[str, typer.Argument(help="silent, leak or lie")],
    version: Annotated[int | None, typer.Option(min=1, help="the version to go back to; without: the last champion that was not refused")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version champion again and mark the one that is left; the running stream follows."""
    from tidewatch import models

    done = models.rollback(current(), _known(use_case), version)
    if as_json:
        typer.echo(json.dumps(done))
    elif "valid_from" in done:
        print(f"{use_case}: version {done['champion']} is champion, {done['reason']}; it scores windows that end after {done['valid_from']}")
    else:
        print(f"{use_case}: version {done['champion']}: {done['reason']}")


@app.command()
def shadow(
    use_case: Annotated[str, typer.Argument(help="silent, leak or lie")],
    version: Annotated[str, typer.Argument(metavar="VERSION|off", help="the challenger that is to score beside the champion; off: none")],
    as_json: AsJson = False,
) -> None:
    """Let a challenger score the live stream beside the champion, without alerts; the dashboard Models shows where they disagree."""
    from tidewatch import models
    from tidewatch.errors import InputError

    if version != "off" and not version.isdigit():
        raise InputError(f"{version!r} is no version.", "give its number, or off")
    done = models.shadow(current(), _known(use_case), version)
    if as_json:
        typer.echo(json.dumps(done))
    else:
        print(f"{use_case}: {'version ' + done['shadow'] + ' scores' if done['shadow'] else 'nobody scores'} beside version {done['champion']}"
              + (f", windows that end after {done['valid_from']}" if "valid_from" in done and done["shadow"] else ""))


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="model")
