"""The renderer refuses what is not portable and renders everything there is."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from tidewatch import events, features
from tidewatch.detectors import all_detectors
from tidewatch.errors import ContractError
from tidewatch.features import Feature, FeatureView, Source, render
from tidewatch.settings import Limits


def view(expression: str) -> FeatureView:
    return FeatureView("v", "a view", (Source("flow"),), ("device_id",), 60, 60, (Feature("f", expression, "long", "a feature"),))


def test_identifiers_are_quoted_and_decimals_become_doubles() -> None:
    assert render.expression("SUM(value) / 1000.0 + 2", ["value"]) == "SUM(`value`) / 1000.0E0 + 2"


def test_text_in_quotes_is_left_alone() -> None:
    assert render.expression("status <> 'it''s value 1.5'", ["status", "value"]) == "`status` <> 'it''s value 1.5'"


@pytest.mark.parametrize("text", ["AVG(value)", "STDDEV(value)", "values", "value; DROP TABLE x", "value -- no", "APPROX_COUNT_DISTINCT(value)", "SUM"])
def test_what_is_not_portable_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        render.expression(text, ["value"])


def test_an_unknown_column_is_named_with_its_place() -> None:
    with pytest.raises(ContractError, match=r"v\.f: .*'bytes'"):
        render.flink_view_sql(view("SUM(bytes)"))


def test_sources_must_offer_the_same_columns() -> None:
    with pytest.raises(ContractError, match="same columns"):
        render.spark_view_sql(dataclasses.replace(view("COUNT(*)"), sources=(Source("flow"), Source("reading"))))


def test_a_delay_lies_between_that_of_the_windows_below_and_one_of_them_more() -> None:
    hour, activity = features.view("egress_1h"), features.view("activity_10m")
    assert "HOP(TABLE `egress_1h_input`, DESCRIPTOR(`rowtime`), INTERVAL '0 00:10:00.000' DAY TO SECOND, INTERVAL '0 01:00:00.000' DAY TO SECOND, " \
        "INTERVAL '0 00:00:30.000' DAY TO SECOND)" in render.flink_view_sql(hour)[-1][1]
    readings = features.view("reading_1m").delay_seconds
    for v in (dataclasses.replace(hour, delay_seconds=60), dataclasses.replace(activity, delay_seconds=readings - 1), dataclasses.replace(activity, delay_seconds=60)):
        with pytest.raises(ContractError, match="would hold something else"):
            render.flink_view_sql(v)
    render.flink_view_sql(dataclasses.replace(activity, delay_seconds=59))


def test_over_events_a_delay_is_that_of_the_source() -> None:
    readings = features.view("reading_1m")
    assert render.ahead_seconds("reading") == readings.delay_seconds and render.ahead_seconds("flow") == features.view("flow_1m").delay_seconds == 0
    for v in (dataclasses.replace(readings, delay_seconds=readings.delay_seconds + 1), dataclasses.replace(features.view("flow_1m"), delay_seconds=1)):
        with pytest.raises(ContractError, match="would hold something else"):
            render.flink_view_sql(v)


def test_views_over_one_source_share_their_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    real = features.view
    monkeypatch.setattr(features, "names", lambda: ("reading_1m", "other"))
    monkeypatch.setattr(features, "view", lambda n: dataclasses.replace(real("reading_1m"), name="other", delay_seconds=9) if n == "other" else real(n))
    with pytest.raises(ContractError, match=r"different delays: \{'reading_1m': \d+, 'other': 9\}"):
        render.ahead_seconds("reading")


@pytest.mark.parametrize("name", features.names())
def test_every_view_has_its_columns_in_both_engines(name: str) -> None:
    v = features.view(name)
    flink, spark = render.flink_view_sql(v)[-1][1], render.spark_view_sql(v, start_ms=0, end_ms=1)
    for column in (*v.keys, "window_start", "window_end", "window_end_ms", *(f.name for f in v.features)):
        assert f"`{column}`" in flink
        assert f"`{column}`" in spark


@pytest.mark.parametrize("detector", all_detectors(), ids=lambda d: d.name)
def test_every_detector_has_signals(detector) -> None:  # type: ignore[no-untyped-def]
    wanted = [n for n, _ in detector.lookback.inputs] if detector.lookback else [s.name for s in detector.signals]
    assert [n for n, _ in render.signals(detector)] == wanted
    assert all(bool(s.expression) == (detector.lookback is None) for s in detector.signals)
    assert render.entity(detector).startswith(f"CONCAT('{detector.name}|'")


@pytest.mark.parametrize("name", events.names())
def test_every_limit_of_a_contract_is_a_predicate(name: str) -> None:
    contract = events.contract(name)
    reasons = [r for r, _ in render.predicates(contract, Limits())]
    assert len(reasons) == len(set(reasons))
    for f in contract.fields:
        assert (f"{f.name}_range" in reasons) == (f.minimum is not None or f.maximum is not None)
        assert (f"{f.name}_values" in reasons) == bool(f.values)
        assert (f"{f.name}_length" in reasons) == (f.min_length is not None or f.max_length is not None)
    assert {"ts_future", "ts_past"} <= set(reasons)


@pytest.mark.parametrize(("span", "text"), [
    (timedelta(seconds=60), "INTERVAL '0 00:01:00.000' DAY TO SECOND"),
    (timedelta(days=2, hours=3, milliseconds=1500), "INTERVAL '2 03:00:01.500' DAY TO SECOND"),
])
def test_time_spans(span: timedelta, text: str) -> None:
    assert render.flink_interval(span) == text
