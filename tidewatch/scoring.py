"""Scoring: a model of plain arrays, read from `model.json`, turns windows into scores; the same code in batch and stream.

A window's signals are compared with its baseline, z = (transform(x) - center) / scale, and clipped to the signal's
direction. The family measures how far z lies from the training windows, and the calibration turns that distance into
a tail probability p: empirical quantiles in the body, a generalized Pareto distribution beyond (Pickands 1975; its
shape and scale from two quantiles of the excesses, so that contaminated training windows do not widen it).
score = L / (6 + L) with L = -log10(p): 0.5 is one window in a million, and no score is so high that none is higher.

Where a detector looks at the metrics of a device one by one, the window of the device is scored: of its m metrics the
five least p, p1 to p5, give the evidence sum(max(0, -log10(p_k m / k))): each what Simes (1986) makes of it, so that many
metrics do not make an alert, and several odd ones at once weigh more than one. A second calibration gives its p.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewatch.detectors import Detector, Signal
from tidewatch.errors import ContractError

Array = NDArray[np.float64]

FORMAT = 1
FAMILIES = ("pca", "kmeans", "gmm")
TRANSFORMS = ("identity", "log1p")
DECADES = 6.0
"""-log10(p) at which the score is 0.5."""
TOGETHER = 5
"""Metrics of a device whose evidence is added."""
Z_MAX = 1e3
FAR = 20.0
"""z beyond this are equally far: one signal gone wild does not outweigh several that are clearly wrong."""
USUAL = 3.0
"""The band in which a signal usually lies, in scales on either side of the centre; for the eye only, nothing is judged by it."""
WINSOR = 8.0
"""Training z are cut here, so that a few extreme windows do not turn the model towards themselves."""
TAIL = 0.02
"""Share of training windows from which the tail is fitted."""
SHAPE = (0.0, 0.25)
"""Least and greatest shape of the tail: never bounded, never so heavy that nothing is an anomaly."""
USUAL_SHAPE, USUAL_WEIGHT = 0.1, 200
"""The shape expected before any excess is seen, and how many excesses it is worth: few do not tell a shape."""
LEAST_SIGMA = 0.4
"""Least scale of the tail, in units of z: that of a normal distribution's tail near its second sigma."""
BODY = np.linspace(0.0, 1.0 - TAIL, 50)


class _BadModel(ContractError, ValueError):
    """A `model.json` that cannot be used."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """From distance to tail probability."""

    body: Array
    """(50,) distances at the training quantiles 0 to 0.98; the last is where the tail begins."""
    sigma: float
    shape: float


@dataclass(frozen=True, eq=False)
class DetectorModel:
    """What the model of a use case knows of one of its detectors; d signals."""

    signals: tuple[str, ...]
    transforms: tuple[str, ...]
    directions: tuple[int, ...]
    scale_floors: Array
    """(d,)"""
    center: Array
    """(d,) in transformed units: for a window without any baseline."""
    scale: Array
    """(d,)"""
    family: str
    arrays: Mapping[str, Array]
    """pca: mean (d,), components (k, d), variances (k,), residual (1,); kmeans: centers (k, d);
    gmm: weights (k,), means (k, d), covariances (k, d, d)."""
    calibration: Calibration
    threshold: float
    together: Calibration | None = None
    """Of the evidence of a device's metrics together; None: the detector looks at whole devices."""


@dataclass(frozen=True, eq=False)
class Model:
    """One version of a use case's model."""

    use_case: str
    family: str
    detectors: Mapping[str, DetectorModel]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of n windows with d signals."""

    score: Array
    """(n,) 0 to 1; NaN where every signal is missing."""
    decades: Array
    """(n,) -log10 of the tail probability of each row alone; NaN where every signal is missing."""
    share: Array
    """(n, d) each signal's part of the sum of squared z; rows sum to 1, or are all 0 where nothing deviates."""
    expected: Array
    """(n, d) the baseline's centre in the signal's raw unit."""
    usual: Array
    """(n, 2) from where to where the first signal usually lies: the centre with USUAL scales on either side, in its raw unit."""
    baseline: list[str]
    """`device` where a baseline was handed in, else `global`."""


