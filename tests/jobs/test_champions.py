"""The table `models`: a record of any instant is stored, and stored once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobs import champions
from tidewatch import settings

NOW = datetime(2026, 3, 2, 12, 0, 0, 123_456, tzinfo=UTC)
"""To the microsecond, as the clock gives it; the table and the topic have milliseconds."""


def test_a_record_of_now_is_stored_once(tmp_path: Path) -> None:
    s = settings.load(state_dir=tmp_path)

    def record(version: str, shadow: tuple[str, str] = ("", ""), at: datetime = NOW) -> None:
        champions.record(s, use_case="leak", version=version, valid_from=at, uri="http://m", promoted_at=at, reason="won", publish=False, shadow=shadow)

    record("1", at=NOW - timedelta(seconds=1))
    record("2", ("1", "http://n"))
    record("2", ("3", "http://o"))
    found = champions.records(s, "leak")
    assert [(r["version"], r["valid_from"]) for r in found] == [("1", 1_772_452_799_123), ("2", 1_772_452_800_123)]
    assert champions.shadow(s, "leak") == ("1", "http://n"), "the same version and moment again changes nothing"


def test_a_record_comes_after_all_that_are_known() -> None:
    known = [{"valid_from": 5000}, {"valid_from": 9000}, {"valid_from": 7000}]
    soonest = datetime(1970, 1, 1, 0, 0, 9, 1000, tzinfo=UTC)
    assert champions.after(known) == champions.after(known, soonest - timedelta(seconds=1)) == soonest
    assert champions.after(known, NOW) == champions.after([], NOW) == NOW
