"""Back-tests: a model's figures on windows it was not trained on, with incidents that are known because we put them there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from tidewatch import scoring
from tidewatch.detectors import Detector
from tidewatch.errors import ContractError
from tidewatch.promotion import Backtest

Array = NDArray[np.float64]

STRENGTHS = (6.0, 12.0, 24.0)
"""Injected deviations, in robust scales of the window's own baseline."""
INJECTED = 300
"""Windows perturbed for each kind and strength."""
DAY_MS = 86_400_000


@dataclass(frozen=True, eq=False)
class Windows:
    """n windows of one detector beside their baselines."""

    device: NDArray[np.str_]
    """(n,)"""
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    observed: Array
    """(n, d) raw signals"""
    center: Array
    scale: Array

    def __len__(self) -> int:
        return len(self.device)

    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of each row's window of its device (n,), and a row of each such window (groups,)."""
        _, device = np.unique(self.device, return_inverse=True)
        order = np.lexsort((self.end_ms, device))
        new = np.ones(len(order), dtype=bool)
        new[1:] = (np.diff(device[order]) != 0) | (np.diff(self.end_ms[order]) != 0)
        number = np.empty(len(order), dtype=np.int64)
        number[order] = np.cumsum(new) - 1
        return number, order[new]

    def at(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Windows:
        """Some of the rows."""
        return Windows(*(getattr(self, f)[rows] for f in ("device", "start_ms", "end_ms", "observed", "center", "scale")))


@dataclass(frozen=True, eq=False)
class Labels:
    """m labelled incidents."""

    device: NDArray[np.str_]
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    use_case: NDArray[np.str_]


def touching(w: Windows, labels: Labels) -> list[NDArray[np.int64]]:
    """For each label, the rows of the windows of its device that overlap it."""
    order = np.argsort(w.device, kind="stable")
    devices = w.device[order]
    out = []
    for device, start, end in zip(labels.device, labels.start_ms, labels.end_ms, strict=True):
        low, high = np.searchsorted(devices, device, "left"), np.searchsorted(devices, device, "right")
        rows = order[low:high]
        out.append(rows[(w.end_ms[rows] > start) & (w.start_ms[rows] < end)])
    return out


def clean(w: Windows, labels: Labels, afterglow: timedelta = timedelta(0)) -> Windows:
    """The windows that no label touches, nor sees within the afterglow: what is known to be wrong is not what is usual."""
    return w.at(untouched(w, labels, afterglow))


def untouched(w: Windows, labels: Labels, afterglow: timedelta = timedelta(0)) -> NDArray[np.bool_]:
    """(n,) True where no label touches the window, nor is less than the afterglow past."""
    kept = np.ones(len(w), dtype=bool)
    longer = Labels(labels.device, labels.start_ms, labels.end_ms + afterglow // timedelta(milliseconds=1), labels.use_case)
    for rows in touching(w, longer):
        kept[rows] = False
    return kept


def score(model: scoring.Model, detector: str, w: Windows) -> tuple[NDArray[np.int64], Array, Array]:
    """Of the windows of the devices, one each: the row whose metric weighs most, the score, each signal's share there."""
    scored = scoring.score(model, detector, w.observed, w.center, w.scale)
    number, rows = w.groups()
    heaviest = np.array(scoring.heaviest(scored.decades, number, len(rows)), dtype=np.int64)
    return heaviest, scoring.score_together(model, detector, scored.decades, number, len(rows)), scored.share[heaviest]


def kinds(detector: Detector) -> list[tuple[str, Array]]:
    """The kinds of injected incidents: each signal alone in each direction that is a sign, and all of them together."""
    d = len(detector.signals)
    found = []
    for i, s in enumerate(detector.signals):
        for direction in (1, -1):
            if s.direction in (0, direction):
                found.append((f"{s.name}_{'up' if direction > 0 else 'down'}", direction * np.eye(d)[i]))
    found.append(("all", np.array([float(s.direction or 1) for s in detector.signals])))
    return found


def inject(detector: Detector, clean: Windows, rng: np.random.Generator) -> tuple[Windows, NDArray[np.int64], NDArray[np.int64]]:
    """Perturbed copies of clean windows of every kind and strength; for each its number of kind and strength, and its original."""
    transforms = [s.transform for s in detector.signals]
    floors = np.array([s.scale_floor for s in detector.signals])
    known = np.flatnonzero(~np.isnan(clean.center).any(axis=1))
    if not len(known):
        return clean.at(known), known, known
    parts, numbers, originals = [], [], []
    for _, direction in kinds(detector):
        for strength in STRENGTHS:
            originals.append(rng.choice(known, INJECTED))
            w = clean.at(originals[-1])
            moved = scoring.transform(w.observed, transforms) + direction * strength * np.fmax(w.scale, floors)
            observed = np.where(direction != 0, scoring.inverse(moved, transforms), w.observed)
            parts.append(Windows(w.device, w.start_ms, w.end_ms, observed, w.center, w.scale))
            numbers.append(np.full(len(w), len(numbers)))
    joined = Windows(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("device", "start_ms", "end_ms", "observed", "center", "scale")))
    return joined, np.concatenate(numbers), np.concatenate(originals)


def incidents(
    device: NDArray[np.str_], start_ms: NDArray[np.int64], end_ms: NDArray[np.int64], gap: timedelta, quiet: NDArray[np.bool_] | None = None,
) -> int:
    """How many alerts anomalous windows become, merged per device as the stream merges them; with `quiet` (n,) only those of
    which every window is: an alert that began with a labelled incident is not false because it ends later."""
    if not len(device):
        return 0
    order = np.lexsort((end_ms, device))
    device, start_ms, end_ms = device[order], start_ms[order], end_ms[order]
    apart = (device[1:] != device[:-1]) | (start_ms[1:] - end_ms[:-1] > gap // timedelta(milliseconds=1))
    alert = np.concatenate([[0], np.cumsum(apart)])
    return int(alert[-1]) + 1 - (len(np.unique(alert[~quiet[order]])) if quiet is not None else 0)


def device_days(windows: Sequence[Windows]) -> float:
    """The days from the first window of each device to its last, together: devices come and go."""
    if not any(len(w) for w in windows):
        return 0.0
    devices, device = np.unique(np.concatenate([w.device for w in windows]), return_inverse=True)
    first, last = np.full(len(devices), np.iinfo(np.int64).max), np.zeros(len(devices), np.int64)
    np.minimum.at(first, device, np.concatenate([w.start_ms for w in windows]))
    np.maximum.at(last, device, np.concatenate([w.end_ms for w in windows]))
    return float((last - first).sum()) / DAY_MS


@dataclass(frozen=True, eq=False)
class Measured:
    """What a model says of a detector's held-out windows, n of them, and of m injected incidents."""

    windows: Windows
    """(n,) One row a window of a device: its metric that weighs most."""
    score: Array
    share: Array
    """(n, d) Each signal's share of the score."""
    quiet: NDArray[np.bool_]
    """(n,) It sees nothing of a labelled incident."""
    labelled: NDArray[np.bool_]
    """(n,) A label of the model's use case touches it."""
    hit: Array
    """(m,) Scores of injected incidents."""
    kind: NDArray[np.int64]
    """(m,) Number of kind and strength."""
    seconds: float
    """CPU seconds that scoring the windows took."""


def measure(model: scoring.Model, detector: Detector, every_metric: Windows, labels: Labels, seed: int) -> Measured:
    """Score held-out windows and injected incidents; raises ContractError if the model does not know the detector."""
    calm = clean(every_metric, labels, detector.afterglow)
    injected, number, original = inject(detector, calm, np.random.default_rng(seed))
    begin = time.process_time()
    rows, got, share = score(model, detector.name, every_metric)
    seconds = time.process_time() - begin
    hit = scoring.score(model, detector.name, injected.observed, injected.center, injected.scale).decades
    # one metric of the device is odd, the others are as they are
    of = calm.groups()[0]
    hit = np.maximum(hit - np.log10(np.bincount(of)[of[original]]), 0.0)
    hit = scoring.score_together(model, detector.name, hit, np.arange(len(hit)), len(hit))
    w = every_metric.at(rows)
    mine = labels.use_case == model.use_case
    own = np.zeros(len(w), dtype=bool)
    for touched in touching(w, Labels(labels.device[mine], labels.start_ms[mine], labels.end_ms[mine], labels.use_case[mine])):
        own[touched] = True
    return Measured(w, got, share, untouched(w, labels, detector.afterglow), own, hit, number, seconds)


def run(
    model: scoring.Model, detectors: Sequence[Detector], windows: Mapping[str, Windows], labels: Labels, gap: timedelta, seed: int,
    seen: dict[str, Measured] | None = None,
) -> tuple[Backtest, dict[str, float]]:
    """The figures of a model on the held-out windows of its detectors, and more that is worth logging; `seen` is filled with what
    they were made of, by detector.

    A model that does not know a detector (older than it) gets NaN: it is not fit any more.
    """
    recalls: list[float] = []
    more: dict[str, float] = {}
    lowest, highest, seconds, count = np.inf, -np.inf, 0.0, 0
    found = np.zeros(len(labels.device), dtype=bool)
    raised: list[tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]] = []
    scored: list[Windows] = []
    mine = labels.use_case == model.use_case
    for detector in detectors:
        try:
            m = measure(model, detector, windows[detector.name], labels, seed)
        except ContractError:
            nan = float("nan")
            return Backtest(nan, nan, nan), more
        if seen is not None:
            seen[detector.name] = m
        w, got, hit, number, unlabelled = m.windows, m.score, m.hit, m.kind, m.quiet
        touched = touching(w, labels)
        seconds += m.seconds
        count += len(windows[detector.name])
        threshold = model.detectors[detector.name].threshold
        anomalous = got >= threshold
        for i, rows in enumerate(touched):
            found[i] |= bool(anomalous[rows].any())
        false = anomalous & unlabelled
        raised.append((w.device[anomalous], w.start_ms[anomalous], w.end_ms[anomalous], unlabelled[anomalous]))
        scored.append(w)
        steps = [f"{name}_{strength:g}" for name, _ in kinds(detector) for strength in STRENGTHS]
        for i, step in enumerate(steps):
            if (number == i).any():
                more[f"recall_{detector.name}_{step}"] = float((hit[number == i] >= threshold).mean())
                recalls.append(more[f"recall_{detector.name}_{step}"])
        every = np.concatenate([got, hit])
        if np.isfinite(every).any():
            lowest, highest = min(lowest, float(np.nanmin(every))), max(highest, float(np.nanmax(every)))
        more[f"threshold_{detector.name}"] = threshold
        more[f"anomalous_share_{detector.name}"] = float(false.sum() / max(int(unlabelled.sum()), 1))
    device, start_ms, end_ms, quiet = (np.concatenate([x[i] for x in raised]) for i in range(4))
    merged = incidents(device, start_ms, end_ms, gap, quiet)
    days = device_days(scored)
    more["windows_per_second"] = count / seconds if seconds else 0.0
    more["backtest_windows"] = float(count)
    return Backtest(
        recall_injected=float(np.mean(recalls)) if recalls else float("nan"),
        false_alerts=merged / days if days else float("nan"),
        spread=highest - lowest if np.isfinite(highest - lowest) else 0.0,
        recall_labelled=float(found[mine].mean()) if mine.any() else None,
    ), more
