"""Alerts as OCSF Detection Findings (class 2004), and what the schema requires of one.

The attributes and numbers are those of the Open Cybersecurity Schema Framework 1.3.0, https://schema.ocsf.io/1.3.0/classes/detection_finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidewatch import outage
from tidewatch.alerts import EVERYONE
from tidewatch.detectors import all_detectors
from tidewatch.severity import LEVELS

VERSION = "1.3.0"
PRODUCT = {"name": "Tidewatch", "vendor_name": "Tidewatch"}
CLASS_UID, CATEGORY_UID = 2004, 2
ACTIVITIES = {"Create": 1, "Update": 2, "Close": 3}
SEVERITIES = {name: (i, name.capitalize()) for i, name in enumerate(LEVELS, 2)}
"""severity_id: 2 Low, 3 Medium, 4 High, 5 Critical."""
NEW, SUPPRESSED, RESOLVED = (1, "New"), (3, "Suppressed"), (4, "Resolved")
IMPACT, EXFILTRATION = ("TA0040", "Impact"), ("TA0010", "Exfiltration")
TECHNIQUES = {
    "T1489": ("Service Stop", IMPACT), "T1498": ("Network Denial of Service", IMPACT), "T1499": ("Endpoint Denial of Service", IMPACT),
    "T1565": ("Data Manipulation", IMPACT), "T1485": ("Data Destruction", IMPACT),
    "T1020": ("Automated Exfiltration", EXFILTRATION), "T1029": ("Scheduled Transfer", EXFILTRATION),
    "T1030": ("Data Transfer Size Limits", EXFILTRATION), "T1041": ("Exfiltration Over C2 Channel", EXFILTRATION),
    "T1048": ("Exfiltration Over Alternative Protocol", EXFILTRATION), "T1567": ("Exfiltration Over Web Service", EXFILTRATION),
    "T1071": ("Application Layer Protocol", ("TA0011", "Command and Control")),
    "T1095": ("Non-Application Layer Protocol", ("TA0011", "Command and Control")),
}
"""MITRE ATT&CK for Enterprise: a technique's name and tactic."""
TYPES = {"silent": "Denial of Service", "leak": "Data Loss", "lie": "Data Corruption"}
REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "": {
        "activity_id": int, "category_uid": int, "class_uid": int, "finding_info": dict, "metadata": dict, "severity_id": int,
        "time": int, "type_uid": int,
    },
    "metadata": {"product": dict, "version": str},
    "metadata.product": {"vendor_name": str, "name": str},
    "finding_info": {"title": str, "uid": str},
    "finding_info.analytic": {"type_id": int},
    "finding_info.attacks[].technique": {"uid": str},
    "finding_info.attacks[].tactic": {"uid": str},
    "remediation": {"desc": str},
    "device": {"type_id": int, "uid": str},
    "resources[]": {"uid": str},
    "evidences[]": {"data": dict},
    "observables[]": {"name": str, "type_id": int},
}
"""Attributes that the schema requires (of objects with a choice, the one that we fill), by object; an object that is absent needs none."""
IDS = {"activity_id": set(ACTIVITIES.values()), "severity_id": set(range(7)) | {99}, "status_id": {0, 1, 2, 3, 4, 5, 6, 99}, "confidence_id": {0, 1, 2, 3, 99}}


def _attack(technique: str) -> dict[str, Any]:
    name, tactic = TECHNIQUES.get(technique.split(".")[0], ("", None))
    made: dict[str, Any] = {"technique": {"uid": technique, "src_url": f"https://attack.mitre.org/techniques/{technique.replace('.', '/')}"}}
    if name:
        made["technique"]["name"] = name
    if tactic:
        made["tactic"] = {"uid": tactic[0], "name": tactic[1], "src_url": f"https://attack.mitre.org/tactics/{tactic[0]}"}
    return made


def _analytic(alert: Mapping[str, Any]) -> dict[str, Any]:
    detector = next((d for d in all_detectors() if d.name == alert["detector"]), None)
    made = {"uid": alert["detector"], "name": detector.title if detector else alert["title"], "category": alert["use_case"]}
    if detector is None:
        return {**made, "type_id": 1, "type": "Rule", "desc": (outage.__doc__ or "").splitlines()[0]}
    return {**made, "type_id": 4, "type": "Learning (ML/DL)", "version": alert["model_version"] or "", "desc": detector.doc.splitlines()[0]}


