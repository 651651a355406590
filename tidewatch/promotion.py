"""The rule by which a challenger becomes champion: explicit figures in, a decision with its reasons out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from tidewatch.settings import Promotion

FIRST_MARGIN = 0.25
"""How much more another family must find than a use case's first one to become the first champion in its place."""


@dataclass(frozen=True)
class Backtest:
    """Figures of one model version on windows it was not trained on."""

    recall_injected: float
    """Share of injected incidents scored at or above the threshold."""
    false_alerts: float
    """Alerts per device and day on windows without a labelled incident, merged as the stream merges them."""
    spread: float
    """Greatest minus least score: 0 for a model that says the same of everything."""
    recall_labelled: float | None = None
    """Share of labelled incidents with at least one anomalous window; None: there were none."""
    anomalous_share: float | None = None
    """Share of clean windows called anomalous, of the detector with the most; one long alert hides many. None: not measured."""
    windows_per_second: float | None = None
    """Scored in a CPU second; None: not asked of it (a champion scores the stream already)."""
    false_marked: float | None = None
    """Share of the alerts that analysts marked as false which it would raise again; None: none is marked."""

    @property
    def detection(self) -> float:
        """The figure to be better at: injected recall, or its mean with labelled recall where labels exist."""
        if self.recall_labelled is None:
            return self.recall_injected
        return (self.recall_injected + self.recall_labelled) / 2

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> Backtest:
        """A challenger's, from its run's logged metrics; a figure that was not logged is NaN, and NaN never wins."""
        nan = float("nan")
        shares = [v for k, v in metrics.items() if k.startswith("anomalous_share_")]
        return cls(metrics.get("recall_injected", nan), metrics.get("false_alerts", nan), metrics.get("spread", nan),
                   metrics.get("recall_labelled"), _most(shares) if shares else nan, metrics.get("windows_per_second", nan),
                   metrics.get("false_marked"))

    @classmethod
    def of_champion(cls, metrics: Mapping[str, float]) -> Backtest:
        """The champion's, from the metrics `champion_…` of a training's run: what it does, not how fast."""
        own = {k.removeprefix("champion_"): v for k, v in metrics.items() if k.startswith("champion_")}
        return replace(cls.of(own), anomalous_share=own.get("anomalous_share"), windows_per_second=None)

    def metrics(self) -> dict[str, float]:
        """What is logged."""
        return {k: v for k, v in {**asdict(self), "detection": self.detection}.items() if v is not None}


def _most(values: Sequence[float]) -> float:
    return float("nan") if any(math.isnan(x) for x in values) else max(values)


@dataclass(frozen=True)
class Candidate:
    """One challenger: its version in the registry, its family and its figures."""

    version: str
    family: str
    backtest: Backtest
    flaw: str = ""
    """Why the stream could not use it whatever its figures: wrong signature, numbers that are none, a file that is not there."""


@dataclass(frozen=True)
class Decision:
    """Who scores from now on, and why."""

    winner: str
    """The version promoted; '': the champion stays."""
    reason: str
    refused: Mapping[str, str]
    """Why each challenger that lost did so, by version."""
    rule: Mapping[str, float]
    """The limits that were applied, by setting."""

    def as_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def unfit(b: Backtest, rule: Promotion) -> str:
    """Why a version may not score at all, or ''."""
    broken = [k for k, v in asdict(b).items() if v is not None and not math.isfinite(v)]
    if broken:
        return f"a figure is not a number: {', '.join(broken)}"
    if b.spread <= 0:
        return "it gives every window the same score"
    if b.detection <= 0:
        return "it finds nothing"
    if b.detection < rule.min_detection:
        return f"it finds almost nothing: {b.detection:.3g} of the incidents, at least {rule.min_detection:g} asked for"
    if b.anomalous_share is not None and b.anomalous_share > rule.max_anomalous_share:
        return f"it calls {b.anomalous_share:.3g} of the clean windows anomalous, at most {rule.max_anomalous_share:g} allowed"
    if b.anomalous_share is not None and b.recall_injected <= 2 * b.anomalous_share:
        return f"it finds no more than chance: {b.recall_injected:.3g} of the incidents, {b.anomalous_share:.3g} of the clean windows"
    if b.false_alerts > rule.max_false_alerts:
        return f"{b.false_alerts:.3g} false alerts a device and day, at most {rule.max_false_alerts:g} allowed"
    if b.windows_per_second is not None and b.windows_per_second < rule.min_windows_per_second:
        return f"it scores {b.windows_per_second:.0f} windows a CPU second, the stream needs {rule.min_windows_per_second:g}"
    return ""


