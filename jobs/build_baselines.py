"""Baselines: what is normal for every device (and metric) per hour of the day, from the silver views of a window.

Centre: the median of the hour, and how far that hour of a workday or weekend and of that weekday lies from it (`jobs.weekly`), if nearly all hours of the day have enough windows, else of the whole window. Scale: 1.4826 times the median
absolute residual (Rousseeuw and Croux 1993), never below the residuals' 90 % quantile over 1.645, which stands a tenth
of contaminated windows, nor, within limits, what their tail says; never below the signal's floor. Windows of labelled
incidents are left out. Of which too much is a sign and which are on a log scale (counts, bytes) come in bursts: their
windows of zero are left out, so that the centre is the usual amount of a minute that has any. A device of the inventory
without enough windows of its own borrows its kind's baseline, widened by how much the kind's devices differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tidewatch import scoring, tables
from tidewatch.detectors import Detector, Signal, all_detectors
from tidewatch.settings import Settings

from jobs import cli, signals, weekly
from jobs import spark as sp
from jobs.topics import publish as send

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

HOUR_WINDOWS = 30
"""Windows of one hour of the day from which its own median is taken."""
DAY_HOURS = 16
"""Hours of the day that must be known before hours are told apart."""
DEVICE_WINDOWS = 15
"""Windows from which a device has a baseline of its own."""
ACTIVE_WINDOWS = 10
"""Windows that are not zero from which a bursty signal has a centre of its own; else it is the kind's, or zero."""
KIND_SHARE = 0.5
"""A device without history is given the metrics that at least this share of its kind reports."""
TAILS = ((0.9, 1.645), (0.99, 2.576), (1.0, 3.5))
"""Quantiles of the absolute residuals, and where a normal distribution has them in sigmas."""
HEAVY = 10.0
"""A quantile beyond a tenth of the windows widens a scale by so much at most: it may be an incident nobody labelled."""
UNKNOWN = 1e15
"""The scale of a signal that an entity never had, or that says nothing of it: whatever it is, it is no sign."""
COUNTING = 0.5
"""Share of an entity's windows without the signal that another is learned with, from which that other is no sign of it."""
VARIED = 1 / 3
"""Scale over level from which a signal varies so much that logarithms tell more of it: three sigmas reach zero."""
MAD = 1.4826
"""A normal distribution's sigma over its median absolute deviation."""
OF_KIND = 0.1
OF_LEVEL = 0.005
"""Of signals that are not logs: a scale is at least half a percent of the signal's own level, and that of a signal that
never moved a tenth of its kind's."""


def bursty(signal: Signal) -> bool:
    """A signal whose windows of zero say nothing about how much is usual: too much is a sign, on a log scale."""
    return signal.transform == "log1p" and signal.direction > 0


def quantile(group: Integers, values: Array, groups: int, q: float) -> Array:
    """The q-quantile of each group's values (NaN left out) as numpy interpolates it: (groups,), NaN where there are none."""
    there = ~np.isnan(values)
    group, values = group[there], values[there]
    values = values[np.lexsort((values, group))]
    count = np.bincount(group, minlength=groups)
    first = np.cumsum(count) - count
    out = np.full(groups, np.nan)
    some = count > 0
    at = (count[some] - 1) * q
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, count[some] - 1)
    a, b = values[first[some] + low], values[first[some] + high]
    out[some] = a + (b - a) * (at - low)
    return out


def daily(center: Array, overall: Array) -> Array:
    """Each hour's median (entities, 24), NaN where it is not known: between its neighbours'; `overall` (entities,) in all
    hours as long as less than `DAY_HOURS` are known: nobody can say yet how much hours differ."""
    import pandas as pd

    around = pd.DataFrame(np.tile(center, 3))
    between = (around.ffill(axis=1).to_numpy() + around.bfill(axis=1).to_numpy())[:, 24:48] / 2
    known = (~np.isnan(center)).sum(axis=1, keepdims=True) >= DAY_HOURS
    return np.where(known, between, overall[:, None])


