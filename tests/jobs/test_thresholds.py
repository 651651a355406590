"""The operating point: what ordinary windows pass so seldom as is aimed at; held-out false alerts within the budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from jobs import backtest, thresholds
from tests.test_scoring import model
from tidewatch import detectors, scoring
from tidewatch.detectors import Lookback

GAP = timedelta(minutes=10)
DAY = 1440
NONE = backtest.Labels(*(np.zeros(0, t) for t in ("U1", np.int64, np.int64, "U1")))
DETECTOR = next(d for d in detectors.all_detectors() if d.name == "exfiltration")


def held(loud: dict[str, list[tuple[int, float]]], devices: int = 4) -> backtest.Windows:
    """A day of ordinary windows; of some devices, (minute, deviation in scales) that nobody has labelled."""
    width = len(DETECTOR.signals)
    names = [f"d{i}" for i in range(devices)]
    device = np.repeat(np.array(names), DAY)
    end = np.tile(np.arange(1, DAY + 1, dtype=np.int64) * 60_000, devices)
    center, scale = np.full((len(device), width), 10.0), np.ones((len(device), width))
    z = np.zeros((len(device), width))
    for name, found in loud.items():
        for minute, far in found:
            z[names.index(name) * DAY + minute] = far
    return backtest.Windows(device, end - 60_000, end, scoring.inverse(center + z, [s.transform for s in DETECTOR.signals]), center, scale)


def false_alerts(m: scoring.Model, w: backtest.Windows, labels: backtest.Labels = NONE) -> float:
    return backtest.run(m, [DETECTOR], {DETECTOR.name: w}, labels, GAP, 1)[0].false_alerts


def test_thresholds_rise_until_false_alerts_keep_within_the_budget() -> None:
    m = model(DETECTOR)
    # ten alerts in four device-days, each farther out than the one before
    w = held({"d0": [(60 * i, 14.0 + i) for i in range(1, 6)], "d1": [(60 * i, 8.0 + i) for i in range(1, 6)]})
    assert false_alerts(m, w) == pytest.approx(2.5, rel=0.01)
    within = thresholds.at_budget(m, [DETECTOR], {DETECTOR.name: w}, NONE, GAP, 0.5)
    before, after = m.detectors[DETECTOR.name].threshold, within.detectors[DETECTOR.name].threshold
    assert after > before and 0 < false_alerts(within, w) <= 0.5
    # no lower threshold would do
    assert false_alerts(replace(within, detectors={DETECTOR.name: replace(within.detectors[DETECTOR.name], threshold=after * 0.99)}), w) > 0.5
    assert scoring.load(scoring.dump(within)).detectors[DETECTOR.name].threshold == after


def test_a_model_within_the_budget_stays_as_it_is() -> None:
    m = model(DETECTOR)
    w = held({"d0": [(100, 19.0)]})
    assert thresholds.at_budget(m, [DETECTOR], {DETECTOR.name: w}, NONE, GAP, 0.5).detectors == m.detectors
    assert thresholds.at_budget(m, [DETECTOR], {DETECTOR.name: w.at(np.zeros(len(w), bool))}, NONE, GAP, 0.5).detectors == m.detectors


def test_a_labelled_incident_costs_nothing() -> None:
    m = model(DETECTOR)
    w = held({"d0": [(60 * i, 20.0) for i in range(1, 9)]})
    labels = backtest.Labels(np.array(["d0"]), np.array([0]), np.array([DAY * 60_000]), np.array(["leak"]))
    assert thresholds.at_budget(m, [DETECTOR], {DETECTOR.name: w}, labels, GAP, 0.5).detectors == m.detectors


def test_an_alert_that_began_with_a_labelled_incident_is_not_false() -> None:
    """What follows within the gap is the same alert to whoever reads it; what comes later is another."""
    m = model(DETECTOR)
    labels = backtest.Labels(np.array(["d0"]), np.array([100 * 60_000]), np.array([110 * 60_000]), np.array(["leak"]))
    together = held({"d0": [(100 + i, 20.0) for i in range(15)]})
    assert false_alerts(m, together, labels) == 0
    assert thresholds.at_budget(m, [DETECTOR], {DETECTOR.name: together}, labels, GAP, 0.0).detectors == m.detectors
    apart = held({"d0": [(105, 20.0), (200, 20.0), (201, 20.0)]})
    assert false_alerts(m, apart, labels) == pytest.approx(0.25, rel=0.01)


def test_the_back_test_judges_by_the_models_own_threshold() -> None:
    m = model(DETECTOR)
    w = held({"d0": [(100, 15.0)]})
    deaf = replace(m, detectors={DETECTOR.name: replace(m.detectors[DETECTOR.name], threshold=0.999)})
    assert false_alerts(m, w) == pytest.approx(0.25, rel=0.01) and false_alerts(deaf, w) == 0


def ordinary(devices: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A day of windows whose -log10(p) is what it says: one in ten passes 1, one in a hundred 2."""
    device = np.repeat(np.array([f"d{i}" for i in range(devices)]), DAY)
    return device, np.tile(np.arange(1, DAY + 1, dtype=np.int64) * 60_000, devices), -np.log10(np.random.default_rng(seed).random(len(device)))


