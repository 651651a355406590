"""The promotion rule, figure by figure."""

import json
import math
from typing import Any

import pytest

from tidewatch.promotion import Backtest, Candidate, decide
from tidewatch.settings import Promotion

RULE = Promotion(margin=0.01, max_false_alerts=0.5)


def backtest(**figures: Any) -> Backtest:
    return Backtest(**{"recall_injected": 0.8, "false_alerts": 0.1, "spread": 0.9, **figures})


def candidate(version: str, family: str = "pca", **figures: Any) -> Candidate:
    return Candidate(version, family, backtest(**figures))


def test_the_first_champion_is_the_first_family_even_if_another_finds_more() -> None:
    d = decide(None, [candidate("1"), candidate("2", "gmm", recall_injected=0.95)], RULE, first="pca")
    assert d.winner == "1" and "no champion" in d.reason
    assert d.refused == {"2": "pca is the first champion unless another finds 0.25 more"}


def test_the_first_family_gives_way_to_one_that_finds_far_more() -> None:
    assert decide(None, [candidate("1", recall_injected=0.3), candidate("2", "gmm", recall_injected=0.9)], RULE, first="pca").winner == "2"


def test_without_the_first_family_the_best_fit_one_goes_first() -> None:
    d = decide(None, [candidate("1", false_alerts=9.0), candidate("2", "gmm"), candidate("3", "kmeans", recall_injected=0.9)], RULE, first="pca")
    assert d.winner == "3" and "9 false alerts" in d.refused["1"] and "2" in d.refused


@pytest.mark.parametrize(("figures", "why"), [
    ({"recall_injected": math.nan}, "not a number"), ({"false_alerts": math.nan}, "not a number"),
    ({"recall_labelled": math.nan}, "not a number"), ({"spread": 0.0}, "the same score"),
    ({"recall_injected": 0.0}, "finds nothing"), ({"false_alerts": 0.51}, "false alerts"),
    ({"recall_injected": 0.04}, "almost nothing"), ({"windows_per_second": 4999.0}, "windows a CPU second"), ({"windows_per_second": math.nan}, "not a number"),
    ({"anomalous_share": 0.06}, "of the clean windows"), ({"recall_injected": 0.05, "anomalous_share": 0.04}, "no more than chance"),
])
@pytest.mark.parametrize("force", [True, False])
def test_an_unfit_challenger_never_wins(figures: dict[str, float], why: str, force: bool) -> None:
    for champion in (None, backtest(recall_injected=0.1)):
        d = decide(champion, [candidate("2", **figures)], RULE, force=force)
        assert d.winner == "" and why in d.refused["2"]


LOGGED = {"recall_injected": 0.8, "false_alerts": 0.1, "spread": 0.9, "anomalous_share_x": 0.001, "anomalous_share_y": 0.002, "windows_per_second": 1e6}


@pytest.mark.parametrize("left_out", ["recall_injected", "false_alerts", "spread", "anomalous_share", "windows_per_second"])
def test_a_figure_that_was_not_logged_is_not_a_number(left_out: str) -> None:
    assert decide(None, [Candidate("1", "pca", Backtest.of(LOGGED))], RULE).winner == "1"
    figures = {k: v for k, v in LOGGED.items() if not k.startswith(left_out)}
    d = decide(None, [Candidate("1", "pca", Backtest.of(figures))], RULE)
    assert d.winner == "" and "not a number" in d.refused["1"]


def test_a_champion_is_not_asked_how_fast_it_is() -> None:
    b = Backtest.of_champion({f"champion_{k}": v for k, v in LOGGED.items()} | {"windows_per_second": 1.0})
    assert b.windows_per_second is None and b.recall_injected == 0.8


def test_a_flaw_refuses_whatever_the_figures() -> None:
    flawed = Candidate("2", "gmm", backtest(recall_injected=1.0, false_alerts=0.0), "its signature is wrong")
    for force in (True, False):
        d = decide(backtest(), [flawed], RULE, force=force)
        assert d.winner == "" and d.refused == {"2": "its signature is wrong"}


def test_alarms_without_end_are_one_alert_and_still_refused() -> None:
    """Everything anomalous: every incident is found, and the windows of days merge into one false alert a device."""
    d = decide(None, [candidate("1", recall_injected=1.0, false_alerts=0.1, anomalous_share=0.99)], RULE)
    assert d.winner == "" and "clean windows" in d.refused["1"]


@pytest.mark.parametrize(("figures", "wins"), [
    ({"recall_injected": 0.82}, True), ({"recall_injected": 0.805}, False), ({}, False),
    ({"recall_injected": 0.9, "false_alerts": 0.3}, False), ({"recall_injected": 0.9, "false_alerts": 0.14}, True),
    ({"false_alerts": 0.04}, True), ({"recall_injected": 0.79, "false_alerts": 0.0}, False),
    ({"recall_labelled": 0.9}, True), ({"recall_labelled": 0.2}, False),
])
def test_a_challenger_wins_only_by_the_margin(figures: dict[str, float], wins: bool) -> None:
    d = decide(backtest(), [candidate("2", **figures)], RULE)
    assert (d.winner == "2") is wins
    assert wins or "champion" in d.reason


def test_a_challenger_may_not_raise_more_of_what_was_marked_as_false() -> None:
    better = {"recall_injected": 0.95}
    assert decide(backtest(false_marked=0.5), [candidate("2", false_marked=0.5, **better)], RULE).winner == "2"
    d = decide(backtest(false_marked=0.0), [candidate("2", false_marked=0.5, **better)], RULE)
    assert d.winner == "" and "marked as false" in d.refused["2"]
    assert decide(backtest(), [candidate("2", false_marked=0.5, **better)], RULE).winner == "2", "nothing to compare with"


def test_one_that_raises_fewer_of_what_was_marked_as_false_wins_if_it_finds_hardly_less() -> None:
    def wins(**figures: float) -> bool:
        return decide(backtest(false_marked=0.5), [candidate("2", **figures)], RULE).winner == "2"

    assert wins(false_marked=0.0) and wins(false_marked=0.25, recall_injected=0.791)
    assert not wins(false_marked=0.5), "it is no better"
    assert not wins(false_marked=0.0, recall_injected=0.78) and not wins(false_marked=0.0, false_alerts=0.11)


def test_force_takes_the_best_fit_challenger() -> None:
    assert decide(backtest(recall_injected=0.99), [candidate("2"), candidate("3", recall_injected=0.85)], RULE, force=True).winner == "3"


@pytest.mark.parametrize("broken", [{"spread": 0.0}, {"recall_injected": math.nan}, {"false_alerts": 3.0}])
def test_a_champion_that_is_unfit_today_loses(broken: dict[str, float]) -> None:
    d = decide(backtest(**{"recall_injected": 0.9, **broken}), [candidate("2", recall_injected=0.5)], RULE)
    assert d.winner == "2" and "not fit any more" in d.reason


def test_nothing_to_choose_from() -> None:
    assert decide(None, [], RULE).reason == "there is no challenger"


def test_the_decision_is_stored_as_json() -> None:
    d = json.loads(decide(None, [candidate("1")], RULE).as_json())
    assert d["winner"] == "1" and d["rule"].items() >= {"margin": 0.01, "max_false_alerts": 0.5, "min_windows_per_second": 5000}.items()
