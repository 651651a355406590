"""Refreshes Superset: takes over new columns, warms every chart's cache, and fails if a chart cannot be drawn.

Each chart is asked for exactly as a dashboard's page asks when it opens, its filters at their defaults: only then is the
answer in the cache the one that the page finds there (Superset's own `warm_up_cache` knows nothing of a page's filters).

`python -m jobs.refresh_dashboards [--end 2026-01-31T04:00:00Z]` prints a JSON summary; `--end` only names the run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tidewatch import tables
from tidewatch.dashboards import files, server
from tidewatch.dashboards.charts import page_request
from tidewatch.errors import ServiceError, TidewatchError
from tidewatch.pinot import query
from tidewatch.settings import Settings, current

from jobs.topics import publish

LAST = ("overview", "device")
"""Warmed last, the first of them at the very end: what an analyst opens first is the warmest."""
DEVICES = 3
"""So many devices' pages are warmed: those of the newest incidents, and the one with which the page opens."""


def _ask(settings: Settings, sql: str) -> list[str]:
    """The first column of an answer of Pinot; empty if it does not answer: the charts tell that themselves."""
    try:
        return [str(row[0]) for row in query(settings, sql)]
    except ServiceError:
        return []


def device_choices(settings: Settings) -> list[dict[str, dict[str, Any]]]:
    """What the page of a device has chosen in its filters: for the devices of the newest incidents, the newest last, and for the first of all, with which it opens.

    One empty choice if there is no device.
    """
    newest = dict.fromkeys(_ask(settings, "SELECT device_id FROM alerts WHERE device_id <> '*' ORDER BY \"end\" DESC LIMIT 50"))
    first = _ask(settings, "SELECT device_id FROM devices GROUP BY device_id ORDER BY device_id LIMIT 1")
    made = [{"NATIVE_FILTER-device": {"filters": [{"col": "device_id", "op": "IN", "val": [device]}]}}
            for device in dict.fromkeys([*[*newest][:DEVICES][::-1], *first])]
    return made or [{}]


def _listed(session: Any, base: str, kind: str) -> list[dict[str, Any]]:
    r = session.get(f"{base}/api/v1/{kind}/", params={"q": "(page:0,page_size:1000)"}, timeout=120)
    if not r.ok:
        raise ServiceError(f"Superset does not list its {kind}s: {r.text[:300]}")
    found: list[dict[str, Any]] = r.json()["result"]
    return found


def asked(settings: Settings, session: Any, bundle: files.Bundle) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(dashboard, chart, what its page sends to `/api/v1/chart/data`) of every chart that the bundle brought in, the page most looked at last."""
    base = settings.superset
    charts = {str(c["uuid"]): c["id"] for c in _listed(session, base, "chart")}
    data = {str(d["uuid"]): d["id"] for d in _listed(session, base, "dataset")}
    for board in sorted(bundle.dashboards.values(), key=lambda d: (*LAST, d["slug"]).index(d["slug"]), reverse=True):
        found = session.get(f"{base}/api/v1/dashboard/{board['slug']}", timeout=120)
        if not found.ok:
            continue  # its charts are counted as missing
        filters = json.loads(found.json()["result"]["json_metadata"])["native_filter_configuration"]
        shown = [server.filled(settings, c) for c in bundle.shown(board) if c["uuid"] in charts and c["dataset_uuid"] in data]
        for choice in device_choices(settings) if board["slug"] == "device" else [{}]:
            for chart in shown:
                number = charts[chart["uuid"]]
                chosen = [choice.get(f["id"], f["defaultDataMask"].get("extraFormData", {})) for f in filters if number not in f["scope"]["excluded"]]
                yield board["slug"], chart, page_request(chart, number, data[chart["dataset_uuid"]], chosen)


def refresh(settings: Settings) -> dict[str, Any]:
    """Refresh what the bundle brought in; returns counts and every chart's error."""
    bundle = files.read()
    base = settings.superset
    session = server.session(settings)
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
    warmed = set()
    for slug, chart, request in asked(settings, session, bundle):
        r = session.post(f"{base}/api/v1/chart/data", json=request, timeout=120)
        error = r.json()["result"][0].get("error") if r.ok else r.text
        if error:
            errors.append({"chart": f"{slug}: {chart['slice_name']}", "error": str(error)[:300]})
        else:
            warmed.add((slug, chart["uuid"]))
    return {"datasets": refreshed, "charts": len(warmed), "errors": errors}


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
        imported = server.apply(settings, only_if_changed=True)
        summary = {"end": given.end, "imported": imported, **refresh(settings)}
        if not summary["errors"]:
            note(settings, datetime.now(UTC))
    except TidewatchError as e:
        print(f"{e.reason} Fix: {e.fix}" if e.fix else e.reason, file=sys.stderr)
        return 1
    print(json.dumps(summary))
    want = len(files.read().charts)
    if summary["charts"] < want and not summary["errors"]:
        print(f"only {summary['charts']} of {want} charts are in Superset. Fix: tidewatch dashboards apply", file=sys.stderr)
        return 1
    return 1 if summary["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
