"""What detection is measured by: VUS-PR and AUC-PR of scores, event-wise figures of alerts; no point adjustment anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
DAY_MS = 86_400_000
THRESHOLDS = 250
MOST_BUFFER = 100
"""Windows of tolerance around a label that VUS goes up to, at most."""
NAB_FALSE = 0.11
"""What a false window costs in NAB's standard profile."""
GRACE = 1
"""Windows after an incident's last in which it may still be found: the sign of a short one shows when its window closes."""


def vus_pr(score: Array, label: Flags, buffer: int) -> float:
    """Volume under the range-based precision-recall surface (Paparrizos et al., VLDB 2022), labels (n,) in order of time.

    As the authors' optimized code has it: for each tolerance 0 to `buffer` the labels are extended on both sides by
    sqrt(1 - x / tolerance) over half the tolerance; recall is weighted by the share of (extended) incidents touched;
    250 thresholds; the mean over tolerances. NaN without labels of both kinds. On 60 random series the package `vus` 0.0.6 gives
    the same to 1e-4 (it differs at all where rounding decides whether a threshold is passed).
    """
    n = len(score)
    if not label.any() or label.all():
        return float("nan")
    edge = np.diff(np.concatenate([[0], label.astype(int), [0]]))
    first, last = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1) - 1
    order = np.argsort(-score, kind="stable")
    at = np.linspace(0, n - 1, THRESHOLDS).astype(int)
    limit = score[order][at]
    raised = np.searchsorted(-score[order], -limit, "right")
    positives = float(label.sum())
    areas = []
    for tolerance in range(buffer + 1):
        wide = label.astype(float)
        half = tolerance // 2
        slope = np.sqrt(1 - np.arange(1, half + 1) / tolerance) if half else np.zeros(0)
        for a, b in zip(first, last, strict=True):
            right, left = min(half, n - 1 - b), min(half, a)
            wide[b + 1:b + 1 + right] += slope[:right]
            wide[a - left:a] += slope[:left][::-1]
        wide = np.minimum(wide, 1.0)
        edge = np.diff(np.concatenate([[0], (wide > 0).astype(int), [0]]))
        peaks = np.array([score[a:b].max() for a, b in zip(np.flatnonzero(edge == 1), np.flatnonzero(edge == -1), strict=True)])
        hit = np.concatenate([[0.0], np.cumsum(wide[order])])[raised]
        near = np.concatenate([[0.0], np.cumsum(np.where(label, 0.0, wide)[order])])[raised]
        recall = np.minimum(hit / ((2 * positives + near) / 2), 1.0) * (peaks[None, :] >= limit[:, None]).mean(axis=1)
        areas.append(float((np.diff(np.concatenate([[0.0], recall])) * hit / raised).sum()))
    return float(np.mean(areas))


def auc_pr(score: Array, label: Flags) -> float:
    """Average precision; equal scores count together. NaN without labels of both kinds."""
    if not label.any() or label.all():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hit = np.cumsum(label[order])
    last = np.append(np.flatnonzero(np.diff(score[order]) != 0), len(score) - 1)
    recall, precision = hit[last] / hit[-1], hit[last] / (last + 1.0)
    return float((np.diff(np.concatenate([[0.0], recall])) * precision).sum())


def nab_points(label: Flags, fired: Flags) -> float:
    """What the Numenta Anomaly Benchmark (Lavin and Ahmad 2015, `sweeper.py`) makes of one series, standard profile, labels (n,) in
    order of time: at most 1 for each incident, the earlier its first anomalous window the more, -1 for one that is missed,
    down to -0.11 for each false window, the less the sooner it comes after an incident."""
    edge = np.diff(np.concatenate([[0], label.astype(int), [0]]))
    first, last = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1) - 1

    def worth(position: Array) -> Array:
        return np.asarray(np.where(position > 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, 3.0))) - 1.0))

    points = 0.0
    for a, b in zip(first, last, strict=True):
        hits = np.flatnonzero(fired[a:b + 1])
        points += float(worth((hits[0] - (b - a + 1)) / (b - a + 1)) / worth(np.array(-1.0))) if len(hits) else -1.0
    false = np.flatnonzero(fired & ~label)
    before = np.searchsorted(last, false) - 1
    some = before >= 0
    away = (false[some] - last[before[some]]) / np.maximum(last[before[some]] - first[before[some]], 1)
    return points + NAB_FALSE * (float(worth(away).sum()) - float((~some).sum()))