def test_the_return_level_is_where_so_many_windows_pass() -> None:
    for rate in (0.1, 0.001):
        found = [thresholds.return_level(*ordinary(100, seed), 100.0, GAP, rate) for seed in range(5)]
        assert np.median(found) == pytest.approx(np.log10(DAY / rate), abs=0.4), "so many windows a day, each with its chance"


def test_a_window_that_was_no_ordinary_one_hardly_moves_the_return_level() -> None:
    device, end, decades = ordinary(100)
    before = thresholds.return_level(device, end, decades, 100.0, GAP, 0.001)
    decades[7000] = 60.0
    one = thresholds.return_level(device, end, decades, 100.0, GAP, 0.001)
    assert one == pytest.approx(before, abs=0.2)
    decades[7000:7060] = 60.0
    assert thresholds.return_level(device, end, decades, 100.0, GAP, 0.001) == pytest.approx(one, abs=0.2), "the windows of one alert count once"


def test_of_nothing_there_is_no_return_level() -> None:
    none = np.zeros(0)
    assert thresholds.return_level(np.zeros(0, str), none.astype(np.int64), none, 0.0, GAP, 0.001) == 0.0
    device, end, decades = ordinary(1)
    assert thresholds.return_level(device, end, np.full_like(decades, np.nan), 1.0, GAP, 0.001) == 0.0


def test_thresholds_go_only_so_far_beyond_what_was_seen_as_it_was_long() -> None:
    m = model(DETECTOR)
    w = held({"d0": [(60 * i, 5.0 + i / 4) for i in range(1, 20)]})
    seen = scoring.from_score(backtest.score(m, DETECTOR.name, w)[1]).max()
    for target, least in ((1e-3, 3.53), (1e-5, 5.53), (10.0, 2.5)):
        level = scoring.from_score(np.array(thresholds.at_return_level(m, [DETECTOR], {DETECTOR.name: w}, GAP, target).detectors[DETECTOR.name].threshold))
        assert least - 1e-9 <= level <= min(8.0, max(least + 0.01, seen + 0.5 * np.log10(4))) + 1e-9
    nothing = {DETECTOR.name: w.at(np.zeros(len(w), bool))}
    assert thresholds.at_return_level(m, [DETECTOR], nothing, GAP, 1e-3).detectors == m.detectors


def test_device_days_are_each_devices_own() -> None:
    """Recordings of different weeks: the time between them is nobody's."""
    w = held({}, 2)
    later = np.where(w.device == "d1", 30 * backtest.DAY_MS, 0)
    assert backtest.device_days([replace(w, start_ms=w.start_ms + later, end_ms=w.end_ms + later)]) == pytest.approx(2.0)
    half = w.start_ms < w.start_ms.max() / 2
    assert backtest.device_days([w.at(half), w.at(~half)]) == pytest.approx(2.0)
    assert backtest.device_days([w.at(np.zeros(len(w), bool))]) == backtest.device_days([]) == 0.0


def test_what_a_lookback_still_sees_of_a_labelled_incident_costs_nothing() -> None:
    """Half an hour after it a window of a detector with a lookback still holds some of it."""
    m = model(DETECTOR)
    looks_back = replace(DETECTOR, lookback=Lookback(31, timedelta(hours=1), (), lambda h: np.zeros((0, 0))))
    labels = backtest.Labels(np.array(["d0"]), np.array([100 * 60_000]), np.array([110 * 60_000]), np.array(["leak"]))
    w = held({"d0": [(130, 20.0), (135, 20.0)]})
    assert thresholds.at_budget(m, [looks_back], {DETECTOR.name: w}, labels, GAP, 0.0).detectors == m.detectors
    assert thresholds.at_budget(m, [DETECTOR], {DETECTOR.name: w}, labels, GAP, 0.0).detectors != m.detectors
