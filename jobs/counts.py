"""How many events and windows the lake holds of each window length: from the files' own statistics, and, where those do not
tell, from one column of the file; without a JVM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from tidewatch import tables
from tidewatch.features import FeatureView
from tidewatch.settings import Settings
from tidewatch.tables import Table

from jobs import cli, lake

if TYPE_CHECKING:
    import pyarrow as pa

Integers = NDArray[np.int64]
READERS = 2
"""Files that are read side by side."""


@dataclass(frozen=True)
class File:
    """A data file of a Delta table, and what its log knows of the times in it (microseconds; None: nothing)."""

    path: str
    rows: int | None
    low: int | None
    high: int | None
    arrived: int | None
    """When the last of its events was received."""


def files(settings: Settings, table: Table, start: datetime, end: datetime) -> list[File]:
    """The files that may hold rows with a time in [start, end]."""
    import pyarrow as pa
    from deltalake import DeltaTable

    path = table.path(settings)
    if not DeltaTable.is_deltatable(str(path)):
        return []
    adds = pa.table(DeltaTable(str(path)).get_add_actions(flatten=True))
    low_us, high_us = (cli.millis(t) * 1000 for t in (start, end))

    def column(name: str) -> list[Any]:
        if name not in adds.column_names:
            return [None] * adds.num_rows
        values = adds[name]
        return (values.cast(pa.timestamp("us")).cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist()

    dates = f"{start.astimezone(UTC):%Y-%m-%d}", f"{end.astimezone(UTC):%Y-%m-%d}"
    found = []
    for name, rows, low, high, arrived, date in zip(*(column(n) for n in ("path", "num_records", f"min.{table.time}", f"max.{table.time}", "max.ingested_at", "partition.date")), strict=True):
        if date is not None and not dates[0] <= str(date) <= dates[1]:
            continue
        if low is None or high is None or (low <= high_us and high >= low_us):
            found.append(File(str(path / unquote(name)), rows, low, high, arrived))
    return found


def _read(file: File, columns: Sequence[str]) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.ParquetFile(file.path).read(columns=list(columns), use_threads=False)


def _micros(column: pa.ChunkedArray) -> Integers:
    """A column of timestamps as microseconds since 1970."""
    import pyarrow as pa

    found: Integers = column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    return found


def events(settings: Settings, table: Table, start: datetime, end: datetime, size_ms: int) -> dict[int, int]:
    """Events in [start, end) by the end (milliseconds) of the window of `size_ms` that they belong to.

    A file whose times all lie in one window says itself how many rows it has; of any other the time column is read.
    """
    size = size_ms * 1000
    low_us, high_us = (cli.millis(t) * 1000 for t in (start, end))
    base, n = low_us // size, -(-high_us // size) - low_us // size
    total = np.zeros(n, dtype=np.int64)
    straddling = []
    for f in files(settings, table, start, end):
        if f.rows is not None and f.low is not None and f.high is not None and f.low // size == f.high // size and low_us <= f.low and f.high < high_us:
            total[f.low // size - base] += f.rows
        else:
            straddling.append(f)

    def counted(f: File) -> Integers:
        ts = _micros(_read(f, [table.time])[table.time])
        return np.bincount(ts[(ts >= low_us) & (ts < high_us)] // size - base, minlength=n)

    with ThreadPoolExecutor(READERS) as pool:
        for part in pool.map(counted, straddling):
            total += part
    return {int((base + i + 1) * size_ms): int(total[i]) for i in np.flatnonzero(total)}


def arrived_late(settings: Settings, table: Table, before: datetime, start: datetime, end: datetime) -> int:
    """Events of before an instant that were received in (start, end]: too late for every window that is still looked at."""
    limit, low, high = (cli.millis(t) * 1000 for t in (before, start, end))
    total = 0
    for f in files(settings, table, datetime.fromtimestamp(0, UTC), before):
        if f.arrived is None or f.arrived > low:
            found = _read(f, [table.time, "ingested_at"])
            ts, arrived = _micros(found[table.time]), _micros(found["ingested_at"])
            total += int(((ts < limit) & (arrived > low) & (arrived <= high)).sum())
    return total


def events_by_key(settings: Settings, view: FeatureView, ends: Sequence[int]) -> pa.Table:
    """Events of the windows of a view that end at one of `ends` (milliseconds, sorted): its keys, `end_ms`, `n`."""
    import pyarrow as pa

    table, size = tables.table(view.sources[0].name), view.size_seconds * 1000
    first, last = (datetime.fromtimestamp(x / 1000, UTC) for x in (ends[0] - size, ends[-1]))
    wanted = np.asarray(ends, dtype=np.int64) - size

    def counted(f: File) -> pa.Table | None:
        if f.low is not None and f.high is not None:
            a, b = np.searchsorted(wanted + size, f.low // 1000, "right"), np.searchsorted(wanted, f.high // 1000, "right")
            if a >= b:
                return None
        found = _read(f, [*view.keys, table.time])
        start = _micros(found[table.time]) // 1000 // size * size
        kept = np.isin(start, wanted)
        rows = found.select(list(view.keys)).append_column("end_ms", pa.array(start + size)).filter(pa.array(kept))
        return rows.group_by([*view.keys, "end_ms"]).aggregate([([], "count_all")]).rename_columns([*view.keys, "end_ms", "n"])

    with ThreadPoolExecutor(READERS) as pool:
        parts = [p for p in pool.map(counted, files(settings, table, first, last)) if p is not None]
    return _added(view, parts)


def _added(view: FeatureView, parts: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    keys = [*view.keys, "end_ms"]
    if not parts:
        return pa.table({**{k: pa.array([], pa.string()) for k in view.keys}, "end_ms": pa.array([], pa.int64()), "n": pa.array([], pa.int64())})
    return pa.concat_tables(parts).group_by(keys).aggregate([("n", "sum")]).rename_columns([*keys, "n"])


@dataclass(frozen=True, eq=False)
class Held:
    """What a table of windows says of them: n windows."""

    table: pa.Table
    """The view's keys, `end_ms`, `n` (events that the windows count), `rows` (how often the window is there)."""

    def events(self) -> dict[int, int]:
        """Events by window end."""
        found = self.table.group_by("end_ms").aggregate([("n", "sum")])
        return dict(zip(found["end_ms"].to_pylist(), found["n_sum"].to_pylist(), strict=True))

    def twice(self) -> set[int]:
        """Ends at which a window is there more than once."""
        from pyarrow import compute

        return set(self.table.filter(compute.greater(self.table["rows"], 1))["end_ms"].to_pylist())


