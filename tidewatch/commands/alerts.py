"""`tidewatch alerts`: the incidents that were found, and how they compare with the labels."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tidewatch.alerts import EVERYONE
from tidewatch.settings import current

COLOURS = {"low": "cyan", "medium": "yellow", "high": "dark_orange", "critical": "bold red"}


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _compact(a: dict[str, Any]) -> tuple[str, ...]:
    where = a["device_id"] if a["device_id"] != EVERYONE else f"{a['members']} devices" if a["members"] else "all devices"
    where += f" · {a['metric']}" if a["metric"] else ""
    colour = COLOURS.get(a["severity"], "white")
    return (f"[{colour}]{a['severity']}[/]", a["use_case"], where, _time(a["start"]), _time(a["end"]), f"{a['score']:.2f}", a["title"], a["reason"])


def alerts(
    use_case: Annotated[str, typer.Option(help="silent, leak or lie")] = "",
    severity: Annotated[str, typer.Option(help="low, medium, high or critical")] = "",
    device: Annotated[str, typer.Option(help="one device")] = "",
    limit: Annotated[int, typer.Option(min=1, help="how many to show, newest first; JSON has all")] = 40,
    everything: Annotated[bool, typer.Option("--all", help="show the members of groups and what is suppressed, too; JSON has them anyway")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="compare with what is known to have happened")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for a script; times are UTC milliseconds")] = False,
    as_ocsf: Annotated[bool, typer.Option("--ocsf", help="print OCSF Detection Findings, one JSON document a line")] = False,
) -> None:
    """List the incidents that were found, newest first; times are UTC."""
    from tidewatch import alerts as found_
    from tidewatch.detectors import USE_CASES

    settings = current()
    found = found_.fetch(settings, use_case=use_case, severity=severity, device=device)
    known: list[dict[str, Any]] = []
    verdicts: tuple[found_.Verdict, ...] = ()
    if labels:
        known = [x for x in found_.labels(settings) if not device or x["device_id"] == device]
        # a severity says nothing about what happened: compared are all alerts of the device
        compared = found_.fetch(settings, use_case=use_case, device=device) if severity else found
        verdicts = found_.compare(compared, known, use_cases=(use_case,) if use_case else USE_CASES)
    if as_ocsf:
        from tidewatch import ocsf

        for a in found:
            if everything or found_.is_listed(a):
                typer.echo(json.dumps(ocsf.finding(a, "Close" if a["status"] == "closed" else "Create"), allow_nan=False))
        return
    if as_json:
        typer.echo(json.dumps({"alerts": found, **({"labels": [dataclasses.asdict(v) for v in verdicts]} if labels else {})}, indent=1))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    shown = Table("severity", "use case", "device", box=None, pad_edge=False)
    for name in ("start", "end", "score"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("what")
    shown.add_column("why")
    listed = [a for a in found if everything or found_.is_listed(a)]
    for a in listed[:limit]:
        shown.add_row(*_compact(a))
    if listed:
        console.print(shown)
    console.print(f"{len(listed)} alerts" + (f", the newest {limit} shown" if len(listed) > limit else ""))
    members = sum(bool(a["group_id"] and not a["suppressed_by"]) for a in found)
    quiet = Counter(a["suppressed_by"] for a in found if a["suppressed_by"])
    if members and not everything:
        console.print(f"{members} more are members of groups (--all shows them)")
    if quiet:
        console.print(f"{quiet.total()} {'of them ' if everything else 'more '}are suppressed: " + ", ".join(f"{n} by {rule}" for rule, n in quiet.most_common()))
    if labels and not known:
        console.print("nothing is labelled: right and wrong cannot be told")
    elif labels:
        against = Table("use case", "incidents", "found", "alerts", "right", "wrong", "median delay", title="against the labels", title_justify="left")
        for v in verdicts:
            against.add_row(v.use_case, str(v.incidents), str(v.found), str(v.alerts), str(v.right), str(v.wrong),
                            "" if v.delay_s is None else f"{v.delay_s:.0f} s")
        console.print(against)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(alerts)
