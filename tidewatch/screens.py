"""The screens in a real browser: log in, wait until all is drawn, take the pictures of `docs/images/`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tidewatch.dashboards import files
from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1600, 1000
TALL = 4200
"""Height at which a dashboard draws all of its charts: it draws only those in view."""
CHART = "[class*=dashboard-chart-id-]"
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]
_ERROR = "[role=alert], .ant-alert-error, [data-test=chart-error]"
_PATIENCE, _LOGIN = 120_000, 20_000
"""Milliseconds; of a login that is then tried again."""


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless; raises ServiceError if there is none."""
    from playwright.sync_api import sync_playwright

    program = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if program is None:
        raise ServiceError("there is no Chromium on the PATH.", "install it, e.g. apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        try:
            yield running
        finally:
            running.close()


def page_of(running: Browser, *, height: int = TALL) -> Page:
    """A page of its own session, English, in UTC."""
    page = running.new_context(viewport={"width": WIDTH, "height": height}, locale="en-GB", timezone_id="UTC").new_page()
    page.set_default_timeout(_PATIENCE)
    return page


def log_in(page: Page, settings: Settings, server: str, account: str) -> None:
    """Log in to `superset` or `airflow` as one of its accounts; raises ServiceError after some tries.

    Logged in to Superset is who is led away from its login page. Else it is tried again: the page may draw its form anew while it is
    filled in, and on a slow machine Superset has been seen to take a login and to ask for it again a moment later.
    """
    from playwright.sync_api import TimeoutError as TookTooLong

    base, log = (f"{settings.superset}/login/", "superset") if server == "superset" else (f"{settings.airflow}/auth/login/", "airflow_api")
    for patience in (_LOGIN, _LOGIN, _PATIENCE, 0):
        page.goto(base)
        if "/login" not in page.url:
            return
        if not patience:
            break
        page.locator("#username, input[name=username]").first.fill(account)
        page.locator("input[type=password]").fill(settings.secret(f"{server}_{account}_password"))
        page.locator("button[type=submit], input[type=submit]").first.click()
        try:
            page.wait_for_url(lambda url: "/login" not in url, timeout=patience)
        except TookTooLong:
            continue
        if server == "airflow":  # its login page shows its form to everybody
            return
    raise ServiceError(f"{account} cannot log in at {base}.", f"`tidewatch logs {log}` may tell why")


def charts_of(slug: str) -> int:
    """How many charts a dashboard has."""
    board = next(d for d in files.read().dashboards.values() if d["slug"] == slug)
    return sum(isinstance(x, dict) and x["type"] == "CHART" for x in board["position"].values())


def drawn(page: Page, charts: int) -> list[str]:
    """Wait until every chart of a dashboard is drawn; the texts of those that show an error."""
    page.wait_for_function(f"() => document.querySelectorAll('{CHART}').length == {charts}")
    done = f"""() => [...document.querySelectorAll('{CHART}')].every(c => c.querySelector('{_ERROR}') || [...c.querySelectorAll('.slice_container')]
        .some(s => s.querySelector('canvas, svg, table') || s.innerText.trim()))"""
    page.wait_for_function(done)
    page.wait_for_timeout(1500)
    page.wait_for_function(done)
    found: list[str] = page.eval_on_selector_all(CHART, f"e => e.filter(c => c.querySelector('{_ERROR}')).map(c => c.innerText.slice(0, 300))")
    return found


def dashboard(page: Page, settings: Settings, slug: str, query: str = "") -> list[str]:
    """Open a dashboard and wait until it is drawn; the texts of its errors."""
    page.goto(f"{settings.superset}/superset/dashboard/{slug}/{query}")
    if "/login" in page.url:
        raise ServiceError(f"Superset asks for a login instead of showing the dashboard {slug}.", "`tidewatch logs superset` may tell why")
    return drawn(page, charts_of(slug))


def pictures(settings: Settings, folder: Path = IMAGES) -> Iterator[Path]:
    """Take a picture of every screen, WIDTH x HEIGHT, and give its path; raises ServiceError if a chart shows an error."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as running:
        page = page_of(running)

        def keep(name: str) -> Path:
            page.wait_for_timeout(1500)
            page.screenshot(path=str(folder / f"{name}.png"), clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT})
            return folder / f"{name}.png"

        # the analyst's view: without the buttons for editing
        log_in(page, settings, "superset", "analyst")
        for board in files.read().dashboards.values():
            slug = str(board["slug"])
            query = _first_device(page, settings) if slug == "device" else ""
            wrong = dashboard(page, settings, slug, query)
            if wrong:
                raise ServiceError(f"the dashboard {slug} shows errors: {'; '.join(wrong)}.", "`python -m jobs.refresh_dashboards` names the charts")
            yield keep(slug)
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        page.goto(f"{settings.reports}/")
        yield keep("start")
        page.goto(f"{settings.reports}/data-docs/index.html")
        yield keep("reports")
        alias = f"{settings.mlflow}/api/2.0/mlflow/registered-models/alias?name=tidewatch-leak&alias=champion"
        champion = page.request.get(alias).json()["model_version"]["version"]
        page.goto(f"{settings.mlflow}/#/models/tidewatch-leak/versions/{champion}")
        page.get_by_text("delta_versions").first.wait_for()
        yield keep("mlflow")
        log_in(page, settings, "airflow", "admin")
        page.goto(f"{settings.airflow}/dags/feature_store")
        page.get_by_text("build_baselines").first.wait_for()
        yield keep("airflow")


def _first_device(page: Page, settings: Settings) -> str:
    """The query of the link from the overview's first incident to its device; '' if there is no incident."""
    dashboard(page, settings, "overview")
    link = page.locator("a[href*='/superset/dashboard/device/?']")
    return "?" + str(link.first.get_attribute("href")).split("?", 1)[1] if link.count() else ""