@dataclass(frozen=True, eq=False)
class Truth:
    """The test windows of a set and what happened in them; windows sorted by device and time."""

    device: NDArray[np.int64]
    """(n,) number of the device."""
    end_ms: NDArray[np.int64]
    order: NDArray[np.int64]
    """(n,) where each window stood before sorting."""
    step_ms: int
    event: NDArray[np.int64]
    """(n,) the incident of the use case that the window's newest step, or the grace after it, belongs to; else -1."""
    label: Flags
    """(n,) the newest step holds a reading taken during an incident of the use case, or no reading and overlaps one."""
    ignored: Flags
    """(n,) something else happened: an alert is neither right nor wrong."""
    events: tuple[tuple[int, int], ...]
    """Incidents of which a step, or all if they are shorter, lies in their device's test part: (device, first instant of it there)."""
    spans: tuple[tuple[int, int], ...]
    """Of each, its windows, from the first to before the last: they may overlap those of another incident of the device."""

    @classmethod
    def of(
        cls, device: NDArray[np.str_], end_ms: NDArray[np.int64], step_ms: int, use_case: str,
        labels: Sequence[Mapping[str, Any]], train_end: Mapping[str, int], readings: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> Truth:
        """`readings`: of each device, when it took one (sorted). A flow's window is labelled by the overlap alone."""
        names, number = np.unique(device, return_inverse=True)
        order = np.lexsort((end_ms, number))
        number, end_ms = number[order], end_ms[order]
        event, label, ignored = np.full(len(order), -1), np.zeros(len(order), dtype=bool), np.zeros(len(order), dtype=bool)
        events: list[tuple[int, int]] = []
        spans: list[tuple[int, int]] = []
        index = {n: i for i, n in enumerate(names.tolist())}
        for one in sorted(labels, key=lambda x: int(x["start"])):
            d = index.get(one["device_id"])
            if d is None:
                continue
            a, b = np.searchsorted(number, [d, d + 1])
            start, end = max(int(one["start"]), train_end.get(one["device_id"], 0)), int(one["end"])
            if min(end, int(end_ms[b - 1])) - start < min(end - int(one["start"]), step_ms):
                continue  # over before the test part, or hardly begun when the data end
            first = a + int(np.searchsorted(end_ms[a:b], start, "right"))
            # a window's newest step is [end - step, end)
            last = a + int(np.searchsorted(end_ms[a:b] - step_ms, end, "right"))
            if one["use_case"] != use_case:
                ignored[first:min(last + GRACE, b)] = True
                continue
            steps = end_ms[first:last]
            taken = (readings or {}).get(one["device_id"])
            if taken is None:
                label[first:last] = True
            else:
                within = np.searchsorted(taken, np.minimum(steps, end)) > np.searchsorted(taken, np.maximum(steps - step_ms, start))
                label[first:last] |= within | (np.searchsorted(taken, steps) == np.searchsorted(taken, steps - step_ms))
            late = np.arange(first, min(last + GRACE, b))
            event[late[event[late] < 0]] = len(events)
            event[first:last] = len(events)
            events.append((d, start))
            spans.append((first, last))
        return cls(number, end_ms, order, step_ms, event, label, ignored & ~label & (event < 0), tuple(events), tuple(spans))


def figures(t: Truth, score: Array, fired: Flags, gap_ms: int) -> dict[str, Any]:
    """The figures of scores and anomalous windows, both (n,) in the order in which the windows were given.

    vus_pr, auc_pr: mean over devices with an incident. pooled_auc_pr: all windows of all devices together. An alert is
    anomalous windows of a device with at most the gap between their ends; it is right if one of its windows belongs to
    an incident, neither if one belongs to something else, else wrong. Recall: share of incidents with an anomalous
    window. Delay: median, windows from an incident's start to the end of its first anomalous window. nab: NAB's score, 100 if all
    is found at once and nothing else, 0 if nothing is raised; its thresholds are fitted to the test, these are not.
    """
    score, fired = score[t.order], fired[t.order]
    volumes, areas = [], []
    points, windows = 0.0, 0
    for d in np.unique(t.device):
        mine = (t.device == d) & ~t.ignored
        points += nab_points(t.label[mine], fired[mine])
        if not t.label[mine].any():
            continue
        label = t.label[mine]
        edge = np.diff(np.concatenate([[0], label.astype(int), [0]]))
        length = np.flatnonzero(edge == -1) - np.flatnonzero(edge == 1)
        windows += len(length)
        volumes.append(vus_pr(score[mine], label, int(np.clip(np.median(length), 1, MOST_BUFFER))))
        areas.append(auc_pr(score[mine], label))
    seen = ~t.ignored
    rows = np.flatnonzero(fired)
    found: dict[int, int] = {}
    for e, (a, b) in enumerate(t.spans):
        # its own windows, and the grace after it that is no other incident's
        late = np.arange(b, min(b + GRACE, len(fired)))
        hits = np.concatenate([np.flatnonzero(fired[a:b]) + a, late[fired[late] & (t.event[late] == e)]])
        if len(hits):
            found[e] = int(t.end_ms[hits[0]])
    right = wrong = 0
    if len(rows):
        new = np.ones(len(rows), dtype=bool)
        new[1:] = (t.device[rows][1:] != t.device[rows][:-1]) | (np.diff(t.end_ms[rows]) > gap_ms)
        alert = np.cumsum(new) - 1
        good = np.bincount(alert, weights=t.event[rows] >= 0) > 0
        neither = np.bincount(alert, weights=t.ignored[rows]) > 0
        right, wrong = int(good.sum()), int((~good & ~neither).sum())
    days = len(t.device) * t.step_ms / DAY_MS
    recall = len(found) / len(t.events)
    precision = right / (right + wrong) if right + wrong else float("nan")
    f1 = 2 * precision * recall / (precision + recall) if right and recall else 0.0
    delays = [(end - t.events[e][1]) / t.step_ms for e, end in found.items()]
    return {
        "vus_pr": float(np.nanmean(volumes)) if np.isfinite(volumes).any() else float("nan"),
        "auc_pr": float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan"),
        "pooled_auc_pr": auc_pr(score[seen], t.label[seen]), "precision": precision, "recall": recall, "f1": f1,
        "delay": float(np.median(delays)) if delays else float("nan"), "false_alerts": wrong / days if days else float("nan"),
        "nab": 50.0 * (points + windows) / windows if windows else float("nan"), "incidents": len(t.events), "alerts": right + wrong, "device_days": days,
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The figures as text."""
    columns = ("vus_pr", "auc_pr", "pooled_auc_pr", "precision", "recall", "f1", "delay", "false_alerts", "nab", "incidents", "alerts", "device_days")
    head = ("VUS-PR", "AUC-PR", "pooled", "prec.", "recall", "F1", "delay", "false/day", "NAB", "inc.", "alerts", "days")
    lines = [f"{'set':25} {'use case':8} {'who':17}" + "".join(f"{h:>10}" for h in head)]
    for r in results:
        cells = [f"{r[c]:>10d}" if isinstance(r[c], int) else f"{r[c]:>10.3f}" for c in columns]
        lines.append(f"{r['set']:25} {r['use case']:8} {r['who']:17}" + "".join(cells))
    return "\n".join(lines)
