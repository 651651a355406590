"""What is kept quiet: planned maintenance from the settings and snoozes that a person adds, as rules that the stream reads.

A rule suppresses windows; nothing is dropped: a suppressed alert is stored with the rule's name in `suppressed_by`.
`publish` writes all rules to the compacted topic `quiet`, one record a use case; the stream's `SuppressedBy` matches them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tidewatch import outage
from tidewatch.detectors import USE_CASES, all_detectors
from tidewatch.errors import InputError
from tidewatch.settings import Maintenance, Settings
from tidewatch.tables import QUIET, SNOOZES

FOREVER = 2**53
"""A moment that no event reaches, in milliseconds; whole in every JSON reader."""


@dataclass(frozen=True)
class Rule:
    """Windows of matching detectors and devices that overlap its time are quiet."""

    rule: str
    """Its name: `maintenance:NAME`, `snooze:ID` or `outage:…`."""
    use_case: str = "*"
    detector: str = "*"
    """This and the next three are patterns: `*` any text, `?` any character, `,` between alternatives."""
    device: str = "*"
    kind: str = "*"
    site: str = "*"
    from_ms: int = 0
    until_ms: int = FOREVER
    days: tuple[int, ...] = ()
    """Of weekly hours: 1 Monday to 7 Sunday; empty with `begins`: there are none."""
    begins: str | None = None
    ends: str | None = None
    zone: str | None = None


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def planned(window: Maintenance) -> Rule:
    """The rule of a maintenance window."""
    weekly = (tuple(window.weekdays()), window.begins.isoformat(), window.ends.isoformat(), window.zone) if window.begins and window.ends else ()
    return Rule(
        f"maintenance:{window.name}", window.use_case, window.detector, window.device, window.kind, window.site,
        _ms(window.start) if window.start else 0, _ms(window.end) if window.end else FOREVER,
        *weekly,
    )


def listed(settings: Settings, *, ended_before_ms: int = 0) -> list[dict[str, Any]]:
    """The snoozes (rows of the table `snoozes`) that end after a moment, oldest first."""
    from jobs import lake

    rows = [r for r in lake.read(settings, SNOOZES) if r["until"] > ended_before_ms]
    return sorted(rows, key=lambda r: (r["from"], r["rule"]))


def rules(settings: Settings) -> list[Rule]:
    """Every rule: planned windows first, then snoozes."""
    snoozed = [
        Rule(r["rule"], r["use_case"], r["detector"], r["device"], r["kind"], r["site"], r["from"], r["until"]) for r in listed(settings)
    ]
    return [*map(planned, settings.maintenance), *snoozed]


def records(found: Sequence[Rule]) -> list[dict[str, Any]]:
    """The rows of the topic `quiet`: one a use case with the rules that concern it, as JSON text."""
    return [
        {"use_case": u, "valid_from": 0, "rules": json.dumps([asdict(r) for r in found if r.use_case in ("*", u)])} for u in USE_CASES
    ]


def publish(settings: Settings) -> int:
    """Tell the stream every rule; how many there are. Raises ServiceError without Kafka."""
    from jobs import topics

    found = rules(settings)
    topics.publish(settings, QUIET, records(found), "use_case", "valid_from")
    return len(found)


def add(
    settings: Settings, *, since_ms: int, until_ms: int, reason: str, who: str, use_case: str = "*", detector: str = "*",
    device: str = "*", kind: str = "*", site: str = "*", rule: str = "", publish_: bool = True,
) -> dict[str, Any]:
    """Keep a snooze, in place of one of the same name; its row.

    Raises InputError for an unknown use case or detector, or a time that ends before it begins; ServiceError without Kafka.
    """
    from jobs import lake

    known = [d.name for d in all_detectors()]
    for words, possible, what in (([use_case], USE_CASES, "use case"), (detector.split(","), [*known, outage.DETECTOR], "detector")):
        wrong = next((w for w in words if w not in ("*", *possible)), None)
        if wrong is not None:
            raise InputError(f"there is no {what} {wrong!r}.", f"one of: {', '.join(possible)}")
    if until_ms <= since_ms:
        raise InputError("the snooze ends before it begins.", "give a later --until")
    rule = rule or f"snooze:{secrets.token_hex(3)}"
    row = {
        "rule": rule, "use_case": use_case, "detector": detector, "device": device, "kind": kind,
        "site": site, "from": since_ms, "until": until_ms, "reason": reason, "who": who, "added_at": _ms(datetime.now(UTC)),
    }
    lake.replace(settings, SNOOZES, [row], _named(rule))
    if publish_:
        publish(settings)
    return row


def remove(settings: Settings, rule: str, *, publish_: bool = True) -> None:
    """End a snooze: what comes after is told again. Raises InputError if there is none of that name, ServiceError without Kafka."""
    from deltalake import DeltaTable

    if rule not in {r["rule"] for r in listed(settings)}:
        raise InputError(f"there is no snooze {rule!r}.", "`tidewatch snooze list` shows them; maintenance windows are settings")
    DeltaTable(str(SNOOZES.path(settings))).delete(_named(rule))
    if publish_:
        publish(settings)


def _named(rule: str) -> str:
    return "rule = '" + rule.replace("'", "''") + "'"
