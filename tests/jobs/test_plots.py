"""The pictures of a back-test, and the numbers under them."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import backtest, plots
from tests.jobs.test_lifecycle import DETECTORS, good, windows


def test_weights_are_of_the_windows_that_score_highest() -> None:
    d = DETECTORS[0]
    w = windows(d, 9)
    observed = w.observed.copy()
    observed[:48, 0] *= 1e6
    labels = backtest.Labels(np.array(["dev-001"]), np.array([0]), np.array([600_000]), np.array(["lie"]))
    seen: dict[str, backtest.Measured] = {}
    backtest.run(good(), DETECTORS, {**{x.name: windows(x, 9) for x in DETECTORS}, d.name: backtest.Windows(w.device, w.start_ms, w.end_ms, observed, w.center, w.scale)}, labels,
                 backtest.timedelta(minutes=10), 1, seen)
    m = seen[d.name]
    assert m.labelled.sum() == 10 and not (m.labelled & m.quiet).any() and len(m.hit) == len(m.kind)
    got = plots.weights(m)
    assert got.argmax() == 0 and got[0] > 0.5 and got.sum() == pytest.approx(1, abs=0.01)


def test_precision_and_recall_of_ties_and_of_nothing() -> None:
    p, r, t = plots.precision_recall(np.array([0.5, 0.5, np.nan]), np.array([0.5, 0.2]))
    assert t.tolist() == [0.5, 0.2] and p.tolist() == [2 / 3, 0.5] and r.tolist() == [1, 1]
    assert all(len(x) == 0 for x in plots.precision_recall(np.zeros(0), np.zeros(0)))


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore")
def test_three_pictures_are_drawn(tmp_path: object) -> None:
    pytest.importorskip("matplotlib", reason="mlflow brings it along")
    seen: dict[str, backtest.Measured] = {}
    labels = backtest.Labels(*(np.zeros(0, t) for t in ("U1", np.int64, np.int64, "U1")))
    model = good()
    backtest.run(model, DETECTORS, {d.name: windows(d, 9) for d in DETECTORS}, labels, backtest.timedelta(minutes=10), 1, seen)
    names = []
    for name, figure in plots.figures(model, DETECTORS, seen):
        figure.savefig(f"{tmp_path}/{name}")
        names.append(name)
        assert [a.get_title().split()[0] for a in figure.axes] == [d.name for d in DETECTORS]
    assert names == ["score_distributions.png", "precision_recall.png", "feature_importances.png"]
