"""Training: every candidate model of a use case from the silver views of a window, back-tested and registered in MLflow.

The first part of the window trains, the rest is the back-test, on which the current champion is measured too. A window
is compared with the newest baseline that held when it began; windows older than every baseline (the first training)
take the oldest, which was built from the same windows, so the first figures are somewhat flattering.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tidewatch import scoring, tables
from tidewatch.detectors import CANDIDATES, Detector, of_use_case
from tidewatch.errors import InputError
from tidewatch.features import view
from tidewatch.settings import ROOT, Settings

from jobs import backtest, cli, feedback, lake, plots, registry, signals, thresholds, weekly
from jobs import spark as sp

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

Array = NDArray[np.float64]

HOLDOUT = 0.2
"""Last part of the window that is kept for the back-test."""
LEAST_WINDOWS = 5
MOST_WINDOWS = 1_000_000
"""Windows a detector trains and tests on at most; beyond, whole devices are left out by a hash of their id."""
SAMPLE = 10_000
"""Windows that MLlib sees; calibration and back-test use all."""
JITTER = 0.1
"""Noise on MLlib's sample, in units of z, so that a signal that never moves does not make a singular covariance."""
CLUSTERS = 8
STARTS, ROUNDS = 3, 10
"""k-means ends in the minimum nearest to where it starts: the best of so many starts is taken, each until it moves no more or so long."""
MIXTURES = 3
EXPLAINED = 0.9
"""Share of the variance that the PCA's components keep, always leaving one direction to the residual."""


class NothingToLearn(InputError):
    """A use case has too few windows to train its models."""


