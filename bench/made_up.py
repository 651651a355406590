"""A day of made-up rows for every table that charts read: windows and scores of every device, alerts, runs, measurements."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.servers import SEED
from jobs.topics import publish
from tidewatch import detectors, events, observer, tables
from tidewatch.detectors import Detector
from tidewatch.features import view
from tidewatch.inputs.network import KINDS, Network, inventory
from tidewatch.settings import Settings
from tidewatch.tables import Table

MINUTE = 60_000
HOUR = 60 * MINUTE
WINDOWS = ("flow_1m", "reading_1m", "scores")
ALERTS_A_DEVICE_DAY = 0.2
DEAD_SHARE = 0.0005
"""Of all events."""
ANOMALOUS_SHARE = 0.001
"""Of all scores."""
CYCLE_HOURS = 4
EMPTY: dict[str, Any] = {
    "string": "", "long": 0, "int": 0, "double": 0.0, "boolean": False, "timestamp": 0, "double[]": [], "string[]": [],
}

Array = np.ndarray[Any, Any]
Row = dict[str, Any]


def row(table: Table, **given: Any) -> Row:
    """A row of a table; what is not given is empty."""
    return {c.name: given.get(c.name, None if c.nullable else EMPTY[c.type]) for c in table.columns}


# -- windows and scores, a minute of one partition at a time


def texts(columns: Mapping[str, Sequence[Any] | Array]) -> list[bytes]:
    """Columns of one length as the topic's records."""
    lists = [c.tolist() if isinstance(c, np.ndarray) else c for c in columns.values()]
    return [json.dumps(dict(zip(columns, values, strict=True))).encode() for values in zip(*lists, strict=True)]


def times(end: int, n: int) -> dict[str, Array]:
    return {"window_start": np.full(n, end - MINUTE), "window_end": np.full(n, end)}


def flow_windows(net: Network, of: Array, end: int, rng: np.random.Generator) -> list[bytes]:
    """A window of each of these devices, by its habits."""
    n = len(of)
    flows = np.maximum(1, rng.poisson(net.rate[of]))
    external, inbound = rng.binomial(flows, net.habit("external")[of]), rng.binomial(flows, net.habit("inbound")[of])
    spread = rng.lognormal(0, net.habit("sigma")[of])
    outside = np.rint(external * net.habit("out_external")[of] * spread)
    back = np.rint(flows * net.habit("back")[of] * rng.lognormal(0, net.habit("sigma")[of]))
    known = net.peers_known[of]
    made: dict[str, Any] = {
        "flows": flows, "bytes_out": np.rint((flows - external) * net.habit("out")[of] * spread) + outside, "bytes_in": back,
        "external_flows": external, "external_bytes_out": outside, "external_bytes_in": np.rint(back * external / flows),
        "destinations": np.minimum(np.maximum(0, flows - inbound), known), "external_destinations": np.minimum(external, known),
        "inbound_flows": inbound, "inbound_sources": np.minimum(inbound, known), "failed_flows": rng.binomial(flows, 0.02),
        "last_ts": end - rng.integers(0, MINUTE, n),
    }
    return texts({"device_id": [net.names[d] for d in of], **times(end, n), **{k: np.asarray(v).astype(np.int64) for k, v in made.items()}})


def reading_windows(net: Network, series: Array, period_ms: int, end: int, rng: np.random.Generator) -> list[bytes]:
    """A window of each of these series, by its level and noise."""
    n = len(series)
    readings = np.maximum(1, rng.poisson(MINUTE / period_ms, n))
    level, noise = net.series_level[series] + rng.normal(size=n) * net.series_daily[series], net.series_noise[series]
    return texts({
        "device_id": [net.names[d] for d in net.series_device[series]],
        "metric": [net.metrics.values[m] for m in net.series_metric[series]],
        **times(end, n), "readings": readings, "missing": rng.binomial(readings, 0.002), "errors": rng.binomial(readings, 0.002),
        "value_sum": readings * level, "value_min": level - noise, "value_max": level + noise, "last_ts": end - rng.integers(0, MINUTE, n),
    })