def _signals(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = (alert.get(c) or () for c in ("top_signals", "top_observed", "top_expected", "top_shares"))
    return [{"signal": s, "observed": o, "expected": e, "share": w} for s, o, e, w in zip(*columns, strict=True)]


def runbook(detector: str) -> str:
    """Where an analyst reads what to do about an alert of this detector."""
    return next((d.runbook for d in all_detectors() if d.name == detector), f"docs/runbooks/{detector}.md")


def finding(alert: Mapping[str, Any], activity: str = "Create") -> dict[str, Any]:
    """The alert (a row of `alerts`, times in milliseconds) as a Detection Finding; the same row gives the same finding.

    `activity` is Create, Update or Close. What is quiet has status Suppressed, what has ended Resolved (by itself).
    """
    number = ACTIVITIES[activity]
    quiet = alert.get("suppressed_by") or alert.get("group_id") or ""
    status = SUPPRESSED if quiet else RESOLVED if alert["status"] == "closed" else NEW
    severity_id, severity = SEVERITIES[alert["severity"]]
    group = alert["device_id"] == EVERYONE
    devices = list(alert.get("member_ids") or ()) if group else [alert["device_id"]]
    where = {k: alert[k] for k in ("kind", "site") if alert.get(k)}
    made: dict[str, Any] = {
        "metadata": {
            "version": VERSION, "product": PRODUCT, "log_name": "alerts",
            "uid": f"{alert['alert_id']}/{activity.lower()}/{alert['end']}/{alert['severity']}{'/quiet' if quiet else ''}",
        },
        "category_uid": CATEGORY_UID, "category_name": "Findings", "class_uid": CLASS_UID, "class_name": "Detection Finding",
        "activity_id": number, "activity_name": activity, "type_uid": CLASS_UID * 100 + number, "type_name": f"Detection Finding: {activity}",
        "time": alert["end"], "start_time": alert["start"], "end_time": alert["end"], "duration": alert["end"] - alert["start"],
        "count": max(1, alert["windows"]),
        "severity_id": severity_id, "severity": severity, "status_id": status[0], "status": status[1],
        "message": f"{alert['title']}: {alert['reason']}",
        "confidence_score": round(100 * alert["score"]),
        "confidence_id": 3 if alert["score"] >= 0.65 else 2 if alert["score"] >= 0.55 else 1,
        "finding_info": {
            "uid": alert["alert_id"], "title": alert["title"], "desc": alert["reason"], "types": [TYPES[alert["use_case"]]],
            "created_time": alert["start"], "first_seen_time": alert["start"], "last_seen_time": alert["end"],
            "analytic": _analytic(alert), "attacks": [_attack(alert["technique"])],
        },
        "remediation": {"desc": f"Runbook: {runbook(alert['detector'])}"},
        "resources": [{"uid": d, "name": d, "type": where.get("kind", "device")} for d in devices],
        "observables": [{"name": "resources.uid", "type_id": 10, "type": "Resource UID", "value": d} for d in devices],
        "evidences": [{"data": {
            "metric": alert["metric"], "baseline": alert.get("baseline") or "", "signals": _signals(alert), **where,
            **({"members": alert["members"]} if group else {}), **({"suppressed_by": quiet} if quiet else {}),
        }}],
    }
    if not group:
        made["device"] = {"uid": alert["device_id"], "name": alert["device_id"], "type_id": 99, "type": where.get("kind", "device")}
        if "site" in where:
            made["device"]["location"] = {"desc": where["site"]}
    if status is RESOLVED:
        made["status_detail"] = "ended by itself: nothing anomalous since"
    elif quiet:
        made["status_detail"] = f"member of {quiet}" if not alert.get("suppressed_by") else f"kept quiet by {quiet}"
    return made


def _objects(found: Any, path: str) -> list[Any]:
    for part in path.split(".") if path else ():
        found = [x.get(part.removesuffix("[]")) for x in (found if isinstance(found, list) else [found]) if isinstance(x, dict)]
        found = [y for x in found if x is not None for y in (x if part.endswith("[]") else [x])]
    return found if isinstance(found, list) else [found]


def problems(event: Mapping[str, Any]) -> tuple[str, ...]:
    """What the schema requires and the event lacks, in words; empty if it is a Detection Finding."""
    wrong = []
    for path, attributes in REQUIRED.items():
        for found in _objects(dict(event), path):
            for name, kind in attributes.items():
                where = f"{path}.{name}".lstrip(".")
                if not isinstance(found, dict) or name not in found:
                    wrong.append(f"{where} is missing")
                elif not isinstance(found[name], kind) or isinstance(found[name], bool) or found[name] == "":
                    wrong.append(f"{where} is {found[name]!r}")
    wrong += [f"{name} is {event[name]!r}" for name, known in IDS.items() if name in event and event[name] not in known]
    if event.get("class_uid") != CLASS_UID or event.get("category_uid") != CATEGORY_UID:
        wrong.append("it is of another class")
    elif event.get("type_uid") != CLASS_UID * 100 + event.get("activity_id", 0):
        wrong.append("type_uid is not class_uid * 100 + activity_id")
    return tuple(wrong)