# -- reading
def read_windows(spark: SparkSession, settings: Settings, detector: Detector, start: datetime, end: datetime) -> pd.DataFrame:
    """The detector's windows within [start, end] as pandas: entity, device_id, end_ms, hour, signal_0 …"""
    rows = signals.rows(spark, settings, detector, start, end)
    count = lake.count(settings, tables.table(detector.view))
    if count > MOST_WINDOWS:
        parts = -(-count // MOST_WINDOWS)
        rows = rows.where(f"PMOD(XXHASH64(device_id), {parts}) = 0")
        cli.say(f"{detector.name}: of {count:,} windows in the lake, those of every {parts}th device are taken")
    return rows.toPandas().sort_values(["entity", "end_ms"], ignore_index=True)


def match(detector: Detector, found: pd.DataFrame, baselines: pd.DataFrame) -> backtest.Windows:
    """Each window beside the baseline that held when it began (point in time), or NaN where its entity has none.

    `baselines`: entity, valid_from (milliseconds), center, scale, maybe daily; any order. A baseline's centre is that of the day that
    follows its `valid_from`; before and after it is the hour's of any day.
    """
    import pandas as pd

    d, n = len(detector.signals), len(found)
    size_ms = view(detector.view).size_seconds * 1000
    end = found["end_ms"].to_numpy(dtype=np.int64)
    observed = found[[f"signal_{i}" for i in range(d)]].to_numpy(dtype=np.float64)
    center, scale = np.full((n, d), np.nan), np.full((n, d), np.nan)
    baselines = baselines.sort_values(["entity", "valid_from"], ignore_index=True)
    entities = pd.Index(sorted(set(baselines["entity"])))
    if len(entities) and n:
        codes = entities.get_indexer(baselines["entity"])
        wanted = entities.get_indexer(found["entity"])
        place = codes.astype(np.int64) * (1 << 43) + baselines["valid_from"].to_numpy(dtype=np.int64)
        at = np.searchsorted(place, wanted.astype(np.int64) * (1 << 43) + (end - size_ms), "right") - 1
        first = np.searchsorted(codes, wanted, "left")
        at = np.maximum(at, first)  # older than its entity's first baseline: the oldest one
        has = wanted >= 0
        centers = np.array(baselines["center"].tolist(), dtype=np.float64).reshape(-1, 24, d)
        scales = np.array(baselines["scale"].tolist(), dtype=np.float64).reshape(-1, d)
        center[has] = centers[at[has], found["hour"].to_numpy()[has]]
        if "daily" in baselines and (apart := baselines["daily"].notna().to_numpy()).any():
            valid = baselines["valid_from"].to_numpy(dtype=np.int64)[at]
            other = has & apart[at] & ((end - size_ms < valid) | (end > valid + weekly.DAY_MS))
            daily = np.full_like(centers, np.nan)
            daily[apart] = np.array(baselines["daily"][apart].tolist(), dtype=np.float64).reshape(-1, 24, d)
            center[other] = daily[at[other], found["hour"].to_numpy()[other]]
        scale[has] = scales[at[has]]
    return backtest.Windows(found["device_id"].to_numpy(dtype=str), end - size_ms, end, observed, center, scale)


def read_labels(spark: SparkSession, settings: Settings, start: datetime, end: datetime) -> backtest.Labels:
    """Labelled incidents that overlap [start, end]."""
    found = spark.sql(
        f"SELECT device_id, UNIX_MILLIS(CAST(`start` AS TIMESTAMP)) AS s, UNIX_MILLIS(CAST(`end` AS TIMESTAMP)) AS e, use_case "
        f"FROM {sp.whole(settings, 'labels')} WHERE `end` >= {sp.instant(start)} AND `start` <= {sp.instant(end)} ORDER BY device_id, `start`"
    ).toPandas()
    return backtest.Labels(found["device_id"].to_numpy(dtype=str), found["s"].to_numpy(dtype=np.int64), found["e"].to_numpy(dtype=np.int64),
                           found["use_case"].to_numpy(dtype=str))


def split(read: Sequence[backtest.Windows]) -> int:
    """When training ends and the back-test begins, in milliseconds: of the time that there are windows of, not of what was asked for."""
    first, last = min(int(w.start_ms.min()) for w in read), max(int(w.end_ms.max()) for w in read)
    return first + int((last - first) * (1 - HOLDOUT))


def enough(detector: Detector, end_ms: NDArray[np.int64]) -> bool:
    """True if windows with these ends (n,) are enough to train on."""
    return len(end_ms) >= LEAST_WINDOWS and int(end_ms.max() - end_ms.min()) >= detector.history // timedelta(milliseconds=1)


# -- fitting
def global_baseline(detector: Detector, observed: Array) -> tuple[Array, Array]:
    """Centre and scale for a device without any baseline: the median, and half the span from 1 % to 99 % as 2.33 sigma."""
    t = scoring.transform(observed, [s.transform for s in detector.signals])
    seen = [c[np.isfinite(c)] for c in t.T]
    center = np.array([np.median(c) if len(c) else 0.0 for c in seen])
    wide = np.array([(np.quantile(c, 0.99) - np.quantile(c, 0.01)) / (2 * 2.326) if len(c) else 0.0 for c in seen])
    return center, np.maximum(wide, [s.scale_floor for s in detector.signals])


def fit_family(family: str, frame: DataFrame, z: Array, seed: int) -> dict[str, Array]:
    """The family's arrays by Spark MLlib; `frame` has the winsorized sample `z` (n, d) as the vector column `z`."""
    d = z.shape[1]
    if family == "pca":
        from pyspark.ml.feature import PCA

        fitted = PCA(k=d, inputCol="z", outputCol="y").fit(frame)
        ratios = fitted.explainedVariance.toArray()
        total = float(z.var(axis=0, ddof=1).sum())
        k = max(1, min(d - 1, int(np.searchsorted(np.cumsum(ratios), EXPLAINED)) + 1))
        components = fitted.pc.toArray().T[:k]
        components = components * np.sign(components[np.arange(k), np.abs(components).argmax(axis=1)])[:, None]
        return scoring.pca_arrays(z.mean(axis=0), components, ratios[:k] * total, total)
    if family == "kmeans":
        from pyspark.ml.clustering import KMeans

        starts = [KMeans(k=CLUSTERS, seed=seed + i, maxIter=ROUNDS, featuresCol="z").fit(frame) for i in range(STARTS)]
        clusters = min(starts, key=lambda m: m.summary.trainingCost)
        return {"centers": np.array(sorted(map(tuple, clusters.clusterCenters())))}
    if family == "gmm":
        from pyspark.ml.clustering import GaussianMixture

        mixture = GaussianMixture(k=MIXTURES, seed=seed, maxIter=15, featuresCol="z").fit(frame)
        parts = mixture.gaussians
        return scoring.gmm_arrays(np.array(mixture.weights), np.array([g.mean.toArray() for g in parts]), np.array([g.cov.toArray() for g in parts]))
    raise InputError(f"there is no model family {family!r}.", f"one of: {', '.join(scoring.FAMILIES)}")


def fit_detector(spark: SparkSession, detector: Detector, w: backtest.Windows, families: tuple[str, ...], seed: int) -> dict[str, scoring.DetectorModel]:
    """The detector's part of each family's model."""
    from pyspark.ml.functions import array_to_vector

    s = detector.signals
    if len(w) < LEAST_WINDOWS:
        raise NothingToLearn(f"{detector.name}: only {len(w)} windows to train on, {LEAST_WINDOWS} needed.",
                             "run jobs.build_features --with-baselines first, over a longer window")
    center, scale = global_baseline(detector, w.observed)
    known = ~np.isnan(w.center).any(axis=1)[:, None]
    z = scoring.standardize(w.observed, np.where(known, w.center, center), np.where(known, w.scale, scale), [x.transform for x in s],
                            [x.direction for x in s], np.array([x.scale_floor for x in s]))
    group = w.groups()[0] if "metric" in view(detector.view).keys else None
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(z), SAMPLE, replace=False)) if len(z) > SAMPLE else np.arange(len(z))
    sample = np.clip(z[rows], -scoring.WINSOR, scoring.WINSOR) + rng.normal(0, JITTER, (len(rows), len(s)))
    import pandas as pd

    frame = spark.createDataFrame(pd.DataFrame({"a": list(sample)}), "a ARRAY<DOUBLE>").coalesce(1).select(array_to_vector("a").alias("z")).cache()
    made = {}
    for family in families:
        begin = time.monotonic()
        made[family] = scoring.fit(detector, family, fit_family(family, frame, sample, seed), center, scale, z, group)
        cli.say(f"{detector.name}: {family} in {time.monotonic() - begin:.1f} s")
    frame.unpersist()
    return made


