"""Incremental building: the windows that the stream aggregated already are taken over, the others are built from the events.

A window of the stream is whole if it counts as many events as bronze has of that time: the stream loses a late event, and
never makes one up. So the counts of each window length are compared, which reads one column of the events; where they
differ (late events, a stream that was down or started anew) all windows of that time are built from the events again.
On every build, the windows of some devices in some minutes are built both ways and compared; if they do not agree,
everything is built from the events.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tidewatch import events, tables
from tidewatch.features import FeatureView, render
from tidewatch.settings import Settings

from jobs import cli
from jobs import spark as sp
from jobs.consistency import compare

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLE_WINDOWS = 10
"""Window lengths of which some devices' windows are built both ways."""
SAMPLE_DEVICES = 50
MOST_RANGES = 200
"""Stretches of time that are built again one by one; if there are more, all is built again."""


@dataclass(frozen=True)
class Taken:
    """A view's windows of a build, and where they came from."""

    rows: DataFrame
    windows: int
    """Window lengths in which there were events."""
    reopened: int
    """Of those, built from the events: the stream did not have all of them."""
    checked: int
    """Windows that were built both ways."""
    parity: bool
    """They agreed; False: all was built from the events."""


def counted(view: FeatureView) -> str:
    """The feature that counts a window's events, or '' if the view has none or is none that the stream publishes."""
    if view.over_views or not view.published or not view.tumbling or len(view.sources) != 1 or view.sources[0].columns:
        return ""
    return next((f.name for f in view.features if f.expression == "COUNT(*)"), "")


def ready(settings: Settings, view: FeatureView) -> bool:
    """True if the stream's windows of the view can be counted and are there, with every feature that the view has today."""
    from deltalake import DeltaTable

    table = tables.table(f"{view.name}_online") if counted(view) else None
    if table is None or not sp.exists(settings, table):
        return False
    there = {f.name for f in DeltaTable(str(table.path(settings))).schema().fields}
    return {c.name for c in table.columns} <= there


def from_events(settings: Settings, view: FeatureView, start: datetime, end: datetime, where: str = "") -> str:
    """The view as Spark SQL over its sources' Delta tables, for windows ending in (start, end]; `where` narrows the rows read."""
    first = start - timedelta(seconds=view.size_seconds)
    relations = {
        s.name: sp.window(settings, tables.table(s.name), first, end, closed="left" if s.name in events.names() else "right")
        for s in view.sources
    }
    if where:
        relations = {n: f"(SELECT * FROM {r} WHERE {where})" for n, r in relations.items()}
    return render.spark_view_sql(view, relations, start_ms=cli.millis(start), end_ms=cli.millis(end))