# -- from signals to z
def transform(x: Array, transforms: Sequence[str]) -> Array:
    """Raw signals (n, d) in transformed units; what is below zero counts as zero for log1p."""
    out = np.array(x, dtype=np.float64, copy=True)
    for i, t in enumerate(transforms):
        if t == "log1p":
            out[:, i] = np.log1p(np.maximum(out[:, i], 0.0))
    return out


def inverse(y: Array, transforms: Sequence[str]) -> Array:
    """Transformed values (n, d) in raw units."""
    out = np.array(y, dtype=np.float64, copy=True)
    for i, t in enumerate(transforms):
        if t == "log1p":
            out[:, i] = np.expm1(np.minimum(out[:, i], 700.0))
    return out


def standardize(x: Array, center: Array, scale: Array, transforms: Sequence[str], directions: Sequence[int], floors: Array) -> Array:
    """z (n, d), clipped to each signal's direction; a missing signal is 0: no evidence either way."""
    with np.errstate(invalid="ignore", over="ignore"):
        z = (transform(x, transforms) - center) / np.fmax(scale, floors)
    np.clip(z, -Z_MAX, Z_MAX, out=z)
    for i, direction in enumerate(directions):
        if direction > 0:
            np.maximum(z[:, i], 0.0, out=z[:, i])
        elif direction < 0:
            np.minimum(z[:, i], 0.0, out=z[:, i])
    return np.asarray(np.nan_to_num(z, copy=False, nan=0.0))


# -- from z to a distance
def distance(family: str, arrays: Mapping[str, Array], z: Array) -> Array:
    """How far each z (n, d) lies from the training windows, in units of z: (n,).

    pca: root of Hotelling's T² within the components plus the residual Q over its variance (Jackson and
    Mudholkar 1979). kmeans: to the nearest centre. gmm: root of twice the log-likelihood lost against the peak.
    """
    z = np.clip(z, -FAR, FAR)
    if family == "pca":
        y = z - arrays["mean"]
        t = y @ arrays["components"].T
        t2 = (t * t / arrays["variances"]).sum(axis=1)
        q = np.maximum((y * y).sum(axis=1) - (t * t).sum(axis=1), 0.0)
        return np.asarray(np.sqrt(t2 + q / arrays["residual"][0]))
    if family == "kmeans":
        nearest = np.full(len(z), np.inf)
        for c in arrays["centers"]:
            y = z - c
            np.minimum(nearest, (y * y).sum(axis=1), out=nearest)
        return np.asarray(np.sqrt(nearest))
    if family == "gmm":
        parts, peaks = [], []
        for w, m, s in zip(arrays["weights"], arrays["means"], arrays["covariances"], strict=True):
            lower = np.linalg.cholesky(s)
            y = (z - m) @ np.linalg.inv(lower).T
            peak = math.log(max(float(w), 1e-300)) - float(np.log(np.diag(lower)).sum())
            peaks.append(peak)
            parts.append(peak - 0.5 * (y * y).sum(axis=1))
        best = np.max(parts, axis=0)
        density = best + np.log(np.exp(np.asarray(parts) - best).sum(axis=0))
        top = max(peaks) + math.log(len(peaks))
        return np.asarray(np.sqrt(np.maximum(2.0 * (top - density), 0.0)))
    raise _BadModel(f"the model family {family!r} is unknown.", f"one of: {', '.join(FAMILIES)}")


