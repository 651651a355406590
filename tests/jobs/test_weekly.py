"""The rhythm of the week in baselines: what the coming hours are expected to be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from jobs import weekly
from jobs.build_baselines import summarize

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = 60_000


def ms(t: datetime) -> int:
    return int(t.timestamp() * 1000)


def made(days: int, level: Any, start: datetime = MONDAY, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Ends of one-minute windows and what an entity shows in them: level(hour of the week) and noise of 0.2."""
    end = ms(start) + MINUTE * np.arange(1, days * 1440 + 1)
    return end, level(weekly.hour_of_week(end)) + np.random.default_rng(seed).normal(0, 0.2, len(end))


def of(end: np.ndarray, value: np.ndarray, valid_from: datetime | None) -> dict[str, Any]:
    zero = np.zeros(len(end), dtype=np.int64)
    return summarize(zero, 1, end // weekly.HOUR_MS % 24, value[:, None], None if valid_from is None else end, ms(valid_from or MONDAY))


def test_the_coming_hours_are_those_of_the_week() -> None:
    assert weekly.hour_of_week(np.array([ms(MONDAY), ms(MONDAY + timedelta(days=6, hours=23))])).tolist() == [0, 167]
    friday = MONDAY + timedelta(days=4, hours=20)
    got = weekly.coming(ms(friday))
    assert got[20:].tolist() == [116, 117, 118, 119] and got[:20].tolist() == list(range(120, 140))


def test_a_weekend_is_not_a_workday() -> None:
    end, value = made(14, lambda how: np.where(how >= 120, 2.0, 5.0))
    plain = of(end, value, None)
    saturday, monday = (of(end, value, MONDAY + timedelta(days=d)) for d in (19, 21))
    assert np.allclose(plain["center"], 5, atol=0.2) and not plain["shift"].any()
    assert np.allclose(saturday["center"] + saturday["shift"], 2, atol=0.7) and np.allclose(monday["center"] + monday["shift"], 5, atol=0.2)
    assert saturday["spread"] < 0.6 * plain["spread"], "so that a workday's scale is not the weekend's distance"


def test_a_weekday_of_its_own_shows_after_weeks_and_is_shrunk() -> None:
    end, value = made(28, lambda how: np.where((how // 24 == 1) & (how % 24 == 3), 8.0, 3.0))
    tuesday = of(end, value, MONDAY + timedelta(days=29))
    coming = (tuesday["center"] + tuesday["shift"])[0, :, 0]
    assert coming[3] == pytest.approx(3 + 5 * 4 / 6, abs=0.2), "four Tuesdays of six that it would take"
    assert np.allclose(np.delete(coming, 3), 3, atol=0.2)


def test_nothing_is_told_apart_that_was_seen_on_one_day_or_does_not_differ() -> None:
    end, value = made(1, lambda how: 3.0 + how % 24, start=MONDAY + timedelta(days=5))
    assert not of(end, value, MONDAY + timedelta(days=6))["shift"].any()
    end, value = made(14, lambda how: 3.0 + 0 * how)
    flat = of(end, value, MONDAY + timedelta(days=14))
    assert np.abs(flat["shift"]).max() < 0.15 and flat["spread"] == pytest.approx(of(end, value, None)["spread"], rel=0.05)


def test_a_baseline_is_of_its_day_only_and_of_any_day_before_and_after() -> None:
    import pandas as pd

    from jobs import train
    from tidewatch.detectors import all_detectors

    d = all_detectors()[0]
    width = len(d.signals)
    entity = f"{d.name}|a|"
    ends = [ms(MONDAY) + h * weekly.HOUR_MS for h in (-3, 3, 23, 27)]
    found = pd.DataFrame({"entity": entity, "device_id": "a", "end_ms": ends, "hour": [x // weekly.HOUR_MS % 24 for x in ends], **{f"signal_{i}": 1.0 for i in range(width)}})
    hours = np.repeat(np.arange(24.0), width)
    baselines = pd.DataFrame({"entity": [entity, "z"], "valid_from": ms(MONDAY), "center": [hours + 100] * 2, "scale": [np.ones(width)] * 2, "daily": [hours, None]})
    assert train.match(d, found, baselines).center[:, 0].tolist() == [21, 103, 123, 3]
    assert train.match(d, found, baselines.drop(columns="daily")).center[:, 0].tolist() == [121, 103, 123, 103]
