"""Every job's command line: help without Spark, clear errors for a wrong window."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from jobs import backtest, cli, lake, validate
from tidewatch import detectors, settings, tables
from tidewatch.settings import ROOT, Settings

JOBS = ("build_features", "build_baselines", "validate", "train", "promote", "rollback", "compact", "consistency", "drift")


@pytest.mark.parametrize("job", JOBS)
def test_help_needs_no_engine(job: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"jobs.{job}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout


def test_a_window_is_utc() -> None:
    want = datetime(2026, 3, 1, 4, tzinfo=UTC)
    for text in ("2026-03-01T04:00:00Z", "2026-03-01 04:00", "2026-03-01T05:00:00+01:00"):
        assert cli.moment(text) == want and cli.iso(cli.moment(text)) == "2026-03-01T04:00:00Z"


def test_a_window_that_ends_before_it_starts_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(cli.parser("x"), lambda s, o: {}, ["--start", "2026-03-02", "--end", "2026-03-01"])
    assert code == 1 and "not after its start" in capsys.readouterr().err


def test_a_time_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run(cli.parser("x"), lambda s, o: {}, ["--start", "yesterday", "--end", "2026-03-01"])
    assert "ISO 8601" in capsys.readouterr().err


def test_what_may_not_happen_at_once_waits_for_its_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s = settings.load(state_dir=tmp_path)
    order: list[str] = []

    def second() -> None:
        with cli.one_at_a_time(s, "feature_store"):
            order.append("second")

    with cli.one_at_a_time(s, "feature_store"):
        with cli.one_at_a_time(s, "promotion"):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and "waiting" in capsys.readouterr().err


def test_use_cases_come_in_the_houses_order() -> None:
    p = cli.parser("x", start=False, end=False)
    cli.use_case(p)
    assert cli.use_cases(p.parse_args([])) == detectors.USE_CASES
    assert cli.use_cases(p.parse_args(["--use-case", "lie", "--use-case", "silent"])) == ("silent", "lie")


def test_alerts_are_counted_as_the_stream_merges_them() -> None:
    from datetime import timedelta

    device = np.array(["a", "b", "a", "a", "a"])
    start = np.array([0, 0, 60, 1000, 2000]) * 1000
    assert backtest.incidents(device, start, start + 60_000, timedelta(minutes=10)) == 4
    assert backtest.incidents(device, start, start + 60_000, timedelta(minutes=60)) == 2
    quiet = np.array([False, True, True, True, True])
    assert backtest.incidents(device, start, start + 60_000, timedelta(minutes=10), quiet) == 3
    assert backtest.incidents(device, start, start + 60_000, timedelta(minutes=60), quiet) == 1
    assert backtest.incidents(device[:0], start[:0], start[:0], timedelta(minutes=60)) == 0


def test_the_backtest_is_the_last_fifth_of_the_time_that_has_windows() -> None:
    from jobs.train import split

    zero = np.zeros((3, 1))
    w = backtest.Windows(np.array(["a"] * 3), np.array([1000, 1400, 1900]), np.array([1100, 1500, 2000]), zero, zero, zero)
    assert split([w]) == 1800


def test_windows_that_overlap_are_enough_once_they_reach_far_enough() -> None:
    from jobs.train import LEAST_WINDOWS, enough

    minutes = np.arange(1, 200) * 60_000
    per_minute, hourly = (next(d for d in detectors.all_detectors() if d.name == n) for n in ("flood", "slow_leak"))
    assert enough(per_minute, minutes[:LEAST_WINDOWS]) and not enough(per_minute, minutes[:LEAST_WINDOWS - 1]) and not enough(per_minute, minutes[:0])
    assert not enough(hourly, minutes) and enough(hourly, np.arange(LEAST_WINDOWS + 1) * 3_600_000)


def test_medians_of_many_entities_are_what_numpy_finds_for_each() -> None:
    from jobs.build_baselines import HEAVY, MAD, quantile, summarize

    rng = np.random.default_rng(1)
    entity, hour, values = rng.integers(0, 5, 8000), rng.integers(0, 24, 8000), rng.normal(size=(8000, 2))
    hour[entity == 3] %= 3
    values[rng.random((8000, 2)) < 0.3] = np.nan
    values[entity == 4, 1] = np.nan
    got = summarize(entity, 6, hour, values)
    mine = values[entity == 2]
    assert got["overall"][2] == pytest.approx(np.nanmedian(mine, axis=0)) and got["count"][2].tolist() == (~np.isnan(mine)).sum(axis=0).tolist()
    center = np.nanmedian(values[(entity == 2) & (hour == 1)], axis=0)
    assert got["center"][2, 1] == pytest.approx(center)
    assert got["center"][3] == pytest.approx(np.tile(np.nanmedian(values[entity == 3], axis=0), (24, 1))), "hours never seen: no rhythm"
    from jobs.build_baselines import daily

    hours = np.arange(24.0)
    hours[5] = np.nan
    assert daily(hours[None], np.zeros(1))[0, [4, 5, 6]].tolist() == [4, 5, 6]
    residual = np.abs(mine - got["center"][2, hour[entity == 2]])
    body = max(MAD * np.nanmedian(residual[:, 0]), np.nanquantile(residual[:, 0], 0.9) / 1.645)
    tail = max(min(np.nanquantile(residual[:, 0], q) / sigmas, HEAVY * body) for q, sigmas in ((0.99, 2.576), (1.0, 3.5)))
    assert got["spread"][2, 0] == pytest.approx(max(body, tail))
    assert np.isnan(got["overall"][4, 1]) and np.isnan(got["overall"][5]).all()
    assert np.isnan(quantile(np.zeros(0, np.int64), np.zeros(0), 2, 0.5)).all()


def test_a_logarithm_is_no_sign_where_the_level_is_steady() -> None:
    import pandas as pd

    from jobs.build_baselines import UNKNOWN, assemble, of_entities

    d = next(d for d in detectors.all_detectors() if d.name == "corruption")
    rng = np.random.default_rng(1)
    parts = []
    for device, level in (("steady", 20 + rng.normal(size=900)), ("light", np.exp(rng.normal(4, 1.5, 900)))):
        parts.append(pd.DataFrame({"entity": f"corruption|{device}|m", "device_id": device, "metric": "m", "end_ms": np.arange(900), "hour": 3,
                                   **{f"signal_{i}": np.arcsinh(level) if s.varies else level for i, s in enumerate(d.signals)}}))
    inventory = pd.DataFrame({"device_id": ["steady", "light", "new"], "kind": ["a", "b", "a"]})
    made = assemble(d, of_entities(d, pd.concat(parts, ignore_index=True)), inventory).set_index("device_id")
    no_sign = {n: {s.name for s, x in zip(d.signals, made.loc[n, "scale"], strict=True) if x == UNKNOWN} for n in made.index}
    assert no_sign == {"steady": {"level_log", "jump_log", "range_log"}, "light": set(), "new": {"level_log", "jump_log", "range_log"}}


def test_a_counter_has_no_level_and_a_gauge_keeps_its_own_over_a_drift() -> None:
    import pandas as pd

    from jobs.build_baselines import UNKNOWN, assemble, of_entities

    d = next(d for d in detectors.all_detectors() if d.name == "corruption")
    names = [s.name for s in d.signals]
    rng = np.random.default_rng(1)
    gauge, counting = 20 + 10 * rng.random(900), np.zeros(900, dtype=bool)
    gauge[400:500], counting[400:500] = np.arange(100) * 1e3, True
    parts = []
    for device, level, counts in (("gauge", gauge, counting), ("counter", np.cumsum(rng.random(900)), np.arange(900) > 30)):
        signals = np.tile(level[:, None], (1, len(names)))
        signals[counts, names.index("value_range")] = np.nan
        parts.append(pd.DataFrame({"entity": f"corruption|{device}|m", "device_id": device, "metric": "m", "end_ms": np.arange(900), "hour": 3,
                                   **{f"signal_{i}": signals[:, i] for i in range(len(names))}}))
    inventory = pd.DataFrame({"device_id": ["gauge", "counter", "new"], "kind": ["a", "b", "b"]})
    made = assemble(d, of_entities(d, pd.concat(parts, ignore_index=True)), inventory).set_index("device_id")
    level = names.index("value_level")
    assert made.loc["gauge", "center"][level] == pytest.approx(25, abs=1) and made.loc["gauge", "scale"][level] < 10, "not learned from its drift"
    assert made.loc["counter", "scale"][level] == UNKNOWN == made.loc["new", "scale"][level], "nor is it borrowed by a new device"


def test_a_view_is_taken_over_if_it_counts_its_events() -> None:
    from jobs.incremental import counted, stretches
    from tidewatch import features

    assert {n: counted(features.view(n)) for n in features.names() if counted(features.view(n))} == {"flow_1m": "flows", "reading_1m": "readings"}
    assert stretches([60, 120, 240], 60) == [(0, 120), (180, 240)] and stretches([], 60) == []


@pytest.mark.parametrize("d", detectors.all_detectors(), ids=lambda d: d.name)
def test_injected_incidents_go_where_the_signs_point(d: detectors.Detector) -> None:
    kinds = backtest.kinds(d)
    assert len(kinds) == sum(2 if s.direction == 0 else 1 for s in d.signals) + 1
    n, width = 5, len(d.signals)
    w = backtest.Windows(np.array(["a"] * n), np.arange(n), np.arange(n) + 1, np.full((n, width), 3.0), np.full((n, width), 1.0), np.ones((n, width)))
    injected, number, original = backtest.inject(d, w, np.random.default_rng(1))
    assert (injected.end_ms == original + 1).all()
    assert len(injected) == len(kinds) * len(backtest.STRENGTHS) * backtest.INJECTED == len(number)
    moved = injected.observed - 3.0
    assert (np.sign(moved[number == 0]) == np.sign(kinds[0][1])).all()


def test_the_gate_asks_nothing_of_a_source_that_never_sent(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert validate.checked(settings) == []
    reading = {c.name: {"timestamp": 0, "string": "a", "long": 1, "int": 1, "double": 1.0, "boolean": False}[c.type] for c in tables.table("reading").columns}
    lake.replace(settings, tables.table("reading"), [reading], "true")
    assert validate.checked(settings) == ["reading", *(n for n in validate.features.names() if "reading" in n or "activity" in n)]
    lake.replace(settings, tables.table("flow"), [], "true")  # made, but empty
    assert "flow" not in validate.checked(settings)


def test_a_figure_that_is_no_number_is_null_in_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(cli.parser("x"), lambda s, o: {"recall": float("nan"), "of": [1.5, float("inf")]}, ["--start", "2026-03-01", "--end", "2026-03-02"])
    assert code == 0 and capsys.readouterr().out == '{"of": [1.5, null], "recall": null}\n'
