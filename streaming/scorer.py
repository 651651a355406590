"""The scorer: windows into scores with the model that held at their end, in batches, inside Flink's Python workers.

A model's `model.json` is loaded once a version, kept in memory and on disk, so that a restart does not need the
registry. When a version cannot be loaded, windows are scored by the version of the use case loaded last, and the score
carries that version; when there is none, they stay unscored (no row in `scores`), the worker's log says why, and the
counter `unscored_windows` counts them. The stream itself goes on, and loading is tried again.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext, ScalarFunction, udf
from tidewatch import scoring
from tidewatch.detectors import Detector, Signal
from tidewatch.errors import ContractError

from streaming.windows import handed

log = logging.getLogger(__name__)
TRIES = 3
AGAIN_SECONDS = 10.0
TIMEOUT_SECONDS = 10.0
TOP = 3
DIGITS = 6
"""Significant digits of what is told of a window beside its score: more say nothing, and cost at every writing and reading."""
POWERS = np.array([float(f"1e{i}") for i in range(23)])
"""The powers of ten that a double holds exactly."""
WORKER = "pyflink.fn_execution.beam.beam_boot"
"""The module that Flink starts a Python worker with."""

RESULT = (
    ("place", DataTypes.INT()),
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
    ("usual_low", DataTypes.DOUBLE()),
    ("usual_high", DataTypes.DOUBLE()),
    ("shadow_version", DataTypes.STRING()),
    ("shadow_score", DataTypes.DOUBLE()),
    ("shadow_anomalous", DataTypes.BOOLEAN()),
    ("severity", DataTypes.STRING()),
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
        if self.load(use_case, version, uri) is not None:
            self._newest[use_case] = (version, self._loaded[uri])
        return self._newest.get(use_case)

    def load(self, use_case: str, version: str, uri: str) -> scoring.Model | None:
        """The model of exactly this version, or None if it cannot be had now."""
        if uri not in self._loaded and time.monotonic() >= self._retry_at.get(uri, 0.0):
            try:
                self._loaded[uri] = scoring.load(self._read(uri))
            except (OSError, ValueError, KeyError, ContractError) as e:
                self._retry_at[uri] = time.monotonic() + AGAIN_SECONDS
                log.error("model %s/%s cannot be loaded from %s: %s", use_case, version, uri, e)
        return self._loaded.get(uri)

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


def reason(signal: Signal, observed: float, expected: float, baseline: str) -> str:
    """Why a window is anomalous, in words: the heaviest signal, observed and expected."""
    whose = {"device": "for this device at this hour", "kind": "for devices of its kind", "global": "for all devices"}[baseline]
    return f"{signal.doc}: {_number(observed, signal.unit)}, expected {_number(expected, signal.unit)} {whose}"


def shortened(x: np.ndarray) -> np.ndarray:
    """The nearest numbers with DIGITS significant digits; whole numbers, what is not finite and what is below 1e-16 stay as they are.

    A whole number divided by, or times, an exact power of ten is rounded once, so that its shortest text is that short.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        left = DIGITS - 1 - np.floor(np.log10(np.abs(x)))
        power = POWERS[np.nan_to_num(np.abs(left), nan=0.0, posinf=0.0).clip(0, len(POWERS) - 1).astype(np.int64)]
        found = np.where(left >= 0, np.round(x * power) / power, np.round(x / power) * power)
    return np.where(np.isfinite(found) & (np.abs(left) < len(POWERS)) & (x != np.rint(x)), found, x)


def explain(
    detector: Detector, version: str, threshold: float, score: np.ndarray, rows: np.ndarray, place: np.ndarray, of_kind: np.ndarray,
    scored: scoring.Scored, observed: np.ndarray,
) -> dict[str, np.ndarray]:
    """The columns of RESULT of n windows, but for the shadow's.

    `rows` (n,): of each window the row of `scored` whose metric weighs most, which is in this `place` among the device's metrics, counted from 1;
    `of_kind` (n,): whether its baseline is the kind's.
    """
    share, seen, expected, usual = (shortened(x) for x in (np.nan_to_num(scored.share[rows]), observed[rows], scored.expected[rows], scored.usual[rows]))
    baseline = np.array(scored.baseline, dtype=object)[rows]
    baseline[(baseline == "device") & of_kind] = "kind"
    # what was not observed, or has no baseline, is no reason (Pinot would drop its null, and the lists would no longer be alike)
    known = np.isfinite(seen + expected)
    top = np.lexsort((-share, ~known), axis=1)[:, :TOP]
    count = np.clip(known.sum(axis=1), 1, TOP)
    names = np.array([s.name for s in detector.signals], dtype=object)
    anomalous = score >= threshold
    least, severities = zip(*detector.severities, strict=True)
    severity = np.searchsorted(least, score, side="right") - 1

    alike = len(np.unique(count)) == 1

    def heaviest(values: np.ndarray) -> np.ndarray:
        found = np.take_along_axis(values, top, axis=1)
        # a row of an array costs less than a slice of each row
        return _objects(found[:, : count[0]] if alike else (x[:n] for x, n in zip(found, count, strict=True)))

    why = np.full(len(rows), "", dtype=object)
    for i in np.flatnonzero(anomalous):
        k = top[i, 0]
        why[i] = reason(detector.signals[k], seen[i, k], expected[i, k], baseline[i])
    return {
        "place": place, "score": score, "anomalous": anomalous, "baseline": baseline,
        "model_version": np.full(len(rows), f"{detector.use_case}/{version}", dtype=object),
        "top_signals": heaviest(np.broadcast_to(names, seen.shape)), "top_observed": heaviest(seen), "top_expected": heaviest(expected),
        "top_shares": heaviest(share), "signals": _objects(seen), "expected": _objects(expected),
        "usual_low": usual[:, 0], "usual_high": usual[:, 1],
        "severity": np.array(severities, dtype=object)[severity], "reason": why,
    }


