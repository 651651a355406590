"""Drift: each signal's distribution in a window against the champion's training window, and the scores' against its first.

What is looked at are the signals and scores that the stream logged (`scores`), so that it need not wait for the next
feature build. A signal is compared with the windows of the same devices that the champion learned from, at the same hours
of the day where there are any, for a night is not a drift. Scores are compared with the champion's own of its first
`batch.cycle`. A row a signal goes to `drift`. The summary's `retrain` is true if something drifted and nothing was trained
since the present cycle began: then the DAG `watch` starts a cycle early, once.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from tidewatch import tables
from tidewatch.detectors import Detector, of_use_case
from tidewatch.drift import psi
from tidewatch.settings import Settings

from jobs import champions, cli, lake, registry, train
from jobs import spark as sp
from jobs.topics import publish as send

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

LEAST_WINDOWS = 200
"""Windows on either side below which a distribution says nothing."""


def logged(spark: SparkSession, settings: Settings, detector: Detector, start: datetime, end: datetime, version: str = "") -> pd.DataFrame:
    """What the stream scored in (start, end]: device_id, hour, score, signal_0 …; by one version if it is named."""
    signals = ", ".join(f"GET(signals, {i}) AS signal_{i}" for i in range(len(detector.signals)))
    only = f" AND model_version = '{version}'" if version else ""
    return spark.sql(
        f"SELECT device_id, HOUR(window_end) AS hour, score, {signals} FROM {sp.window(settings, tables.SCORES, start, end, closed='right')} "
        f"WHERE detector = '{detector.name}'{only}"
    ).toPandas()


def of_detector(
    spark: SparkSession, settings: Settings, detector: Detector, learned: tuple[datetime, datetime], version: str, begun: datetime | None,
    start: datetime, end: datetime,
) -> list[dict[str, Any]]:
    """The drift of each signal and of the score, as rows of `drift` without the run; none if there is too little to compare."""
    begin = time.monotonic()
    recent = logged(spark, settings, detector, start, end)
    if len(recent) < LEAST_WINDOWS:
        cli.say(f"{detector.name}: the stream has scored {len(recent)} windows, {LEAST_WINDOWS} needed")
        return []
    reference = train.read_windows(spark, settings, detector, *learned)
    # of very many windows, training reads those of some devices only
    recent = recent[recent["device_id"].isin(set(reference["device_id"]))]
    alike = reference[reference["hour"].isin(set(recent["hour"]))]
    reference = alike if len(alike) >= LEAST_WINDOWS else reference
    pairs = {s.name: (reference[f"signal_{i}"], recent[f"signal_{i}"]) for i, s in enumerate(detector.signals)}
    if begun:
        until = begun + settings.batch.cycle
        first = logged(spark, settings, detector, begun, until, version) if until <= start else recent[:0]
        now = logged(spark, settings, detector, start, end, version) if len(first) else first
        pairs["score"] = (first["score"], now["score"])
    rows = []
    for name, (then, now) in pairs.items():
        a, b = then.to_numpy(dtype=np.float64), now.to_numpy(dtype=np.float64)
        if min(len(a), len(b)) < LEAST_WINDOWS:
            continue
        index = psi(a, b)
        rows.append({
            "use_case": detector.use_case, "detector": detector.name, "signal": name, "model_version": version, "psi": index,
            "drifted": index > settings.batch.drift_limit, "reference_windows": len(a), "windows": len(b),
            "reference_median": _median(a), "median": _median(b),
        })
    worst = max(rows, key=lambda r: r["psi"], default=None)
    if worst:
        cli.say(f"{detector.name}: {worst['signal']} has moved most, index {worst['psi']:.3f} (limit {settings.batch.drift_limit:g}), in {time.monotonic() - begin:.1f} s")
    return rows


def _median(x: np.ndarray) -> float | None:
    x = x[~np.isnan(x)]
    m = float(np.median(x)) if len(x) else math.nan
    return m if math.isfinite(m) else None


def look(spark: SparkSession, settings: Settings, start: datetime, end: datetime, *, publish: bool) -> dict[str, Any]:
    """Measure every champion's drift, write `drift`; the summary."""
    c = registry.client(settings)
    run_id = f"{cli.iso(start)}/{cli.iso(end)}"
    rows: list[dict[str, Any]] = []
    trained: list[datetime] = []
    for use_case in cli.detectors.USE_CASES:
        found = [t for v in registry.versions(c, use_case) if (t := v.tags.get("window_end")) and cli.moment(t) <= end]
        trained += [cli.moment(t) for t in found]
        champion = registry.champion(c, use_case)
        if champion is None or "window_start" not in champion.tags:
            cli.say(f"{use_case}: no champion with a training window")
            continue
        history = [r for r in champions.history(settings, use_case) if r["version"] == str(champion.version)]
        begun = datetime.fromtimestamp(history[-1]["valid_from"] / 1000, UTC) if history else None
        learned = cli.moment(champion.tags["window_start"]), cli.moment(champion.tags["window_end"])
        for d in of_use_case(use_case):
            rows += of_detector(spark, settings, d, learned, f"{use_case}/{champion.version}", begun, start, end)
    rows = [{"run_id": run_id, "run_at": cli.millis(end), **r} for r in rows]
    lake.replace(settings, tables.DRIFT, rows, f"run_id = '{run_id}'")
    if publish:
        send(settings, tables.DRIFT, rows, "run_id", "run_at")
    drifted = [f"{r['detector']}.{r['signal']}" for r in rows if r["drifted"]]
    return {"job": "drift", "start": cli.iso(start), "end": cli.iso(end), "compared": len(rows), "drifted": drifted,
            "largest": max((r["psi"] for r in rows), default=None), "retrain": early(drifted, trained, end, settings.batch.cycle)}


def early(drifted: list[str], trained: list[datetime], end: datetime, cycle: timedelta) -> bool:
    """True if a drift seen at `end` should start a cycle before its time: none has ended or been trained since the present one began."""
    begun = end - (end - datetime(1970, 1, 1, tzinfo=UTC)) % cycle
    return bool(drifted) and end > begun and not any(t > begun for t in trained)


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    registry.client(settings)  # before the long part: is the registry there?
    with sp.session(settings, "drift") as spark:
        return look(spark, settings, options.start, options.end, publish=not options.no_publish)


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
