"""Point in time: whatever is planted in the future, a training set is the same. Properties, with values from hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("hypothesis", reason="the tools environment has it")
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import train
from tidewatch import detectors
from tidewatch.features import view

MINUTE = 60_000
PLANTED = 1e15
"""What the future holds: nothing else here is that large."""
DETECTOR = detectors.all_detectors()[0]
WIDTH = len(DETECTOR.signals)
SIZE = view(DETECTOR.view).size_seconds * 1000

minutes = st.integers(0, 200)
entities = st.sampled_from(["d|a|", "d|b|", "d|c|"])
windows = st.lists(st.tuples(entities, minutes), min_size=1, max_size=40, unique=True)
baselines = st.lists(st.tuples(entities, minutes), max_size=30, unique=True)


def found(of: list[tuple[str, int]]) -> pd.DataFrame:
    """Windows that begin at these minutes."""
    end = np.array([m * MINUTE + SIZE for _, m in of], dtype=np.int64)
    return pd.DataFrame({
        "entity": [e for e, _ in of], "device_id": [e.split("|")[1] for e, _ in of], "end_ms": end, "hour": (end // 3_600_000 % 24).astype(int),
        **{f"signal_{i}": np.arange(len(of), dtype=float) for i in range(WIDTH)},
    })


def stored(of: list[tuple[str, int]], value: float | None = None) -> pd.DataFrame:
    """Baselines that hold from these minutes on; their centre is that minute, or `value`."""
    level = [float(m) if value is None else value for _, m in of]
    return pd.DataFrame({
        "entity": [e for e, _ in of], "valid_from": np.array([m * MINUTE for _, m in of], dtype=np.int64),
        "center": [[x] * (24 * WIDTH) for x in level], "scale": [[x + 1] * WIDTH for x in level],
    })


def both(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([x for x in (a, b) if len(x)], ignore_index=True) if len(a) or len(b) else a


@settings(max_examples=200, deadline=None)
@given(windows, baselines, st.data())
def test_a_window_has_the_baseline_that_held_when_it_began(of: list[tuple[str, int]], known: list[tuple[str, int]], data: st.DataObject) -> None:
    """Against the definition, row by row; the order of the baselines says nothing."""
    shuffled = data.draw(st.permutations(known))
    w = train.match(DETECTOR, found(of), stored(shuffled))
    for i, (entity, m) in enumerate(of):
        mine = sorted(t for e, t in known if e == entity)
        held = [t for t in mine if t <= m]
        want = held[-1] if held else mine[0] if mine else float("nan")
        assert w.center[i, 0] == want or (np.isnan(want) and np.isnan(w.center[i]).all()), (entity, m)
        assert w.start_ms[i] == m * MINUTE


@settings(max_examples=200, deadline=None)
@given(windows, baselines, baselines)
def test_baselines_of_the_future_change_no_window(of: list[tuple[str, int]], known: list[tuple[str, int]], later: list[tuple[str, int]]) -> None:
    """Of entities that have a baseline by then; those that have none yet take their oldest, as documented (docs/batch.md)."""
    first = {e: min(m for x, m in known if x == e) for e, _ in known}
    of = [(e, m) for e, m in of if e in first and first[e] <= m]
    newest = max((m for _, m in of), default=0)
    future = [(e, newest + 1 + m) for e, m in later]
    before = train.match(DETECTOR, found(of), stored(known))
    after = train.match(DETECTOR, found(of), both(stored(known), stored(future, PLANTED)))
    assert np.array_equal(before.center, after.center) and np.array_equal(before.scale, after.scale)
    assert not (after.center == PLANTED).any()


@settings(max_examples=100, deadline=None)
@given(windows, baselines, windows)
def test_windows_of_the_future_change_no_window(of: list[tuple[str, int]], known: list[tuple[str, int]], later: list[tuple[str, int]]) -> None:
    newest = max(m for _, m in of)
    future = found([(e, newest + 1 + m) for e, m in later])
    for i in range(WIDTH):
        future[f"signal_{i}"] = PLANTED
    before = train.match(DETECTOR, found(of), stored(known))
    after = train.match(DETECTOR, both(found(of), future), stored(known))
    n = len(before)
    for name in ("device", "start_ms", "end_ms", "observed"):
        assert np.array_equal(getattr(before, name), getattr(after, name)[:n])
    assert np.array_equal(before.center, after.center[:n], equal_nan=True) and not (after.observed[:n] == PLANTED).any()


@settings(max_examples=100, deadline=None)
@given(windows)
def test_what_is_trained_on_ends_before_what_is_tested_on_begins(of: list[tuple[str, int]]) -> None:
    w = train.match(DETECTOR, found(of), stored([]))
    cut = train.split([w])
    learned, held = w.at(w.end_ms <= cut), w.at(w.start_ms >= cut)
    assert not len(learned) or not len(held) or learned.end_ms.max() <= held.start_ms.min()


def test_a_leak_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same property against a matching that looks ahead: it fails."""
    real: Any = train.match

    def ahead(detector: Any, rows: pd.DataFrame, known: pd.DataFrame) -> Any:
        return real(detector, rows.assign(end_ms=rows["end_ms"] + 1000 * MINUTE), known)

    monkeypatch.setattr(train, "match", ahead)
    with pytest.raises(AssertionError):
        test_baselines_of_the_future_change_no_window()