# -- from a distance to a probability
def fit_calibration(distances: Array) -> Calibration:
    """Fit body and tail to the distances of training windows; raises ContractError if there are none or one is not finite.

    The tail's shape solves q90/q50 = (10^shape - 1) / (2^shape - 1) for the 50 % and 90 % quantiles of the excesses.
    """
    d = np.asarray(distances, dtype=np.float64)
    if not len(d) or not np.isfinite(d).all():
        raise ContractError("a calibration needs finite distances.", "train on a window that has rows")
    body = np.quantile(d, BODY)
    excess = d[d > body[-1]] - body[-1]
    shape, sigma = 0.0, LEAST_SIGMA
    if len(excess) >= 50:
        q50, q90 = np.quantile(excess, (0.5, 0.9))
        low, high = SHAPE[0] + 1e-6, SHAPE[1]
        ratio = q90 / max(q50, 1e-12)
        for _ in range(40):
            mid = (low + high) / 2
            low, high = (mid, high) if (10**mid - 1) / (2**mid - 1) < ratio else (low, mid)
        shape = (len(excess) * (low + high) / 2 + USUAL_WEIGHT * USUAL_SHAPE) / (len(excess) + USUAL_WEIGHT)
        sigma = q90 / ((10**shape - 1) / shape if shape else math.log(10))
    elif len(excess):
        sigma = float(excess.mean())
    return Calibration(body, max(float(sigma), LEAST_SIGMA), float(shape))


def probability(c: Calibration, distances: Array) -> Array:
    """Share of ordinary windows that lie at least as far: (n,), never 0."""
    p = 1.0 - np.interp(distances, c.body, BODY)
    y = (distances - c.body[-1]) / c.sigma
    beyond = y > 0
    with np.errstate(over="ignore"):
        log_tail = -np.log1p(c.shape * y[beyond]) / c.shape if c.shape else -y[beyond]
    p[beyond] = TAIL * np.exp(np.maximum(log_tail, -600.0))
    return p


# -- all of it
def score(model: Model, detector: str, observed: Array, center: Array, scale: Array) -> Scored:
    """Score n windows of one detector.

    `observed` (n, d): raw signals, NaN where missing. `center`, `scale` (n, d): the baseline in transformed units, rows
    of NaN where there is none. Raises ContractError if the model does not know the detector or a shape is wrong.
    """
    m = model.detectors.get(detector)
    if m is None:
        raise ContractError(f"the model of {model.use_case!r} does not know the detector {detector!r}.", "train the use case again")
    d = len(m.signals)
    observed, center, scale = (np.asarray(a, dtype=np.float64) for a in (observed, center, scale))
    if not observed.shape == center.shape == scale.shape or observed.ndim != 2 or observed.shape[1] != d:
        raise ContractError(f"{detector}: {observed.shape}, {center.shape}, {scale.shape} are not three times (n, {d}).")
    whole = np.asarray(~(np.isnan(center).any(axis=1) | np.isnan(scale).any(axis=1)))
    center = np.where(whole[:, None], center, m.center)
    scale = np.where(whole[:, None], scale, m.scale)
    z = standardize(observed, center, scale, m.transforms, m.directions, m.scale_floors)
    decades = np.maximum(0.0, -np.log10(probability(m.calibration, distance(m.family, m.arrays, z))))
    decades[np.isnan(observed).all(axis=1)] = np.nan
    squares = z * z
    total = squares.sum(axis=1, keepdims=True)
    share = np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)
    half = USUAL * np.fmax(scale[:, :1], m.scale_floors[:1])
    edges = center[:, :1] + half * np.array([-1.0, 1.0])
    usual = inverse(np.maximum(edges, 0.0) if m.transforms[0] == "log1p" else edges, m.transforms[:1] * 2)
    return Scored(to_score(decades), decades, share, inverse(center, m.transforms), usual, np.where(whole, "device", "global").tolist())


def to_score(decades: Array) -> Array:
    """-log10 of a tail probability on the scale of scores."""
    return np.asarray(decades / (DECADES + decades))


def from_score(score: Array) -> Array:
    """-log10 of the tail probability (n,) that scores below 1 stand for; NaN stays."""
    return np.asarray(DECADES * score / (1.0 - score))


def evidence(decades: Array, group: NDArray[np.int64], groups: int) -> Array:
    """What the metrics of each device's window say together: (groups,) from `decades` (n,); NaN where none says anything."""
    there = np.flatnonzero(~np.isnan(decades))
    order = there[np.lexsort((-decades[there], group[there]))]
    count = np.bincount(group[order], minlength=groups)
    place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    top = place < TOGETHER
    order, place = order[top], place[top]
    part = np.maximum(0.0, decades[order] - np.log10(count[group[order]] / (place + 1.0)))
    return np.asarray(np.where(count > 0, np.bincount(group[order], weights=part, minlength=groups), np.nan))


