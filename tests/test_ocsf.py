"""Every detector's alert is a Detection Finding that the schema accepts."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tidewatch import ocsf, outage
from tidewatch.detectors import Detector, all_detectors
from tidewatch.settings import ROOT
from tidewatch.tables import ALERTS

T = 1_795_474_800_000


def alert(detector: Detector | None = None, /, **more: Any) -> dict[str, Any]:
    """The alert of the detector's first example that hits, as the topic `alerts` carries it."""
    d = detector or next(d for d in all_detectors() if d.name == "silence")
    example = next(e for e in d.examples if e.hit)
    names = [s.name for s in d.signals][:3]
    made = {
        "alert_id": f"{d.use_case}:cam-1:{T}", "use_case": d.use_case, "detector": d.name, "device_id": "cam-1", "metric": "",
        "start": T, "end": T + 120_000, "windows": 2, "severity": d.severity(0.7), "score": 0.7, "model_version": f"{d.use_case}/3",
        "baseline": "device", "top_signals": names, "top_observed": [example.observed[n] for n in names],
        "top_expected": [example.expected[n] for n in names], "top_shares": [0.8, 0.2, 0.0][: len(names)], "technique": d.technique,
        "title": d.title, "reason": "why", "kind": "camera", "site": "north", "status": "open", "group_id": "", "members": 1,
        "member_ids": [], "suppressed_by": "", **more,
    }
    assert set(made) == {c.name for c in ALERTS.columns}
    return made


GROUP = {"device_id": "*", "members": 30, "member_ids": ["a", "b"], "kind": ""}
OUTAGE = {
    "device_id": "*", "members": 0, "member_ids": None, "detector": outage.DETECTOR, "technique": outage.TECHNIQUE, "kind": "", "site": "",
    "model_version": "", "baseline": "", **dict.fromkeys(("top_signals", "top_observed", "top_expected", "top_shares")),
}


@pytest.mark.parametrize("d", all_detectors(), ids=lambda d: d.name)
@pytest.mark.parametrize("activity", ocsf.ACTIVITIES)
@pytest.mark.parametrize("more", [{}, GROUP, {"suppressed_by": "snooze:1"}, {"group_id": "silent:*:1"}, {"status": "closed"}, {"kind": "", "site": ""}], ids=str)
def test_every_alert_is_what_the_schema_requires(d: Detector, activity: str, more: dict[str, Any]) -> None:
    found = ocsf.finding(alert(d, **more), activity)
    assert ocsf.problems(found) == ()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    attack = found["finding_info"]["attacks"][0]
    assert attack["technique"]["uid"] == d.technique and attack["technique"]["name"] and attack["tactic"]["uid"].startswith("TA"), "add it to ocsf.TECHNIQUES"
    assert found["finding_info"]["analytic"]["uid"] == d.name
    assert (ROOT / ocsf.runbook(d.name)).exists()


def test_an_outage_is_a_finding() -> None:
    found = ocsf.finding(alert(**OUTAGE))
    assert ocsf.problems(found) == ()
    assert found["resources"] == [] and "device" not in found and found["finding_info"]["analytic"]["type"] == "Rule"
    assert (ROOT / ocsf.runbook(outage.DETECTOR)).exists()


def test_an_alert_in_ocsf() -> None:
    found = ocsf.finding(alert(severity="high"))
    assert (found["class_uid"], found["type_uid"], found["severity_id"], found["status_id"], found["activity_id"]) == (2004, 200401, 4, 1, 1)
    assert (found["time"], found["start_time"], found["duration"], found["count"]) == (T + 120_000, T, 120_000, 2)
    assert found["finding_info"]["attacks"] == [{
        "technique": {"uid": "T1489", "name": "Service Stop", "src_url": "https://attack.mitre.org/techniques/T1489"},
        "tactic": {"uid": "TA0040", "name": "Impact", "src_url": "https://attack.mitre.org/tactics/TA0040"},
    }]
    assert found["device"] == {"uid": "cam-1", "name": "cam-1", "type_id": 99, "type": "camera", "location": {"desc": "north"}}
    assert found["evidences"][0]["data"]["signals"][0] == {"signal": "silent_seconds", "observed": 240, "expected": 3, "share": 0.8}


@pytest.mark.parametrize(("more", "status"), [
    ({}, (1, "New")), ({"status": "closed"}, (4, "Resolved")), ({"suppressed_by": "snooze:1"}, (3, "Suppressed")),
    ({"suppressed_by": "snooze:1", "status": "closed"}, (3, "Suppressed")), ({"group_id": "g"}, (3, "Suppressed")),
])
def test_status(more: dict[str, Any], status: tuple[int, str]) -> None:
    found = ocsf.finding(alert(**more))
    assert (found["status_id"], found["status"]) == status


@pytest.mark.parametrize(("path", "value", "wrong"), [
    (("severity_id",), None, "severity_id is None"), (("severity_id",), 42, "severity_id is 42"), (("class_uid",), 2001, "another class"),
    (("type_uid",), 200402, "type_uid is not"), (("metadata", "product", "vendor_name"), "", "metadata.product.vendor_name is ''"),
    (("finding_info", "uid"), 7, "finding_info.uid is 7"), (("time",), True, "time is True"),
    (("finding_info", "attacks", 0, "technique", "uid"), None, "finding_info.attacks[].technique.uid is None"),
    (("observables", 0, "type_id"), "x", "observables[].type_id is 'x'"),
])
def test_what_the_schema_refuses_is_named(path: tuple[Any, ...], value: Any, wrong: str) -> None:
    found = copy.deepcopy(ocsf.finding(alert()))
    part = found
    for p in path[:-1]:
        part = part[p]
    part[path[-1]] = value
    assert any(wrong in w for w in ocsf.problems(found)), ocsf.problems(found)


@pytest.mark.parametrize("name", sorted(ocsf.REQUIRED[""]))
def test_what_is_missing_is_named(name: str) -> None:
    found = ocsf.finding(alert())
    del found[name]
    assert f"{name} is missing" in ocsf.problems(found)