def summarize(entity: Integers, entities: int, hour: Integers, values: Array, end_ms: Integers | None = None, from_ms: int = 0) -> dict[str, Array]:
    """What the windows of many entities amount to, all at once. `values` (n, d) in transformed units, NaN: does not count.

    `n`, `center` (entities, 24, d): count and median of each hour; `count`, `overall`, `spread` (entities, d): count,
    median and robust scale of all. With the windows' ends also `shift` (entities, 24, d): how far the 24 hours that come after
    `from_ms` lie from these medians, by the day of the week; `spread` is then about them.
    """
    d = values.shape[1]
    cell = entity * 24 + hour
    out = {"n": np.empty((entities, 24, d)), "center": np.empty((entities, 24, d))}
    out |= {k: np.empty((entities, d)) for k in ("count", "overall", "spread")}
    out["shift"] = np.zeros((entities, 24, d))
    for i in range(d):
        v = values[:, i]
        there = ~np.isnan(v)
        n, center = np.bincount(cell[there], minlength=entities * 24), quantile(cell, v, entities * 24, 0.5)
        overall = quantile(entity, v, entities, 0.5)
        center = daily(np.where(n >= HOUR_WINDOWS, center, np.nan).reshape(-1, 24), overall).reshape(-1)
        residual = v - center[cell]
        if end_ms is not None:
            week = weekly.shifts(entity, entities, end_ms, residual)
            residual -= week[entity, weekly.hour_of_week(end_ms)]
            out["shift"][:, :, i] = week[:, weekly.coming(from_ms)]
        residual = np.abs(residual)
        spread = MAD * quantile(entity, residual, entities, 0.5)
        for q, sigmas in TAILS:
            wide = quantile(entity, residual, entities, q) / sigmas
            # where hardly anything ever moves, what moves at all is the measure
            spread = np.fmax(spread, np.where(spread > 0, np.fmin(wide, HEAVY * spread) if q > 0.9 else wide, wide))
        out["n"][:, :, i], out["center"][:, :, i] = n.reshape(-1, 24), center.reshape(-1, 24)
        out["count"][:, i], out["overall"][:, i], out["spread"][:, i] = np.bincount(entity[there], minlength=entities), overall, spread
    return out


def learned(entity: Integers, entities: int, values: Array, beside: Array) -> Array:
    """Values (n,) without those beside which the other signal is missing, and without any of an entity of which these are the most."""
    there = ~np.isnan(values)
    alone = there & np.isnan(beside)
    most = np.bincount(entity[alone], minlength=entities) > COUNTING * np.bincount(entity[there], minlength=entities)
    return np.where(alone | most[entity], np.nan, values)


def of_entities(detector: Detector, frame: pd.DataFrame, from_ms: int | None = None) -> pd.DataFrame:
    """One row an entity: entity, device_id, metric, windows; count, overall, spread (d each), center, shift (24 * d each).

    `frame`: rows of `signals.rows`, all of their entities. A bursty signal's zeros do not count. `from_ms`: from when on the
    baselines hold; without it the days of the week are not told apart (shift 0).
    """
    import pandas as pd

    d = len(detector.signals)
    burst = np.array([bursty(s) for s in detector.signals])
    entity, found = pd.factorize(frame["entity"], sort=True)
    values = scoring.transform(frame[[f"signal_{i}" for i in range(d)]].to_numpy(dtype=np.float64), [s.transform for s in detector.signals])
    values = np.where(burst & (values <= 0), np.nan, values)
    names = [s.name for s in detector.signals]
    for i, s in enumerate(detector.signals):
        if s.learned_with:
            values[:, i] = learned(entity, len(found), values[:, i], values[:, names.index(s.learned_with)])
    got = summarize(entity, len(found), frame["hour"].to_numpy(dtype=np.int64), values,
                    None if from_ms is None else frame["end_ms"].to_numpy(dtype=np.int64), from_ms or 0)
    first = frame.loc[np.unique(entity, return_index=True)[1]]
    return pd.DataFrame({
        "entity": found, "device_id": first["device_id"].to_numpy(), "metric": first["metric"].to_numpy(),
        "windows": np.bincount(entity, minlength=len(found)), "center": list(got["center"].reshape(len(found), -1)),
        "shift": list(got["shift"].reshape(len(found), -1)),
        **{k: list(got[k]) for k in ("count", "overall", "spread")},
    })


