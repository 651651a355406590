"""The screens as a person sees them: in headless Chromium, on the running stack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tidewatch import orchestrator, screens
from tidewatch.dashboards import files, server
from tidewatch.pinot import query
from tidewatch.stack import table

pytestmark = [pytest.mark.ui, pytest.mark.stack]
SLUGS = sorted(d["slug"] for d in files.read().dashboards.values())


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
    return float(query(stack.settings, sql)[0][0])


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


@pytest.mark.parametrize(("name", "value", "where"), [
    ("use_case", "leak", "use_case = 'leak'"),
    ("kind", "camera", "kind = 'camera'"),
])
def test_a_filter_gives_the_number_that_a_query_gives(stack: Any, page: Any, name: str, value: str, where: str) -> None:
    screens.log_in(page, stack.settings, "superset", "analyst")
    listed = "SELECT COUNT(*) FROM alerts WHERE group_id = '' AND suppressed_by = '' AND \"end\" > now() - 86400000"
    for left in (2, 1, 0):  # live traffic may raise an alert between the page and the query
        assert screens.dashboard(page, stack.settings, "overview") == []
        everything = number(page, "Incidents"), ask(stack, listed)
        page.locator(f".ant-select[data-test=NATIVE_FILTER-{name}]").click()
        page.locator(f".ant-select-item-option[title='{value}']").first.click()
        page.keyboard.press("Escape")
        page.locator("[data-test=filter-bar__apply-button]").click()
        page.wait_for_timeout(2000)
        assert screens.drawn(page, screens.charts_of("overview")) == []
        some = number(page, "Incidents"), ask(stack, f"{listed} AND {where}")
        if not left or everything[0] == everything[1] and some[0] == some[1]:
            break
    assert (everything[0], some[0]) == (everything[1], some[1])


def test_a_viewer_changes_nothing(stack: Any, page: Any) -> None:
    screens.log_in(page, stack.settings, "superset", "viewer")
    screens.dashboard(page, stack.settings, "overview")
    assert page.get_by_role("button", name="Edit dashboard").count() == 0
    session, base = server.session(stack.settings, "viewer"), stack.settings.superset
    found = session.get(f"{base}/api/v1/dashboard/", timeout=60).json()["result"]
    assert {d["slug"] for d in found} >= set(SLUGS)
    assert session.put(f"{base}/api/v1/dashboard/{found[0]['id']}", json={"dashboard_title": "mine"}, timeout=60).status_code in (403, 404)
    assert session.post(f"{base}/api/v1/dashboard/", json={"dashboard_title": "mine"}, timeout=60).status_code == 403
    chart = session.get(f"{base}/api/v1/chart/", timeout=60).json()["result"][0]
    assert session.put(f"{base}/api/v1/chart/{chart['id']}", json={"slice_name": "mine"}, timeout=60).status_code in (403, 404)
    assert session.post(f"{base}/api/v1/sqllab/execute/", json={"database_id": 1, "sql": "SELECT 1"}, timeout=60).status_code in (403, 404)
    client = orchestrator.Client(stack.settings, account="viewer")
    with pytest.raises(orchestrator.Refused):
        orchestrator.trigger(client, "maintenance", {})


def test_each_account_may_what_its_role_says(stack: Any) -> None:
    base = stack.settings.superset
    analyst, operator = (server.session(stack.settings, a) for a in ("analyst", "operator"))
    chart = analyst.get(f"{base}/api/v1/chart/", timeout=60).json()["result"][0]
    same = {"slice_name": chart["slice_name"]}
    for session in (analyst, operator):
        assert session.put(f"{base}/api/v1/chart/{chart['id']}", json=same, timeout=60).status_code == 403, "the files' charts are the admin's"
        assert session.get(f"{base}/api/v1/sqllab/", timeout=60).status_code == 200
    pool = orchestrator.Client(stack.settings).call("GET", "/pools/spark")
    change = {"pool": "spark", "slots": pool["slots"], "description": pool["description"], "include_deferred": pool["include_deferred"]}
    for account in ("viewer", "analyst"):
        with pytest.raises(orchestrator.Refused):
            orchestrator.Client(stack.settings, account=account).call("PATCH", "/pools/spark", change)
    assert orchestrator.Client(stack.settings, account="operator").call("PATCH", "/pools/spark", change)["slots"] == pool["slots"]


def test_retrain_from_the_form_turns_green(stack: Any, page: Any) -> None:
    admin = orchestrator.Client(stack.settings)
    before = {r["dag_run_id"] for r in orchestrator.runs(admin, "retrain")}
    screens.log_in(page, stack.settings, "airflow", "operator")
    page.goto(f"{stack.settings.airflow}/dags/retrain")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("Use case", exact=True).first.wait_for()
    assert page.get_by_text("Promote the best challenger even if it does not beat the champion.").count() == 1
    page.get_by_role("combobox").first.click()
    page.get_by_role("option", name="silent").click()
    page.get_by_role("button", name="Trigger").last.click()
    for _ in range(60):
        page.wait_for_timeout(1000)
        # not one that a scheduled build of features has started meanwhile
        new = [r for r in orchestrator.runs(admin, "retrain") if r["dag_run_id"] not in before and r["dag_run_id"].startswith("manual")]
        if new:
            break
    assert len(new) == 1
    steps = list(orchestrator.watch(admin, "retrain", new[0]["dag_run_id"], timeout=900))
    assert steps[-1].state == "success"
    assert {s.task: s.state for s in steps if s.task.startswith("promote_")} == {"promote_silent": "success", "promote_leak": "skipped", "promote_lie": "skipped"}
    assert "champion" in orchestrator.run(admin, "retrain", new[0]["dag_run_id"])["note"]


def test_the_report_opens(stack: Any, page: Any) -> None:
    page.goto(f"{stack.settings.reports}/")
    page.get_by_text("Reports", exact=True).first.click()
    page.wait_for_url("**/data-docs/index.html")
    page.locator("table tbody tr a, .table a").first.click()
    page.wait_for_url("**/validations/**")
    assert "Expectation Validation Result" in page.inner_text("body")


@pytest.mark.parametrize("slug", ["overview", "device"])
def test_after_a_refresh_the_pages_answer_from_the_cache(slug: str, stack: Any, page: Any) -> None:
    screens.log_in(page, stack.settings, "superset", "viewer")
    done = stack.python("tools", "-m", "jobs.refresh_dashboards", "--end", "2026-01-01T00:00:00Z")
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert summary["errors"] == []
    assert summary["charts"] >= len(files.read().charts)
    asked: dict[str, bool] = {}

    def seen(answer: Any) -> None:
        if "/api/v1/chart/data" in answer.url and answer.request.method == "POST" and answer.ok:
            form = answer.request.post_data_json["form_data"]
            if form.get("slice_id") and not form["viz_type"].startswith("filter_"):
                asked[f"{page.url.split('/')[-2]}: {form['slice_id']}"] = bool(answer.json()["result"][0]["is_cached"])

    page.on("response", seen)
    assert screens.dashboard(page, stack.settings, slug) == []
    assert len(asked) >= screens.charts_of(slug)
    assert [k for k, cached in asked.items() if not cached] == []


def test_an_empty_chart_says_what_is_missing(stack: Any, page: Any) -> None:
    def first_choice_of_all(route: Any) -> None:
        # the metrics of all devices, asked for until the device is known: its answer may come too late to be a choice
        asked = route.request.post_data_json or {}
        early = asked.get("form_data", {}).get("native_filter_id") == "NATIVE_FILTER-metric" and not asked["queries"][0]["filters"]
        route.abort() if early else route.continue_()

    page.route("**/api/v1/chart/data**", first_choice_of_all)
    screens.log_in(page, stack.settings, "superset", "viewer")
    nobody = "(NATIVE_FILTER-device:(extraFormData:(filters:!((col:device_id,op:IN,val:!('no-such-device')))),filterState:(value:!('no-such-device')),id:NATIVE_FILTER-device,ownState:()))"
    assert screens.dashboard(page, stack.settings, "device", f"?native_filters={nobody}") == []
    said = page.eval_on_selector_all(
        "[data-test-chart-name] .slice_container [aria-label=empty] + div p:first-child", "e => e.map(x => getComputedStyle(x, '::after').content)")
    assert any("The device reports no flows in the chosen time" in s for s in said), said
    assert any("The inventory (table devices) does not know the device" in s for s in said), said


@pytest.mark.parametrize("dag", ["retrain", "backfill", "rollback", "replay_dead_letters", "feedback"])
def test_a_form_says_what_its_parameters_mean(stack: Any, page: Any, dag: str) -> None:
    admin = orchestrator.Client(stack.settings)
    params = admin.call("GET", f"/dags/{dag}/details")["params"]
    screens.log_in(page, stack.settings, "airflow", "operator")
    page.goto(f"{stack.settings.airflow}/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click()
    for p in params.values():
        page.get_by_text(re.compile(rf"^{p['schema']['title']}\s*\*?$")).first.wait_for()  # the star: it must be given
        assert page.get_by_text(p["description"]).count() == 1, p


def test_a_task_leads_to_its_report(stack: Any, page: Any) -> None:
    admin = orchestrator.Client(stack.settings)
    run = next(r for r in orchestrator.runs(admin, "feature_store") if r["state"] == "success")
    base = f"/dags/feature_store/dagRuns/{quote(run['dag_run_id'])}/taskInstances/validate"
    link = admin.call("GET", f"{base}/links")["extra_links"]["Report"]
    assert link.startswith(f"{stack.settings.reports}/data-docs/")
    screens.log_in(page, stack.settings, "airflow", "viewer")
    page.goto(f"{stack.settings.airflow}/dags/feature_store/runs/{quote(run['dag_run_id'])}/tasks/validate")
    button = page.locator(f"a[href='{link}']").first
    button.wait_for()
    page.goto(link)
    page.get_by_role("heading", name="Data quality reports").wait_for()


def test_the_board_leads_to_the_reports(stack: Any, page: Any) -> None:
    screens.log_in(page, stack.settings, "superset", "viewer")
    assert screens.dashboard(page, stack.settings, "data-quality") == []
    page.goto(page.locator("a", has_text="open").first.get_attribute("href"))
    assert "Expectation Validation Result" in page.inner_text("body")


def test_the_start_page_says_how_all_of_it_stands(stack: Any, page: Any) -> None:
    page.goto(f"{stack.settings.reports}/")
    page.get_by_text("Measured").first.wait_for()
    assert page.locator("#servers tr").count() == len(table(stack.settings))
    assert "✔ ready" in page.locator("#servers tr", has=page.get_by_text("superset", exact=True)).inner_text()
    # a scheduled run may be under way at this time of day
    assert re.search("success|running|queued", page.locator("#runs tr", has_text="feature_store").inner_text())
    assert page.locator("#now .card", has_text="Open incidents").locator(".figure").inner_text().isdigit()
    assert not page.locator("#lost").is_visible()
    for board in SLUGS:
        assert page.locator(f"#screens a[href='{stack.settings.superset}/superset/dashboard/{board}/']").count() == 1


def test_one_spark_session_at_a_time(stack: Any) -> None:
    pool = orchestrator.Client(stack.settings).call("GET", "/pools/spark")
    assert pool["slots"] == 1
