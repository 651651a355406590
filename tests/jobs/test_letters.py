"""Replaying dead letters: which ones are chosen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs import replay_dead_letters as job
from tidewatch.settings import load

START = datetime(2026, 3, 1, tzinfo=UTC)


def letter(minute: int, source: str = "flow", reason: str = "malformed") -> dict[str, Any]:
    at = round((START + timedelta(minutes=minute)).timestamp() * 1000)
    return {"source": source, "kafka_partition": 0, "kafka_offset": minute, "ingested_at": at, "reason": reason, "device_id": "", "original": "AAE="}


def test_letters_of_the_window_source_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [letter(2), letter(0), letter(10), letter(1, "reading"), letter(3, reason="ts_future")]
    monkeypatch.setattr(job.lake, "read", lambda settings, table: found)

    def offsets(source: str, reason: str) -> list[int]:
        return [r["kafka_offset"] for r in job.letters(load(), START, START + timedelta(minutes=10), source, reason)]

    assert offsets("all", "") == [0, 2, 3, 1]
    assert offsets("flow", "malformed") == [0, 2]
    assert offsets("reading", "ts_future") == []