# -- all of it
def revision() -> str:
    """The git revision, with a plus if files differ from it; `unknown` outside a checkout."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def train(
    spark: SparkSession, settings: Settings, use_case: str, start: datetime, end: datetime, seed: int, families: tuple[str, ...],
) -> dict[str, Any]:
    """Train, back-test and register the candidates of one use case; the part of the summary that tells of it.

    A detector with too few windows (its source sends nothing) is left out of the models; raises NothingToLearn if all are, or
    if the champion knows it.
    """
    import mlflow

    detectors = of_use_case(use_case)
    c = registry.client(settings)
    marks = feedback.read(settings, start, end)
    labels = feedback.labelled(read_labels(spark, settings, start, end), marks)
    stored = spark.sql(
        f"SELECT * EXCEPT (valid_from), UNIX_MILLIS(CAST(valid_from AS TIMESTAMP)) AS valid_from FROM {sp.whole(settings, 'baselines')} "
        f"WHERE valid_from <= {sp.instant(end)} AND detector IN ({', '.join(repr(d.name) for d in detectors)})"
    ).toPandas()
    read: dict[str, backtest.Windows] = {}
    parts: dict[str, dict[str, scoring.DetectorModel]] = {}
    learned: dict[str, backtest.Windows] = {}
    held: dict[str, backtest.Windows] = {}
    counts: dict[str, int] = {}
    for d in detectors:
        begin = time.monotonic()
        read[d.name] = w = match(d, read_windows(spark, settings, d, start, end), stored[stored["detector"] == d.name])
        cli.say(f"{d.name}: {len(w):,} windows read in {time.monotonic() - begin:.1f} s")
        counts[f"windows_{d.name}"] = len(w)
    cut = split([w for w in read.values() if len(w)]) if any(counts.values()) else 0
    learn = {n: w.end_ms[w.end_ms <= cut] for n, w in read.items()}
    few = {d.name: f"{d.name}: only {len(learn[d.name])} windows, {LEAST_WINDOWS}{f' over {d.history} h' if d.history else ''} needed"
           for d in detectors if not enough(d, learn[d.name])}
    champion = registry.champion(c, use_case)
    reigning = registry.read(registry.uri(settings, c, champion)) if champion else None
    detectors = tuple(d for d in detectors if d.name not in few)
    if not detectors or (reigning and few.keys() & reigning.detectors.keys()):
        # a champion that knows a detector is not replaced by a model that does not
        raise NothingToLearn(f"{use_case}: {'; '.join(few.values())} between {cli.iso(start)} and {cli.iso(end)}.",
                             "run jobs.build_features --with-baselines over the window, or train over a longer one")
    for text in few.values():
        cli.say(f"{text}: left out of the model")
    for d in detectors:
        w = read[d.name]
        learned[d.name] = backtest.clean(w.at(w.end_ms <= cut), labels, d.afterglow)
        parts[d.name] = fit_detector(spark, d, learned[d.name], families, seed)
        held[d.name] = w.at(w.start_ms >= cut)
    tags = {
        "use_case": use_case, "window_start": cli.iso(start), "window_end": cli.iso(end), "git_revision": revision(),
        "delta_versions": registry.tag_json({n: sp.version(settings, tables.table(n)) for n in sorted({d.view for d in detectors} | {"baselines", "labels", "feedback"})}),
    }
    gap = settings.stream.alert_gap
    made: dict[str, Any] = {}
    with mlflow.start_run(run_name=f"train {use_case}", tags=tags) as parent:
        mlflow.log_params({**counts, "seed": seed, "holdout": HOLDOUT, "labels": len(labels.device)})
        if champion and reigning:
            figures, _ = backtest.run(reigning, detectors, held, labels, gap, seed)
            marked = feedback.figures(reigning, detectors, read, marks, gap, seed)
            mlflow.log_metrics({f"champion_{k}": v for k, v in {**figures.metrics(), **marked}.items()})
            mlflow.set_tag("champion_version", champion.version)
            made["champion"] = {"version": champion.version, **figures.metrics()}
        for family in families:
            notes = {k: tags[k] for k in ("window_start", "window_end", "git_revision")}
            model = scoring.Model(use_case, family, {name: p[family] for name, p in parts.items()}, notes)
            model = thresholds.at_return_level(model, detectors, learned, gap, settings.promotion.target_false_alerts)
            model = thresholds.at_budget(model, detectors, held, labels, gap, settings.promotion.max_false_alerts)
            before = {n: m.threshold for n, m in model.detectors.items()}
            model = feedback.heed(model, detectors, read, held, labels, marks, seed)
            seen: dict[str, backtest.Measured] = {}
            figures, more = backtest.run(model, detectors, held, labels, gap, seed, seen)
            more |= {f"raised_by_marks_{n}": m.threshold - before[n] for n, m in model.detectors.items() if m.threshold > before[n]}
            more |= feedback.figures(model, detectors, read, marks, gap, seed)
            version = registry.log_version(
                c, model, detectors, name=f"{use_case} {family}", parent=parent.info.run_id,
                params={**counts, "family": family, "seed": seed, "clusters": CLUSTERS, "mixtures": MIXTURES, "explained": EXPLAINED},
                metrics={**more, **figures.metrics()}, tags={**tags, "family": family, "training": parent.info.run_id},
                pictures=plots.figures(model, detectors, seen),
            )
            made[family] = {"version": version, **figures.metrics()}
            cli.say(f"{use_case}: {family} is version {version}: detection {figures.detection:.3f}, {figures.false_alerts:.3g} false alerts a device and day")
    return made


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    registry.client(settings)  # before the long part: is the registry there?
    trained: dict[str, Any] = {}
    nothing: list[NothingToLearn] = []
    with sp.session(settings, "train") as spark:
        for use_case in cli.use_cases(options):
            try:
                trained[use_case] = train(spark, settings, use_case, options.start, options.end, options.seed, CANDIDATES[use_case])
            except NothingToLearn as e:
                cli.say(e.reason)
                nothing.append(e)
    if not trained:
        raise nothing[0]
    return {"job": "train", "start": cli.iso(options.start), "end": cli.iso(options.end), "models": trained}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    cli.use_case(p)
    p.add_argument("--seed", type=int, default=1, help="seed of sampling, clustering and injected incidents (default 1)")
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
