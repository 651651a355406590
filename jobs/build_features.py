"""Feature store: builds the feature views of a window into silver, with `--with-baselines` also the baselines.

Windows that end in (start, end] are replaced, so that running twice changes nothing and a late event is corrected. What the
stream has aggregated already is taken over where it is whole (`jobs.incremental`), the rest is computed from every event
that has arrived; `--source events` computes all of it. A window without events is not an error: nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidewatch import features, tables
from tidewatch.settings import Settings

from jobs import cli, incremental
from jobs import spark as sp

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def build(spark: SparkSession, settings: Settings, start: datetime, end: datetime, *, events_only: bool = False) -> tuple[dict[str, int], dict[str, Any]]:
    """Build every view, in the order in which they read each other; rows written by view, and what was taken from the stream."""
    rows: dict[str, int] = {}
    taken: dict[str, Any] = {}
    for name in features.names():
        begin = time.monotonic()
        table, view = tables.table(name), features.view(name)
        if not any(sp.exists(settings, tables.table(s.name)) for s in features.view(name).sources):
            cli.say(f"{name}: nothing to read yet, {', '.join(s.name for s in features.view(name).sources)} not in the lake")
            rows[name] = 0
            continue
        if events_only or not incremental.ready(settings, view):
            frame = spark.sql(incremental.from_events(settings, view, start, end))
        else:
            t = incremental.take(spark, settings, view, start, end)
            frame = t.rows
            taken[name] = {"windows": t.windows, "reopened": t.reopened, "checked": t.checked, "parity": t.parity}
        where = f"`window_end` > {sp.instant(start)} AND `window_end` <= {sp.instant(end)}"
        rows[name] = sp.replace(settings, table, frame, where)
        cli.say(f"{name}: {rows[name]:,} windows in {time.monotonic() - begin:.1f} s")
    return rows, taken


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    with cli.one_at_a_time(settings, "feature_store"), sp.session(settings, "build_features") as spark:
        rows, taken = build(spark, settings, options.start, options.end, events_only=options.source == "events")
        total = sum(rows.values())
        if not total:
            cli.say(f"no events in the window {cli.iso(options.start)} to {cli.iso(options.end)}: nothing to build")
        summary: dict[str, Any] = {
            "job": "build_features", "start": cli.iso(options.start), "end": cli.iso(options.end), "rows": total, "tables": rows, "stream": taken,
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
    p.add_argument("--source", choices=("auto", "events"), default="auto", help="take over the stream's windows where they are whole, or compute all from the events (default auto)")
    p.add_argument("--with-baselines", action="store_true", help="build the baselines too, in the same Spark session")
    p.add_argument("--baselines-start", type=cli.moment, help="how far back the baselines look (default: --start)")
    p.add_argument("--valid-from", type=cli.moment, help="event time from which the baselines hold (default: --end)")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
