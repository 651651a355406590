"""What is known about the events, kept apart from them: labels and the inventory of devices, in Delta and Kafka."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tidewatch import tables
from tidewatch.inputs.parcel import Parcel
from tidewatch.settings import Settings

Row = dict[str, Any]


def parcel_of_devices(rows: Sequence[Row]) -> Parcel:
    """The inventory as records of the compacted topic `devices`."""
    return Parcel("devices", [json.dumps({"device_id": r["device_id"]}).encode() for r in rows], [json.dumps(r).encode() for r in rows])


def merge(settings: Settings, table: tables.Table, rows: Sequence[Row]) -> int:
    """Write rows to a Delta table, replacing those with the same keys; returns how many. Twice is the same as once.

    Times are milliseconds in `rows`. Labels of the same keys count once, the last one.
    """
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    if not rows:
        return 0
    unique = {tuple(r[k] for k in table.keys): r for r in rows}
    kinds = {"string": pa.string(), "timestamp": pa.timestamp("us"), "long": pa.int64(), "double": pa.float64()}
    names = [c.name for c in table.columns]
    columns = {
        c.name: pa.array([r[c.name] * 1000 if c.type == "timestamp" else r[c.name] for r in unique.values()], kinds[c.type])
        for c in table.columns
    }
    # nullable throughout: delta-rs marks a required column as a feature that it does not list, and Spark refuses the table
    new = pa.table(columns, schema=pa.schema([(c.name, kinds[c.type]) for c in table.columns]))
    path = str(table.path(settings))
    if not DeltaTable.is_deltatable(path):
        write_deltalake(path, new, mode="ignore", name=table.name, description=table.doc)
    delta = DeltaTable(path)
    if "date" in {f.name for f in delta.schema().fields} - set(names):
        import pyarrow.compute as pc

        new = new.append_column("date", pc.cast(new[table.time], pa.date32()))
    same = " AND ".join(f"old.`{k}` = new.`{k}`" for k in table.keys)
    delta.merge(new, same, source_alias="new", target_alias="old").when_matched_update_all().when_not_matched_insert_all().execute()
    return len(unique)


def write_labels(settings: Settings, rows: Sequence[Row]) -> int:
    """Labels into the table `labels`."""
    return merge(settings, tables.LABELS, rows)


def write_devices(settings: Settings, rows: Sequence[Row]) -> int:
    """The inventory into the table `devices`."""
    return merge(settings, tables.DEVICES, rows)
