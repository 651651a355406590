"""`tidewatch snooze add|list|remove`: alerts that are to be kept quiet for a while."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tidewatch.commands.input import moment
from tidewatch.settings import current

app = typer.Typer(help="Keep alerts quiet for a while; they are stored and counted all the same.", no_args_is_help=True)


def _time(ms: int) -> str:
    from tidewatch.quiet import FOREVER

    return "open" if ms >= FOREVER else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _what(r: dict[str, Any]) -> str:
    given = [f"{name.replace('_', ' ')} {r[name]}" for name in ("use_case", "detector", "device", "kind", "site") if r[name] != "*"]
    return ", ".join(given) or "everything"


@app.command()
def add(
    until: Annotated[str, typer.Option(help="event time until which it holds: +2h, +30m, +7d from now, or 2026-11-30T06:00 (UTC)")],
    reason: Annotated[str, typer.Option(help="why")],
    device: Annotated[str, typer.Option(help="pattern of devices: * any text, ? any character, commas between several")] = "*",
    use_case: Annotated[str, typer.Option(help="silent, leak or lie; * all")] = "*",
    detector: Annotated[str, typer.Option(help="name of a detector, or several with commas; * all")] = "*",
    kind: Annotated[str, typer.Option(help="pattern of the devices' kinds")] = "*",
    site: Annotated[str, typer.Option(help="pattern of the devices' sites")] = "*",
    since: Annotated[str, typer.Option("--from", help="event time from which it holds; a replay of old events needs theirs")] = "now",
    who: Annotated[str, typer.Option(help="who says so; by default who is logged in")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the snooze as JSON")] = False,
) -> None:
    """Keep quiet what matches all that is given; the stream knows within half a minute."""
    from tidewatch import quiet

    now = datetime.now(UTC)
    row = quiet.add(
        current(), since_ms=moment(since, now), until_ms=moment(until, now), reason=reason, who=who or getpass.getuser(),
        use_case=use_case, detector=detector, device=device, kind=kind, site=site,
    )
    print(json.dumps(row) if as_json else f"{row['rule']}: {_what(row)} is quiet until {_time(row['until'])} UTC")


@app.command(name="list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="those that have ended, too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for a script; times are UTC milliseconds")] = False,
) -> None:
    """Show the snoozes and maintenance windows, and how many alerts each has suppressed."""
    from tidewatch import alerts, quiet
    from tidewatch.errors import ServiceError

    settings = current()
    now = 0 if everything else round(datetime.now(UTC).timestamp() * 1000)
    snoozed = quiet.listed(settings, ended_before_ms=now)
    try:
        counts: dict[str, int] | None = alerts.suppressed(settings)
    except ServiceError:
        counts = None  # Pinot is down: the rules are shown all the same
    if as_json:
        planned = [m.model_dump(mode="json") for m in settings.maintenance]
        print(json.dumps({"snoozes": snoozed, "maintenance": planned, "suppressed": counts}, indent=1))
        return
    shown = Table("rule", "what", "from", "until", "suppressed", "reason", "who", box=None, pad_edge=False)

    def count(rule: str) -> str:
        return "?" if counts is None else str(counts.get(rule, 0))

    for r in snoozed:
        shown.add_row(r["rule"], _what(r), _time(r["from"]), _time(r["until"]), count(r["rule"]), r["reason"], r["who"])
    for m in settings.maintenance:
        weekly = f"{','.join(m.days)} {m.begins:%H:%M}-{m.ends:%H:%M} {m.zone}" if m.begins and m.ends else ""
        start, end = (f"{t.astimezone(UTC):%Y-%m-%d %H:%M}" if t else "" for t in (m.start, m.end))
        shown.add_row(f"maintenance:{m.name}", _what(m.model_dump()), f"{start} {weekly}".strip(), end, count(f"maintenance:{m.name}"), "planned", "settings")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    if shown.row_count:
        console.print(shown)
    else:
        console.print("nothing is kept quiet")


@app.command()
def remove(rule: Annotated[str, typer.Argument(help="the rule, as `tidewatch snooze list` shows it")]) -> None:
    """End a snooze before its time."""
    from tidewatch import quiet

    quiet.remove(current(), rule)
    print(f"{rule} is gone; what comes from now on is told again")


def register(root: typer.Typer) -> None:
    """Add the commands to the command line."""
    root.add_typer(app, name="snooze")
