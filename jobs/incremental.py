"""Incremental building: the windows that the stream aggregated already are handed over, the others are built from the events.

A window of the stream is whole if it counts as many events as bronze has of it: the stream loses a late event, and never
makes one up. So the counts of each window length are compared (`jobs.counts`: the files' own statistics and one column);
where they differ (late events, a stream that was down or started anew), the windows of that time are counted by device,
and those of the devices that differ are built from the events by Spark. The same look goes back `batch.lateness` before
the build, at what the store holds already. On every build, the windows of some devices in some minutes are built both
ways and compared; if they do not agree, everything is built from the events.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tidewatch import events, tables
from tidewatch.features import FeatureView, render
from tidewatch.settings import Settings
from tidewatch.tables import Table

from jobs import cli, counts, lake
from jobs import spark as sp

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import SparkSession

SAMPLE_WINDOWS = 10
"""Window lengths of which some devices' windows are built both ways, at most."""
SAMPLE_EVENTS = 2_000_000
"""Events that the sample reads at most, but for its first window length: Spark reads all of a time to find some devices."""
SAMPLE_DEVICES = 50
MOST_RANGES = 200
"""Stretches of time that are asked for one by one; if there are more, all that lies between them is read."""
MOST_DEVICES = 1000
"""Devices that are asked for by name; if more of them differ, all devices of these times are built again."""
TOLERANCE = 1e-9
"""Relative difference up to which two doubles are the same: engines add in another order. Whole numbers must be equal."""


@dataclass(frozen=True)
class Reopened:
    """Windows that the stream or the store has not whole: of these devices (None: of all) at these ends (milliseconds)."""

    ends: tuple[int, ...] = ()
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Taken:
    """What of a view's windows can be handed over as the stream has them."""

    windows: int
    """Window lengths in which there were events."""
    reopened: Reopened = field(default_factory=Reopened)
    """What the stream has not whole."""
    checked: int = 0
    """Windows that were built both ways."""
    parity: bool = True
    """They agreed; False: all is built from the events."""
    everything: bool = False
    """All is built from the events."""

    def summary(self) -> dict[str, object]:
        """What the job says of it."""
        return {"windows": self.windows, "reopened": self.windows if self.everything else len(self.reopened.ends), "checked": self.checked, "parity": self.parity}


def counted(view: FeatureView) -> str:
    """The feature that counts a window's events, or '' if the view has none or is none that the stream publishes."""
    if view.over_views or not view.published or not view.tumbling or len(view.sources) != 1:
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


def again(settings: Settings, view: FeatureView, table: Table, start: datetime, end: datetime) -> tuple[dict[int, int], counts.Held]:
    """Events by window end of what there is in (start, end], and what a table of the view holds of it."""
    first, last = _ends(view, start, end)
    there = counts.events(settings, tables.table(view.sources[0].name), first, last, view.size_seconds * 1000) if first < last else {}
    return there, counts.held(settings, table, view, counted(view), start, end)


def reopened(settings: Settings, view: FeatureView, held: counts.Held, ends: Sequence[int]) -> Reopened:
    """Whose windows at these ends are not whole."""
    if not ends:
        return Reopened()
    devices = counts.differing(view, counts.events_by_key(settings, view, ends), held.table, ends)
    return Reopened(tuple(ends), tuple(devices) if len(devices) <= MOST_DEVICES else None)


def late(settings: Settings, view: FeatureView, start: datetime, end: datetime) -> Reopened:
    """What of the windows in (start, end] that the store holds has got more events since."""
    table = tables.table(view.name)
    if next(counts.windows(settings, table, ["window_end"], start, end), None) is None:
        return Reopened()
    there, held = again(settings, view, table, start, end)
    seen = held.events()
    return reopened(settings, view, held, sorted(e for e, n in seen.items() if there.get(e, 0) > n))


def take(spark: SparkSession, settings: Settings, view: FeatureView, start: datetime, end: datetime) -> Taken:
    """What of the view's windows that end in (start, end] the stream has whole, and whether it computes them as Spark does."""
    begin = time.monotonic()
    online = tables.table(f"{view.name}_online")
    there, held = again(settings, view, online, start, end)
    seen = held.events()
    windows = len(there.keys() | seen.keys())
    ends = sorted({e for e in there.keys() | seen.keys() if there.get(e) != seen.get(e)} | held.twice())
    open_ = reopened(settings, view, held, ends) if seen else Reopened(tuple(ends))
    if 2 * len(ends) > windows and open_.devices is None:
        cli.say(f"{view.name}: the stream has {windows - len(ends)} of {windows} window lengths whole: all are built from the events")
        return Taken(windows, everything=True)
    checked, wrong = parity(spark, settings, view, online, start, end, there, open_)
    if wrong:
        cli.say(f"{view.name}: {wrong} of {checked} windows that were built both ways DIFFER: all are built from the events")
        return Taken(windows, checked=checked, parity=False, everything=True)
    cli.say(f"{view.name}: the stream has {windows - len(open_.ends)} of {windows} window lengths whole, {_devices(open_)} differ in the others, "
            f"{checked} windows checked, in {time.monotonic() - begin:.1f} s")
    return Taken(windows, open_, checked)


def _devices(x: Reopened) -> str:
    return "many devices" if x.devices is None and x.ends else f"{len(x.devices or ())} devices"


