"""The stability index, and when a drift starts a cycle early."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.drift import early
from tidewatch.drift import psi


def normal(n: int, mean: float = 0.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, n)


def test_the_same_distribution_is_near_zero_and_another_is_not() -> None:
    assert psi(normal(5000), normal(5000, seed=2)) < 0.02
    assert 0.1 < psi(normal(5000), normal(5000, 0.5, 2)) < 0.4
    assert psi(normal(5000), normal(5000, 2.0, 2)) > 2


def test_a_shift_of_known_shares_gives_the_known_number() -> None:
    """Half and half against a tenth and nine tenths: (0.1 - 0.5) ln(0.1 / 0.5) + (0.9 - 0.5) ln(0.9 / 0.5)."""
    reference, recent = np.repeat([0.0, 1.0], [50_000, 50_000]), np.repeat([0.0, 1.0], [10_000, 90_000])
    assert psi(reference, recent) == pytest.approx(0.4 * np.log(5) + 0.4 * np.log(1.8), abs=1e-3)


def test_constants_missing_values_and_nothing() -> None:
    zero = np.zeros(1000)
    assert psi(zero, zero) < 1e-6 and psi(zero, zero + 1) > 5 and psi(zero, zero - 1) > 5
    assert psi(np.full(1000, np.nan), np.full(1000, np.nan)) < 1e-6 and psi(zero, np.full(1000, np.nan)) > 5
    assert np.isnan(psi(zero, zero[:0])) and np.isnan(psi(zero[:0], zero))


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_it_is_a_number_from_zero_on(reference: list[float], recent: list[float]) -> None:
    x = psi(np.array(reference), np.array(recent))
    assert np.isfinite(x) and x >= -1e-12


def test_one_cycle_early_and_no_more() -> None:
    four, at = timedelta(hours=4), datetime(2026, 3, 1, 14, tzinfo=UTC)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert early(["flood.x"], [noon], at, four) and early(["flood.x"], [], at, four)
    assert not early([], [noon], at, four), "nothing drifted"
    assert not early(["flood.x"], [noon, datetime(2026, 3, 1, 13, tzinfo=UTC)], at, four), "trained in this cycle already"
    assert not early(["flood.x"], [], noon, four), "a cycle begins anyway"