def held(settings: Settings, table: Table, view: FeatureView, count: str, start: datetime, end: datetime) -> Held:
    """What a table holds of a view's windows that end in (start, end]; `count`: the feature that counts events."""
    import pyarrow as pa

    parts = []
    for batch in windows(settings, table, [*view.keys, "window_end", count], start, end):
        found = pa.table(batch)
        parts.append(found.select(list(view.keys)).append_column("end_ms", pa.array(_micros(found["window_end"]) // 1000)).append_column("n", found[count]))
    keys = [*view.keys, "end_ms"]
    if not parts:
        return Held(_added(view, []).append_column("rows", pa.array([], pa.int64())))
    found = pa.concat_tables(parts).group_by(keys).aggregate([("n", "sum"), ([], "count_all")])
    return Held(found.rename_columns([*keys, "n", "rows"]))


def windows(settings: Settings, table: Table, columns: Sequence[str], start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
    """The rows of a table of windows that end in (start, end], as batches; none if there is no table."""
    import pyarrow as pa
    from pyarrow import dataset

    found = table.dataset(settings)
    if found is None:
        return
    low, high = (pa.scalar(cli.millis(t) * 1000, pa.int64()).cast(pa.timestamp("us")) for t in (start, end))
    field = dataset.field(table.time)
    days = (dataset.field("date") >= f"{start.astimezone(UTC):%Y-%m-%d}") & (dataset.field("date") <= f"{end.astimezone(UTC):%Y-%m-%d}")
    yield from (b for b in found.to_batches(columns=list(columns), filter=days & (field > low) & (field <= high), batch_size=lake.BATCH_ROWS) if len(b))


def differing(view: FeatureView, there: pa.Table, seen: pa.Table, ends: Iterable[int]) -> list[str]:
    """Devices of which a window that ends at one of `ends` has not as many events in both."""
    import pyarrow as pa
    from pyarrow import compute

    keys = [*view.keys, "end_ms"]
    wanted = pa.array(sorted(ends), pa.int64())
    a, b = (t.filter(compute.is_in(t["end_ms"], wanted)).select([*keys, "n", *extra]).rename_columns([*keys, *names])
            for t, extra, names in ((there, (), ["there"]), (seen, ("rows",), ["seen", "rows"])))
    both = a.join(b, keys, join_type="full outer")
    same = compute.and_(compute.equal(both["there"], both["seen"]), compute.equal(both["rows"], 1))
    return sorted(set(both.filter(compute.invert(compute.fill_null(same, False)))["device_id"].to_pylist()))
