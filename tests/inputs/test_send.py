"""Sending at a pace, stopping, manifests, labels in Delta, and the two commands' own errors."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from tidewatch.commands.input import moment, pace
from tidewatch.errors import InputError, ServiceError
from tidewatch.inputs import labels
from tidewatch.inputs.parcel import Parcel
from tidewatch.inputs.send import Kafka, drive, write_manifest
from tidewatch.settings import Ports, Settings
from tidewatch.tables import LABELS

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Ticks:
    """A source with an event each second; one is on its way until the end."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def advance(self, until_ms: int) -> list[Parcel]:
        self.asked.append(until_ms)
        return [Parcel("flow", [b"k"], [b"v"], Counter(records=1))]

    def finish(self, cut_ms: int) -> list[Parcel]:
        self.asked.append(-cut_ms)
        return [Parcel("reading", [b"k"], [b"v"], Counter(records=1))]


@pytest.fixture(autouse=True)
def awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewatch.inputs.send.WAKE_ROUNDS", 0)


def test_rounds_reach_the_end_and_deliver_what_is_on_its_way() -> None:
    source, got, flushed = Ticks(), [], []
    sent = drive(source, got.append, lambda: flushed.append(1), start_ms=0, end_ms=25_000, step_ms=10_000)
    assert source.asked == [10_000, 20_000, 25_000, -25_000] and flushed == [1]
    assert sent.records == len(got) == 4 and sent.until_ms == 25_000
    assert sent.as_dict()["topics"] == {"flow": {"records": 3}, "reading": {"records": 1}}


def test_a_burst_begins_with_small_rounds_that_grow_while_they_are_nearly_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewatch.inputs.send.WAKE_ROUNDS", 4)
    monkeypatch.setattr("tidewatch.inputs.send.WAKE_PAUSE", 0.0)
    monkeypatch.setattr("tidewatch.inputs.send.WAKE_SLOW_PAUSE", 0.0)
    monkeypatch.setattr("tidewatch.inputs.send.WAKE_RECORDS", 2)
    source, flushed = Ticks(), []
    drive(source, lambda _: None, lambda: flushed.append(1), start_ms=0, end_ms=60_000, step_ms=30_000)
    assert source.asked == [1000, 3000, 7000, 15_000, 45_000, 60_000, -60_000] and len(flushed) == 5
    paced = Ticks()
    drive(paced, lambda _: None, lambda: None, start_ms=0, end_ms=60_000, step_ms=30_000, live=True)
    assert paced.asked == [30_000, 60_000, -60_000]


def test_a_stop_ends_after_the_round() -> None:
    stop, source = threading.Event(), Ticks()
    sent = drive(source, lambda _: stop.set(), lambda: None, start_ms=0, end_ms=None, step_ms=1000, stop=stop)
    assert source.asked == [1000, -1000] and sent.until_ms == 1000


def test_live_catches_up_and_then_never_runs_ahead() -> None:
    clock, source = [10.0], Ticks()

    def tick() -> float:
        clock[0] += 0.05
        return clock[0]

    drive(source, lambda _: None, lambda: None, start_ms=0, end_ms=12_000, step_ms=4000, live=True, clock=tick)
    assert source.asked[:2] == [4000, 8000] and source.asked[-2:] == [12_000, -12_000]
    assert all(b - a >= 200 for a, b in zip(source.asked[1:-2], source.asked[2:-2], strict=False))


def test_speed_is_event_time_over_time() -> None:
    clock, source = [0.0], Ticks()

    def tick() -> float:
        clock[0] += 0.1
        return clock[0]

    sent = drive(source, lambda _: None, lambda: None, start_ms=0, end_ms=60_000, step_ms=30_000, speed=10, clock=tick)
    assert sent.seconds == pytest.approx(6, abs=0.5)


def test_manifest(tmp_path: Path) -> None:
    path = write_manifest(Settings(state_dir=tmp_path), "run-1", {"produced_total": 3})
    assert json.loads(path.read_text()) == {"produced_total": 3}


def test_labels_twice_are_labels_once(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    row = {"device_id": "d'1", "start": 1000, "end": 2000, "use_case": "lie", "kind": "stuck", "origin": "generator"}
    assert labels.write_labels(settings, []) == 0
    assert labels.write_labels(settings, [row, row]) == 1
    labels.write_labels(settings, [{**row, "end": 3000}, {**row, "device_id": "d2"}])
    rows = DeltaTable(LABELS.path(settings)).to_pyarrow_table().sort_by("device_id").to_pylist()
    assert [(r["device_id"], r["end"].second) for r in rows] == [("d'1", 3), ("d2", 2)]


def test_devices_are_a_table_and_a_topic(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    row = {"device_id": "a", "kind": "server", "site": "s", "address": "", "added_at": 5000}
    labels.write_devices(settings, [row])
    labels.write_devices(settings, [{**row, "site": "t"}])
    assert [r["site"] for r in DeltaTable(settings.lake / "gold" / "devices").to_pyarrow_table().to_pylist()] == ["t"]
    parcel = labels.parcel_of_devices([row])
    assert json.loads(parcel.keys[0]) == {"device_id": "a"} and json.loads(parcel.bodies[0]) == row


def test_times_and_speeds() -> None:
    ms = int(NOW.timestamp() * 1000)
    assert moment("now", NOW) == ms and moment("-90m", NOW) == ms - 5_400_000 and moment("+1.5h", NOW) == ms + 5_400_000
    assert moment("2026-11-23T12:00:00Z", NOW) == moment("2026-11-23T12:00:00", NOW) == moment("2026-11-23T13:00+01:00", NOW) == ms
    assert pace("max") is None and pace("60") == 60
    for bad in ("yesterday", "-2x"):
        with pytest.raises(InputError, match="not a time"):
            moment(bad, NOW)
    for bad in ("0", "-1", "fast"):
        with pytest.raises(InputError, match="not a speed"):
            pace(bad)


def test_no_broker_is_a_clear_error() -> None:
    settings = Settings(ports=Ports(kafka=1))
    with pytest.raises(ServiceError, match="no Kafka broker answers at 127"):
        Kafka(settings, ["flow"])


@pytest.mark.parametrize(("arguments", "says"), [
    (["--start", "now", "--end", "-1h"], "is not after --start"), (["--incidents", "many"], "unknown"),
    (["--incident", "flood:nobody:10:-30m"], "there is no device"), (["--incident", "flood"], "not an incident"),
    (["--incident", "fire:workstation-0000:10:-30m"], "no kind of incident"),
    (["--devices", "2", "--incidents", "all"], "do not fit"),
])
def test_generate_refuses(arguments: list[str], says: str) -> None:
    from tidewatch.cli import build

    result = CliRunner().invoke(build(), ["generate", *arguments])
    assert isinstance(result.exception, InputError) and says in str(result.exception)
