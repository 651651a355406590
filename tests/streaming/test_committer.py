"""The committer takes each finished file into Delta once, wherever it is interrupted."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deltalake", reason="the tools environment has it")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from deltalake import DeltaTable  # noqa: E402

from streaming import committer  # noqa: E402
from tidewatch import tables  # noqa: E402
from tidewatch.errors import ServiceError  # noqa: E402
from tidewatch.settings import Settings, load  # noqa: E402

DEAD = tables.table("dead_letters")


class Crash(BaseException):
    """Stands for kill -9: nothing may handle it."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(state_dir=tmp_path)
    committer.prepare(found)
    return found


def land(settings: Settings, rows: int, name: str, date: str = "2026-11-23") -> None:
    """A finished file as the stream leaves it: without the partition column."""
    first = dt.datetime(2026, 11, 23)
    schema = pa.schema([f for f in committer.schema(DEAD) if f.name != "date"])
    data = {
        "source": ["flow"] * rows, "kafka_partition": [0] * rows, "kafka_offset": list(range(rows)),
        "ingested_at": [first + dt.timedelta(seconds=i) for i in range(rows)], "reason": ["malformed"] * rows,
        "detail": [None] * rows, "device_id": [name] * rows, "original": ["AA=="] * rows,
    }
    folder = settings.landing / DEAD.name / f"date={date}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(data, schema=schema), folder / name)


def rows(settings: Settings) -> int:
    return int(DeltaTable(str(DEAD.path(settings))).to_pyarrow_table().num_rows)


def test_finished_files_become_rows_with_their_partition(settings: Settings) -> None:
    land(settings, 3, "part-1")
    land(settings, 2, "part-2", "2026-11-24")
    assert committer.commit(DEAD, settings) == 5
    table = DeltaTable(str(DEAD.path(settings))).to_pyarrow_table()
    assert sorted(set(table["date"].to_pylist())) == ["2026-11-23", "2026-11-24"]
    assert set(table.column_names) == {*(c.name for c in DEAD.columns), "date"}
    assert committer.commit(DEAD, settings) == 0


def test_unfinished_files_are_left_alone(settings: Settings) -> None:
    land(settings, 3, ".part-1.inprogress.1")
    land(settings, 3, "_tmp")
    assert committer.commit(DEAD, settings) == 0


def test_statistics_are_told(settings: Settings) -> None:
    land(settings, 3, "part-1")
    committer.commit(DEAD, settings)
    found = pa.table(DeltaTable(str(DEAD.path(settings))).get_add_actions(flatten=True)).to_pylist()[0]
    assert (found["num_records"], found["min.kafka_offset"], found["max.kafka_offset"], found["null_count.detail"]) == (3, 0, 2, 3)


def _before_rename(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "rename", _crash)


def _before_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeltaTable, "create_write_transaction", _crash)


def _after_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "unlink", _crash)


def _crash(*_: Any, **__: Any) -> None:
    raise Crash


@pytest.mark.parametrize("when", [_before_rename, _before_commit, _after_commit])
def test_a_crash_loses_and_doubles_nothing(settings: Settings, when: Callable[[pytest.MonkeyPatch], None]) -> None:
    for k in range(3):
        land(settings, 10, f"part-{k}")
        with pytest.MonkeyPatch.context() as patch:
            when(patch)
            with pytest.raises(Crash):
                committer.commit(DEAD, settings)
        land(settings, 1, f"late-{k}")
        committer.commit(DEAD, settings)
        committer.commit(DEAD, settings)
        assert rows(settings) == 11 * (k + 1)
    assert not list(committer.finished(settings.landing / DEAD.name))


def test_a_crash_between_two_renames(settings: Settings) -> None:
    for k in range(4):
        land(settings, 10, f"part-{k}")
    real, done = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        if len(done) == 2:
            raise Crash
        done.append(self)
        return real(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Crash):
            committer.commit(DEAD, settings)
    committer.commit(DEAD, settings)
    assert rows(settings) == 40


def test_a_compaction_does_not_bring_a_commit_again(settings: Settings) -> None:
    for k in range(3):
        land(settings, 10, f"part-{k}")
        committer.commit(DEAD, settings)
    land(settings, 10, "part-9")
    with pytest.MonkeyPatch.context() as patch:
        _after_commit(patch)
        with pytest.raises(Crash):
            committer.commit(DEAD, settings)
    table = DeltaTable(str(DEAD.path(settings)))
    table.optimize.compact()
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    committer.commit(DEAD, settings)
    assert rows(settings) == 40


def test_one_bad_file_does_not_stop_the_other_tables(settings: Settings) -> None:
    bad = settings.landing / "flow" / "date=2026-11-23"
    bad.mkdir(parents=True)
    (bad / "part-1").write_bytes(b"not parquet")
    land(settings, 3, "part-1")
    assert committer.drain(settings) == 3
    assert json.loads((settings.landing / "flow" / "_intent.json").read_text())["files"] == ["date=2026-11-23/part-1"]


def test_a_table_with_other_columns_is_told(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    path = DEAD.path(settings)
    path.mkdir(parents=True)
    DeltaTable.create(str(path), pa.schema([pa.field("x", pa.int64())]))
    with pytest.raises(ServiceError, match="other columns"):
        committer.prepare(settings)


def test_a_column_that_is_new_is_added(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    wanted = committer.schema(DEAD)
    DeltaTable.create(str(DEAD.path(settings)), pa.schema(list(wanted)[1:]), partition_by=["date"])
    committer.prepare(settings)
    assert {f.name for f in DeltaTable(str(DEAD.path(settings))).schema().fields} == set(wanted.names)
