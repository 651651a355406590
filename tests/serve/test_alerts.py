"""Alerts against labels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidewatch import alerts
from tidewatch.errors import InputError, ServiceError
from tidewatch.settings import External, load

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


def test_compare_allows_the_window_to_end_late() -> None:
    assert alerts.compare([alert("lie", "a", 115, 118)], [label("lie", "a", 100, 110)], use_cases=("lie",))[0].found == 1
    assert alerts.compare([alert("lie", "a", 121, 128)], [label("lie", "a", 100, 110)], use_cases=("lie",))[0].found == 0


def test_unknown_words_are_refused() -> None:
    with pytest.raises(InputError, match="use case"):
        alerts.fetch(load(), use_case="flood")
    with pytest.raises(InputError, match="severity"):
        alerts.fetch(load(), severity="grave")


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
