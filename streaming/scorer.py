"""The scorer: windows into scores with the model that held at their end, in batches, inside Flink's Python workers.

A model's `model.json` is loaded once a version, kept in memory and on disk, so that a restart does not need the
registry. When a version cannot be loaded, windows are scored by the version of the use case loaded last, and the score
carries that version; when there is none, they stay unscored (no row in `scores`), the worker's log says why, and the
counter `unscored_windows` counts them. The stream itself goes on, and loading is tried again.
"""

from __future__ import annotations

import hashlib
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext, ScalarFunction, udf
from tidewatch import scoring
from tidewatch.detectors import Detector, Signal, all_detectors
from tidewatch.errors import ContractError

log = logging.getLogger(__name__)
TRIES = 3
AGAIN_SECONDS = 10.0
TIMEOUT_SECONDS = 10.0
TOP = 3

RESULT = (
    ("metric", DataTypes.STRING()),
    ("score", DataTypes.DOUBLE()),
    ("anomalous", DataTypes.BOOLEAN()),
    ("model_version", DataTypes.STRING()),
    ("baseline", DataTypes.STRING()),
    ("top_signals", DataTypes.ARRAY(DataTypes.STRING())),
    ("top_observed", DataTypes.ARRAY(DataTypes.DOUBLE())),
    ("top_expected", DataTypes.ARRAY(DataTypes.DOUBLE())),
    ("top_shares", DataTypes.ARRAY(DataTypes.DOUBLE())),
    ("signals", DataTypes.ARRAY(DataTypes.DOUBLE())),
    ("expected", DataTypes.ARRAY(DataTypes.DOUBLE())),
    ("severity", DataTypes.STRING()),
    ("technique", DataTypes.STRING()),
    ("title", DataTypes.STRING()),
    ("reason", DataTypes.STRING()),
)


