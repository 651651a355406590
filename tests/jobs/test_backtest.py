"""The operating point: held-out false alerts keep within the budget, at the lowest threshold that does so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from jobs import backtest
from tests.test_scoring import model
from tidewatch import detectors, scoring

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
    within = backtest.at_budget(m, [DETECTOR], {DETECTOR.name: w}, NONE, GAP, 0.5)
    before, after = m.detectors[DETECTOR.name].threshold, within.detectors[DETECTOR.name].threshold
    assert after > before and 0 < false_alerts(within, w) <= 0.5
    # no lower threshold would do
    assert false_alerts(replace(within, detectors={DETECTOR.name: replace(within.detectors[DETECTOR.name], threshold=after * 0.99)}), w) > 0.5
    assert scoring.load(scoring.dump(within)).detectors[DETECTOR.name].threshold == after


def test_a_model_within_the_budget_stays_as_it_is() -> None:
    m = model(DETECTOR)
    w = held({"d0": [(100, 19.0)]})
    assert backtest.at_budget(m, [DETECTOR], {DETECTOR.name: w}, NONE, GAP, 0.5).detectors == m.detectors
    assert backtest.at_budget(m, [DETECTOR], {DETECTOR.name: w.at(np.zeros(len(w), bool))}, NONE, GAP, 0.5).detectors == m.detectors


def test_a_labelled_incident_costs_nothing() -> None:
    m = model(DETECTOR)
    w = held({"d0": [(60 * i, 20.0) for i in range(1, 9)]})
    labels = backtest.Labels(np.array(["d0"]), np.array([0]), np.array([DAY * 60_000]), np.array(["leak"]))
    assert backtest.at_budget(m, [DETECTOR], {DETECTOR.name: w}, labels, GAP, 0.5).detectors == m.detectors


def test_an_alert_that_began_with_a_labelled_incident_is_not_false() -> None:
    """What follows within the gap is the same alert to whoever reads it; what comes later is another."""
    m = model(DETECTOR)
    labels = backtest.Labels(np.array(["d0"]), np.array([100 * 60_000]), np.array([110 * 60_000]), np.array(["leak"]))
    together = held({"d0": [(100 + i, 20.0) for i in range(15)]})
    assert false_alerts(m, together, labels) == 0
    assert backtest.at_budget(m, [DETECTOR], {DETECTOR.name: together}, labels, GAP, 0.0).detectors == m.detectors
    apart = held({"d0": [(105, 20.0), (200, 20.0), (201, 20.0)]})
    assert false_alerts(m, apart, labels) == pytest.approx(0.25, rel=0.01)


def test_the_back_test_judges_by_the_models_own_threshold() -> None:
    m = model(DETECTOR)
    w = held({"d0": [(100, 15.0)]})
    deaf = replace(m, detectors={DETECTOR.name: replace(m.detectors[DETECTOR.name], threshold=0.999)})
    assert false_alerts(m, w) == pytest.approx(0.25, rel=0.01) and false_alerts(deaf, w) == 0
