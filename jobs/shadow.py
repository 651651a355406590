"""Shadow: a challenger scores the live stream beside the champion, raises no alert, and their disagreement is a chart.

The stream is told by the topic `models`, in the champion's own record, and follows without a restart. `--version off` ends it.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from tidewatch.detectors import of_use_case
from tidewatch.errors import InputError
from tidewatch.settings import Settings

from jobs import champions, cli, registry

OFF = "off"


def put(settings: Settings, use_case: str, number: str, valid_from: datetime | None, at: datetime, *, publish: bool) -> dict[str, Any]:
    """Let a version score beside the champion, or none (`off`); raises InputError if it cannot.

    Without `valid_from` it holds right after the newest record: one of the present hour would hide a promotion of the last cycle.
    """
    c = registry.client(settings)
    champions.repair(settings, c, use_case, publish=publish)
    present = registry.champion(c, use_case)
    known = champions.records(settings, use_case)
    if present is None or not known:
        raise InputError(f"{use_case}: there is no champion beside which to score.", "promote one first: `tidewatch dag trigger retrain`")
    before = known[-1]["shadow_version"]
    beside = ("", "")
    if number != OFF:
        v = registry.version(c, use_case, number)
        if str(v.version) == str(present.version):
            raise InputError(f"{use_case}: version {number} is the champion.", "name another version: `tidewatch model list`")
        if why := registry.flaw(settings, c, v, of_use_case(use_case)):
            raise InputError(f"{use_case}: version {number} cannot score the stream: {why}.", "name another version, or train again")
        beside = (str(v.version), registry.uri(settings, c, v))
    done = {"champion": str(present.version), "shadow": beside[0], "before": before}
    if beside[0] == before:
        if publish:
            champions.resend(settings, known[-1])
        return done
    moment = champions.after(known, valid_from)
    champions.record(
        settings, use_case=use_case, version=str(present.version), valid_from=moment, uri=registry.uri(settings, c, present), promoted_at=at, publish=publish,
        reason=champions.BESIDE + (f"version {beside[0]} scores beside it" if beside[0] else f"version {before} scores beside it no more"), shadow=beside,
    )
    registry.mark_shadow(c, use_case, beside[0], f"since {cli.iso(at)}")
    cli.say(f"{use_case}: {'version ' + beside[0] if beside[0] else 'nobody'} scores beside version {present.version} from {cli.iso(moment)} on")
    return {**done, "valid_from": cli.iso(moment)}


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    cases = cli.use_cases(options)
    if options.version != OFF and len(cases) != 1:
        raise InputError("a version belongs to one use case.", "give --use-case with --version")
    with cli.one_at_a_time(settings, "promotion"):
        done = {u: put(settings, u, options.version, options.valid_from, options.at, publish=not options.no_publish) for u in cases}
    return {"job": "shadow", "models": done}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__, start=False, end=False)
    cli.use_case(p)
    p.add_argument("--version", required=True, help="the version that is to score beside the champion, or off")
    p.add_argument("--at", type=cli.moment, default=datetime.now(UTC), help="when this is said to happen (default: now)")
    p.add_argument("--valid-from", type=cli.moment, help="event time from which the stream does so (default: at once)")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
