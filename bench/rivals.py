"""What a set's detection is compared with: a random score, three sigma, a robust z-score, an isolation forest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs import spark as sp
from tidewatch import features
from tidewatch.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Array = NDArray[np.float64]

NAMES = ("random", "three sigma", "robust z", "isolation forest")
BASE = {"reading": "reading_1m", "flow": "flow_1m"}
"""The view that the rivals see of each source."""
TREES = 50
POOLED = 200
"""Devices from which one isolation forest serves all of them, on their robust z."""


def scores(
    spark: SparkSession, settings: Settings, topics: Sequence[str], train_end: Mapping[str, int], grid: pd.DataFrame, seed: int,
) -> dict[str, tuple[Array, NDArray[np.bool_]]]:
    """Score and alert (n,) of each rival on the windows of `grid` (device_id, end_ms), fitted on what ended by its device's `train_end`.

    They see a minute's means of every metric, or the counts of its flows (none: zeros), device by device.
    """
    from sklearn.ensemble import IsolationForest

    device = grid["device_id"].to_numpy()
    at = {d: np.flatnonzero(device == d) for d in np.unique(device)}
    out = {r: np.zeros(len(grid)) for r in NAMES}
    fired = {r: np.zeros(len(grid), dtype=bool) for r in NAMES}
    rng = np.random.default_rng(seed)
    values_of = minutes(spark, settings, topics)
    pooled: list[Array] = []
    later: list[tuple[str, Array, Array]] = []
    for d, rows_ in at.items():
        ends = grid["end_ms"].to_numpy()[rows_]
        values = values_of.get(d)
        if values is None:
            continue
        past = values[values.index <= train_end.get(d, 0)].to_numpy()
        now = values.reindex(ends).to_numpy(dtype=float)
        if "reading" not in topics:
            now = np.nan_to_num(now)
        if len(past) < 3:
            continue
        mean, sigma = np.nanmean(past, axis=0), np.nanstd(past, axis=0)
        center = np.nanmedian(past, axis=0)
        spread = 1.4826 * np.nanmedian(np.abs(past - center), axis=0)
        least = 1e-3 * np.abs(center) + 1e-6
        for name, c, w, limit in (("three sigma", mean, sigma, 3.0), ("robust z", center, spread, 3.5)):
            z = np.nan_to_num(np.abs(now - c) / np.maximum(w, least))
            out[name][rows_] = z.max(axis=1)
            fired[name][rows_] = z.max(axis=1) > limit
        z_past, z_now = (np.clip(np.nan_to_num((x - center) / np.maximum(spread, least)), -50, 50) for x in (past, now))
        if len(at) > POOLED:
            pooled.append(z_past)
            later.append((d, rows_, z_now))
            continue
        forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(z_past)
        out["isolation forest"][rows_] = -forest.score_samples(z_now)
        fired["isolation forest"][rows_] = out["isolation forest"][rows_] > np.quantile(-forest.score_samples(z_past), 0.999)
    if pooled:
        width = max(p.shape[1] for p in pooled)
        every = np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]))) for p in pooled])
        forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(every)
        limit = np.quantile(-forest.score_samples(every), 0.999)
        joined = np.concatenate([np.pad(z, ((0, 0), (0, width - z.shape[1]))) for _, _, z in later])
        where = np.concatenate([r for _, r, _ in later])
        out["isolation forest"][where] = -forest.score_samples(joined)
        fired["isolation forest"][where] = out["isolation forest"][where] > limit
    out["random"] = rng.random(len(grid))
    fired["random"] = out["random"] > 0.999
    return {r: (out[r], fired[r]) for r in NAMES}


def wide(spark: SparkSession, settings: Settings, topic: str) -> dict[str, pd.DataFrame]:
    """Of each device, a row a minute (index: end_ms) with a column a metric, or a column a count of its flows."""
    view = features.view(BASE[topic])
    names = [f.name for f in view.features if f.name != "last_ts"]
    columns = ", ".join(f"`{n}`" for n in names)
    found = spark.sql(
        f"SELECT device_id, {'metric, ' if 'metric' in view.keys else ''}UNIX_MILLIS(CAST(window_end AS TIMESTAMP)) AS end_ms, {columns} "
        f"FROM {sp.whole(settings, view.name)}"
    ).toPandas()
    if topic == "flow":
        return {d: g.set_index("end_ms")[names].astype(float) for d, g in found.groupby("device_id")}
    found["value"] = found["value_sum"] / (found["readings"] - found["missing"]).replace(0, np.nan)
    return {d: g.pivot(index="end_ms", columns="metric", values="value").ffill() for d, g in found.groupby("device_id")}


def minutes(spark: SparkSession, settings: Settings, topics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Of each device, a row a minute of all topics side by side."""
    every = [wide(spark, settings, t) for t in topics]
    return {d: pd.concat([w[d] for w in every if d in w], axis=1) for d in {d for w in every for d in w}}
