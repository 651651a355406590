"""What every job's command line shares: its window, its errors, and one line of JSON at the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from tidewatch import detectors
from tidewatch.errors import InputError, TidewatchError
from tidewatch.settings import Settings, current

Work = Callable[[Settings, argparse.Namespace], dict[str, Any]]


def moment(text: str) -> datetime:
    """An instant in ISO 8601; without an offset it is UTC. Raises argparse's error for anything else."""
    try:
        t = datetime.fromisoformat(text.strip().replace(" ", "T", 1))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in ISO 8601, for instance 2026-03-01T04:00:00Z") from None
    return (t if t.tzinfo else t.replace(tzinfo=UTC)).astimezone(UTC)


def iso(t: datetime) -> str:
    """An instant as text, UTC."""
    return t.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").replace(".000000Z", "Z")


def millis(t: datetime) -> int:
    """An instant as milliseconds since 1970."""
    return round(t.timestamp() * 1000)


def parser(doc: str | None, *, start: bool = True, end: bool = True) -> argparse.ArgumentParser:
    """A parser with the job's first line as its description and its window."""
    p = argparse.ArgumentParser(description=(doc or "").strip().splitlines()[0])
    if start:
        p.add_argument("--start", type=moment, required=True, help="start of the window, ISO 8601 UTC")
    if end:
        p.add_argument("--end", type=moment, required=True, help="end of the window, ISO 8601 UTC")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def use_case(p: argparse.ArgumentParser) -> None:
    """Adds `--use-case`, repeatable, `all` by default; read it with `use_cases(options)`."""
    p.add_argument("--use-case", action="append", choices=["all", *detectors.USE_CASES], help="repeatable; default all")


def use_cases(options: argparse.Namespace) -> tuple[str, ...]:
    """The use cases asked for, in the house's order."""
    asked = options.use_case or ["all"]
    return tuple(u for u in detectors.USE_CASES if "all" in asked or u in asked)


def publish(p: argparse.ArgumentParser) -> None:
    """Adds `--no-publish`."""
    p.add_argument("--no-publish", action="store_true", help="write the Delta table only, leave Kafka alone")


def say(text: str) -> None:
    """One line for the person watching; standard output ends with the JSON summary only."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def one_at_a_time(settings: Settings, what: str) -> Iterator[None]:
    """Jobs of this machine that do `what` one after the other; a job that is killed leaves nothing behind."""
    import fcntl

    folder = settings.state_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{what}.lock", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another job does {what.replace('_', ' ')} work: waiting for it")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def finite(value: Any) -> Any:
    """The value as JSON has it: a figure that is no number (NaN, infinite) is null.

    >>> finite({"recall": float("nan"), "n": [1, 2.5]})
    {'recall': None, 'n': [1, 2.5]}
    """
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(p: argparse.ArgumentParser, work: Work, arguments: list[str] | None = None) -> int:
    """Parse, work, print the summary; an error of the house is one red line and exit 1."""
    options = p.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        if hasattr(options, "start") and options.end <= options.start:
            raise InputError(f"the window ends at {iso(options.end)}, not after its start {iso(options.start)}.", "give --end after --start")
        summary = work(current(), options)
    except TidewatchError as e:
        if options.debug:
            traceback.print_exc()
        red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
        say(f"{red}{type(e).__name__}: {e.reason}{plain}" + (f" Fix: {e.fix}" if e.fix else ""))
        report = getattr(e, "summary", None)
        if report:
            print(json.dumps(finite(report), sort_keys=True, allow_nan=False), flush=True)
        return 1
    print(json.dumps(finite(summary), sort_keys=True, allow_nan=False), flush=True)
    return 0