class Models:
    """The model versions this worker has loaded."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._loaded: dict[str, scoring.Model] = {}
        self._newest: dict[str, tuple[str, scoring.Model]] = {}
        self._retry_at: dict[str, float] = {}

    def get(self, use_case: str, version: str, uri: str) -> tuple[str, scoring.Model] | None:
        """The version and its model, or the one loaded last for the use case, or None."""
        if uri not in self._loaded and time.monotonic() >= self._retry_at.get(uri, 0.0):
            try:
                self._loaded[uri] = scoring.load(self._read(uri))
            except (OSError, ValueError, KeyError, ContractError) as e:
                self._retry_at[uri] = time.monotonic() + AGAIN_SECONDS
                log.error("model %s/%s cannot be loaded from %s: %s", use_case, version, uri, e)
        if uri in self._loaded:
            self._newest[use_case] = (version, self._loaded[uri])
            return self._newest[use_case]
        return self._newest.get(use_case)

    def _read(self, uri: str) -> str:
        kept = self._cache / f"{hashlib.sha256(uri.encode()).hexdigest()}.json"
        if kept.exists():
            return kept.read_text()
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(uri, timeout=TIMEOUT_SECONDS) as answer:
                    text: str = answer.read().decode()
                break
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                if not left:
                    raise
                time.sleep(0.5)
        scoring.load(text)  # only what can be used is kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{time.monotonic_ns()}")
        part.write_text(text)
        part.replace(kept)
        return text


def _number(x: float, unit: str) -> str:
    if not np.isfinite(x):
        return "nothing"
    if unit == "B":
        for step, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(x) >= step:
                return f"{x / step:.3g} {name}"
    text = f"{x:,.0f}" if abs(x) >= 1000 or x == int(x) else f"{x:.3g}"
    return f"{text} {unit}".strip()


def reason(detector: Detector, metric: str, signal: Signal, observed: float, expected: float, baseline: str) -> str:
    """Why a window is anomalous, in words: the heaviest signal, observed and expected."""
    whose = {"device": "for this device at this hour", "kind": "for devices of its kind", "global": "for all devices"}[baseline]
    what = f"{metric}: {signal.doc}" if metric else signal.doc
    return f"{what}: {_number(observed, signal.unit)}, expected {_number(expected, signal.unit)} {whose}"


def matrix(rows: Any, width: int) -> np.ndarray:
    """Lists of numbers as (n, width) floats; what is missing, null or of another length is NaN."""
    out = np.full((len(rows), width), np.nan)
    for i, row in enumerate(rows):
        if row is not None and not np.isscalar(row) and len(row) == width:
            out[i] = np.asarray(row, dtype=float)
    return out


def observe(detector: Detector, rows: Any) -> np.ndarray:
    """The signals (n, d) out of what the SQL hands over: themselves, or the windows of a lookback."""
    back = detector.lookback
    if back is None:
        return matrix(rows, len(detector.signals))
    width, n = 1 + len(back.inputs), len(rows)
    seen = np.full((n, width, back.windows), np.nan)
    for i, row in enumerate(rows):
        if row is not None and len(row) and not len(row) % width:
            part = np.asarray(row, dtype=float).reshape(width, -1)[:, -back.windows:]
            seen[i, :, back.windows - part.shape[1]:] = part
    return back.signals(np.nan_to_num(seen[:, 0], nan=-np.inf), seen[:, 1:])


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(x) else float(x) for x in values]


def explain(
    detector: Detector, version: str, threshold: float, score: float, row: int, metric: str, source: str, scored: scoring.Scored,
    observed: np.ndarray,
) -> tuple[Any, ...]:
    """The result of one window, in the order of RESULT; `row`: of the metric that weighs most."""
    baseline = scored.baseline[row]
    if baseline == "device" and source == "kind":
        baseline = "kind"
    names = [s.name for s in detector.signals]
    share, seen, expected = np.nan_to_num(scored.share[row]), observed[row], scored.expected[row]
    top = [int(k) for k in np.argsort(-share, kind="stable")[:TOP]]
    first = top[0]
    return (
        metric, score, score >= threshold, f"{detector.use_case}/{version}", baseline,
        [names[k] for k in top], _known(seen[top]), expected[top].tolist(), share[top].tolist(), _known(seen), expected.tolist(),
        detector.severity(score) or detector.severities[0][1], detector.technique, detector.title,
        reason(detector, metric, detector.signals[first], seen[first], expected[first], baseline),
    )


class Scorer(ScalarFunction):  # type: ignore[misc]
    """`tidewatch_score(use_case, detector, version, uri, metric, signals, source, center, scale)`, vectorized.

    The last five are arrays, one element a metric of the device.
    """

    def __init__(self, cache: str) -> None:
        self._cache = cache

    def is_deterministic(self) -> bool:
        """No, so that the planner calls it once a row and not once a column."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        self._models = Models(Path(self._cache))
        self._detectors = {d.name: d for d in all_detectors()}
        self._unscored = function_context.get_metric_group().counter("unscored_windows")

    def eval(self, *columns: pd.Series) -> pd.DataFrame:
        names = ("use_case", "detector", "version", "uri", "metric", "signals", "source", "center", "scale")
        frame = pd.DataFrame(dict(zip(names, columns, strict=True)))
        results: list[Any] = [(None,) * len(RESULT)] * len(frame)
        for (use_case, name, version, uri), at in frame.groupby(["use_case", "detector", "version", "uri"]).indices.items():
            found = self._models.get(use_case, version, uri)
            if found is None:
                self._unscored.inc(len(at))
                continue
            detector, part = self._detectors[name], frame.iloc[at]
            group = np.repeat(np.arange(len(at)), [len(m) for m in part["metric"]])
            metric, signals, source, center, scale = ([x for row in part[n] for x in row] for n in names[4:])
            width = len(detector.signals)
            observed = observe(detector, signals)
            try:
                scored = scoring.score(found[1], name, observed, matrix(center, width), matrix(scale, width))
                score = scoring.score_together(found[1], name, scored.decades, group, len(at))
                threshold = found[1].detectors[name].threshold
            except ContractError as e:  # trained for other signals than the detector has now
                log.error("model %s/%s: %s", use_case, found[0], e)
                self._unscored.inc(len(at))
                continue
            for k, row in enumerate(scoring.heaviest(scored.decades, group, len(at))):
                if np.isfinite(score[k]):
                    results[at[k]] = explain(detector, found[0], threshold, float(score[k]), row, metric[row], source[row], scored, observed)
        return pd.DataFrame(results, columns=[n for n, _ in RESULT])


def scorer(cache: Path) -> Any:
    """The function to register; `cache` is where models are kept on disk."""
    result = DataTypes.ROW([DataTypes.FIELD(n, t) for n, t in RESULT])
    return udf(Scorer(str(cache)), result_type=result, func_type="pandas", deterministic=False)
