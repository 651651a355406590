"""Baselines: what is normal for every device (and metric) per hour of the day, from the silver views of a window.

Centre: the median of the hour where it has enough windows, else of the whole window. Scale: 1.4826 times the median
absolute residual (Rousseeuw and Croux 1993), so that contaminated windows, up to nearly half, do not move it; never
below the signal's floor. Of which too much is a sign and which are on a log scale (counts, bytes) come in bursts: their
windows of zero are left out, so that the centre is the usual amount of a minute that has any, and their scale is at
least the residuals' 90 % quantile over 1.645, which stands a tenth of contaminated windows. A device of the inventory
without enough windows of its own borrows its kind's baseline, widened by how much the kind's devices differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tidewatch import tables
from tidewatch.detectors import Detector, Signal, all_detectors
from tidewatch.settings import Settings

from jobs import cli, signals
from jobs import spark as sp
from jobs.topics import publish as send

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

Array = NDArray[np.float64]

HOUR_WINDOWS = 30
"""Windows of one hour of the day from which its own median is taken."""
DEVICE_WINDOWS = 60
"""Windows from which a device has a baseline of its own."""
ACTIVE_WINDOWS = 10
"""Windows that are not zero from which a bursty signal has a centre of its own; else it is the kind's, or zero."""
KIND_SHARE = 0.5
"""A device without history is given the metrics that at least this share of its kind reports."""
MAD = 1.4826
"""A normal distribution's sigma over its median absolute deviation."""
OF_KIND = 0.1
OF_LEVEL = 0.005
"""A scale is at least a tenth of its kind's, and half a percent of the signal's own level (signals that are not logs)."""


def bursty(signal: Signal) -> bool:
    """A signal whose windows of zero say nothing about how much is usual: too much is a sign, on a log scale."""
    return signal.transform == "log1p" and signal.direction > 0


