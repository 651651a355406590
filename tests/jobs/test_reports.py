"""The reports: nothing from outside, an index of the runs, old ones forgotten."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from jobs import reports

PAGE = (
    '<html><head><script src="https://code.jquery.com/jquery.js"></script><link rel="stylesheet" href="https://cdn/x.css"></head>'
    '<body><img src="https://assets/logo.png?dataContextId=1"><a href="https://greatexpectations.io">x</a></body></html>'
)


def row(run: int, table: str, success: bool) -> dict[str, Any]:
    return {"run_id": f"{run}/x", "run_at": run * 86_400_000, "table_name": table, "expectation": "not_null", "column_name": "<ts>", "success": success,
            "observed": "", "unexpected": 0 if success else 7, "report": f"http://r/{run}/{table}.html"}


def test_a_page_loads_nothing_from_outside() -> None:
    fit = reports.offline(PAGE)
    assert 'src="http' not in fit and '<link rel="stylesheet" href="http' not in fit
    assert "/data-docs/style.css" in fit
    assert reports.offline(fit) == fit


def test_the_index_tells_what_failed_newest_first() -> None:
    text = reports.index([row(1, "flow", True), row(2, "flow", True), row(2, "reading", False)])
    assert text.index("http://r/2/reading.html") < text.index("http://r/2/flow.html") < text.index("http://r/1/flow.html")
    assert "1 of 1 failed" in text and "&lt;ts&gt;: not_null, observed 7" in text
    assert "Nothing has been validated" in reports.index([])


def test_old_runs_are_forgotten(tmp_path: Path) -> None:
    for day in ("01", "20", "21"):
        page = tmp_path / "validations" / "flow" / "__none__" / f"202603{day}T000000.000001Z" / "tidewatch-flow.html"
        page.parent.mkdir(parents=True)
        page.write_text(PAGE)
    reports.finish(tmp_path, [row(1, "flow", True), row(30, "flow", True)], timedelta(days=7))
    assert len(list(tmp_path.rglob("tidewatch-flow.html"))) == 2
    assert "http://r/1/" not in (tmp_path / "index.html").read_text()
    assert all('src="https' not in p.read_text() for p in tmp_path.rglob("*.html"))
