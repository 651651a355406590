"""The pictures of a model's back-test: score distributions, precision and recall, and what the signals weigh."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tidewatch import scoring
from tidewatch.detectors import Detector

from jobs.backtest import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
HIGHEST = 0.01
"""Share of the held-out windows, those with the highest scores, in which signals are weighed."""
COLOURS = {"ordinary": "#7a8aa0", "injected": "#c77dbb", "labelled": "#b3261e"}


def precision_recall(wrong: Array, right: Array) -> tuple[Array, Array, Array]:
    """Precision and recall at each threshold, highest first, of `wrong` scores to be found among `right` ones: (k,) each.

    >>> p, r, t = precision_recall(np.array([0.9, 0.6]), np.array([0.7, 0.1]))
    >>> p.tolist(), r.tolist(), t.tolist()
    ([1.0, 0.5, 0.6666666666666666, 0.5], [0.5, 0.5, 1.0, 1.0], [0.9, 0.7, 0.6, 0.1])
    """
    wrong, right = wrong[np.isfinite(wrong)], right[np.isfinite(right)]
    every = np.concatenate([wrong, right])
    order = np.argsort(-every, kind="stable")
    found = np.cumsum(order < len(wrong))
    last = np.flatnonzero(np.append(np.diff(every[order]) != 0, True)) if len(every) else np.zeros(0, dtype=np.int64)
    return found[last] / (last + 1.0), found[last] / max(len(wrong), 1), every[order][last]


def weights(m: Measured) -> Array:
    """(d,) Each signal's mean share of the score in the held-out windows that score highest."""
    known = np.flatnonzero(np.isfinite(m.score))
    top = known[np.argsort(-m.score[known], kind="stable")[:max(1, int(len(known) * HIGHEST))]]
    return np.asarray(m.share[top].mean(axis=0)) if len(top) else np.zeros(m.share.shape[1])


def _pyplot() -> Any:
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    return pyplot


def figures(model: scoring.Model, detectors: Sequence[Detector], seen: Mapping[str, Measured]) -> Iterator[tuple[str, Figure]]:
    """(file, figure) of the model's plots; each is closed when the next is asked for."""
    pyplot = _pyplot()
    for name, draw in (("score_distributions", _distributions), ("precision_recall", _precision_recall), ("feature_importances", _importances)):
        shown = [d for d in detectors if d.name in seen]
        figure, axes = pyplot.subplots(1, max(len(shown), 1), figsize=(6 * max(len(shown), 1), 4), squeeze=False, layout="constrained")
        for d, axis in zip(shown, axes[0], strict=False):
            draw(axis, model, d, seen[d.name])
        figure.suptitle(f"{model.use_case}, {model.family}")
        yield f"{name}.png", figure
        pyplot.close(figure)


def _distributions(axis: Any, model: scoring.Model, d: Detector, m: Measured) -> None:
    edges = np.linspace(0, 1, 61)
    for what, scores in (("ordinary", m.score[m.quiet]), ("injected", m.hit), ("labelled", m.score[m.labelled])):
        scores = scores[np.isfinite(scores)]
        if len(scores):
            axis.hist(scores, edges, weights=np.full(len(scores), 1 / len(scores)), histtype="step", color=COLOURS[what], label=f"{what} ({len(scores):,})")
    axis.axvline(model.detectors[d.name].threshold, color="black", linestyle="--", linewidth=1, label="threshold")
    axis.set(title=d.name, xlabel="score", ylabel="share of windows", yscale="log")
    axis.legend(fontsize="small")


def _precision_recall(axis: Any, model: scoring.Model, d: Detector, m: Measured) -> None:
    threshold = model.detectors[d.name].threshold
    for what, scores in (("injected", m.hit), ("labelled", m.score[m.labelled])):
        if np.isfinite(scores).any():
            precision, recall, at = precision_recall(scores, m.score[m.quiet])
            axis.plot(recall, precision, color=COLOURS[what], label=f"{what} windows")
            k = int((at >= threshold).sum()) - 1
            if k >= 0:
                axis.plot(recall[k], precision[k], "o", color=COLOURS[what])
    axis.set(title=f"{d.name} (dots: at the threshold)", xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.legend(fontsize="small")


def _importances(axis: Any, model: scoring.Model, d: Detector, m: Measured) -> None:
    axis.barh([s.name for s in d.signals][::-1], weights(m)[::-1], color=COLOURS["ordinary"])
    axis.set(title=d.name, xlabel=f"mean share of the score, highest {HIGHEST:.0%} of windows", xlim=(0, 1))
