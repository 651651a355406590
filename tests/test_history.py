"""What lookbacks make of the last windows: jumps that do not echo, stuck and noisy metrics, counters, collapses."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from tidewatch.detectors import Array, Lookback, all_detectors, history
from tidewatch.detectors.beacon import DETECTOR as BEACON
from tidewatch.detectors.collapse import DETECTOR as COLLAPSE
from tidewatch.detectors.corruption import DETECTOR as CORRUPTION
from tidewatch.detectors.strangers import DETECTOR as STRANGERS

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
    assert np.isnan(got["value_range"]) and got["value_jump"] <= 2 and np.isnan(falls(counter)["rate"])
    assert got["value_level"] == counter[-1], "a gauge that drifts looks like it: the baseline knows which it is"
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
            assert d.lookback.signs(dict.fromkeys(("end", *(n for n, _ in d.lookback.inputs)), nothing)).shape == (2, len(d.signals))
            assert d.afterglow == (d.lookback.windows - 1) * (d.lookback.every or timedelta(minutes=1))


def test_a_factor_is_the_same_by_day_and_by_night() -> None:
    rng = np.random.default_rng(4)
    dim, bright = (level * np.exp(0.02 * rng.normal(size=31)) for level in (5.0, 500.0))
    dim[-1] *= 2.5
    bright[-1] *= 2.5
    assert signs(dim)["jump_log"] == pytest.approx(np.log(2.5), abs=0.1)
    assert signs(bright)["jump_log"] == pytest.approx(np.log(2.5), abs=0.1)
    assert signs(bright)["value_jump"] > 50 * signs(dim)["value_jump"]


def day(**changes: dict[int, float]) -> dict[str, float]:
    """The signals of a day of full hours, alike but for the hours changed (0 is the newest, -1 the one before)."""
    hours = np.arange(-24.0, 1.0)
    h = {"end": hours * 3_600_000, "groups": np.full(25, 3.0)}
    for name, values in changes.items():
        for hour, value in values.items():
            h[name][24 + hour] = value
    back = STRANGERS.lookback
    assert back is not None
    found = back.signals(h["end"][None], np.stack([h[n] for n, _ in back.inputs])[None])[0]
    return dict(zip((s.name for s in STRANGERS.signals), found, strict=True))


def test_a_stranger_is_an_outside_address_of_a_group_unknown_for_a_day() -> None:
    assert day()["new_destinations"] == 0
    assert day(groups={0: 3 + 2**51 + 16})["new_destinations"] == 2
    assert day(groups={0: 3 + 16, -5: 16})["new_destinations"] == 0, "seen five hours ago"
    assert day(groups={0: 3 + 16, -24: 16})["new_destinations"] == 0, "seen a day ago"
    assert np.isnan(day(end=dict.fromkeys(range(-13, 0), np.nan))["new_destinations"]), "eleven hours do not tell whom it knows"
    assert np.isnan(day(groups={0: np.nan})["new_destinations"])


def test_an_hour_that_slides_shares_no_minute_with_those_it_is_compared_with() -> None:
    """Ends 24 aligned hours before and a newest at 10 past: the hour that ended at the full hour holds 50 of its minutes."""
    back = STRANGERS.lookback
    assert back is not None
    end = np.append(np.arange(-23.0, 1.0) * 3_600_000, 600_000.0)
    new, = back.signals(end[None], np.append(np.zeros(23), [16.0, 16.0])[None, None])[0]
    assert new == 1, "what both hours hold is new"


@pytest.mark.parametrize("every", [1, 3])
def test_the_batch_side_looks_back_as_far_apart_as_asked(every: int) -> None:
    from dataclasses import replace

    import pandas as pd

    from jobs import signals

    rng = np.random.default_rng(1)
    back = Lookback(4, timedelta(minutes=12), (("x", "x"),), lambda h: np.nan_to_num(h["x"], nan=-1.0)[:, [0, 1, 2, 3]], timedelta(minutes=every))
    detector = replace(BEACON, lookback=back, signals=BEACON.signals * 2)
    minutes = {e: sorted(rng.choice(30, 20, replace=False)) for e in "ab"}
    frame = pd.DataFrame([{"entity": e, "device_id": e, "metric": "", "end_ms": m * 60_000, "hour": 0, "signal_0": float(m)} for e in "ab" for m in minutes[e]])
    found = signals.look_back(detector, frame.sample(frac=1.0, random_state=1)).set_index(["entity", "end_ms"])
    for e, ends in minutes.items():
        for m in ends:
            seen = [k for k in ends if k < m and k % every == 0][-3:] + [m]
            want = [-1.0] * (4 - len(seen)) + [float(k) if k >= m - 12 else -1.0 for k in seen]
            assert found.loc[(e, m * 60_000), [f"signal_{i}" for i in range(4)]].tolist() == want