def aggregate(spark: SparkSession, settings: Settings, detector: Detector, start: datetime, end: datetime) -> pd.DataFrame:
    """One row an entity and hour: entity, device_id, metric, windows, hour; counts, medians and spread as arrays of d.

    `n`, `center`: of the hour; `count`, `overall`, `spread`: of the whole window. A bursty signal's zeros do not count.
    """
    d = len(detector.signals)
    rows = spark.sql(signals.query(settings, detector, start, end))
    values = [
        f"CASE WHEN {sql} > 0 THEN {sql} END" if bursty(s) else sql for s, sql in zip(detector.signals, signals.transformed(detector), strict=True)
    ]
    rows = rows.selectExpr("entity", "device_id", "metric", "hour", *(f"{sql} AS t{i}" for i, sql in enumerate(values)))
    rows = rows.cache()
    rows.createOrReplaceTempView("baseline_rows")
    medians = ", ".join(f"PERCENTILE(t{i}, 0.5)" for i in range(d))
    counts = ", ".join(f"COUNT(t{i})" for i in range(d))
    residuals = [
        f"ABS(r.t{i} - CASE WHEN h.n[{i}] >= {HOUR_WINDOWS} THEN h.center[{i}] ELSE a.overall[{i}] END)" for i in range(d)
    ]
    spreads = ", ".join(
        f"{MAD} * PERCENTILE({r}, 0.5)" if s.transform == "identity" else f"GREATEST({MAD} * PERCENTILE({r}, 0.5), PERCENTILE({r}, 0.9) / 1.645)"
        for s, r in zip(detector.signals, residuals, strict=True)
    )
    found = spark.sql(f"""
        WITH h AS (SELECT entity, hour, ARRAY({counts}) AS n, ARRAY({medians}) AS center FROM baseline_rows GROUP BY entity, hour),
        a AS (SELECT entity, FIRST(device_id) AS device_id, FIRST(metric) AS metric, COUNT(*) AS windows, ARRAY({counts}) AS count,
              ARRAY({medians}) AS overall FROM baseline_rows GROUP BY entity),
        s AS (SELECT r.entity, ARRAY({spreads}) AS spread FROM baseline_rows r
              JOIN h ON r.entity = h.entity AND r.hour = h.hour JOIN a ON r.entity = a.entity GROUP BY r.entity)
        SELECT a.entity, a.device_id, a.metric, a.windows, a.count, a.overall, s.spread, h.hour, h.n, h.center
        FROM a JOIN s ON a.entity = s.entity JOIN h ON a.entity = h.entity ORDER BY a.entity, h.hour
    """).toPandas()
    rows.unpersist()
    return found


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

    `inventory`: device_id, kind. Entities whose signals were never seen (all values missing) have no baseline.
    """
    import pandas as pd

    d = len(detector.signals)
    columns = ["entity", "detector", "device_id", "metric", "kind", "source", "windows", "center", "scale"]
    if found.empty:
        return pd.DataFrame(columns=columns)
    own = found.drop_duplicates("entity").reset_index(drop=True)
    place = {e: i for i, e in enumerate(own["entity"])}
    overall, scale = _matrix(own["overall"], d), _matrix(own["spread"], d)
    burst = np.array([bursty(s) for s in detector.signals])
    rare = burst & (_matrix(own["count"], d) < ACTIVE_WINDOWS)
    overall[rare] = scale[rare] = np.nan
    center = np.repeat(overall[:, None, :], 24, axis=1)
    row, hour = found["entity"].map(place).to_numpy(), found["hour"].to_numpy()
    center[row, hour] = np.where(_matrix(found["n"], d) >= HOUR_WINDOWS, _matrix(found["center"], d), overall[row])
    kinds = own["device_id"].map(dict(zip(inventory["device_id"], inventory["kind"], strict=True)))
    own["kind"] = kinds.where(kinds.notna(), "")
    usable = (own["windows"].to_numpy() >= DEVICE_WINDOWS) & (np.isfinite(overall) | burst).all(axis=1)

    floors = np.array([s.scale_floor for s in detector.signals])
    identity = np.array([s.transform == "identity" for s in detector.signals])
    scale = np.where(np.isnan(scale), np.nan, np.fmax(np.fmax(scale, floors), np.where(identity, OF_LEVEL * np.abs(overall), 0.0)))
    of_kind: dict[tuple[str, str], tuple[Array, Array, int]] = {}
    for key, at in own[usable].groupby(["kind", "metric"], sort=True).indices.items():
        members = np.flatnonzero(usable)[at]
        if key[0]:
            typical, middle = _median(scale[members]), _median(center[members])
            differ = MAD * _median(np.nanmax(np.abs(center[members] - middle), axis=1, initial=0.0, where=~np.isnan(center[members])))
        else:
            typical = differ = np.full(d, np.nan)
            middle = np.full((24, d), np.nan)
        # what nobody of the kind ever does: none of it is usual
        middle, wide = np.nan_to_num(middle, nan=0.0), np.fmax(np.sqrt(typical**2 + differ**2), floors)
        if key[0]:
            of_kind[(str(key[0]), str(key[1]))] = (middle, wide, len(members))
        scale[members] = np.where(np.isnan(scale[members]), wide, np.where(identity, np.fmax(scale[members], OF_KIND * typical), scale[members]))
        center[members] = np.where(np.isnan(center[members]), middle, center[members])

    made = pd.DataFrame({
        "entity": own["entity"], "detector": detector.name, "device_id": own["device_id"], "metric": own["metric"], "kind": own["kind"],
        "source": "device", "windows": own["windows"], "center": list(center.reshape(len(own), -1)), "scale": list(scale),
    })[usable]
    done = set(made["entity"])
    counted = dict(zip(own["entity"], own["windows"], strict=True))
    size = inventory["kind"].value_counts().to_dict()
    borrowed = []
    for (kind, metric), (middle, wide, members_n) in of_kind.items():
        if members_n < KIND_SHARE * size.get(kind, 0):
            continue
        flat = middle.reshape(-1)
        for device in inventory.loc[inventory["kind"] == kind, "device_id"]:
            entity = f"{detector.name}|{device}|{metric}"
            if entity not in done:
                borrowed.append((entity, detector.name, device, metric, kind, "kind", int(counted.get(entity, 0)), flat, wide))
    both = pd.concat([made, pd.DataFrame(borrowed, columns=columns)]) if borrowed else made
    return both.sort_values("entity", ignore_index=True)


def build(
    spark: SparkSession, settings: Settings, start: datetime, end: datetime, valid_from: datetime, *, publish: bool,
) -> dict[str, Any]:
    """Build, store and publish the baselines of every detector; the part of the summary that tells of it."""
    import pandas as pd

    inventory = spark.sql(f"SELECT device_id, kind FROM {sp.whole(settings, 'devices')} ORDER BY device_id").toPandas()
    parts = []
    for detector in all_detectors():
        begin = time.monotonic()
        part = assemble(detector, aggregate(spark, settings, detector, start, end), inventory)
        parts.append(part)
        cli.say(f"baselines of {detector.name}: {len(part):,} ({(part['source'] == 'kind').sum():,} borrowed) in {time.monotonic() - begin:.1f} s")
    rows = pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)
    summary: dict[str, Any] = {"baselines": len(rows), "valid_from": cli.iso(valid_from), "published": 0}
    if rows.empty:
        cli.say(f"no windows between {cli.iso(start)} and {cli.iso(end)}: the baselines stay as they are")
        return summary
    table = tables.BASELINES
    rows["valid_from"] = cli.millis(valid_from)
    for name in ("center", "scale"):
        rows[name] = [a.tolist() for a in rows[name]]
    wanted = [c.name for c in table.columns]
    frame = spark.createDataFrame(
        rows[wanted],
        ", ".join(f"{c.name} {'BIGINT' if c.type == 'timestamp' else sp.SPARK_TYPES[c.type]}" for c in table.columns),
    ).withColumn("valid_from", _ntz("valid_from"))
    sp.replace(settings, table, frame.coalesce(1), f"`valid_from` = {sp.instant(valid_from)}")
    if publish:
        summary["published"] = send(settings, table, rows[wanted].to_dict("records"), "entity", "valid_from")
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
