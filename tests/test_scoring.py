"""Scoring: every detector's examples hit and miss, figures are right, and a bad model.json is refused."""

import json
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tidewatch import scoring
from tidewatch.detectors import Detector, all_detectors
from tidewatch.errors import ContractError

Array = NDArray[np.float64]
by_name = pytest.mark.parametrize("d", all_detectors(), ids=lambda d: d.name)
by_family = pytest.mark.parametrize("family", scoring.FAMILIES)


def training(d: Detector, n: int = 20_000, seed: int = 1) -> Array:
    """z of ordinary windows: correlated, with a tail a little heavier than normal."""
    rng = np.random.default_rng(seed)
    width = len(d.signals)
    x = rng.standard_t(20, (n, width)) + 0.5 * rng.standard_t(20, (n, 1))
    return scoring.standardize(x, np.zeros(width), np.ones(width), ["identity"] * width, [s.direction for s in d.signals], np.ones(width))


def arrays(family: str, z: Array) -> dict[str, Array]:
    """What MLlib would find, by numpy."""
    z = np.clip(z, -scoring.WINSOR, scoring.WINSOR)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z.T)))
    if family == "pca":
        k = max(1, z.shape[1] - 1)
        return scoring.pca_arrays(z.mean(axis=0), vectors.T[::-1][:k], values[::-1][:k], float(values.sum()))
    if family == "kmeans":
        return {"centers": np.array([z.mean(axis=0), np.quantile(z, 0.9, axis=0)])}
    return scoring.gmm_arrays(np.array([0.7, 0.3]), np.array([z.mean(axis=0)] * 2), np.array([np.atleast_2d(np.cov(z.T)), 2 * np.atleast_2d(np.cov(z.T))]))


def model(d: Detector, family: str = "pca") -> scoring.Model:
    z = training(d)
    width = len(d.signals)
    m = scoring.fit(d, family, arrays(family, z), np.zeros(width), np.full(width, 10.0), z)
    return scoring.Model(d.use_case, family, {d.name: m})


@by_family
@by_name
def test_examples_hit_and_miss(d: Detector, family: str) -> None:
    """With a scale of 5 % of the level, as a steady device has, and never below the signal's floor."""
    m = model(d, family)
    for e in d.examples:
        observed, expected = (np.array([[x[s.name] for s in d.signals]]) for x in (e.observed, e.expected))
        center = scoring.transform(expected, [s.transform for s in d.signals])
        scale = np.maximum(0.05 * np.abs(center), [s.scale_floor for s in d.signals])
        got = scoring.score(m, d.name, observed, center, scale)
        assert bool(got.score[0] >= d.threshold) == e.hit, (e.name, got)
        assert got.expected[0] == pytest.approx(expected[0]) and got.baseline == ["device"]
        assert got.share[0].sum() == pytest.approx(1)


@by_family
@by_name
def test_ordinary_windows_are_one_in_a_million(d: Detector, family: str) -> None:
    m = model(d, family).detectors[d.name]
    z = training(d, 300_000, seed=2)
    p = scoring.probability(m.calibration, scoring.distance(family, m.arrays, z))
    assert (p < 0.01).mean() == pytest.approx(0.01, rel=0.25)
    assert (p < 1e-6).sum() <= 30


def test_contaminated_training_does_not_hide_what_contaminates_it() -> None:
    d = np.abs(np.random.default_rng(3).normal(size=100_000))
    clean = scoring.fit_calibration(d)
    d[:100] = 500.0
    dirty = scoring.fit_calibration(d)
    far = np.array([20.0])
    assert scoring.probability(clean, far)[0] < 1e-6 and scoring.probability(dirty, far)[0] < 1e-6


def test_a_probability_falls_with_distance_and_is_never_zero() -> None:
    c = scoring.fit_calibration(np.random.default_rng(4).exponential(size=10_000))
    p = scoring.probability(c, np.linspace(0, 1e6, 1000))
    assert (np.diff(p) <= 0).all() and (p > 0).all() and p[0] == pytest.approx(1)


def test_constant_distances_can_be_calibrated() -> None:
    c = scoring.fit_calibration(np.full(10, 2.0))
    assert c.sigma == scoring.LEAST_SIGMA and c.shape == 0
    for bad in (np.array([]), np.array([1.0, np.nan])):
        with pytest.raises(ContractError, match="finite"):
            scoring.fit_calibration(bad)


def corruption() -> Detector:
    return next(d for d in all_detectors() if d.name == "corruption")


def test_missing_signals_are_no_evidence_and_nothing_at_all_has_no_score() -> None:
    d = corruption()
    width = len(d.signals)
    center, scale = np.zeros((3, width)), np.ones((3, width))
    observed = np.zeros((3, width))
    observed[1] = np.nan
    observed[2] = [*[np.nan] * (width - 1), 40.0]
    got = scoring.score(model(d), d.name, observed, center, scale)
    assert got.score[0] < 0.2 and np.isnan(got.score[1]) and got.score[2] >= 0.5
    assert got.share[2].tolist() == [*[0] * (width - 1), 1] and not got.share[0].any()


