"""What lookbacks make of the last windows: jumps that do not echo, stuck and noisy metrics, counters, collapses."""

from __future__ import annotations

import numpy as np
import pytest

from tidewatch.detectors import Array, all_detectors, history
from tidewatch.detectors.collapse import DETECTOR as COLLAPSE
from tidewatch.detectors.corruption import DETECTOR as CORRUPTION

WINDOWS = 31


def row(values: Array) -> dict[str, Array]:
    v = np.atleast_2d(values)
    return {"mean": v, "low": v, "high": v, "missing": np.zeros_like(v)}


def signs(values: Array) -> dict[str, float]:
    found = CORRUPTION.lookback.signs(row(values))[0]  # type: ignore[union-attr]
    return dict(zip((s.name for s in CORRUPTION.signals), found.tolist(), strict=True))


def falls(values: Array) -> dict[str, float]:
    found = COLLAPSE.lookback.signs(row(values))[0]  # type: ignore[union-attr]
    return dict(zip((s.name for s in COLLAPSE.signals), found.tolist(), strict=True))


def test_statistics_leave_out_what_is_not_there() -> None:
    x = np.array([[np.nan, 1, 3, 8], [np.nan] * 4, [2, 4, np.nan, np.nan]])
    np.testing.assert_array_equal(history.median(x), [3, np.nan, 3])
    np.testing.assert_array_equal(history.mean(x), [4, np.nan, 3])


def test_a_spike_is_a_jump_and_its_end_is_none() -> None:
    steady = 20 + 0.1 * np.sin(np.arange(WINDOWS))
    spike = steady.copy()
    spike[-1] = 60
    assert signs(spike)["value_jump"] == pytest.approx(40, abs=0.2) and signs(spike)["value_noise"] < 0.2
    after = steady.copy()
    after[-5:-1] = 60
    assert signs(after)["value_jump"] < 0.2 and abs(signs(after)["value_trend"]) < 0.2


def test_stuck_noisy_and_drifting() -> None:
    rng = np.random.default_rng(1)
    usual = 20 + 0.1 * rng.normal(size=WINDOWS)
    stuck, noisy = usual.copy(), usual.copy()
    stuck[-12:] = 20
    noisy[-10:] += 5 * rng.normal(size=10)
    assert signs(stuck)["still_minutes"] == 11 and signs(usual)["still_minutes"] == 0
    assert signs(noisy)["value_noise"] > 8 * signs(usual)["value_noise"]
    assert signs(usual + np.linspace(0, 6, WINDOWS))["value_trend"] == pytest.approx(3, abs=0.5)


def test_a_counter_is_judged_by_its_steps() -> None:
    counter = np.cumsum(100 + np.arange(WINDOWS) % 3.0)
    got = signs(counter)
    assert np.isnan(got["value_level"]) and got["value_jump"] <= 2 and np.isnan(falls(counter)["rate"])
    counter[-1] += 5000
    assert signs(counter)["value_jump"] > 4900


def test_a_rate_that_falls_to_nothing_collapses_once() -> None:
    rate = 1000 + np.sin(np.arange(WINDOWS))
    rate[-1] = 0
    got = falls(rate)
    assert got["fall"] > 2.5 and got["gone_share"] == 1 and got["rate"] == 0
    noisy = np.where(rate > 0, 1000 + 100 * np.sin(np.arange(WINDOWS)), 0)
    assert 1 < falls(noisy)["fall"] < 1.5, "what lies below its noise is nothing already"
    rate[-2] = 0
    assert falls(rate)["fall"] == pytest.approx(0, abs=1e-9), "it fell a minute ago"
    bursty = np.where(np.arange(WINDOWS) % 3 == 0, 0.0, 1000.0)
    bursty[-1] = 0
    assert falls(bursty)["fall"] == 0, "it is at nothing every three minutes"
    assert falls(np.full(WINDOWS, -5.0))["fall"] == 0


def test_windows_that_are_too_old_are_not_seen() -> None:
    back = CORRUPTION.lookback
    assert back is not None
    end = 60_000.0 * np.arange(WINDOWS)
    inputs = np.stack([np.full(WINDOWS, 20.0)] * 3 + [np.zeros(WINDOWS)])[None]
    inputs[:, :3, -1] = 50
    assert back.signals(end[None], inputs)[0, 1] == 30
    end[:-1] -= 2 * back.span.total_seconds() * 1000
    assert np.isnan(back.signals(end[None], inputs)[0, 1]), "nothing to jump from"


def test_every_lookback_gives_its_signals() -> None:
    for d in all_detectors():
        if d.lookback:
            nothing = np.full((2, d.lookback.windows), np.nan)
            assert d.lookback.signs({n: nothing for n, _ in d.lookback.inputs}).shape == (2, len(d.signals))
            assert d.afterglow.total_seconds() == 60 * (d.lookback.windows - 1)


def test_a_factor_is_the_same_by_day_and_by_night() -> None:
    rng = np.random.default_rng(4)
    dim, bright = (level * np.exp(0.02 * rng.normal(size=31)) for level in (5.0, 500.0))
    dim[-1] *= 2.5
    bright[-1] *= 2.5
    assert signs(dim)["jump_log"] == pytest.approx(np.log(2.5), abs=0.1)
    assert signs(bright)["jump_log"] == pytest.approx(np.log(2.5), abs=0.1)
    assert signs(bright)["value_jump"] > 50 * signs(dim)["value_jump"]
