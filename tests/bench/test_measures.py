"""The measures: perfect and worthless scores, ties, alerts merged and told apart, incidents cut at the test part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import measures

MINUTE = 60_000


def truth(labels: list[dict[str, Any]], minutes: int = 600, train: int = 0, readings: Any = None) -> measures.Truth:
    device = np.repeat(np.array(["a", "b"]), minutes)
    end = np.tile((np.arange(minutes) + 1) * MINUTE, 2)
    return measures.Truth.of(device, end, MINUTE, "lie", labels, {"a": train * MINUTE}, readings)


def label(start: float, end: float, use_case: str = "lie", device: str = "a") -> dict[str, Any]:
    return {"device_id": device, "start": int(start * MINUTE), "end": int(end * MINUTE), "use_case": use_case}


def test_perfect_and_worthless_scores() -> None:
    rng = np.random.default_rng(1)
    flags = np.zeros(5000, dtype=bool)
    flags[1000:1050] = flags[3000:3040] = True
    assert measures.auc_pr(flags.astype(float), flags) == pytest.approx(1)
    assert measures.vus_pr(flags + 0.01 * rng.random(5000), flags, 40) > 0.85
    assert measures.vus_pr(rng.random(5000), flags, 40) < 0.1 and measures.auc_pr(rng.random(5000), flags) < 0.1
    assert measures.auc_pr(np.zeros(5000), flags) == pytest.approx(flags.mean()), "equal scores count together"
    assert np.isnan(measures.vus_pr(rng.random(10), np.zeros(10, dtype=bool), 5))


def test_near_misses_count_in_the_volume() -> None:
    flags = np.zeros(2000, dtype=bool)
    flags[1000:1040] = True
    near, far = np.zeros(2000), np.zeros(2000)
    near[990:1030], far[200:240] = 1, 1
    assert measures.vus_pr(near, flags, 40) > measures.vus_pr(far, flags, 40) + 0.4


def test_alerts_are_right_wrong_or_neither() -> None:
    t = truth([label(100, 110), label(200, 210, "other"), label(300, 310)])
    fired = np.zeros(1200, dtype=bool)
    fired[[102, 105, 111]] = True  # one alert
    fired[205] = True  # something else
    fired[400] = fired[700] = True  # wrong, on two devices
    got = measures.figures(t, fired.astype(float), fired, 10 * MINUTE)
    assert got["incidents"] == 2 and got["recall"] == 0.5 and got["precision"] == pytest.approx(1 / 3) and got["alerts"] == 3
    assert got["delay"] == pytest.approx(3) and got["false_alerts"] == pytest.approx(2 / (1200 / 1440))


def test_a_short_incident_may_be_found_in_the_window_after() -> None:
    t = truth([label(100.2, 100.6)])
    for window, recall in ((100, 1), (101, 1), (102, 0)):
        fired = np.zeros(1200, dtype=bool)
        fired[window] = True
        assert measures.figures(t, fired.astype(float), fired, MINUTE)["recall"] == recall


def test_incidents_outside_the_test_part_do_not_count() -> None:
    t = truth([label(0, 50), label(40, 80), label(599.5, 700), label(100, 110, device="c")], train=60)
    assert t.events == ((0, 60 * MINUTE),)


def test_a_window_without_a_reading_of_the_incident_is_not_labelled() -> None:
    taken = {"a": np.arange(0, 600 * MINUTE, 45_000)}
    t = truth([label(60.75, 61.5)], readings=taken)
    assert np.flatnonzero(t.label).tolist() == [60], "the reading at 60:45; the one at 61:30 is after it"
    assert truth([label(60.75, 61.5)]).label.sum() == 2


def test_vus_pr_is_that_of_the_authors_package() -> None:
    """Figures of `vus` 0.0.6, `RangeAUC_volume_opt`, on the same series."""
    for seed, buffer, theirs in ((1, 5, 0.43938017), (2, 20, 0.71932769), (3, 41, 0.77340455)):
        rng = np.random.default_rng(seed)
        label = np.zeros(500, dtype=bool)
        for start in rng.integers(0, 460, 4):
            label[start:start + 12 * seed] = True
        score = rng.random(500) + label * 0.4
        assert measures.vus_pr(score, label, buffer) == pytest.approx(theirs, abs=1e-4)


def test_nab_rewards_the_first_sign_and_charges_what_is_false() -> None:
    label = np.zeros(100, dtype=bool)
    label[40:60] = True

    def points(*rows: int) -> float:
        fired = np.zeros(100, dtype=bool)
        fired[list(rows)] = True
        return measures.nab_points(label, fired)

    assert points() == -1 and points(40) == pytest.approx(1)
    assert 1 > points(45) > points(59) > 0 and points(45, 59) == points(45)
    assert points(40, 3) == pytest.approx(1 - 0.11)
    assert points(40, 61) > points(40, 75) > points(40, 3)


def test_one_sign_finds_every_incident_that_it_overlaps() -> None:
    t = truth([label(100, 200), label(120, 121), label(300, 310)])
    fired = np.zeros(1200, dtype=bool)
    fired[120] = True
    got = measures.figures(t, fired.astype(float), fired, 5 * MINUTE)
    assert got["recall"] == pytest.approx(2 / 3) and got["precision"] == 1
