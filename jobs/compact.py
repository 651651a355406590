"""Maintenance: small files of every Delta table merged, old rows of bronze and silver deleted, unused files removed.

Works by delta-rs, without a JVM, and beside the stream's committer: a commit that collides is tried again.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import Any

from tidewatch import tables
from tidewatch.settings import Settings
from tidewatch.tables import Table

from jobs import cli, lake

KEPT = ("bronze", "silver")
"""Layers whose rows grow old; gold is kept."""


def compact(settings: Settings, table: Table, end: datetime) -> dict[str, int]:
    """Retention, compaction and vacuum of one table; what was done."""
    from deltalake import DeltaTable

    path = str(table.path(settings))
    deleted = 0
    if table.delta in KEPT:
        oldest = (end - settings.batch.retention).strftime("%Y-%m-%d")
        done = lake.again(table.name, lambda: DeltaTable(path).delete(f"date < '{oldest}'"))
        deleted = int(done.get("num_deleted_rows") or 0)
    done = lake.again(table.name, lambda: DeltaTable(path).optimize.compact())
    hours = int(settings.batch.vacuum_retention.total_seconds() // 3600)
    removed = DeltaTable(path).vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=False)
    DeltaTable(path).create_checkpoint()
    return {"rows_deleted": deleted, "files_merged": int(done["numFilesRemoved"]), "files_made": int(done["numFilesAdded"]), "files_vacuumed": len(removed)}


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    from deltalake import DeltaTable

    done = {}
    for table in tables.catalogue().values():
        if table.delta and DeltaTable.is_deltatable(str(table.path(settings))):
            done[table.name] = compact(settings, table, options.end)
            cli.say(f"{table.name}: " + ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in done[table.name].items()))
    if not done:
        cli.say("there are no Delta tables yet")
    return {"job": "compact", "end": cli.iso(options.end), "tables": done}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__, start=False)
    p.epilog = "Rows of bronze and silver older than batch.retention before --end are deleted; files unused for batch.vacuum_retention go."
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
