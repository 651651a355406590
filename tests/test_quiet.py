"""What is kept quiet: snoozes are kept and told, maintenance windows are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidewatch import quiet
from tidewatch.errors import InputError, SettingsError
from tidewatch.settings import Maintenance, Settings, load

HOUR = 3_600_000


def add(settings: Settings, **more: object) -> dict[str, object]:
    given = {"since_ms": 10 * HOUR, "until_ms": 12 * HOUR, "reason": "new firmware", "who": "ann", "publish_": False, **more}
    return quiet.add(settings, **given)  # type: ignore[arg-type]


def test_a_snooze_is_kept_until_it_is_removed(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    first = add(settings, device="cam-*", use_case="silent")
    second = add(settings, since_ms=0)
    assert [r["rule"] for r in quiet.listed(settings)] == [second["rule"], first["rule"]]
    assert quiet.listed(settings)[1] == first
    assert quiet.listed(settings, ended_before_ms=12 * HOUR) == []
    quiet.remove(settings, str(second["rule"]), publish_=False)
    assert [r["rule"] for r in quiet.listed(settings)] == [first["rule"]]
    with pytest.raises(InputError, match="no snooze"):
        quiet.remove(settings, str(second["rule"]), publish_=False)


def test_a_rule_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    add(settings, rule="outage:1", until_ms=quiet.FOREVER)
    add(settings, rule="outage:1", until_ms=11 * HOUR)
    assert [(r["rule"], r["until"]) for r in quiet.listed(settings)] == [("outage:1", 11 * HOUR)]


@pytest.mark.parametrize(("more", "what"), [
    ({"use_case": "flood"}, "use case"), ({"detector": "silent"}, "detector"), ({"until_ms": 10 * HOUR}, "ends before"),
])
def test_a_wrong_snooze_is_refused(tmp_path: Path, more: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        add(load(state_dir=tmp_path), **more)


def test_the_stream_is_told_every_rule_of_a_use_case(tmp_path: Path) -> None:
    nightly = {"name": "backup", "use_case": "leak", "device": "server-*", "days": ["mon", "sun"], "begins": "22:00", "ends": "04:00", "zone": "Europe/Berlin"}
    once = {"name": "move", "site": "north", "start": "2026-11-25T10:00:00", "end": "2026-11-25T12:00:00+01:00"}
    settings = load(state_dir=tmp_path, maintenance=[nightly, once])
    row = add(settings, use_case="silent")
    told = {r["use_case"]: json.loads(r["rules"]) for r in quiet.records(quiet.rules(settings))}
    assert {u: [r["rule"] for r in rules] for u, rules in told.items()} == {
        "silent": ["maintenance:move", row["rule"]], "leak": ["maintenance:backup", "maintenance:move"], "lie": ["maintenance:move"],
    }
    backup, move = told["leak"]
    assert (backup["days"], backup["begins"], backup["ends"], backup["zone"], backup["device"]) == ([1, 7], "22:00:00", "04:00:00", "Europe/Berlin", "server-*")
    assert move["until_ms"] - move["from_ms"] == HOUR and move["begins"] is None


@pytest.mark.parametrize(("more", "what"), [
    ({"start": "2026-11-25T10:00:00"}, "start and end"), ({"begins": "10:00"}, "belong together"), ({}, "start and end"),
    ({"start": "2026-11-25T10:00:00", "end": "2026-11-25T09:00:00"}, "ends before"),
    ({"begins": "10:00", "ends": "11:00", "zone": "Nowhere"}, "time zone"), ({"begins": "10:00", "ends": "11:00", "days": ["someday"]}, "mon"),
])
def test_a_wrong_maintenance_window_is_refused(more: dict[str, object], what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        load(maintenance=[{"name": "x", **more}])


def test_a_window_of_maintenance_without_a_zone_is_utc() -> None:
    window = Maintenance(name="x", start="2026-11-25T10:00:00", end="2026-11-25T12:00:00+01:00")  # type: ignore[arg-type]
    rule = quiet.planned(window)
    assert rule.until_ms - rule.from_ms == HOUR


def test_a_rule_without_an_end_is_shown_as_open() -> None:
    from tidewatch.commands.snooze import _time

    assert _time(quiet.FOREVER) == "open" and _time(0) == "1970-01-01 00:00"