def scores_of(d: Detector, who: list[tuple[str, str]], expected: Array, end: int, rng: np.random.Generator) -> list[bytes]:
    """A score of each of these devices and metrics, near what is expected of it (n, signals)."""
    n, width = expected.shape
    usual = np.array([d.examples[0].expected[s.name] for s in d.signals])
    observed = expected * rng.lognormal(0, 0.3, (n, width))
    if not d.view.startswith("reading"):  # counts
        counts = [not s.name.startswith("external_ratio") for s in d.signals]
        observed[:, counts] = np.rint(observed[:, counts])
    far = np.abs(observed - expected) / (np.abs(usual) + 1)
    order = np.argsort(-far, axis=1)[:, :3]
    shares = np.take_along_axis(far, order, 1) / (far.sum(axis=1, keepdims=True) + 1e-12)
    anomalous = rng.random(n) < ANOMALOUS_SHARE
    names = np.array([s.name for s in d.signals])
    return texts({
        "use_case": [d.use_case] * n, "detector": [d.name] * n, "device_id": [w for w, _ in who], "metric": [m for _, m in who],
        "window_start": np.full(n, end - view(d.view).size_seconds * 1000), "window_end": np.full(n, end),
        "score": np.where(anomalous, rng.uniform(0.5, 0.8, n), 0.5 * rng.beta(1.5, 6, n)), "anomalous": anomalous,
        "model_version": [f"{d.use_case}/3"] * n, "baseline": rng.choice(["device", "kind", "global"], n, p=[0.95, 0.04, 0.01]),
        "top_signals": names[order], "top_observed": np.take_along_axis(observed, order, 1),
        "top_expected": np.take_along_axis(expected, order, 1),
        "top_shares": shares, "signals": observed, "expected": expected,
        "usual_low": expected[:, 0] * 0.4, "usual_high": expected[:, 0] * 1.6,
        "shadow_version": [None] * n, "shadow_score": [None] * n, "shadow_anomalous": [None] * n,
    })


@dataclass(frozen=True)
class Maker:
    """Makes the records of a table's partition, a minute at a time; a partition has the devices whose number it is, modulo."""

    net: Network
    period_ms: int
    partitions: int

    def devices(self, p: int) -> Array:
        return np.arange(p, self.net.size, self.partitions)

    def series(self, p: int) -> Array:
        return np.flatnonzero(self.net.series_device % self.partitions == p)

    def minute(self, name: str, p: int, at: int, end: int, rng: np.random.Generator) -> list[bytes]:
        """The records of minute number `at`, which ends at `end`, in no order: so the stream writes them, too."""
        if name == "flow_1m":
            made = flow_windows(self.net, self.devices(p), end, rng)
        elif name == "reading_1m":
            made = reading_windows(self.net, self.series(p), self.period_ms, end, rng)
        else:
            made = [r for d in detectors.all_detectors() for r in self._scores(d, p, at, end, rng)]
        return [made[i] for i in rng.permutation(len(made))]

    def _scores(self, d: Detector, p: int, at: int, end: int, rng: np.random.Generator) -> list[bytes]:
        v = view(d.view)
        if "metric" in v.keys:
            who = [(self.net.names[self.net.series_device[s]], self.net.metrics.values[self.net.series_metric[s]]) for s in self.series(p)]
        else:
            who = [(self.net.names[i], "") for i in self.devices(p)]
        # of the size of the detector's first example; a baseline says the same for an hour
        usual = np.array([d.examples[0].expected[s.name] for s in d.signals])
        expected = usual * np.random.default_rng([SEED, p]).lognormal(0, 0.3, (len(who), len(usual)))
        every = v.slide_seconds // 60  # an hour's window closes every ten minutes: here a tenth of the devices' each minute
        return scores_of(d, who[at % every :: every], expected[at % every :: every], end, rng)


# -- what else the charts read


def alerts_of(net: Network, start_ms: int, end_ms: int, rng: np.random.Generator) -> Iterator[Row]:
    found = detectors.all_detectors()
    span = end_ms - start_ms
    for i in range(max(20, round(net.size * ALERTS_A_DEVICE_DAY * span / 24 / HOUR))):
        d, device, windows = found[rng.integers(len(found))], int(rng.integers(net.size)), int(rng.geometric(0.2))
        start = start_ms + int(rng.integers(0, span - MINUTE)) // MINUTE * MINUTE
        score, signals = float(rng.uniform(0.5, 0.8)), [s.name for s in d.signals][:3]
        name, first = net.names[device], signals[0].replace("_", " ")
        yield row(
            tables.ALERTS, alert_id=f"{d.use_case}:{name}:{start}", use_case=d.use_case, detector=d.name, device_id=name, start=start,
            end=min(end_ms, start + windows * MINUTE), windows=windows, severity=d.severity(score), score=score,
            model_version=f"{d.use_case}/3", baseline="device", top_signals=signals, top_shares=[1 / len(signals)] * len(signals),
            top_observed=rng.lognormal(5, 2, len(signals)).tolist(), top_expected=rng.lognormal(3, 1, len(signals)).tolist(),
            technique=d.technique, title=d.title, reason=f"{first} 1234.5 instead of 12.3", kind=KINDS[net.kind[device]].name,
            site=net.site[device], status="closed", members=1, member_ids=[],
            group_id=f"{d.use_case}:*:{start_ms}" if i % 20 == 0 else "", suppressed_by="maintenance:nightly" if i % 20 == 1 else "",
        )


def letters_of(net: Network, start_ms: int, end_ms: int, rate: float, rng: np.random.Generator) -> Iterator[Row]:
    n = max(20, round(rate * (end_ms - start_ms) / 1000 * DEAD_SHARE))
    for i, at in enumerate(np.sort(rng.integers(start_ms, end_ms, n)).tolist()):
        yield row(
            tables.DEAD_LETTERS, source=events.names()[i % 2], kafka_partition=i % 4, kafka_offset=i, ingested_at=at, original="AAAA" * 30,
            reason=("malformed", "ts_future", "value_range")[i % 3], detail="the value 1e99 is out of range",
            device_id=net.names[i % net.size],
        )


