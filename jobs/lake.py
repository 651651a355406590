"""Delta tables without a JVM: replace a few rows, read or count all of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 131_072
"""Rows that are moved at once."""
TRIES = 5


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    return {
        "string": pa.string(), "long": pa.int64(), "int": pa.int32(), "double": pa.float64(), "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us"), "bytes": pa.binary(), "double[]": pa.list_(pa.float64()), "string[]": pa.list_(pa.string()),
    }[kind]


def again(what: str, work: Callable[[], Any]) -> Any:
    """Do it, and once more if another writer was in the way; raises ServiceError if one always is."""
    from deltalake.exceptions import CommitFailedError

    for left in reversed(range(TRIES)):
        try:
            return work()
        except CommitFailedError as e:
            if not left:
                raise ServiceError(f"{what}: another writer was in the way {TRIES} times: {e}.", "run the job again") from e
            time.sleep(1)
    return None


def replace(settings: Settings, table: Table, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Replace the rows that `where` names (SQL of delta-rs); timestamps are milliseconds, as in the table's topic.

    A column that the table has not yet is added, null in its older rows.
    """
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    columns = {}
    for c in table.columns:
        values = [r[c.name] for r in rows]
        if c.type == "timestamp":
            values = [None if v is None else int(v) * 1000 for v in values]
        columns[c.name] = pa.array(values, pa.int64()).cast(_arrow(c.type)) if c.type == "timestamp" else pa.array(values, _arrow(c.type))
    path = str(table.path(settings))
    data = pa.table(columns)
    if DeltaTable.is_deltatable(path):
        again(table.name, lambda: write_deltalake(path, data, mode="overwrite", predicate=where, schema_mode="merge"))
    else:
        table.path(settings).parent.mkdir(parents=True, exist_ok=True)
        write_deltalake(path, data)


def read(settings: Settings, table: Table) -> list[dict[str, Any]]:
    """Every row; timestamps in milliseconds. None if the table does not exist yet."""
    import pyarrow as pa
    from pyarrow import compute

    stored = table.dataset(settings)
    if stored is None:
        return []
    found = stored.to_table()
    for c in table.columns:
        if c.type == "timestamp":
            i = found.schema.get_field_index(c.name)
            micros = found.column(i).cast(pa.timestamp("us")).cast(pa.int64())
            found = found.set_column(i, c.name, compute.floor(compute.divide(micros, 1000)).cast(pa.int64()))
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def plain(table: Table, found: pa.Table) -> list[dict[str, Any]]:
    """Rows as the table's topic has them: timestamps in milliseconds."""
    times = {c.name for c in table.columns if c.type == "timestamp"}
    names = [c.name for c in table.columns]
    return [{n: round(row[n].replace(tzinfo=UTC).timestamp() * 1000) if n in times else row[n] for n in names} for row in found.to_pylist()]


def count(settings: Settings, table: Table) -> int:
    """Rows of a table, from its log; none if it does not exist."""
    from deltalake import DeltaTable

    path = str(table.path(settings))
    return DeltaTable(path).count() if DeltaTable.is_deltatable(path) else 0


def instant(t: datetime) -> str:
    """A literal of a Delta table's timestamps, UTC, for delta-rs."""
    return f"arrow_cast('{t.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}', 'Timestamp(Microsecond, None)')"


def overwrite(settings: Settings, table: Table, batches: Iterable[pa.RecordBatch], where: str) -> int:
    """Replace the rows that `where` names (SQL of delta-rs) by batches of the table's columns, in one commit; how many there are.

    Batches are written as they come, so that memory does not grow with them; nothing for nothing is no commit. Raises
    ServiceError, and leaves the table as it is, if another writer changed these rows meanwhile.
    """
    import pyarrow as pa
    from deltalake import DeltaTable, WriterProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError

    path = str(table.path(settings))
    schema = pa.schema([*(pa.field(c.name, _arrow(c.type)) for c in table.columns), pa.field("date", pa.string())])
    there = DeltaTable.is_deltatable(path)
    rows = 0

    def shaped() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in batches:
            whole = pa.table(batch)
            if "date" not in whole.column_names:
                days = whole[table.time].cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.string())
                whole = whole.append_column("date", days)
            rows += whole.num_rows
            yield from whole.select(schema.names).cast(schema).to_batches()

    first = next(found := shaped(), None)
    if first is None:
        if there:
            DeltaTable(path).delete(where)
        return 0
    reader = pa.RecordBatchReader.from_batches(schema, itertools.chain([first], found))
    table.path(settings).parent.mkdir(parents=True, exist_ok=True)
    codec = WriterProperties(compression="ZSTD", compression_level=1)
    try:
        if there:
            write_deltalake(path, reader, mode="overwrite", predicate=where, schema_mode="merge", partition_by=["date"], writer_properties=codec)
        else:
            write_deltalake(path, reader, partition_by=["date"], writer_properties=codec)
    except CommitFailedError as e:
        raise ServiceError(f"{table.name}: another writer changed the same rows meanwhile: {e}.", "run the job again: it replaces its window") from e
    return rows

