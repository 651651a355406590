"""The screens as a person sees them: in headless Chromium, on the running stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewatch import dashboards, orchestrator, screens

pytestmark = [pytest.mark.ui, pytest.mark.stack]
SLUGS = sorted(d["slug"] for d in dashboards.bundle().dashboards.values())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with screens.browser() as running:
        yield running


@pytest.fixture
def page(browser: Any, stack: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of its own; its last picture is kept in the stack's logs."""
    made = screens.page_of(browser)
    yield made
    kept = Path(stack.settings.logs) / "screens"
    kept.mkdir(parents=True, exist_ok=True)
    made.screenshot(path=str(kept / f"{request.node.name.replace('/', '-')}.png"))
    made.context.close()


def number(page: Any, title: str) -> float:
    """The number that a big-number chart shows."""
    chart = page.locator(screens.CHART).filter(has=page.get_by_text(title, exact=True))
    return float(chart.locator(".header-line").inner_text().replace(",", ""))


def ask(stack: Any, sql: str) -> float:
    import requests

    answer = requests.post(f"{stack.settings.pinot_broker}/query/sql", json={"sql": sql}, timeout=30).json()
    return float(answer["resultTable"]["rows"][0][0])


@pytest.mark.parametrize("slug", SLUGS)
def test_every_chart_is_drawn(stack: Any, page: Any, slug: str) -> None:
    screens.log_in(page, stack.settings, "superset", "viewer")
    assert screens.dashboard(page, stack.settings, slug) == []


def test_an_alert_leads_to_its_device(stack: Any, page: Any) -> None:
    screens.log_in(page, stack.settings, "superset", "analyst")
    assert screens.dashboard(page, stack.settings, "overview") == []
    link = page.locator("a[href*='/superset/dashboard/device/?']").first
    device = link.inner_text()
    link.click()
    page.wait_for_url("**/superset/dashboard/device/**")
    assert screens.drawn(page, screens.charts_of("device")) == []
    assert device in page.locator("[data-test=filter-bar], .filter-bar, aside").first.inner_text()


@pytest.mark.parametrize(("name", "value", "sql"), [
    ("use_case", "leak", "SELECT COUNT(*) FROM alerts WHERE use_case = 'leak'"),
    ("kind", "camera", "SELECT COUNT(*) FROM alerts WHERE IN_SUBQUERY(device_id, 'SELECT IDSET(device_id) FROM devices WHERE kind = ''camera''') = 1"),
])
def test_a_filter_gives_the_number_that_a_query_gives(stack: Any, page: Any, name: str, value: str, sql: str) -> None:
    screens.log_in(page, stack.settings, "superset", "analyst")
    assert screens.dashboard(page, stack.settings, "overview") == []
    recent = " AND \"end\" > now() - 86400000"
    everything = number(page, "Incidents")
    assert everything == ask(stack, "SELECT COUNT(*) FROM alerts WHERE \"end\" > now() - 86400000")
    page.locator(f".ant-select[data-test=NATIVE_FILTER-{name}]").click()
    page.locator(f".ant-select-item-option[title='{value}']").first.click()
    page.keyboard.press("Escape")
    page.locator("[data-test=filter-bar__apply-button]").click()
    page.wait_for_timeout(2000)
    assert screens.drawn(page, screens.charts_of("overview")) == []
    assert number(page, "Incidents") == ask(stack, sql + recent)


def test_a_viewer_changes_nothing(stack: Any, page: Any) -> None:
    screens.log_in(page, stack.settings, "superset", "viewer")
    screens.dashboard(page, stack.settings, "overview")
    assert page.get_by_role("button", name="Edit dashboard").count() == 0
    session, base = dashboards.session(stack.settings, "viewer"), stack.settings.superset
    found = session.get(f"{base}/api/v1/dashboard/", timeout=60).json()["result"]
    assert {d["slug"] for d in found} >= set(SLUGS)
    assert session.put(f"{base}/api/v1/dashboard/{found[0]['id']}", json={"dashboard_title": "mine"}, timeout=60).status_code in (403, 404)
    assert session.post(f"{base}/api/v1/dashboard/", json={"dashboard_title": "mine"}, timeout=60).status_code == 403
    client = orchestrator.Client(stack.settings, account="viewer")
    with pytest.raises(orchestrator.Refused):
        orchestrator.trigger(client, "maintenance", {})


def test_retrain_from_the_form_turns_green(stack: Any, page: Any) -> None:
    admin = orchestrator.Client(stack.settings)
    before = {r["dag_run_id"] for r in orchestrator.runs(admin, "retrain")}
    screens.log_in(page, stack.settings, "airflow", "operator")
    page.goto(f"{stack.settings.airflow}/dags/retrain")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("Use case", exact=True).first.wait_for()
    assert page.get_by_text("Promote the best challenger even if it does not beat the champion.").count() == 1
    page.get_by_role("button", name="Trigger").last.click()
    for _ in range(60):
        page.wait_for_timeout(1000)
        new = [r for r in orchestrator.runs(admin, "retrain") if r["dag_run_id"] not in before]
        if new:
            break
    assert len(new) == 1
    steps = list(orchestrator.watch(admin, "retrain", new[0]["dag_run_id"], timeout=900))
    assert steps[-1].state == "success"
    assert "champion" in orchestrator.run(admin, "retrain", new[0]["dag_run_id"])["note"]


def test_the_report_opens(stack: Any, page: Any) -> None:
    page.goto(f"{stack.settings.reports}/")
    page.get_by_text("Reports", exact=True).first.click()
    page.wait_for_url("**/data-docs/index.html")
    page.locator("table tbody tr a, .table a").first.click()
    page.wait_for_url("**/validations/**")
    assert "Expectation Validation Result" in page.inner_text("body")


def test_refresh(stack: Any) -> None:
    done = stack.python("spark", "-m", "jobs.refresh_dashboards", "--end", "2026-01-01T00:00:00Z")
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert summary["errors"] == []
    assert summary["charts"] >= len(dashboards.bundle().charts)