def measured(start_ms: int, end_ms: int) -> Iterator[Row]:
    """What the observer measures in so long a time."""
    stored = [t.name for t in tables.catalogue().values()]
    dags = ("backfill", "compact", "feature_store", "feedback", "maintenance", "refresh_dashboards", "retrain", "watch")
    subjects: dict[str, Sequence[str]] = {
        "lag": ("", *events.names()), "events_per_second_of": events.names(), "duplicate_events": events.names(),
        "champion_age": detectors.USE_CASES,
        **{f"pinot_{n}": stored for n in ("rows", "segments", "consuming")}, **{f"delta_{n}": stored for n in ("rows", "files", "bytes")},
        **{f"dag_{n}": dags for n in ("seconds", "failed", "age", "every")}, "service_up": [str(i) for i in range(18)],
    }
    for i, at in enumerate(range(start_ms, end_ms, MINUTE)):
        for metric, (unit, _) in observer.METRICS.items():
            of_a_run = metric in ("dashboards_refreshed", "too_late")
            every = observer.SELDOM if metric.startswith("delta_") else 60 * CYCLE_HOURS if of_a_run else 1
            value = at / 1000 if metric == "dashboards_refreshed" else float(i % 97)
            for subject in subjects.get(metric, ("",)) if i % every == 0 else ():
                yield row(tables.PIPELINE, at=at, metric=metric, subject=subject, value=value, unit=unit, detail="success")


def runs_of(settings: Settings, start_ms: int, end_ms: int, rng: np.random.Generator) -> Iterator[tuple[Table, Row]]:
    """What a cycle of Airflow's leaves: validations, candidates, models, comparisons, drift."""
    def made(t: Table, **given: Any) -> tuple[Table, Row]:
        return t, row(t, **given)

    checked = [(t.name, c.name) for t in tables.catalogue().values() if t.delta for c in t.columns[:8]]
    checked += [("window_figures", n) for n in ("dead_letter_share", "late_share", "devices", "events")]
    for at in range(start_ms, end_ms, CYCLE_HOURS * HOUR):
        run, version = {"run_id": f"run-{at}", "run_at": at}, str(at // HOUR)
        for table, column in checked:
            yield made(
                tables.VALIDATIONS, **run, table_name=table, column_name=column, expectation="expect_column_values_to_be_between",
                success=bool(rng.random() > 0.01), observed=str(rng.uniform()), unexpected=0,
            )
        for use_case in detectors.USE_CASES:
            for family in ("pca", "kmeans", "gmm"):
                yield made(
                    tables.DECISIONS, use_case=use_case, version=f"{version}{family}", family=family, training=f"run-{at}", window_end=at,
                    decided_at=at, champion="1", promoted=family == "pca", reason="0.92 against 0.90", detection=0.92, recall_injected=0.92,
                    false_alerts=0.1,
                )
            uri = (settings.state_dir / "models" / f"{use_case}.json").as_uri()  # the stream reads it: that of `knowledge`
            yield made(tables.MODELS, use_case=use_case, version=version, valid_from=at, uri=uri, promoted_at=at, reason="0.92")
        for d in detectors.all_detectors():
            yield made(tables.CONSISTENCY, **run, kind="detector", name=d.name, offline=1000, online=1000)
            for s in d.signals:
                yield made(
                    tables.DRIFT, **run, use_case=d.use_case, detector=d.name, signal=s.name, model_version=f"{d.use_case}/3", psi=0.05,
                    reference_windows=1000, windows=1000, reference_median=1.0, median=1.1,
                )


def rest(settings: Settings, net: Network, start_ms: int, end_ms: int, rate: float) -> dict[str, int]:
    """Fill every other table; rows sent by table."""
    rng = np.random.default_rng([SEED, 9])
    made: dict[str, list[Row]] = {
        "devices": [dict(r) for r in inventory(net, start_ms)], "alerts": list(alerts_of(net, start_ms, end_ms, rng)),
        "dead_letters": list(letters_of(net, start_ms, end_ms, rate, rng)), "pipeline": list(measured(start_ms, end_ms)),
    }
    for t, r in runs_of(settings, start_ms, end_ms, rng):
        made.setdefault(t.name, []).append(r)
    same = ("alert_id", "use_case", "detector", "device_id", "start", "end")
    made["feedback"] = [
        row(tables.FEEDBACK, **{k: a[k] for k in same}, verdict=("true", "false", "benign")[i % 3], marked_at=a["end"])
        for i, a in enumerate(made["alerts"][::10])
    ]
    sent = {}
    for name, rows in made.items():
        t = tables.table(name)
        sent[name] = publish(settings, t, rows, t.keys[0], t.time, raw=t.pinot == "upsert")
    return sent
