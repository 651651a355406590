"""Refreshes Superset: takes over new columns, warms every chart's cache, and fails if a chart cannot be drawn.

`python -m jobs.refresh_dashboards [--end 2026-01-31T04:00:00Z]` prints a JSON summary; `--end` only names the run.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Any

from tidewatch import dashboards, tables
from tidewatch.errors import ServiceError, TidewatchError
from tidewatch.settings import Settings, current

from jobs.topics import publish


def _listed(session: Any, base: str, kind: str) -> list[dict[str, Any]]:
    r = session.get(f"{base}/api/v1/{kind}/", params={"q": "(page:0,page_size:1000)"}, timeout=120)
    if not r.ok:
        raise ServiceError(f"Superset does not list its {kind}s: {r.text[:300]}")
    found: list[dict[str, Any]] = r.json()["result"]
    return found


def refresh(settings: Settings) -> dict[str, Any]:
    """Refresh what the bundle brought in; returns counts and every chart's error."""
    bundle = dashboards.bundle()
    base = settings.superset
    session = dashboards.session(settings)
    ours = {d["uuid"] for d in bundle.datasets.values()}
    errors: list[dict[str, str]] = []
    refreshed = 0
    for d in _listed(session, base, "dataset"):
        if str(d.get("uuid")) not in ours:
            continue
        r = session.put(f"{base}/api/v1/dataset/{d['id']}/refresh", timeout=120)
        if r.ok:
            refreshed += 1
        else:
            errors.append({"dataset": d["table_name"], "error": r.text[:300]})
    warmed = 0
    slugs = {d["slug"] for d in bundle.dashboards.values()}
    for dashboard in _listed(session, base, "dashboard"):
        if dashboard["slug"] not in slugs:
            continue
        r = session.get(f"{base}/api/v1/dashboard/{dashboard['id']}/charts", timeout=120)
        for chart in r.json()["result"] if r.ok else []:
            r = session.put(
                f"{base}/api/v1/chart/warm_up_cache", json={"chart_id": chart["id"], "dashboard_id": dashboard["id"]}, timeout=120,
            )
            result = r.json()["result"][0] if r.ok else {"viz_error": r.text[:300]}
            if result["viz_error"]:
                errors.append({"chart": f"{dashboard['slug']}: {chart['slice_name']}", "error": str(result["viz_error"])[:300]})
            else:
                warmed += 1
    return {"datasets": refreshed, "charts": warmed, "errors": errors}


def note(settings: Settings, at: datetime) -> None:
    """Let every dashboard say when it was refreshed: a row of the table `pipeline`."""
    row = {"at": round(at.timestamp() * 1000), "metric": "dashboards_refreshed", "subject": "", "value": at.timestamp(), "unit": "s", "detail": ""}
    publish(settings, tables.PIPELINE, [row], "metric", "at")


def main() -> int:
    """Refresh; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", default="", help="not used: every job takes a window")
    parser.add_argument("--end", default="", help="names the run in the summary")
    given = parser.parse_args()
    try:
        settings = current()
        imported = dashboards.apply(settings, only_if_changed=True)
        summary = {"end": given.end, "imported": imported, **refresh(settings)}
        if not summary["errors"]:
            note(settings, datetime.now(UTC))
    except TidewatchError as e:
        print(f"{e.reason} Fix: {e.fix}" if e.fix else e.reason, file=sys.stderr)
        return 1
    print(json.dumps(summary))
    want = len(dashboards.bundle().charts)
    if summary["charts"] < want and not summary["errors"]:
        print(f"only {summary['charts']} of {want} charts are in Superset. Fix: tidewatch dashboards apply", file=sys.stderr)
        return 1
    return 1 if summary["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
