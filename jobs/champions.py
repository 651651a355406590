"""The table and topic `models`: which version scores from when on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tidewatch import tables
from tidewatch.settings import Settings

from jobs import cli, lake
from jobs.topics import publish as send


def history(settings: Settings, use_case: str) -> list[dict[str, Any]]:
    """What was promoted when, newest last."""
    rows = [r for r in lake.read(settings, tables.MODELS) if r["use_case"] == use_case]
    return sorted(rows, key=lambda r: (r["promoted_at"], r["valid_from"]))


def record(
    settings: Settings, *, use_case: str, version: str, valid_from: datetime, uri: str, promoted_at: datetime, reason: str, publish: bool,
) -> dict[str, Any]:
    """Store and publish one promotion; the same version and `valid_from` again changes nothing but sends the record again."""
    row = {
        "use_case": use_case, "version": version, "valid_from": cli.millis(valid_from), "uri": uri,
        "promoted_at": cli.millis(promoted_at), "reason": reason,
    }
    same = [r for r in history(settings, use_case) if (r["version"], r["valid_from"]) == (version, row["valid_from"])]
    if same:
        row = {c.name: same[-1][c.name] for c in tables.MODELS.columns}
    else:
        lake.replace(settings, tables.MODELS, [row], (
            f"use_case = '{use_case}' AND version = '{version}' AND valid_from = arrow_cast('{_text(valid_from)}', 'Timestamp(Microsecond, None)')"
        ))
    if publish:
        resend(settings, row)
    return row


def resend(settings: Settings, row: dict[str, Any]) -> None:
    """Publish a stored row."""
    send(settings, tables.MODELS, [row], "use_case", "valid_from")


def _text(t: datetime) -> str:
    return t.strftime("%Y-%m-%dT%H:%M:%S.%f")


@contextlib.contextmanager
def one_at_a_time(settings: Settings) -> Iterator[None]:
    """Promotions and rollbacks of this machine one after the other."""
    import fcntl

    folder = settings.state_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "promotion.lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield
