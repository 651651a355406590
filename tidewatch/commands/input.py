"""`tidewatch generate` and `tidewatch replay`: events into the stack."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from tidewatch.errors import InputError
from tidewatch.settings import Settings, current

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str, now: datetime) -> int:
    """A time as UTC milliseconds: ISO 8601, `now`, or before and after now as in -2d, -90m, +1h."""
    relative = re.fullmatch(r"([+-])(\d+(?:\.\d+)?)([smhd])", text)
    if text == "now":
        at = now
    elif relative:
        sign, number, unit = relative.groups()
        span = timedelta(**{UNITS[unit]: float(number)})
        at = now - span if sign == "-" else now + span
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(f"{text!r} is not a time.", "write 2026-11-23T14:00:00Z, now, or -90m, -2d") from None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)


def pace(text: str) -> float | None:
    """Event seconds a second; None: as fast as it goes."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if speed <= 0:
        raise InputError(f"--speed {text}: not a speed.", "give a number above 0 (1 is real time) or max")
    return speed


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Ctrl-C and TERM end a run after its current round instead of in the middle of it; a second one ends it at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    old = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


@contextmanager
def _progress(title: str, start_ms: int, end_ms: int | None) -> Iterator[Callable[[Any], None]]:
    """A bar on the terminal, or a line every ten seconds where there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)

    def words(sent: Any) -> str:
        return f"{sent.records:,} events ({sent.records / max(sent.seconds, 1e-3):,.0f}/s), event time {iso(sent.until_ms)}"

    if not console.is_terminal:
        last = time.monotonic()

        def line(sent: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= 10:
                last = time.monotonic()
                console.print(f"{title}: {words(sent)}", soft_wrap=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=(end_ms - start_ms) if end_ms else None, words="")
        yield lambda sent: bar.update(task, completed=sent.until_ms - start_ms, words=words(sent))


def _report(content: dict[str, Any], as_json: bool, stopped: bool) -> None:
    if as_json:
        typer.echo(json.dumps(content, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    topics = content["topics"]
    table = Table("", *topics, title=f"{iso(content['start_ms'])} to {iso(content['end_ms'])}" + (" (stopped)" if stopped else ""))
    for name in ("records", "unique", "duplicates", "malformed", "impossible", "unknown_device", "late"):
        table.add_row(name.replace("_", " "), *(f"{t.get(name, 0):,}" for t in topics.values()))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    rate = content["produced_total"] / max(content["seconds"], 1e-3)
    console.print(f"{content['produced_total']:,} events in {content['seconds']:.1f} s ({rate:,.0f}/s), {content['labels']} labels.")
    console.print(f"The truth about them: {content['manifest']}")


def _incident(text: str, now: datetime) -> tuple[str, str, int, int]:
    """KIND:DEVICE:MINUTES:START as kind, device, start and end."""
    parts = text.split(":", 3)
    try:
        kind, device, minutes, start = parts
        start_ms = moment(start, now)
        return kind, device, start_ms, start_ms + int(float(minutes) * 60_000)
    except ValueError:
        raise InputError(f"--incident {text}: not an incident.", "write KIND:DEVICE:MINUTES:START, as in flood:server-0001:15:-2h") from None


def generate(
    start: Annotated[str, typer.Option(help="first event time: 2026-11-23T14:00:00Z, now, -2d, -90m")] = "-1h",
    end: Annotated[str, typer.Option(help="end of event time (not included); with --live: none")] = "now",
    devices: Annotated[int, typer.Option(min=1, help="devices in the network")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same network and the same events")] = 7,
    flows: Annotated[float, typer.Option(min=0.01, help="flows a device sends in a minute, on average")] = 6.0,
    period: Annotated[float, typer.Option(min=0.1, help="seconds between two readings of a metric")] = 30.0,
    speed: Annotated[str, typer.Option(help="event seconds a second, or max")] = "max",
    live: Annotated[bool, typer.Option("--live", help="catch up from --start, then follow the clock until stopped")] = False,
    incidents: Annotated[str, typer.Option(help="none; few: one of each kind a day; all: two of each kind in six hours, at least two")] = "few",
    incidents_from: Annotated[str, typer.Option(help="incidents only after this time; '': --start")] = "",
    incidents_to: Annotated[str, typer.Option(help="incidents only before this time; '': --end")] = "",
    incident: Annotated[list[str] | None, typer.Option(help="one more incident, KIND:DEVICE:MINUTES:START; repeatable")] = None,
    malformed: Annotated[float, typer.Option(min=0, max=1, help="share of records that are no Avro, and as many impossible ones")] = 5e-5,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="share of events sent twice")] = 0.001,
    late: Annotated[float, typer.Option(min=0, max=0.5, help="share of events later than the stream waits")] = 0.001,
    as_json: Annotated[bool, typer.Option("--json", help="print what was sent as JSON")] = False,
) -> None:
    """Send the events of a made-up network, with labelled incidents, faults and all.

    The truth about what was sent (counts, checksums, labels) is kept in the state folder and in gold/labels.
    """
    from tidewatch.inputs import generate as g
    from tidewatch.inputs import incidents as i
    from tidewatch.inputs import labels, network, send

    settings, now = current(), datetime.now(UTC)
    start_ms = moment(start, now)
    # following the clock has no end unless one is given
    end_ms = None if live and end == "now" else moment(end, now)
    if end_ms is not None and end_ms <= start_ms:
        raise InputError(f"--end {iso(end_ms)} is not after --start {iso(start_ms)}.", "give an earlier --start or a later --end")
    rate = pace(speed)
    if incidents not in ("none", "few", "all"):
        raise InputError(f"--incidents {incidents}: unknown.", "one of: none, few, all")
    net = network.network(devices, flows, seed)
    named = {n: d for d, n in enumerate(net.names)}
    given = []
    for text in incident or ():
        kind, device, a, b = _incident(text, now)
        if device not in named:
            raise InputError(f"--incident {text}: there is no device {device!r}.", f"the first devices are {', '.join(net.names[:5])}")
        given.append(i.Incident(named[device], kind, a, b))
    planned = list(i.checked(net, given))
    first = max(start_ms, moment(incidents_from, now) if incidents_from else start_ms)
    last = moment(incidents_to, now) if incidents_to else end_ms
    if last is not None and end_ms is not None:
        last = min(last, end_ms)
    each_hours = {"few": 24.0, "all": 3.0}.get(incidents, 0.0)
    least = 2 if incidents == "all" else 1
    block = timedelta(hours=max(each_hours * least, 1)) // timedelta(milliseconds=1)
    planned_until = first
    if each_hours and last is not None:
        if last <= first:
            raise InputError("--incidents-to is not after --incidents-from.", "give a later time")
        each = max(least, round((last - first) / 3_600_000 / each_hours))
        planned += i.plan(net, first, last, each, beside=tuple(planned))
    generator = g.Generator(
        net, start_ms, end_ms, planned, g.Faults(late=late, duplicates=duplicates, malformed=malformed, impossible=malformed),
        int(period * 1000), settings.stream.lateness // timedelta(milliseconds=1),
    )
    content: dict[str, Any] = {"run": f"generate-{now:%Y%m%dT%H%M%S}-{seed}", "seed": seed, "devices": devices, "flows": flows, "period": period}

    def save(sent: Any, finished: bool) -> None:
        happened = i.labels(net, planned, sent.until_ms)
        if not finished:
            happened = [row for row, one in zip(happened, [p for p in planned if p.start_ms < sent.until_ms], strict=True) if one.end_ms <= sent.until_ms]
        labels.write_labels(settings, happened)
        content.update(sent.as_dict(), finished=finished, labels=len(happened))
        path = send.write_manifest(settings, content["run"], content)
        content["manifest"] = str(path)

    saved = time.monotonic()

    def before(until_ms: int) -> None:
        nonlocal planned_until
        # without an end, incidents are planned block by block
        while each_hours and last is None and planned_until < until_ms + generator.cell_ms:
            planned.extend(i.plan(net, planned_until, planned_until + block, least, beside=tuple(planned)))
            planned_until += block

    rows = network.inventory(net, start_ms)
    rhythm = g.expected_rate(net, generator.period_ms)
    # enough events a round to be worth the trouble, but never much event time between the two topics
    step_ms = int(min(30.0, max(0.2, 8000 / rhythm)) * 1000)
    with send.Kafka(settings, ("flow", "reading", "devices")) as kafka, _stoppable() as stop:
        labels.write_devices(settings, rows)
        kafka.send(labels.parcel_of_devices(rows))
        kafka.flush()
        with _progress("generate", start_ms, end_ms) as show:

            def after(sent: Any) -> None:
                nonlocal saved
                show(sent)
                if live and time.monotonic() - saved > 60:
                    saved = time.monotonic()
                    save(sent, finished=False)

            sent = send.drive(generator, kafka.send, kafka.flush, start_ms=start_ms, end_ms=end_ms, step_ms=step_ms, speed=rate,
                              live=live, stop=stop, before=before, after=after)
        save(sent, finished=True)
    _report(content, as_json, stop.is_set())


def replay(
    folder: Annotated[Path, typer.Argument(help="folder of a labelled set, with set.json")],
    split: Annotated[str, typer.Option(help="train, test or all")] = "all",
    start: Annotated[str, typer.Option("--from", help="only events from this time on, after any shift; '': from the first")] = "",
    end: Annotated[str, typer.Option("--to", help="only events before this time, after any shift; '': to the last")] = "",
    speed: Annotated[str, typer.Option(help="event seconds a second, or max")] = "max",
    shift_to: Annotated[str, typer.Option(help="move the first event to this time; '': keep the times of the set")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print what was sent as JSON")] = False,
) -> None:
    """Send real labelled data through the same topics; its labels go to gold/labels, never into an event."""
    from tidewatch.inputs import labels, replay, send

    settings, now = current(), datetime.now(UTC)
    if split not in ("train", "test", "all"):
        raise InputError(f"--split {split}: unknown.", "one of: train, test, all")
    rate = pace(speed)
    found = replay.load(folder, split, moment(shift_to, now) if shift_to else None)  # type: ignore[arg-type]
    if start or end:
        found = replay.between(found, moment(start, now) if start else None, moment(end, now) if end else None)
    _warn_inside(replay.differing_inside(found, settings), found.name)
    _warn_past(settings, found.name, found.start_ms, now)
    content: dict[str, Any] = {"run": f"replay-{now:%Y%m%dT%H%M%S}-{found.name}", "set": found.name, "split": split}
    step_ms = max(1000, int((found.end_ms - found.start_ms) * 20_000 / found.events))
    with send.Kafka(settings, (*found.columns, "devices")) as kafka, _stoppable() as stop:
        labels.write_devices(settings, found.devices)
        kafka.send(labels.parcel_of_devices(found.devices))
        with _progress(f"replay {found.name}", found.start_ms, found.end_ms) as show:
            sent = send.drive(replay.Replay(found), kafka.send, kafka.flush, start_ms=found.start_ms, end_ms=found.end_ms,
                              step_ms=step_ms, speed=rate, stop=stop, after=show)
        happened = [row for row in found.labels if row["start"] < sent.until_ms]
        labels.write_labels(settings, happened)
        content.update(sent.as_dict(), finished=True, labels=len(happened))
        content["manifest"] = str(send.write_manifest(settings, content["run"], content))
    _report(content, as_json, stop.is_set())


def _warn_inside(setting: str, name: str) -> None:
    if setting:
        typer.echo(f"warning: networks that count as inside in {name} count as outside here; restart the stream with\n  {setting}", err=True)


def _warn_past(settings: Settings, name: str, start_ms: int, now: datetime) -> None:
    oldest = now - settings.limits.max_past
    if start_ms < oldest.timestamp() * 1000:
        typer.echo(f"warning: {name} starts at {iso(start_ms)}, before what limits.max_past allows: give --shift-to", err=True)


def register(app: typer.Typer) -> None:
    app.command()(generate)
    app.command()(replay)


