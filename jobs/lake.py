"""Delta tables without a JVM: replace a few rows, read or count all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidewatch.settings import Settings
from tidewatch.tables import Table


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    return {
        "string": pa.string(), "long": pa.int64(), "int": pa.int32(), "double": pa.float64(), "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us"), "bytes": pa.binary(), "double[]": pa.list_(pa.float64()), "string[]": pa.list_(pa.string()),
    }[kind]


def replace(settings: Settings, table: Table, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Replace the rows that `where` names (SQL of delta-rs); timestamps are milliseconds, as in the table's topic."""
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
        write_deltalake(path, data, mode="overwrite", predicate=where)
    else:
        table.path(settings).parent.mkdir(parents=True, exist_ok=True)
        write_deltalake(path, data)


def read(settings: Settings, table: Table) -> list[dict[str, Any]]:
    """Every row; timestamps in milliseconds. None if the table does not exist yet."""
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyarrow import compute

    path = str(table.path(settings))
    if not DeltaTable.is_deltatable(path):
        return []
    found = DeltaTable(path).to_pyarrow_table()
    for c in table.columns:
        if c.type == "timestamp":
            i = found.schema.get_field_index(c.name)
            micros = found.column(i).cast(pa.timestamp("us")).cast(pa.int64())
            found = found.set_column(i, c.name, compute.floor(compute.divide(micros, 1000)).cast(pa.int64()))
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def count(settings: Settings, table: Table) -> int:
    """Rows of a table, from its log; none if it does not exist."""
    from deltalake import DeltaTable

    path = str(table.path(settings))
    return DeltaTable(path).count() if DeltaTable.is_deltatable(path) else 0