def mended(
    spark: SparkSession, settings: Settings, view: FeatureView, table: Table, start: datetime, end: datetime, x: Reopened, built: list[pa.Table],
    *, only: bool = False,
) -> Iterator[pa.RecordBatch]:
    """A table's windows of a view that end in (start, end], those that are open again built from the events (and put into
    `built`); `only`: of no other ends."""
    import pyarrow as pa
    from pyarrow import compute

    names = [c.name for c in tables.view_columns(view.name)]
    ends = pa.array([e * 1000 for e in x.ends], pa.int64()).cast(pa.timestamp("us"))
    for batch in counts.windows(settings, table, [*names, "date"], start, end):
        if x.ends:
            out = then = compute.is_in(batch["window_end"].cast(pa.timestamp("us")), ends)
            if x.devices is not None:
                out = compute.and_(out, compute.is_in(batch["device_id"], pa.array(x.devices, pa.string())))
            keep = compute.invert(out)
            batch = batch.filter(compute.and_(keep, then) if only else keep)
        if len(batch):
            yield batch
    if x.ends:
        found = spark.sql(f"SELECT {', '.join(map(render.quoted, names))} FROM ({_built(settings, view, x)})").toArrow()
        built.append(found)
        yield from found.to_batches()


def _built(settings: Settings, view: FeatureView, x: Reopened) -> str:
    """The open windows from the events, as Spark SQL."""
    size = view.size_seconds * 1000
    ranges = stretches(x.ends, size)
    if len(ranges) > MOST_RANGES:
        ranges = [(ranges[0][0], ranges[-1][1])]
    ts = render.quoted(events.contract(view.sources[0].name).time.name)
    where = "(" + " OR ".join(f"{ts} >= {_instant(a)} AND {ts} < {_instant(b)}" for a, b in ranges) + ")"
    if x.devices is not None:
        where += f" AND {_named(x.devices)}"
    first, last = (datetime.fromtimestamp(m / 1000, UTC) for m in (ranges[0][0], ranges[-1][1]))
    ends = ", ".join(f"{e}L" for e in x.ends)
    return f"SELECT * FROM ({from_events(settings, view, first, last, where)}) WHERE `window_end_ms` IN ({ends})"


def _named(devices: Sequence[str]) -> str:
    quoted = ", ".join("'" + d.replace("\\", "\\\\").replace("'", "\\'") + "'" for d in devices)
    return f"`device_id` IN ({quoted})" if devices else "FALSE"


def sample(view: FeatureView, start: datetime, end: datetime, there: dict[int, int]) -> list[int]:
    """Ends (milliseconds) of the windows that are built both ways: the first, which may still be of the stream as it was before
    an upgrade, and a stretch that follows from the end of the build, so that every build looks elsewhere and a repetition at the same."""
    size = view.size_seconds * 1000
    first, last = (cli.millis(t) for t in _ends(view, start, end))
    if first + size > last:
        return []
    steps = max((last - first) // size - SAMPLE_WINDOWS, 0) + 1
    low = first + (cli.millis(end) // 60_000 * 2_654_435_761 % steps) * size
    ends, total = {first + size}, 0
    for until in range(low + size, min(low + SAMPLE_WINDOWS * size, last) + 1, size):
        total += there.get(until, 0)
        if until > low + size and total > SAMPLE_EVENTS:
            break
        ends.add(until)
    return sorted(ends)


def parity(
    spark: SparkSession, settings: Settings, view: FeatureView, table: Table, start: datetime, end: datetime, there: dict[int, int], x: Reopened,
) -> tuple[int, int]:
    """Build the windows of some devices in some stretch both ways: how many, and how many differ."""
    import pyarrow as pa

    names = [c.name for c in tables.view_columns(view.name)]
    ends = sample(view, start, end, there)
    ranges = [tuple(datetime.fromtimestamp(m / 1000, UTC) for m in r) for r in stretches(ends, view.size_seconds * 1000)]
    batches = [batch for low, high in ranges for batch in counts.windows(settings, table, names, low, high)]
    if not batches:
        return 0, 0
    seen = pa.Table.from_batches(batches).to_pandas()
    devices = chosen(seen["device_id"].unique(), cli.millis(end))
    built = spark.sql(_built(settings, view, Reopened(tuple(ends), tuple(devices)))).toArrow().select(names).to_pandas()

    def whole(found: pd.DataFrame) -> pd.DataFrame:
        found = found[found["device_id"].isin(devices)]
        open_ = found["window_end"].isin(_moments(x.ends))
        return found[~(open_ if x.devices is None else open_ & found["device_id"].isin(x.devices))]

    return different(whole(built), whole(seen), [*view.keys, "window_end"], [f.name for f in view.features])


def chosen(devices: Iterable[str], seed: int) -> list[str]:
    """Some of the devices, the same ones for the same seed."""
    import hashlib

    return sorted(devices, key=lambda d: hashlib.blake2b(f"{seed} {d}".encode(), digest_size=8).digest())[:SAMPLE_DEVICES]


def _moments(ends: Iterable[int]) -> pd.DatetimeIndex:
    import pandas as pd

    return pd.DatetimeIndex(pd.to_datetime(list(ends), unit="ms")).astype("datetime64[us]")


def different(one: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> tuple[int, int]:
    """How many windows there are, and how many are not in both or have another value; doubles to `TOLERANCE`."""
    import numpy as np

    both = one.merge(other, on=list(keys), how="outer", suffixes=("", " other"), indicator=True)
    wrong = (both["_merge"] != "both").to_numpy()
    for v in values:
        a, b = (both[n].to_numpy(dtype=np.float64, na_value=np.nan) for n in (v, f"{v} other"))
        off = np.abs(a - b) > (TOLERANCE * np.maximum(np.abs(a), np.abs(b)) if one[v].dtype.kind == "f" else 0)
        wrong |= off | (np.isnan(a) != np.isnan(b))
    return len(both), int(wrong.sum())


def inside(ends: Iterable[int]) -> str:
    """The windows that end at these moments, as SQL of delta-rs."""
    listed = ", ".join(lake.instant(datetime.fromtimestamp(e / 1000, UTC)) for e in ends)
    return f"window_end IN ({listed})"