def test_without_a_baseline_the_global_one_is_taken() -> None:
    d = corruption()
    width = len(d.signals)
    observed = np.full((2, width), 3.0)
    center, scale = np.full((2, width), 3.0), np.ones((2, width))
    center[1] = np.nan
    got = scoring.score(model(d), d.name, observed, center, scale)
    assert got.baseline == ["device", "global"] and got.expected[1].tolist() == [0] * width


def test_too_little_is_no_sign_where_too_much_is_asked() -> None:
    d = next(d for d in all_detectors() if d.name == "flood")
    width = len(d.signals)
    center = np.full((1, width), np.log1p(1e4))
    got = scoring.score(model(d), d.name, np.zeros((1, width)), center, np.full((1, width), 0.5))
    assert got.score[0] < 0.2


def test_wrong_shapes_and_unknown_detectors_are_named() -> None:
    m = model(corruption())
    with pytest.raises(ContractError, match=r"three times \(n, 10\)"):
        scoring.score(m, "corruption", np.zeros((2, 10)), np.zeros((2, 4)), np.zeros((2, 10)))
    with pytest.raises(ContractError, match="does not know the detector 'flood'"):
        scoring.score(m, "flood", np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)))


@by_family
def test_a_model_survives_its_file(family: str) -> None:
    m = model(corruption(), family)
    text = scoring.dump(m)
    again = scoring.load(text)
    assert scoring.dump(again) == text
    rng = np.random.default_rng(5)
    observed, center, scale = rng.normal(size=(100, 10)) * 9, rng.normal(size=(100, 10)), rng.uniform(0.5, 2, (100, 10))
    a, b = (scoring.score(x, "corruption", observed, center, scale) for x in (m, again))
    assert (a.score == b.score).all() and (a.share == b.share).all()


def test_metrics_together_weigh_more_than_one_and_many_make_no_alert() -> None:
    one = scoring.evidence(np.array([4.0]), np.array([0]), 2)
    assert one[0] == 4 and np.isnan(one[1])
    decades = np.array([4.0, 0, 0, 0, 4, 4, 4, np.nan])
    alone, several = scoring.evidence(decades, np.array([0, 0, 0, 0, 1, 1, 1, 1]), 2)
    assert alone == pytest.approx(4 - np.log10(4)) and several == pytest.approx(12 - np.log10(3) - np.log10(1.5))
    assert scoring.heaviest(decades, np.array([0, 0, 0, 0, 1, 1, 1, 1]), 3)[0] == 0
    assert scoring.heaviest(decades, np.array([0, 0, 0, 0, 1, 1, 1, 1]), 3)[2] == -1


def test_windows_of_devices_are_calibrated_too() -> None:
    d = corruption()
    z = training(d, 40_000)
    group = np.repeat(np.arange(10_000), 4)
    made = scoring.fit(d, "pca", arrays("pca", z), np.zeros(len(d.signals)), np.ones(len(d.signals)), z, group)
    m = scoring.Model(d.use_case, "pca", {d.name: made})
    again = scoring.load(scoring.dump(m))
    decades = -np.log10(scoring.probability(made.calibration, scoring.distance("pca", made.arrays, z)))
    score = scoring.score_together(again, d.name, np.maximum(decades, 0), group, 10_000)
    assert (score == scoring.score_together(m, d.name, np.maximum(decades, 0), group, 10_000)).all()
    # 2 decades are one window in a hundred
    assert (score >= 2 / 8).mean() == pytest.approx(0.01, rel=0.5)


def broken(**changes: Any) -> str:
    raw = json.loads(scoring.dump(model(corruption(), changes.pop("family", "pca"))))
    at = raw["detectors"]["corruption"]
    for path, value in changes.items():
        *way, last = path.split("__")
        place = at
        for w in way:
            place = place[w]
        place[last] = value
    return json.dumps(raw)


@pytest.mark.parametrize("text", [
    "", "{}", "[]", "null", '{"format": 2}', '{"format": 1, "use_case": "lie", "family": "pca", "detectors": {}}',
    '{"format": 1, "use_case": "lie", "family": "pca", "detectors": {"x": null}}',
    broken(center=[0, 0]), broken(center=[0, 0, 0, 0, 0, 0, float("nan")]), broken(scale=[1, 1, 1, 1, 1, 1, 0]), broken(threshold=0),
    broken(arrays__mean=[1]), broken(arrays__components=[[1, 2]]), broken(arrays__variances=[1, 1, 1, -1]), broken(arrays__variances=[1]),
    broken(family="gmm", arrays__covariances=np.zeros((2, 10, 10)).tolist()), broken(family="kmeans", arrays__centers=[]),
    broken(calibration__body=[1, 2]), broken(calibration__sigma=0), broken(calibration__sigma=float("inf")), broken(calibration__shape=3),
    broken(directions=[1, 1]), broken(transforms=["cube", *["identity"] * 6]), broken(arrays={}),
    broken(center="much"),
])
def test_a_bad_model_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match=r"model\.json"):
        scoring.load(text)
    with pytest.raises(ValueError):
        scoring.load(text)


@by_family
def test_a_million_windows_in_seconds(family: str) -> None:
    m = model(corruption(), family)
    rng = np.random.default_rng(6)
    observed = rng.normal(size=(1_000_000, 10))
    zero, one = np.zeros_like(observed), np.ones_like(observed)
    begin = time.process_time()
    scoring.score(m, "corruption", observed, zero, one)
    assert time.process_time() - begin < 10