def heaviest(decades: Array, group: NDArray[np.int64], groups: int) -> list[int]:
    """The row of each device's window whose metric is the most unlikely: (groups,); -1 for one without rows."""
    found = np.full(groups, -1)
    order = np.lexsort((np.nan_to_num(decades, nan=-1.0), group))
    found[group[order]] = order  # the last of a group stays
    return [int(i) for i in found]


def score_together(model: Model, detector: str, decades: Array, group: NDArray[np.int64], groups: int) -> Array:
    """Scores (groups,) of the windows of devices from `decades` (n,) of their metrics; `group` (n,): which window."""
    together = model.detectors[detector].together
    found = evidence(decades, group, groups)
    if together is not None:
        there = ~np.isnan(found)
        found[there] = -np.log10(probability(together, found[there]))
    return to_score(np.maximum(found, 0.0))


def fit(
    detector: Detector, family: str, arrays: Mapping[str, Array], center: Array, scale: Array, z: Array,
    group: NDArray[np.int64] | None = None,
) -> DetectorModel:
    """A detector's model from its family's arrays, calibrated on the training z (n, d); `group` (n,): windows of devices.

    Its threshold is the detector's, until `jobs.backtest` sets the model's own.
    """
    s: tuple[Signal, ...] = detector.signals
    distances = distance(family, arrays, z)
    calibration = fit_calibration(distances)
    together = None
    if group is not None:
        decades = np.maximum(0.0, -np.log10(probability(calibration, distances)))
        together = fit_calibration(evidence(decades, group, int(group.max()) + 1))
    return DetectorModel(
        signals=tuple(x.name for x in s), transforms=tuple(x.transform for x in s), directions=tuple(x.direction for x in s),
        scale_floors=np.array([x.scale_floor for x in s]), center=np.asarray(center, dtype=np.float64),
        scale=np.asarray(scale, dtype=np.float64), family=family, arrays={k: np.asarray(v, dtype=np.float64) for k, v in arrays.items()},
        calibration=calibration, threshold=detector.threshold, together=together,
    )


def pca_arrays(mean: Array, components: Array, variances: Array, total_variance: float) -> dict[str, Array]:
    """Arrays of the family pca from its k components (k, d) and their variances; a variance below 0.25 counts as 0.25."""
    k, d = components.shape
    residual = max(total_variance - float(variances.sum()), 0.0) / (d - k) if d > k else 1.0
    return {"mean": mean, "components": components, "variances": np.maximum(variances, 0.25), "residual": np.array([max(residual, 0.25)])}


def gmm_arrays(weights: Array, means: Array, covariances: Array) -> dict[str, Array]:
    """Arrays of the family gmm; each covariance gets 0.25 on its diagonal, since clipped z have flat directions."""
    d = means.shape[1]
    return {"weights": weights, "means": means, "covariances": covariances + 0.25 * np.eye(d)}


# -- model.json
def _calibration_json(c: Calibration) -> dict[str, Any]:
    return {"body": c.body.tolist(), "sigma": c.sigma, "shape": c.shape}


def dump(model: Model) -> str:
    """The model as JSON text; the same model always gives the same text."""
    detectors = {
        name: {
            "signals": list(m.signals), "transforms": list(m.transforms), "directions": list(m.directions),
            "scale_floors": m.scale_floors.tolist(), "center": m.center.tolist(), "scale": m.scale.tolist(),
            "family": m.family, "arrays": {k: v.tolist() for k, v in m.arrays.items()},
            "calibration": _calibration_json(m.calibration), "threshold": m.threshold,
            **({} if m.together is None else {"together": _calibration_json(m.together)}),
        }
        for name, m in model.detectors.items()
    }
    whole = {"format": FORMAT, "use_case": model.use_case, "family": model.family, "detectors": detectors, "notes": dict(model.notes)}
    return json.dumps(whole, sort_keys=True, indent=1, allow_nan=False)


