"""The Delta committer: moves Parquet files that the stream has finished into their Delta tables, exactly once.

`python -m streaming.committer [--once]`. Each batch of a table is an intent file (which files, which transaction
number), then renames into the table's folder, then one Delta commit that carries the transaction number. A crash at
any point is redone from the intent, and the number in the Delta log says whether the commit already happened; so a
file is added once, also after OPTIMIZE and VACUUM. It is the only writer of these tables' files beside maintenance.
Landing folder and lake must be on one file system (a rename is atomic there).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction
from tidewatch import settings as settings_
from tidewatch import tables
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings
from tidewatch.tables import Table

log = logging.getLogger("committer")
APP = "tidewatch-stream"
PARTITION = "date"
MAX_FILES = 500
ARROW = {
    "string": pa.string(), "long": pa.int64(), "int": pa.int32(), "double": pa.float64(), "boolean": pa.bool_(),
    "bytes": pa.binary(), "double[]": pa.list_(pa.float64()), "string[]": pa.list_(pa.string()), "timestamp": pa.timestamp("us"),
}


def stream_tables() -> tuple[Table, ...]:
    """The Delta tables that the stream writes."""
    return tuple(t for t in tables.catalogue().values() if t.delta and t.writer == "stream")


def schema(table: Table) -> pa.Schema:
    """The Delta table's columns; nullable throughout, as Parquet files from Flink are. Timestamps are UTC (NTZ)."""
    return pa.schema([*(pa.field(c.name, ARROW[c.type]) for c in table.columns), pa.field(PARTITION, pa.string())])


def create(table: Table, settings: Settings) -> None:
    """Make the Delta table if it is not there; what it lacks of the columns of today is added; raises
    ServiceError if it has others."""
    path = table.path(settings)
    wanted = schema(table)
    if not DeltaTable.is_deltatable(str(path)):
        path.mkdir(parents=True, exist_ok=True)
        DeltaTable.create(str(path), wanted, mode="ignore", partition_by=[PARTITION], description=table.doc)
        return
    delta = DeltaTable(str(path))
    found = {f.name for f in delta.schema().fields}
    if found < set(wanted.names):
        new = [f for f in Schema.from_arrow(wanted).fields if f.name not in found]
        delta.alter.add_columns(new)
        log.info("%s: new columns, null in the rows so far: %s", table.name, ", ".join(f.name for f in new))
        return
    if found != set(wanted.names):
        raise ServiceError(
            f"the Delta table {table.name} has other columns than its definition: {sorted(found ^ set(wanted.names))}.",
            f"move {path.name} out of the lake (its rows are then rebuilt from Kafka), or migrate it",
        )


def finished(folder: Path) -> Iterator[str]:
    """Files the stream has finished, relative to the folder; unfinished ones begin with a dot or an underscore."""
    for here, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f[0] not in "._"]
        for f in files:
            if f[0] not in "._":
                yield Path(here, f).relative_to(folder).as_posix()


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date | dt.datetime) else value


def statistics(metadata: pq.FileMetaData) -> str:
    """A file's rows, smallest and largest values, and nulls, as the Delta protocol wants them."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            name, stats = group.column(c).path_in_schema, group.column(c).statistics
            if stats is None or "." in name:
                continue
            if stats.has_null_count:
                nulls[name] = nulls.get(name, 0) + stats.null_count
            if stats.has_min_max and not isinstance(stats.min, bytes):
                low[name] = min(low.get(name, stats.min), stats.min)
                high[name] = max(high.get(name, stats.max), stats.max)
    return json.dumps({
        "numRecords": metadata.num_rows, "nullCount": nulls,
        "minValues": {k: _plain(v) for k, v in low.items()}, "maxValues": {k: _plain(v) for k, v in high.items()},
    })


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def commit(table: Table, settings: Settings) -> int:
    """Take what is finished of one table into Delta, as one commit; the number of rows."""
    landing, lake = settings.landing / table.name, table.path(settings)
    intent = landing / "_intent.json"
    if intent.exists():
        batch = json.loads(intent.read_text())
    else:
        files = sorted(finished(landing))[:MAX_FILES]
        if not files:
            return 0
        last = DeltaTable(str(lake)).transaction_version(APP)
        batch = {"transaction": (-1 if last is None else last) + 1, "files": files}
        _replace(intent, json.dumps(batch))
    delta = DeltaTable(str(lake))
    last = delta.transaction_version(APP)
    rows = 0
    if last is None or last < batch["transaction"]:
        adds = []
        for name in batch["files"]:
            source, target = landing / name, lake / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
            metadata = pq.read_metadata(target)
            rows += metadata.num_rows
            stat = target.stat()
            values = dict(part.split("=", 1) for part in name.split("/")[:-1])
            adds.append(AddAction(name, stat.st_size, values, int(stat.st_mtime * 1000), True, statistics(metadata)))
        transaction = Transaction(APP, batch["transaction"])
        delta.create_write_transaction(
            adds, "append", delta.schema(), [PARTITION], commit_properties=CommitProperties(app_transactions=[transaction]),
        )
        log.info("%s: %d rows in %d files, transaction %d", table.name, rows, len(adds), batch["transaction"])
    intent.unlink()
    return rows


def prepare(settings: Settings) -> None:
    """Make every table that the stream writes, and its landing folder."""
    for t in stream_tables():
        create(t, settings)
        (settings.landing / t.name).mkdir(parents=True, exist_ok=True)


def drain(settings: Settings, stopped: threading.Event | None = None) -> int:
    """One round over all tables; a table that fails is reported and tried again in the next round. The rows committed."""
    rows = 0
    for t in stream_tables():
        if stopped is not None and stopped.is_set():
            break
        try:
            rows += commit(t, settings)
        except (OSError, ValueError, DeltaError, pa.ArrowException) as e:
            log.error("%s: not committed, will be tried again: %s: %s", t.name, type(e).__name__, e)
    return rows


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="one round, then stop")
    options = parser.parse_args(arguments)
    settings = settings_.current()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    prepare(settings)
    if options.once:
        while drain(settings):
            pass
        return
    stopped = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: stopped.set())
    log.info("started, %d tables", len(stream_tables()))
    while not stopped.is_set():
        drain(settings, stopped)
        stopped.wait(settings.stream.committer_poll.total_seconds())
    log.info("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
