"""What is news of an alert, and what becomes of a post."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.test_ocsf import T, alert
from tidewatch import notify, ocsf
from tidewatch.errors import ContractError, SettingsError
from tidewatch.settings import Webhook, load


def told(*states: dict[str, Any]) -> list[tuple[str, str]]:
    """(activity, status) of the findings that the states of one alert make."""
    memory = notify.Memory()
    return [(f["activity_name"], f["status"]) for s in states for f in memory.findings(alert(**s))]


@pytest.mark.parametrize(("states", "found"), [
    ([{}], [("Create", "New")]),
    ([{"severity": "low"}, {"severity": "low", "windows": 3}, {"severity": "low", "windows": 4}], [("Create", "New")]),
    ([{"severity": "low"}, {"severity": "high"}, {"severity": "high"}], [("Create", "New"), ("Update", "New")]),
    ([{}, {"status": "closed"}, {"status": "closed"}, {}], [("Create", "New"), ("Close", "Resolved")]),
    # ended before anybody was told
    ([{"status": "closed"}], [("Create", "Resolved"), ("Close", "Resolved")]),
    ([{"suppressed_by": "snooze:1"}, {"suppressed_by": "snooze:1", "status": "closed"}], []),
    ([{"group_id": "silent:*:1"}], []),
    # told first, then snoozed, then told again
    ([{}, {"suppressed_by": "s"}, {"suppressed_by": "s"}, {}], [("Create", "New"), ("Update", "Suppressed"), ("Update", "New")]),
    ([{}, {"group_id": "g"}, {"group_id": "g", "status": "closed"}], [("Create", "New"), ("Update", "Suppressed")]),
    ([{"device_id": "*", "members": n} for n in (5, 9, 10, 19, 20)], [("Create", "New"), ("Update", "New"), ("Update", "New")]),
])
def test_news(states: list[dict[str, Any]], found: list[tuple[str, str]]) -> None:
    assert told(*states) == found


def test_what_was_told_is_known_from_the_findings() -> None:
    before = notify.Memory()
    findings = before.findings(alert(severity="low")) + before.findings(alert(severity="high")) + before.findings(alert(alert_id="other", status="closed"))
    after = notify.Memory(findings)
    assert after.findings(alert(severity="high")) == [] == after.findings(alert(alert_id="other"))
    assert [f["activity_name"] for f in after.findings(alert(severity="critical"))] == ["Update"]


def test_memory_forgets_ended_alerts_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "KEEP", 2)
    memory = notify.Memory()
    for i, status in (("a", "open"), ("b", "closed"), ("c", "open")):
        memory.findings(alert(alert_id=i, status=status))
    assert memory.findings(alert(alert_id="a")) == [] == memory.findings(alert(alert_id="c"))


def test_an_alert_that_makes_no_finding_is_named() -> None:
    with pytest.raises(ContractError, match=r"no OCSF finding: finding_info\.title is ''"):
        notify.Memory().findings(alert(title=""))


class Http:
    """Answers as it is told, and keeps what it got."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers, self.got = list(answers), list[tuple[str, bytes, dict[str, str]]]()

    def post(self, url: str, *, data: bytes, headers: dict[str, str], timeout: float, allow_redirects: bool) -> requests.Response:
        self.got.append((url, data, headers))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        made = requests.Response()
        made.status_code = answer
        return made


@pytest.mark.parametrize(("answer", "done"), [
    (200, True), (202, True), (503, False), (404, False), (401, False), (301, False), (requests.ConnectionError(), False), (requests.Timeout(), False),
    (400, True), (422, True),
])
def test_a_post_is_done_or_waits(answer: int | Exception, done: bool) -> None:
    http = Http(answer)
    value = json.dumps(ocsf.finding(alert())).encode()
    assert notify.post(Webhook(name="siem", url="http://receiver/x"), http, value) is done  # type: ignore[arg-type]
    (url, sent, headers), = http.got
    assert (url, sent) == ("http://receiver/x", value)
    assert headers["Idempotency-Key"] == f"silent:cam-1:{T}/create/{T + 120_000}/critical"


def test_findings_below_the_severity_are_not_posted() -> None:
    http = Http()
    webhook = Webhook(name="siem", url="http://receiver/x", min_severity="high")  # type: ignore[arg-type]
    assert notify.post(webhook, http, json.dumps(ocsf.finding(alert(severity="medium"))).encode())  # type: ignore[arg-type]
    assert http.got == []


def test_webhooks_are_settings_whose_secrets_are_not_shown() -> None:
    settings = load(alerts={"webhooks": [{"name": "siem", "url": "https://siem.example/in", "headers": {"Authorization": "Bearer abc"}}]})
    assert "abc" not in settings.model_dump_json() and notify.session(settings.alerts.webhooks[0]).headers["Authorization"] == "Bearer abc"
    with pytest.raises(SettingsError, match="same name"):
        load(alerts={"webhooks": [{"name": "siem", "url": "https://a.example"}] * 2})
    with pytest.raises(SettingsError, match="url"):
        load(alerts={"webhooks": [{"name": "siem", "url": "ftp://a.example"}]})
