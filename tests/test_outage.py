"""Outages are told by the wall clock from when sources' newest events came."""

from __future__ import annotations

import pytest

from tidewatch import outage
from tidewatch.outage import EVERYTHING, Outage

AFTER = 180_000
T = 1_795_474_800_000


def step(held: list[Outage], newest: dict[str, int], now: int, since: int = -10_000_000) -> list[tuple[str, int, int, str]]:
    """Times in milliseconds after T."""
    told = outage.step({o.source: o for o in held}, {s: T + at for s, at in newest.items()}, T + since, T + now, AFTER)
    return [(o.source, o.start - T, o.end - T, o.status) for o in told]


def held(source: str, start: int, end: int) -> Outage:
    return Outage(source, T + start, T + end)


def test_nothing_from_any_source_is_one_outage() -> None:
    assert step([], {"flow": 0, "reading": 5_000}, 185_000) == []
    assert step([], {"flow": 0, "reading": 5_000}, 185_001) == [(EVERYTHING, 5_000, 185_001, "open")]


def test_nothing_from_one_source_is_its_own() -> None:
    assert step([], {"flow": 0, "reading": 180_000}, 181_000) == []
    assert step([], {"flow": 0, "reading": 180_001}, 181_000) == [("flow", 0, 181_000, "open")]
    # and stays so when the other stops, too
    assert step([held("flow", 0, 181_000)], {"flow": 0, "reading": 180_001}, 361_000) == [(EVERYTHING, 180_001, 361_000, "open")]


def test_a_source_that_never_sent_is_not_out() -> None:
    assert step([], {}, 10**9) == []
    assert step([], {"flow": 0}, 1_000) == []


def test_an_outage_is_told_again_while_it_lasts_and_closed_with_the_first_event() -> None:
    one = held(EVERYTHING, 0, 181_000)
    assert step([one], {"flow": 0}, 480_000) == []
    assert step([one], {"flow": 0}, 481_000) == [(EVERYTHING, 0, 481_000, "open")]
    assert step([one], {"flow": 490_000}, 491_000) == [(EVERYTHING, 0, 490_000, "closed")]
    # also when it was out again before anybody looked: that is another one, told once it has lasted
    assert step([one], {"flow": 300_000}, 490_000) == [(EVERYTHING, 0, 300_000, "closed")]


def test_what_kafka_has_deleted_ends_no_outage() -> None:
    assert step([held(EVERYTHING, 0, 181_000)], {}, 481_000) == [(EVERYTHING, 0, 481_000, "open")]


def test_nobody_watched_before_the_start() -> None:
    """After a night with everything off, sources have as long to begin as an outage takes."""
    assert step([], {"flow": 0}, 36_000_000, since=35_900_000) == []
    assert step([], {"flow": 0}, 36_080_001, since=35_900_000) == [(EVERYTHING, 0, 36_080_001, "open")]


@pytest.mark.parametrize(("found", "words"), [
    (Outage("", T, T + 60_000), "the last event came at 2026-11-23 23:00:00 UTC, and none until 2026-11-23 23:01:00 UTC"),
    (Outage("flow", T, T + 60_000, "closed"), "when events came again"),
])
def test_an_outage_says_since_when(found: Outage, words: str) -> None:
    assert words in found.row()["reason"]
    assert found.row()["alert_id"] == f"silent:outage:{found.source}:{T}"


def test_the_devices_own_silence_is_quiet_while_nothing_comes_from_any() -> None:
    open_, closed = (outage.rule(Outage("", T, T + 60_000, s)) for s in ("open", "closed"))
    assert open_["rule"] == closed["rule"] == f"silent:outage::{T}"
    assert closed["since_ms"] < T and T + 60_000 < closed["until_ms"] < open_["until_ms"]