def beats(challenger: Backtest, champion: Backtest, rule: Promotion) -> str:
    """Why a fit challenger does not beat a fit champion, or '' if it does.

    It may not raise more of the alerts that were marked as false. It must find more by the margin without raising more false alerts
    than a tenth of what is allowed above the champion's; or find as much and save at least half of the champion's false alerts; or
    find no less than the margin below it, at no more false alerts, and raise fewer of those marked as false.
    """
    gain = challenger.detection - champion.detection
    worse = challenger.false_alerts - champion.false_alerts
    if challenger.false_marked is not None and champion.false_marked is not None and challenger.false_marked > champion.false_marked:
        return f"it raises {challenger.false_marked:.0%} of the alerts that were marked as false, the champion {champion.false_marked:.0%}"
    if gain >= rule.margin and worse <= 0.1 * rule.max_false_alerts:
        return ""
    if challenger.false_marked is not None and champion.false_marked is not None and challenger.false_marked < champion.false_marked and gain >= -rule.margin and worse <= 0:
        return ""
    if gain >= 0 and champion.false_alerts > 0 and challenger.false_alerts <= champion.false_alerts / 2:
        return ""
    return (f"detection {challenger.detection:.3f} against the champion's {champion.detection:.3f} (margin {rule.margin:g}), "
            f"false alerts {challenger.false_alerts:.3g} against {champion.false_alerts:.3g}")


def decide(
    champion: Backtest | None, challengers: Sequence[Candidate], rule: Promotion, *, first: str = "", force: bool = False,
) -> Decision:
    """Choose among challengers, measured on the same windows as the champion.

    Without a champion the family `first` goes first if it is fit and no other finds `FIRST_MARGIN` more. A champion that is itself
    unfit loses to any fit challenger. `force` drops the comparison with the champion, never the fitness.
    """
    figures = {k: float(v) for k, v in rule.model_dump().items() if k != "approval"}
    refused = {c.version: why for c in challengers if (why := c.flaw or unfit(c.backtest, rule))}
    fit = sorted((c for c in challengers if c.version not in refused),
                 key=lambda c: (-c.backtest.detection, c.backtest.false_alerts, -int(c.version) if c.version.isdigit() else 0))
    if not fit:
        return Decision("", "no challenger is fit" if challengers else "there is no challenger", refused, figures)
    best, better = fit[0], "another challenger is better"
    if champion is None:
        reason = "there was no champion"
        if favoured := next((c for c in fit if c.family == first and c.backtest.detection > best.backtest.detection - FIRST_MARGIN), None):
            best, better = favoured, f"{first} is the first champion unless another finds {FIRST_MARGIN:g} more"
    elif force:
        reason = "forced"
    elif why := unfit(champion, rule):
        reason = f"the champion is not fit any more: {why}"
    else:
        losing = {c.version: beats(c.backtest, champion, rule) for c in fit}
        fit = [c for c in fit if not losing[c.version]]
        refused |= {v: why for v, why in losing.items() if why}
        if not fit:
            return Decision("", "no challenger beats the champion", refused, figures)
        best, reason = fit[0], "it beats the champion"
    b = best.backtest
    text = f"{best.family}: {reason}; detection {b.detection:.3f}, {b.false_alerts:.3g} false alerts a device and day"
    refused |= {c.version: better for c in fit if c is not best}
    return Decision(best.version, text, refused, figures)