def aggregate(spark: SparkSession, settings: Settings, detector: Detector, start: datetime, end: datetime, valid_from: datetime) -> pd.DataFrame:
    """What `of_entities` gives of all windows but those of labelled incidents.

    Spark brings the rows of an entity together, numpy takes the medians of all entities of a partition at once.
    """
    def work(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        frames = list(batches)
        if frames:
            yield of_entities(detector, pd.concat(frames, ignore_index=True), from_ms)

    from_ms = cli.millis(valid_from)
    rows = signals.unlabelled(spark, settings, detector, signals.rows(spark, settings, detector, start, end))
    return rows.mapInPandas(
        work, "entity STRING, device_id STRING, metric STRING, windows BIGINT, center ARRAY<DOUBLE>, shift ARRAY<DOUBLE>, "
        "count ARRAY<DOUBLE>, overall ARRAY<DOUBLE>, spread ARRAY<DOUBLE>",
    ).toPandas().sort_values("entity", ignore_index=True)


def _matrix(column: Any, d: int) -> Array:
    return np.array([[np.nan if x is None else x for x in row] for row in column], dtype=np.float64).reshape(-1, d)


def _median(a: Array) -> Array:
    """The median along the first axis of what is there; NaN where nothing is."""
    out = np.full(a.shape[1:], np.nan)
    some = ~np.isnan(a).all(axis=0)
    out[some] = np.nanmedian(a[:, some], axis=0)
    return out


def assemble(detector: Detector, found: pd.DataFrame, inventory: pd.DataFrame) -> pd.DataFrame:
    """Baselines of one detector, one row an entity, as `tables.BASELINES` has them but for `valid_from`.

    `found`: what `aggregate` gives. `inventory`: device_id, kind. Entities whose signals were never seen (all values missing) have no baseline.
    """
    import pandas as pd

    d = len(detector.signals)
    columns = ["entity", "detector", "device_id", "metric", "kind", "source", "windows", "center", "scale", "daily"]
    if found.empty:
        return pd.DataFrame(columns=columns)
    own = found.reset_index(drop=True)
    overall, scale = _matrix(own["overall"], d), _matrix(own["spread"], d)
    burst = np.array([bursty(s) for s in detector.signals])
    rare = burst & (_matrix(own["count"], d) < ACTIVE_WINDOWS)
    overall[rare] = scale[rare] = np.nan
    center = np.where(np.isnan(overall)[:, None, :], np.nan, np.array(own["center"].tolist(), dtype=np.float64).reshape(-1, 24, d))
    shift = np.array(own["shift"].tolist(), dtype=np.float64).reshape(-1, 24, d)
    kinds = own["device_id"].map(dict(zip(inventory["device_id"], inventory["kind"], strict=True)))
    own["kind"] = kinds.where(kinds.notna(), "")
    usable = (own["windows"].to_numpy() >= DEVICE_WINDOWS) & (np.isfinite(overall) | burst).any(axis=1)
    unknown = np.isnan(overall) & ~burst

    floors = np.array([s.scale_floor for s in detector.signals])
    identity = np.array([s.transform == "identity" for s in detector.signals])
    scale = np.where(np.isnan(scale), np.nan, np.fmax(np.fmax(scale, floors), np.where(identity, OF_LEVEL * np.abs(overall), 0.0)))
    of_kind: dict[tuple[str, str], tuple[Array, Array, Array, int]] = {}
    for key, at in own[usable].groupby(["kind", "metric"], sort=True).indices.items():
        members = np.flatnonzero(usable)[at]
        if key[0]:
            typical, middle = _median(scale[members]), _median(center[members])
            differ = MAD * _median(np.nanmax(np.abs(center[members] - middle), axis=1, initial=0.0, where=~np.isnan(center[members])))
        else:
            typical = differ = np.full(d, np.nan)
            middle = np.full((24, d), np.nan)
        # what nobody of the kind ever does: none of it is usual
        middle, wide = np.nan_to_num(middle, nan=0.0), np.where(np.isnan(typical) & ~burst, UNKNOWN, np.fmax(np.sqrt(typical**2 + differ**2), floors))
        if key[0]:
            of_kind[(str(key[0]), str(key[1]))] = (middle, wide, np.median(shift[members], axis=0), len(members))
        never = identity & (scale[members] <= floors)
        scale[members] = np.where(np.isnan(scale[members]), wide, np.where(never, np.fmax(scale[members], OF_KIND * typical), scale[members]))
        center[members] = np.where(np.isnan(center[members]), middle, center[members])
    scale[unknown] = UNKNOWN
    center = np.where(unknown[:, None, :], 0.0, center)

    made = pd.DataFrame({
        "entity": own["entity"], "detector": detector.name, "device_id": own["device_id"], "metric": own["metric"], "kind": own["kind"],
        "source": "device", "windows": own["windows"], "center": list((center + shift).reshape(len(own), -1)), "scale": list(scale),
        "daily": _apart(center, shift),
    })[usable]
    done = set(made["entity"])
    counted = dict(zip(own["entity"], own["windows"], strict=True))
    size = inventory["kind"].value_counts().to_dict()
    borrowed = []
    for (kind, metric), (middle, wide, moved, members_n) in of_kind.items():
        if members_n < KIND_SHARE * size.get(kind, 0):
            continue
        flat, (daily_,) = (middle + moved).reshape(-1), _apart(middle[None], moved[None])
        for device in inventory.loc[inventory["kind"] == kind, "device_id"]:
            entity = f"{detector.name}|{device}|{metric}"
            if entity not in done:
                borrowed.append((entity, detector.name, device, metric, kind, "kind", int(counted.get(entity, 0)), flat, wide, daily_))
    both = pd.concat([made, pd.DataFrame(borrowed, columns=columns)]) if borrowed else made
    judged = [steady_left_out(detector, c.reshape(24, d), s) for c, s in zip(both["center"], both["scale"], strict=True)]
    return both.assign(scale=judged).sort_values("entity", ignore_index=True)


def steady_left_out(detector: Detector, center: Array, scale: Array) -> Array:
    """Scales (d,) with `UNKNOWN` where a signal asks for another that varies and that one, centre (24, d), is steady."""
    names = [s.name for s in detector.signals]
    asks = [(i, names.index(s.varies)) for i, s in enumerate(detector.signals) if s.varies]
    steady = [i for i, of in asks if scale[of] < VARIED * abs(np.median(center[:, of]))]
    return np.where(np.isin(np.arange(len(scale)), steady), UNKNOWN, scale)


def _apart(center: Array, shift: Array) -> list[Array | None]:
    """Each entity's hours of any day (24 * d), where they are not those that come next; else None."""
    moved = (shift != 0).any(axis=(1, 2))
    return [c.reshape(-1) if m else None for c, m in zip(center, moved, strict=True)]


def build(
    spark: SparkSession, settings: Settings, start: datetime, end: datetime, valid_from: datetime, *, publish: bool,
) -> dict[str, Any]:
    """Build, store and publish the baselines of every detector; the part of the summary that tells of it."""
    import pandas as pd

    inventory = spark.sql(f"SELECT device_id, kind FROM {sp.whole(settings, 'devices')} ORDER BY device_id").toPandas()
    parts = []
    for detector in all_detectors():
        begin = time.monotonic()
        part = assemble(detector, aggregate(spark, settings, detector, start, end, valid_from), inventory)
        parts.append(part)
        cli.say(f"baselines of {detector.name}: {len(part):,} ({(part['source'] == 'kind').sum():,} borrowed) in {time.monotonic() - begin:.1f} s")
    rows = pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)
    summary: dict[str, Any] = {"baselines": len(rows), "valid_from": cli.iso(valid_from), "published": 0}
    if rows.empty:
        cli.say(f"no windows between {cli.iso(start)} and {cli.iso(end)}: the baselines stay as they are")
        return summary
    table = tables.BASELINES
    rows["valid_from"] = cli.millis(valid_from)
    for name in ("center", "scale", "daily"):
        rows[name] = [a.tolist() if isinstance(a, np.ndarray) else None for a in rows[name]]
    wanted = [c.name for c in table.columns]
    frame = spark.createDataFrame(
        rows[wanted],
        ", ".join(f"{c.name} {'BIGINT' if c.type == 'timestamp' else sp.SPARK_TYPES[c.type]}" for c in table.columns),
    ).withColumn("valid_from", _ntz("valid_from"))
    sp.replace(settings, table, frame.coalesce(1), f"`valid_from` = {sp.instant(valid_from)}")
    if publish:
        summary["published"] = send(settings, table, rows[[n for n in wanted if n != "daily"]].to_dict("records"), "entity", "valid_from")
    return summary


def _ntz(column: str) -> Any:
    from pyspark.sql import functions as F

    return F.expr(f"CAST(TIMESTAMP_MILLIS(`{column}`) AS TIMESTAMP_NTZ)")


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    with sp.session(settings, "build_baselines") as spark:
        made = build(spark, settings, options.start, options.end, options.valid_from or options.end, publish=not options.no_publish)
    return {"job": "build_baselines", "start": cli.iso(options.start), "end": cli.iso(options.end), **made}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--valid-from", type=cli.moment, help="event time from which the baselines hold (default: --end)")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
