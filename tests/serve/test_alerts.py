"""Alerts against labels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidewatch import alerts
from tidewatch.errors import InputError, ServiceError
from tidewatch.settings import External, load
from tidewatch.tables import ALERTS

MINUTE = 60_000


def alert(use_case: str, device: str, start: int, end: int) -> dict[str, Any]:
    return {"use_case": use_case, "device_id": device, "start": start * MINUTE, "end": end * MINUTE}


def label(use_case: str, device: str, start: int, end: int) -> dict[str, Any]:
    return {**alert(use_case, device, start, end), "kind": use_case, "origin": "test"}


def test_compare() -> None:
    known = [label("leak", "a", 100, 110), label("leak", "b", 100, 110), label("other", "c", 100, 110), label("silent", "d", 100, 110)]
    found = [
        alert("leak", "a", 103, 105), alert("leak", "a", 108, 112),  # two alerts, one incident
        alert("leak", "c", 101, 102),  # something else happened there: neither
        alert("leak", "e", 101, 102),  # nothing happened there
        alert("leak", "a", 300, 301),  # long after
    ]
    silent, leak, lie = alerts.compare(found, known)
    assert leak == alerts.Verdict("leak", incidents=2, found=1, alerts=5, right=2, wrong=2, delay_s=180.0)
    assert silent == alerts.Verdict("silent", 1, 0, 0, 0, 0, None)
    assert lie == alerts.Verdict("lie", 0, 0, 0, 0, 0, None)


def test_a_group_counts_by_its_members_and_what_is_suppressed_not_at_all() -> None:
    member = {**alert("silent", "a", 100, 110), "group_id": "silent:*:1", "suppressed_by": ""}
    group = {**alert("silent", "*", 100, 110), "group_id": "", "suppressed_by": ""}
    quiet = {**alert("silent", "b", 100, 110), "group_id": "", "suppressed_by": "snooze:1"}
    assert alerts.compare([member, group, quiet], [label("silent", "a", 100, 110)], use_cases=("silent",)) == (
        alerts.Verdict("silent", 1, 1, 1, 1, 0, 0.0),)
    assert [alerts.is_listed(a) for a in (member, group, quiet)] == [False, True, False]


def test_compare_allows_the_window_to_end_late() -> None:
    assert alerts.compare([alert("lie", "a", 115, 118)], [label("lie", "a", 100, 110)], use_cases=("lie",))[0].found == 1
    assert alerts.compare([alert("lie", "a", 121, 128)], [label("lie", "a", 100, 110)], use_cases=("lie",))[0].found == 0


def test_unknown_words_are_refused() -> None:
    with pytest.raises(InputError, match="use case"):
        alerts.fetch(load(), use_case="flood")
    with pytest.raises(InputError, match="severity"):
        alerts.fetch(load(), severity="grave")


def test_a_list_that_is_null_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage has no signals; Pinot shows such a list as one default."""
    row = ["x" if c.type == "string" else ["null"] if c.type == "string[]" else ["-Infinity"] if c.type == "double[]" else 1 for c in ALERTS.columns]
    monkeypatch.setattr(alerts, "query", lambda *_: [row])
    (found,) = alerts.fetch(load())
    assert [found[c.name] for c in ALERTS.columns if c.type.endswith("[]")] == [[]] * 5


def test_without_pinot() -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        alerts.fetch(load(external=External(pinot_broker="http://127.0.0.1:9")))


def test_without_labels(tmp_path: Any) -> None:
    assert alerts.labels(load(state_dir=tmp_path)) == []


@pytest.mark.stack
def test_the_command(stack: Any) -> None:
    found = json.loads(stack.run("alerts", "--json", "--labels").stdout)
    assert {v["use_case"] for v in found["labels"]} == {"silent", "leak", "lie"}
    assert all(a["end"] >= a["start"] for a in found["alerts"])
    only = json.loads(stack.run("alerts", "--json", "--use-case", "leak").stdout)["alerts"]
    assert only == [a for a in found["alerts"] if a["use_case"] == "leak"]
    refused = stack.run("alerts", "--severity", "grave", check=False)
    assert refused.returncode == 1
    assert "severity" in refused.stderr


@pytest.mark.stack
def test_a_snooze_is_listed_with_what_it_suppressed(stack: Any) -> None:
    made = json.loads(stack.run("snooze", "add", "--device", "nobody-*", "--until", "+1h", "--reason", "test", "--json").stdout)
    listed = json.loads(stack.run("snooze", "list", "--json").stdout)
    assert made in listed["snoozes"] and made["rule"] not in listed["suppressed"]
    assert made["rule"] in stack.run("snooze", "list").stdout
    stack.run("snooze", "remove", made["rule"])
    assert made not in json.loads(stack.run("snooze", "list", "--json").stdout)["snoozes"]