def _objects(values: Iterable[Any]) -> np.ndarray:
    return np.fromiter(values, dtype=object)


def _numbers(values: np.ndarray) -> np.ndarray:
    """The numbers of all rows, which are packed (Match.java)."""
    return np.frombuffer(b"".join(values), dtype="<f8")


class Scorer(ScalarFunction):  # type: ignore[misc]
    """`tidewatch_score(asked, inputs, source, baseline)`, vectorized: of each row what Match.java says of them; what it gives is RESULT."""

    def __init__(self, cache: str) -> None:
        self._cache = cache

    def is_deterministic(self) -> bool:
        """No, so that the planner calls it once a row and not once a column."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        end_with_flink()
        self._models = Models(Path(self._cache))
        self._handed = {d.name: (h, d) for h in handed() for d in h.detectors}
        self._told: set[tuple[str, str, str]] = set()
        self._unscored = function_context.get_metric_group().counter("unscored_windows")

    def eval(self, asked: pd.Series, inputs: pd.Series, source: pd.Series, baseline: pd.Series) -> pd.DataFrame:
        results = {n: np.full(len(asked), None, dtype=object) for n, _ in RESULT}
        columns = inputs.to_numpy(), source.to_numpy(), baseline.to_numpy()
        for what, at in asked.groupby(asked).indices.items():
            use_case, name, version, uri, shadow, shadow_uri = what.split("\n")
            found = self._models.get(use_case, version, uri)
            if found is None:
                self._unscored.inc(len(at))
                continue
            hands, detector = self._handed[name]
            seen, whose, usual = (x[at] for x in columns)
            metrics = np.fromiter(map(len, whose), dtype=np.int64)
            group = np.repeat(np.arange(len(at)), metrics)
            of_kind = np.frombuffer("".join(whose).encode("ascii", "replace"), dtype="S1") == b"k"
            center, scale = _numbers(usual).reshape(len(group), 2, len(detector.signals)).transpose(1, 0, 2)
            observed = hands.observe(detector, hands.read(_numbers(seen)))
            try:
                scored = scoring.score(found[1], name, observed, center, scale)
                score = scoring.score_together(found[1], name, scored.decades, group, len(at))
                threshold = found[1].detectors[name].threshold
            except ContractError as e:  # trained for other signals than the detector has now, or before it had windows enough
                if (use_case, found[0], name) not in self._told:
                    self._told.add((use_case, found[0], name))
                    # a first training of a few hours leaves detectors out that need more
                    level = logging.ERROR if name in found[1].detectors else logging.WARNING
                    log.log(level, "model %s/%s: %s; its windows are not scored until a newer version is promoted", use_case, found[0], e)
                self._unscored.inc(len(at))
                continue
            there = np.flatnonzero(np.isfinite(score))
            rows = np.asarray(scoring.heaviest(scored.decades, group, len(at)))[there]
            place = rows - (np.cumsum(metrics) - metrics)[there] + 1
            told = explain(detector, found[0], threshold, score[there], rows, place, of_kind[rows], scored, observed)
            if shadow_uri:
                beside = self._beside(use_case, name, shadow, shadow_uri, observed, center, scale, group, len(at))
                told |= {column: values[there] for column, values in beside.items()}
            for column, values in told.items():
                results[column][at[there]] = values
        return pd.DataFrame(results)

    def _beside(
        self, use_case: str, name: str, version: str, uri: str, observed: np.ndarray, center: np.ndarray, scale: np.ndarray, group: np.ndarray, groups: int,
    ) -> dict[str, np.ndarray]:
        """What a challenger says of the same windows, (groups,) each: version, score, over its threshold; {} if it cannot be had or asked."""
        model = self._models.load(use_case, version, uri)
        if model is None:
            return {}
        try:
            score = scoring.score_together(model, name, scoring.score(model, name, observed, center, scale).decades, group, groups)
        except ContractError as e:
            log.error("model %s/%s beside the champion: %s", use_case, version, e)
            return {}
        there = np.isfinite(score)
        said = {"shadow_version": f"{use_case}/{version}", "shadow_score": score, "shadow_anomalous": score >= model.detectors[name].threshold}
        return {column: np.where(there, values, None) for column, values in said.items()}


@functools.cache
def end_with_flink() -> None:
    """End this process with the TaskManager that started it: one that is killed leaves its Python workers waiting for ever."""

    def watch() -> None:
        # the other end of it is the TaskManager's
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)

    if WORKER in sys.orig_argv:
        threading.Thread(target=watch, name="end-with-flink", daemon=True).start()


def scorer(cache: Path) -> Any:
    """The function to register; `cache` is where models are kept on disk."""
    result = DataTypes.ROW([DataTypes.FIELD(n, t) for n, t in RESULT])
    return udf(Scorer(str(cache)), result_type=result, func_type="pandas", deterministic=False)
