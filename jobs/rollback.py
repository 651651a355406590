"""Rollback: an earlier version becomes champion again, by default the one before the present champion.

The version left is marked (tag `refused`, with when and for which): no later rollback goes back to it unless it is named. A
version that could not score today's signals is refused; one from before a detector leaves that detector's windows unscored, which is said.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from tidewatch import detectors
from tidewatch.errors import InputError
from tidewatch.settings import Settings

from jobs import champions, cli, registry


def rollback(settings: Settings, use_case: str, number: str, valid_from: datetime, at: datetime, *, publish: bool) -> dict[str, Any]:
    """Make a version champion again; raises InputError if there is none to go back to, or if the stream could not score with it."""
    c = registry.client(settings)
    champions.repair(settings, c, use_case, publish=publish)
    present = registry.champion(c, use_case)
    past = champions.history(settings, use_case)
    if not number:
        left = {str(v.version) for v in registry.versions(c, use_case) if registry.REFUSED in v.tags}
        earlier = [r["version"] for r in past if r["version"] not in left and (not present or r["version"] != str(present.version))]
        if not earlier:
            raise InputError(f"{use_case}: there is no champion before the present one{' that was not refused' if left else ''}.",
                             "name one with --version, or promote one first")
        number = earlier[-1]
    v = registry.version(c, use_case, number)
    if present and str(present.version) == str(v.version):
        return {"champion": number, "from": number, "reason": "it is the champion already"}
    known = detectors.of_use_case(use_case)
    if flaw := registry.flaw(settings, c, v, known):
        raise InputError(f"{use_case}: version {v.version} cannot score what the stream sees: {flaw}.", "name another one with --version, or train again")
    scored = registry.read(registry.uri(settings, c, v)).detectors
    unscored = [d.name for d in known if d.name not in scored]
    moment = champions.after(champions.records(settings, use_case), valid_from)
    reason = f"rolled back from version {present.version if present else 'none'}"
    address = champions.install(settings, c, v, use_case, valid_from=moment, at=at, reason=reason, publish=publish,
                                tags={"rolled_back": reason, "valid_from": cli.iso(moment)})
    if present:
        c.set_model_version_tag(v.name, present.version, registry.REFUSED, f"rolled back to version {v.version} at {cli.iso(at)}")
    if registry.REFUSED in v.tags:
        c.delete_model_version_tag(v.name, v.version, registry.REFUSED)
    cli.say(f"{use_case}: version {v.version} scores from {cli.iso(moment)} on, {reason}")
    if unscored:
        cli.say(f"{use_case}: version {v.version} does not know {', '.join(unscored)}: those windows are not scored until a newer one is promoted")
    return {"champion": str(v.version), "unscored": unscored, "from": str(present.version) if present else "", "reason": reason, "valid_from": cli.iso(moment), "uri": address}


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    cases = cli.use_cases(options)
    if options.version and len(cases) != 1:
        raise InputError("a version belongs to one use case.", "give --use-case with --version")
    with cli.one_at_a_time(settings, "promotion"):
        done = {u: rollback(settings, u, options.version, options.valid_from or options.at, options.at, publish=not options.no_publish) for u in cases}
    return {"job": "rollback", "models": done}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__, start=False, end=False)
    cli.use_case(p)
    p.add_argument("--version", default="", help="the version to go back to (default: the champion before the present one)")
    p.add_argument("--at", type=cli.moment, default=datetime.now(UTC), help="when the rollback is said to happen (default: now)")
    p.add_argument("--valid-from", type=cli.moment, help="event time from which the stream uses it (default: --at)")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
