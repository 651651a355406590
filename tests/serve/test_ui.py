"""The dashboards as a person sees them: in headless Chromium, on the running stack."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidewatch import dashboards

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]
CHART = ".dashboard-component-chart-holder"
PATIENCE = 180_000

pytestmark = [pytest.mark.ui, pytest.mark.stack]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("no Chromium on the PATH; on Debian: apt-get install chromium")
    with sync_playwright() as p:
        running = p.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield running
        running.close()


def log_in(browser: Any, stack: Any, account: str) -> Any:
    page = browser.new_page(viewport={"width": 1500, "height": 6000})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{stack.settings.superset}/login/")
    page.locator("#username, input[name=username]").first.fill(account)
    page.locator("input[type=password]").fill(stack.settings.secret(f"superset_{account}_password"))
    page.locator("button[type=submit], input[type=submit]").first.click()
    page.wait_for_url(lambda url: "/login" not in url)
    return page


def drawn(page: Any, charts: int) -> None:
    """Wait until every chart of the page is drawn; fails with the texts of those that show an error."""
    page.wait_for_function(f"() => document.querySelectorAll('{CHART}').length == {charts}")
    page.wait_for_function(
        f"() => [...document.querySelectorAll('{CHART}')].every("
        "c => c.querySelector('.slice_container, .chart-container') && !c.querySelector('.loading, [data-test=loading-indicator]'))"
    )
    page.wait_for_timeout(1500)
    page.wait_for_function(f"() => !document.querySelector('{CHART} .loading, {CHART} [data-test=loading-indicator]')")
    errors = page.eval_on_selector_all(
        f"{CHART} [role=alert], {CHART} .ant-alert-error, {CHART} [data-test=chart-error]", "e => e.map(x => x.innerText.slice(0, 300))",
    )
    assert errors == []


def charts_of(slug: str) -> int:
    board = next(d for d in dashboards.bundle().dashboards.values() if d["slug"] == slug)
    return sum(isinstance(x, dict) and x["type"] == "CHART" for x in board["position"].values())


@pytest.mark.parametrize(("slug", "account"), [("overview", "admin"), ("overview", "analyst"), ("device", "analyst"), ("pipeline", "analyst")])
def test_every_chart_is_drawn(stack: Any, browser: Any, slug: str, account: str, tmp_path: Path) -> None:
    page = log_in(browser, stack, account)
    try:
        page.goto(f"{stack.settings.superset}/superset/dashboard/{slug}/")
        drawn(page, charts_of(slug))
    finally:
        kept = stack.settings.logs / "screens"
        kept.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(kept / f"{slug}-{account}.png"))
        page.close()


def test_an_alert_leads_to_its_device(stack: Any, browser: Any) -> None:
    page = log_in(browser, stack, "analyst")
    try:
        page.goto(f"{stack.settings.superset}/superset/dashboard/overview/")
        drawn(page, charts_of("overview"))
        link = page.locator("a[href*='/superset/dashboard/device/']").first
        device = link.inner_text()
        page.goto(stack.settings.superset + link.get_attribute("href"))
        drawn(page, charts_of("device"))
        assert device in page.locator("[data-test=filter-bar], .filter-bar, aside").first.inner_text()
    finally:
        page.close()


def test_refresh(stack: Any) -> None:
    done = stack.python("tools", "-m", "jobs.refresh_dashboards", "--end", "2026-01-01T00:00:00Z")
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert summary["errors"] == []
    assert summary["charts"] == len(dashboards.bundle().charts)