def _ends(view: FeatureView, start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The first instant of the first window and the last of the last, of those that end in (start, end]."""
    size = timedelta(seconds=view.size_seconds)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return start - (start - epoch) % size, end - (end - epoch) % size


def incomplete(spark: SparkSession, settings: Settings, view: FeatureView, start: datetime, end: datetime) -> tuple[list[int], int]:
    """Ends (milliseconds) of the windows that the stream has not all events of, or twice; and how many window lengths had events."""
    source = view.sources[0].name
    ts = render.quoted(events.contract(source).time.name)
    size = view.size_seconds * 1000
    keys = ", ".join(render.quoted(k) for k in view.keys)
    first, last = _ends(view, start, end)
    found = spark.sql(
        f"WITH there AS (SELECT ms - PMOD(ms, {size}L) + {size}L AS window_end_ms, COUNT(*) AS n FROM "
        f"(SELECT UNIX_MILLIS(CAST({ts} AS TIMESTAMP)) AS ms FROM {sp.window(settings, tables.table(source), first, last)}) GROUP BY 1), "
        f"seen AS (SELECT UNIX_MILLIS(CAST(`window_end` AS TIMESTAMP)) AS window_end_ms, SUM(`{counted(view)}`) AS n, "
        f"COUNT(*) - COUNT(DISTINCT {keys}) AS twice FROM {sp.window(settings, tables.table(f'{view.name}_online'), start, end, closed='right')} GROUP BY 1) "
        "SELECT window_end_ms, NOT (there.n <=> seen.n) OR seen.twice > 0 AS open FROM there FULL OUTER JOIN seen USING (window_end_ms) ORDER BY 1"
    ).collect()
    return [r[0] for r in found if r[1]], len(found)


def stretches(ends: Iterable[int], size: int) -> list[tuple[int, int]]:
    """Ends of windows (sorted, milliseconds) as stretches [from, until) of event time."""
    out: list[tuple[int, int]] = []
    for end in ends:
        if out and out[-1][1] == end - size:
            out[-1] = (out[-1][0], end)
        else:
            out.append((end - size, end))
    return out


def _instant(ms: int) -> str:
    return sp.instant(datetime.fromtimestamp(ms / 1000, UTC))


def take(spark: SparkSession, settings: Settings, view: FeatureView, start: datetime, end: datetime) -> Taken:
    """The view's windows that end in (start, end], from the stream where it has them whole, else from the events."""
    begin = time.monotonic()
    names = [c.name for c in tables.view_columns(view.name)]
    columns = ", ".join(render.quoted(n) for n in names)
    again, windows = incomplete(spark, settings, view, start, end)
    size = view.size_seconds * 1000
    ranges = stretches(again, size)
    everything = spark.sql(from_events(settings, view, start, end))
    online = spark.sql(f"SELECT {columns} FROM {sp.window(settings, tables.table(f'{view.name}_online'), start, end, closed='right')}")
    if len(again) == windows or len(ranges) > MOST_RANGES:
        cli.say(f"{view.name}: the stream has {windows - len(again)} of {windows} window lengths whole: all are built from the events")
        return Taken(everything, windows, windows, 0, True)
    checked, wrong = parity(spark, settings, view, online, start, end, set(again))
    if wrong:
        cli.say(f"{view.name}: {wrong} of {checked} windows that were built both ways DIFFER: all are built from the events")
        return Taken(everything, windows, windows, checked, False)
    rows = online
    if ranges:
        ts = render.quoted(events.contract(view.sources[0].name).time.name)
        inside = " OR ".join(f"{ts} >= {_instant(a)} AND {ts} < {_instant(b)}" for a, b in ranges)
        closed = " OR ".join(f"`window_end` > {_instant(a)} AND `window_end` <= {_instant(b)}" for a, b in ranges)
        rows = online.where(f"NOT ({closed})").unionByName(spark.sql(f"SELECT {columns} FROM ({from_events(settings, view, start, end, inside)})"))
    cli.say(f"{view.name}: {windows - len(again)} of {windows} window lengths are the stream's, {len(again)} built from the events, {checked} windows checked, in {time.monotonic() - begin:.1f} s")
    return Taken(rows, windows, len(again), checked, True)


def parity(
    spark: SparkSession, settings: Settings, view: FeatureView, online: DataFrame, start: datetime, end: datetime, again: set[int],
) -> tuple[int, int]:
    """Build the windows of some devices in some stretch both ways: how many, and how many differ.

    Stretch and devices follow from the end of the build, so that every build looks elsewhere and a repetition at the same.
    """
    size = timedelta(seconds=view.size_seconds)
    first, last = _ends(view, start, end)
    steps = max((last - first) // size - SAMPLE_WINDOWS, 0) + 1
    low = first + (cli.millis(end) // 60_000 * 2_654_435_761 % steps) * size
    high = min(low + SAMPLE_WINDOWS * size, last)
    near = f"`window_end` > {sp.instant(low)} AND `window_end` <= {sp.instant(high)}"
    seen = online.where(near)
    devices = [r[0] for r in seen.selectExpr("device_id", f"XXHASH64(device_id, {cli.millis(end)}L) AS h").distinct().orderBy("h").limit(SAMPLE_DEVICES).collect()]
    if not devices:
        return 0, 0
    mine = f"`device_id` IN ({', '.join(repr(d) for d in devices)})"
    built = spark.sql(from_events(settings, view, low, high, mine))
    near_again = [f"{x}L" for x in sorted(again) if cli.millis(low) < x <= cli.millis(high)]
    whole = f"UNIX_MILLIS(CAST(`window_end` AS TIMESTAMP)) NOT IN ({', '.join(near_again)})" if near_again else "TRUE"
    found = compare(spark, built.where(whole), seen.where(mine).where(whole), (*view.keys, "window_end"), [f.name for f in view.features])
    return found.offline, found.missing + found.extra + found.mismatched