def load(text: str) -> Model:
    """Read a model; raises ContractError (also a ValueError) saying what is wrong with it."""
    try:
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise _BadModel(f"model.json has the format {raw['format']!r}, not {FORMAT}.", "train again with this version")
        found = {str(n): _detector(str(n), r) for n, r in raw["detectors"].items()}
        if not found:
            raise _BadModel("model.json has no detectors.")
        return Model(str(raw["use_case"]), str(raw["family"]), found, {str(k): str(v) for k, v in raw.get("notes", {}).items()})
    except ContractError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise _BadModel(f"model.json cannot be read: {type(e).__name__} {e}.", "train again, or roll back to a version that works") from e


def _detector(name: str, raw: Mapping[str, Any]) -> DetectorModel:
    signals = tuple(str(s) for s in raw["signals"])
    d = len(signals)
    family = str(raw["family"])

    def array(what: str, value: Any, shape: tuple[int | None, ...]) -> Array:
        a = np.asarray(value, dtype=np.float64)
        if a.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, a.shape, strict=True)):
            raise _BadModel(f"model.json, {name}: {what} has the shape {a.shape}, not {shape}.")
        if not np.isfinite(a).all():
            raise _BadModel(f"model.json, {name}: {what} holds a number that is not finite.")
        return a

    shapes: dict[str, dict[str, tuple[int | None, ...]]] = {
        "pca": {"mean": (d,), "components": (None, d), "variances": (None,), "residual": (1,)},
        "kmeans": {"centers": (None, d)},
        "gmm": {"weights": (None,), "means": (None, d), "covariances": (None, d, d)},
    }
    if family not in shapes:
        raise _BadModel(f"model.json, {name}: the family {family!r} is unknown.", f"one of: {', '.join(FAMILIES)}")
    transforms, directions = tuple(str(t) for t in raw["transforms"]), tuple(int(x) for x in raw["directions"])
    if not len(transforms) == len(directions) == d or d == 0 or set(transforms) - set(TRANSFORMS) or set(directions) - {-1, 0, 1}:
        raise _BadModel(f"model.json, {name}: signals, transforms and directions do not fit together.")
    arrays = {k: array(k, raw["arrays"][k], shape) for k, shape in shapes[family].items()}
    if len({len(v) for k, v in arrays.items() if k not in ("mean", "residual")}) != 1 or not all(len(v) for v in arrays.values()):
        raise _BadModel(f"model.json, {name}: the arrays of {family} have different lengths.")
    if family == "pca" and not (arrays["variances"] > 0).all() & (arrays["residual"] > 0).all():
        raise _BadModel(f"model.json, {name}: a variance is not above zero.")
    if family == "gmm":
        try:
            np.linalg.cholesky(arrays["covariances"])
        except np.linalg.LinAlgError as e:
            raise _BadModel(f"model.json, {name}: a covariance is not positive definite.") from e

    def calibration(what: str) -> Calibration:
        c = raw[what]
        made = Calibration(array(f"{what}.body", c["body"], (len(BODY),)), float(c["sigma"]), float(c["shape"]))
        if not (math.isfinite(made.sigma) and made.sigma > 0 and 0 <= made.shape < 1):
            raise _BadModel(f"model.json, {name}: the tail has scale {made.sigma} and shape {made.shape}.")
        if (np.diff(made.body) < 0).any():
            raise _BadModel(f"model.json, {name}: quantiles must not fall.")
        return made

    floors, scale = array("scale_floors", raw["scale_floors"], (d,)), array("scale", raw["scale"], (d,))
    if (floors <= 0).any() or (scale <= 0).any():
        raise _BadModel(f"model.json, {name}: scales must be above zero.")
    threshold = float(raw["threshold"])
    if not 0 < threshold <= 1:
        raise _BadModel(f"model.json, {name}: the threshold {threshold} is not in (0, 1].")
    return DetectorModel(signals, transforms, directions, floors, array("center", raw["center"], (d,)), scale, family, arrays,
                         calibration("calibration"), threshold, calibration("together") if "together" in raw else None)
