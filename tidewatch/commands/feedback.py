"""`tidewatch feedback`: say of an alert whether it was right; the next training takes it into account."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from tidewatch.settings import current


def feedback(
    alert: Annotated[str, typer.Argument(help="the alert's id, as `tidewatch alerts --json` and the alert table show it")],
    verdict: Annotated[str, typer.Argument(help="true, false, or benign: it happened and is nothing to act on")],
    note: Annotated[str, typer.Option(help="why")] = "",
    analyst: Annotated[str, typer.Option(help="who says so; by default who is logged in")] = "",
    publish: Annotated[bool, typer.Option(help="tell the dashboards too, through Kafka")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print the marks as JSON")] = False,
) -> None:
    """Mark an alert as true, false or benign, in place of an earlier mark; with a group its members' alerts."""
    from tidewatch import feedback as marks

    rows = marks.mark(current(), alert, verdict, analyst=analyst or getpass.getuser(), note=note, at=datetime.now(UTC), publish=publish)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        print(marks.told(rows))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(feedback)
