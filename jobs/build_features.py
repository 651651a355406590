"""Feature store: builds the feature views of a window into silver, with `--with-baselines` also the baselines.

Windows that end in (start, end] are replaced, so that running twice changes nothing and a late event is corrected. What the
stream has aggregated already is taken over where it is whole (`jobs.incremental`), the rest is computed from every event
that has arrived; `--source events` computes all of it. Windows that ended up to `batch.lateness` before are opened again if
events came to them since; what comes later still is counted. A window without events is not an error: nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tidewatch import features, tables
from tidewatch.errors import ServiceError
from tidewatch.features import FeatureView
from tidewatch.settings import Settings
from tidewatch.tables import Table

from jobs import cli, counts, incremental, lake, topics
from jobs import spark as sp
from jobs.incremental import Reopened

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Built:
    """What a build did, by view (`outside`: by source)."""

    rows: Mapping[str, int]
    """Windows written."""
    taken: Mapping[str, Any]
    """What was taken over from the stream."""
    late: Mapping[str, int]
    """Window lengths before the build that were built again, for events had come to them."""
    outside: Mapping[str, int]
    """Events that came too late to be counted: their windows ended more than `batch.lateness` before the build."""


def tell(settings: Settings, table: Table, rows: list[dict[str, Any]], key: str, at: str, *, raw: bool = False) -> None:
    """Tell the dashboards; a build is no worse for it if nobody hears."""
    try:
        topics.publish(settings, table, rows, key, at, raw=raw)
    except ServiceError as e:
        cli.say(f"the dashboards do not know it yet: {e.reason}")


def build(spark: SparkSession, settings: Settings, start: datetime, end: datetime, *, events_only: bool = False, publish: bool = False) -> Built:
    """Build every view, in the order in which they read each other; `publish`: what was mended goes to the views' topics, and so to Pinot."""
    rows: dict[str, int] = {}
    taken: dict[str, Any] = {}
    late: dict[str, int] = {}
    outside: dict[str, int] = {}
    before: dict[str, Reopened] = {}
    mended: list[pa.Table]
    for name in features.names():
        begin = time.monotonic()
        table, view = tables.table(name), features.view(name)
        if not any(sp.exists(settings, tables.table(s.name)) for s in view.sources):
            cli.say(f"{name}: nothing to read yet, {', '.join(s.name for s in view.sources)} not in the lake")
            rows[name] = 0
            continue
        mended = []
        before[name] = earlier(spark, settings, view, start, before, mended)
        late[name] = len(before[name].ends)
        if incremental.counted(view):
            outside[view.sources[0].name] = counts.arrived_late(settings, tables.table(view.sources[0].name), start - settings.batch.lateness, start, end)
        t = None if events_only or not incremental.ready(settings, view) else incremental.take(spark, settings, view, start, end)
        if t:
            taken[name] = t.summary()
        if t and not t.everything:
            where = f"window_end > {lake.instant(start)} AND window_end <= {lake.instant(end)}"
            stream = tables.table(f"{name}_online")
            rows[name] = lake.overwrite(settings, table, incremental.mended(spark, settings, view, stream, start, end, t.reopened, mended), where)
        else:
            where = f"`window_end` > {sp.instant(start)} AND `window_end` <= {sp.instant(end)}"
            rows[name] = sp.replace(settings, table, spark.sql(incremental.from_events(settings, view, start, end)), where)
        cli.say(f"{name}: {rows[name]:,} windows in {time.monotonic() - begin:.1f} s")
        if publish and table.topic and mended:
            tell(settings, table, [row for found in mended for row in lake.plain(table, found)], "device_id", table.time, raw=True)
    return Built(rows, taken, {n: k for n, k in late.items() if k}, outside)


def earlier(spark: SparkSession, settings: Settings, view: FeatureView, start: datetime, before: Mapping[str, Reopened], mended: list[pa.Table]) -> Reopened:
    """Build those windows again that ended up to `batch.lateness` before the build and to which events came since; which they
    are, and in `mended` their rows.

    A view over views follows its sources: `before` has what became of them.
    """
    table, low = tables.table(view.name), start - settings.batch.lateness
    if not sp.exists(settings, table) or low >= start:
        return Reopened()
    if view.over_views:
        changed = sorted({e for s in view.sources for e in before.get(s.name, Reopened()).ends})
        if changed:
            a = datetime.fromtimestamp(changed[0] / 1000, UTC) - timedelta(seconds=view.slide_seconds)
            b = min(datetime.fromtimestamp(changed[-1] / 1000, UTC) + timedelta(seconds=view.size_seconds), start)
            sp.replace(settings, table, spark.sql(incremental.from_events(settings, view, a, b)), f"`window_end` > {sp.instant(a)} AND `window_end` <= {sp.instant(b)}")
        return Reopened(tuple(changed))
    if not incremental.counted(view):
        return Reopened()
    found = incremental.late(settings, view, low, start)
    if found.ends:
        cli.say(f"{view.name}: late events in {len(found.ends)} window lengths before {cli.iso(start)}: built again")
        lake.overwrite(settings, table, incremental.mended(spark, settings, view, table, low, start, found, mended, only=True), incremental.inside(found.ends))
    return found


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    with cli.one_at_a_time(settings, "feature_store"), sp.session(settings, "build_features") as spark:
        built = build(spark, settings, options.start, options.end, events_only=options.source == "events", publish=not options.no_publish)
        total = sum(built.rows.values())
        if not total:
            cli.say(f"no events in the window {cli.iso(options.start)} to {cli.iso(options.end)}: nothing to build")
        summary: dict[str, Any] = {
            "job": "build_features", "start": cli.iso(options.start), "end": cli.iso(options.end), "rows": total, "tables": built.rows,
            "stream": built.taken, "late": built.late, "outside": built.outside,
        }
        if not options.no_publish:
            rows = [{"at": cli.millis(options.end), "metric": "too_late", "subject": source, "value": float(n), "unit": "events", "detail": ""}
                    for source, n in built.outside.items()]
            tell(settings, tables.PIPELINE, rows, "metric", "at")
        if options.with_baselines:
            from jobs import build_baselines

            summary["baselines"] = build_baselines.build(
                spark, settings, options.baselines_start or options.start, options.end, options.valid_from or options.end,
                publish=not options.no_publish,
            )
    return summary


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--source", choices=("auto", "events"), default="auto", help="take over the stream's windows where they are whole, or compute all from the events (default auto)")
    p.add_argument("--with-baselines", action="store_true", help="build the baselines too, in the same Spark session")
    p.add_argument("--baselines-start", type=cli.moment, help="how far back the baselines look (default: --start)")
    p.add_argument("--valid-from", type=cli.moment, help="event time from which the baselines hold (default: --end)")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
