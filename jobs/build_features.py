"""Feature store: builds the feature views of a window from bronze into silver, with `--with-baselines` also the baselines.

Windows that end in (start, end] are computed again from every event that has arrived and replaced, so that running
twice changes nothing and a late event is corrected. A window without events is not an error: nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tidewatch import events, features, tables
from tidewatch.features import render
from tidewatch.settings import Settings

from jobs import cli
from jobs import spark as sp

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def query(settings: Settings, name: str, start: datetime, end: datetime) -> str:
    """The view as Spark SQL over the Delta tables it reads, for windows ending in (start, end]."""
    view = features.view(name)
    first = start - timedelta(seconds=view.size_seconds)
    relations = {
        s.name: sp.window(settings, tables.table(s.name), first, end, closed="left" if s.name in events.names() else "right")
        for s in view.sources
    }
    return render.spark_view_sql(view, relations, start_ms=cli.millis(start), end_ms=cli.millis(end))


def build(spark: SparkSession, settings: Settings, start: datetime, end: datetime) -> dict[str, int]:
    """Build every view, in the order in which they read each other; rows written by view."""
    rows: dict[str, int] = {}
    for name in features.names():
        begin = time.monotonic()
        table = tables.table(name)
        if not any(sp.exists(settings, tables.table(s.name)) for s in features.view(name).sources):
            cli.say(f"{name}: nothing to read yet, {', '.join(s.name for s in features.view(name).sources)} not in the lake")
            rows[name] = 0
            continue
        frame = spark.sql(query(settings, name, start, end))
        where = f"`window_end` > {sp.instant(start)} AND `window_end` <= {sp.instant(end)}"
        rows[name] = sp.replace(settings, table, frame, where)
        cli.say(f"{name}: {rows[name]:,} windows in {time.monotonic() - begin:.1f} s")
    return rows


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    with sp.session(settings, "build_features") as spark:
        rows = build(spark, settings, options.start, options.end)
        total = sum(rows.values())
        if not total:
            cli.say(f"no events in the window {cli.iso(options.start)} to {cli.iso(options.end)}: nothing to build")
        summary: dict[str, Any] = {
            "job": "build_features", "start": cli.iso(options.start), "end": cli.iso(options.end), "rows": total, "tables": rows,
        }
        if options.with_baselines:
            from jobs import build_baselines

            summary["baselines"] = build_baselines.build(
                spark, settings, options.baselines_start or options.start, options.end, options.valid_from or options.end,
                publish=not options.no_publish,
            )
    return summary


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--with-baselines", action="store_true", help="build the baselines too, in the same Spark session")
    p.add_argument("--baselines-start", type=cli.moment, help="how far back the baselines look (default: --start)")
    p.add_argument("--valid-from", type=cli.moment, help="event time from which the baselines hold (default: --end)")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
