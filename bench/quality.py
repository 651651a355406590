"""How good detection is on labelled data nobody here made: the product's own path over every set of a folder.

    python bench/quality.py [--data DIR] [--only SET] [--skip SET] [--quick] [--injected | --first | --day] [--cache DIR] [--json FILE]

In the spark environment. Each set is loaded as a replay loads it, written to bronze, turned into features by the
product's Spark SQL, baselines and models come from the train part alone, and the test part is scored as the stream
scores it. Beside it, on the same windows: a random score, three sigma, a robust z-score, an isolation forest.
docs/detection.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import measures, rivals
from jobs import backtest, build_baselines, build_features, signals, thresholds, train
from jobs import spark as sp
from tidewatch import features, scoring, tables
from tidewatch.detectors import CANDIDATES, Detector, of_use_case
from tidewatch.errors import InputError
from tidewatch.inputs import replay
from tidewatch.inputs.encode import Column, Text
from tidewatch.settings import ROOT, Settings, load

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Array = NDArray[np.float64]

SEED = 1
MINUTE_MS = 60_000
FAR_MS = 2**53
QUICK_DEVICES = 3


@dataclass(frozen=True, eq=False)
class Set:
    """A labelled set in a lake of its own."""

    name: str
    use_cases: tuple[str, ...]
    settings: Settings
    found: replay.LabelledSet
    train_end: dict[str, int]
    """Of each device, milliseconds: where its test part begins."""
    cycles: tuple[int, ...] = ()
    """When baselines were built, milliseconds, the last at the end of the train part: what came between two of them is judged by the
    earlier one, as in a network that runs. Empty: once, of the whole train part, as at a first training."""

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From the first event's minute to a quarter of an hour after the last: silence shows after it."""
        first = datetime.fromtimestamp(self.found.start_ms // MINUTE_MS * 60, UTC) - timedelta(minutes=1)
        return first, datetime.fromtimestamp(self.found.end_ms // MINUTE_MS * 60, UTC) + timedelta(minutes=16)


# -- into the lake
def outside(addresses: Iterable[str], inside: Sequence[str]) -> dict[str, bool]:
    """Whether each address lies outside the networks; what is no address does not (docs/stream.md)."""
    networks = [ipaddress.ip_network(n, strict=False) for n in inside]

    def external(address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return not any(ip.version == n.version and ip in n for n in networks)

    return {a: external(a) for a in addresses}


def write_bronze(settings: Settings, found: replay.LabelledSet) -> None:
    """The events as the stream's committer leaves them in bronze."""
    import pyarrow as pa
    from deltalake import write_deltalake

    for topic, columns in found.columns.items():
        table = tables.table(topic)
        n = len(columns["event_id"])  # type: ignore[arg-type]
        arrays: dict[str, Any] = {}
        for c in table.columns:
            given = columns.get(c.name)
            if isinstance(given, Text):
                arrays[c.name] = pa.array(list(given.words.values)).take(pa.array(given.codes))
            elif c.type == "timestamp":
                ms = columns["ts"]
                arrays[c.name] = pa.array(np.asarray(ms).astype("datetime64[ms]").astype("datetime64[us]"))
            elif given is not None:
                arrays[c.name] = pa.array(np.ma.getdata(given), mask=np.ma.getmaskarray(given))
            elif c.name == "external" and topic == "flow":
                words = {n: columns[n].words.values for n in ("src_ip", "dst_ip", "direction")}  # type: ignore[union-attr]
                seen = {n: np.asarray(words[n], dtype=object)[columns[n].codes] for n in words}  # type: ignore[union-attr]
                known = outside({*words["src_ip"], *words["dst_ip"]}, [*settings.network.inside, *found.inside])
                other = np.where(seen["direction"] == "in", seen["src_ip"], seen["dst_ip"])
                arrays[c.name] = pa.array([known[a] for a in other])
            else:
                arrays[c.name] = pa.nulls(n, pa.bool_()) if c.type == "boolean" else pa.array(np.zeros(n, np.int32 if c.type == "int" else np.int64))
        arrays["date"] = pa.array(np.datetime_as_string(np.asarray(columns["ts"]).astype("datetime64[ms]").astype("datetime64[D]")))
        write_deltalake(str(table.path(settings)), pa.table(arrays), partition_by=["date"])


def _key(paths: Iterable[Path], *more: str) -> str:
    text = hashlib.sha256()
    for p in sorted(paths):
        text.update(p.read_bytes() if p.suffix == ".py" else f"{p}{p.stat().st_size}{p.stat().st_mtime_ns}".encode())
    text.update(repr(more).encode())
    return text.hexdigest()[:16]


def cuts(folder: Path) -> dict[str, int]:
    """Of each device, when its test part begins, milliseconds; far in the future if it has none."""
    found: dict[str, int] = {}
    for path in folder.glob("[fr]*s.parquet"):
        frame = pd.read_parquet(path, columns=["device_id", "ts", "split"])
        first = frame[frame["split"] == "test"].groupby("device_id")["ts"].min()
        for d in frame["device_id"].unique():
            ms = int(first[d].timestamp() * 1000) if d in first.index else FAR_MS
            found[str(d)] = min(found.get(str(d), FAR_MS), ms)
    return found


def few(found: replay.LabelledSet, most: int) -> replay.LabelledSet:
    """The set with so many devices at most, those that have an incident first."""
    with_label = [x["device_id"] for x in found.labels]
    kept = set(list(dict.fromkeys([*with_label, *(d["device_id"] for d in found.devices)]))[:most])
    columns: dict[str, dict[str, Column]] = {}
    for topic, given in found.columns.items():
        device = given["device_id"]
        assert isinstance(device, Text)
        rows = np.isin(device.codes, [i for i, d in enumerate(device.words.values) if d in kept])
        if rows.any():
            columns[topic] = {n: Text(c.codes[rows], c.words) if isinstance(c, Text) else c[rows] for n, c in given.items()}
    return replace(found, columns=columns, labels=[x for x in found.labels if x["device_id"] in kept],
                   devices=[d for d in found.devices if d["device_id"] in kept])


def read(folder: Path, cache: Path, spark: SparkSession, jars: Path, quick: bool) -> Set:
    """A set with its features built; from the cache if neither it nor the views have changed."""
    found = replay.load(folder)
    if quick:
        found = few(found, QUICK_DEVICES)
    about = json.loads((folder / "set.json").read_text())
    key = _key(folder.glob("*.parquet"), str(quick))
    return build(Set(found.name, tuple(about["use_cases"]), home(cache, f"{found.name}-{key}", jars), found, cuts(folder)), spark)


def home(cache: Path, name: str, jars: Path) -> Settings:
    """Settings with a lake of their own in the cache, which lasts as long as what features are made of."""
    code = [*(ROOT / "tidewatch" / "features").glob("*.py"), ROOT / "tidewatch/inputs/replay.py", ROOT / "jobs/build_features.py"]
    state = cache / f"{name}-{_key(code)}"
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "jars").exists():
        (state / "jars").symlink_to(jars)
    return load(state_dir=state)


def build(s: Set, spark: SparkSession) -> Set:
    """The set's events in bronze and its features in silver, if they are not there yet."""
    if not (s.settings.state_dir / "built").exists():
        write_bronze(s.settings, s.found)
        build_features.build(spark, s.settings, *s.span)
        (s.settings.state_dir / "built").touch()
    return s


def rows(spark: SparkSession, s: Set, detector: Detector) -> pd.DataFrame:
    """The detector's rows of the whole set, by entity and time; cached."""
    code = [*(ROOT / "tidewatch" / "detectors").glob("*.py"), ROOT / "jobs/signals.py"]
    path = s.settings.state_dir / f"rows-{detector.name}-{_key(code)}.parquet"
    if not (path / "_SUCCESS").exists():
        signals.rows(spark, s.settings, detector, *s.span).write.mode("overwrite").parquet(str(path))
    return pd.read_parquet(path).sort_values(["entity", "end_ms"], ignore_index=True)


# -- training and scoring, as the jobs and the stream do
def labels_of(s: Set, keep: Sequence[bool] | None = None) -> backtest.Labels:
    """The set's labels, or some of them."""
    found = [x for i, x in enumerate(s.found.labels) if keep is None or keep[i]]
    return backtest.Labels(
        np.array([x["device_id"] for x in found], dtype=str), np.array([x["start"] for x in found], dtype=np.int64),
        np.array([x["end"] for x in found], dtype=np.int64), np.array([x["use_case"] for x in found], dtype=str),
    )


def before(s: Set, device: pd.Series, end_ms: pd.Series) -> NDArray[np.bool_]:
    """The rows that belong to their device's train part."""
    return np.asarray(end_ms.to_numpy() <= device.map(s.train_end).fillna(0).to_numpy())


Learned = tuple[pd.DataFrame, NDArray[np.bool_], backtest.Labels, pd.DataFrame]


def learned_of(spark: SparkSession, s: Set, detector: Detector) -> Learned:
    """All rows, which are of the train part, the labels known in it, and those of its rows that none of them touches."""
    frame = rows(spark, s, detector)
    past = before(s, frame["device_id"], frame["end_ms"])
    known = labels_of(s, [x["start"] < s.train_end.get(x["device_id"], 0) for x in s.found.labels])
    history = frame[past]
    plain = train.match(detector, history, pd.DataFrame({"entity": [], "valid_from": [], "center": [], "scale": []}))
    return frame, past, known, history[backtest.untouched(plain, known, detector.afterglow)].reset_index(drop=True)


def detect(spark: SparkSession, s: Set, detector: Detector, found: Learned, family: str, share_of: int) -> pd.DataFrame:
    """From what `learned_of` gives, scores of the test windows, one row a device and window: device_id, end_ms, score, fired, and what weighs most:
    metric, signal, detector.

    As in `jobs.train`: the first part of the train part fits and sets the threshold, its last raises it until false alerts keep within
    the budget, which `share_of` detectors share. Baselines and model see the train part alone; of the labels, those that began in it, until it ends.
    """
    frame, past, known, history = found
    size = features.view(detector.view).size_seconds * 1000
    inventory = pd.DataFrame(s.found.devices)[["device_id", "kind"]]
    baselines = pd.concat([
        build_baselines.assemble(detector, build_baselines.of_entities(detector, known_then), inventory).assign(valid_from=ms)
        for ms, known_then in ([(ms, history[history["end_ms"] <= ms].reset_index(drop=True)) for ms in s.cycles] or [(0, history)])
    ], ignore_index=True)
    w = train.match(detector, history, baselines)
    cut = train.split([w])
    learned = w.at(w.end_ms <= cut)
    made = train.fit_detector(spark, detector, learned, (family,), SEED)
    gap, rule = s.settings.stream.alert_gap, s.settings.promotion
    model = scoring.Model(detector.use_case, family, {detector.name: made[family]})
    model = thresholds.at_return_level(model, (detector,), {detector.name: learned}, gap, rule.target_false_alerts / share_of)
    held = train.match(detector, frame[past & (frame["end_ms"] - size > cut).to_numpy()], baselines)
    model = thresholds.at_budget(model, (detector,), {detector.name: held}, known, gap, rule.max_false_alerts / share_of)
    parts = []
    test = frame[~past]
    for _, part in test.groupby(test["device_id"].map(hash) % max(1, len(test) // 500_000), sort=False):
        w = train.match(detector, part, baselines)
        at, score, share = backtest.score(model, detector.name, w)
        parts.append(pd.DataFrame({
            "device_id": w.device[at], "end_ms": w.end_ms[at], "score": score, "metric": part["metric"].to_numpy()[at],
            "signal": np.array([x.name for x in detector.signals])[share.argmax(axis=1)],
        }))
    scored = pd.concat(parts, ignore_index=True)
    return scored.assign(fired=scored["score"] >= model.detectors[detector.name].threshold, detector=detector.name)


# -- one set
def windows(spark: SparkSession, s: Set, use_case: str, families: dict[str, str]) -> pd.DataFrame | None:
    """What `detect` gives of every detector of the use case; None: there was nothing to train on."""
    parts = []
    there = [d for d in of_use_case(use_case) if sp.exists(s.settings, tables.table(d.view))]
    found = {d.name: learned_of(spark, s, d) for d in there}
    ready = [d for d in there if train.enough(d, found[d.name][3]["end_ms"].to_numpy())]
    for d in there:
        begin = time.monotonic()
        if d in ready:
            parts.append(detect(spark, s, d, found.pop(d.name), families.get(d.name, CANDIDATES[use_case][0]), len(ready)))
        print(f"{s.name} {use_case} {d.name}: {f'{len(parts[-1]):,} windows' if d in ready else 'too little to train on'}, "
              f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    return pd.concat(parts, ignore_index=True).fillna({"score": 0.0}) if parts else None


def ends(found: replay.LabelledSet) -> dict[str, int]:
    """Of each device, milliseconds: its last event, or the end of an incident from which it never came back, if others
    still send; nobody wrote down what came after."""
    out: dict[str, int] = {}
    for columns in found.columns.values():
        device = columns["device_id"]
        assert isinstance(device, Text)
        last = np.zeros(len(device.words.values), np.int64)
        np.maximum.at(last, device.codes, np.asarray(columns["ts"]))
        for d, t in zip(device.words.values, last.tolist(), strict=True):
            out[d] = max(out.get(d, 0), t)
    gone = [x for x in found.labels if int(x["start"]) > out.get(x["device_id"], FAR_MS)]
    return out | {x["device_id"]: min(int(x["end"]) + MINUTE_MS, found.end_ms) for x in gone}


def taken(found: replay.LabelledSet) -> dict[str, NDArray[np.int64]]:
    """Of each device, when it took readings, milliseconds, sorted."""
    columns = found.columns.get("reading")
    if columns is None:
        return {}
    device, ts = columns["device_id"], np.asarray(columns["ts"])
    assert isinstance(device, Text)
    order = np.argsort(device.codes, kind="stable")
    parts = np.split(ts[order], np.cumsum(np.bincount(device.codes, minlength=len(device.words.values)))[:-1])
    return dict(zip(device.words.values, parts, strict=True))


def run(spark: SparkSession, s: Set, families: dict[str, str]) -> list[dict[str, Any]]:
    """The figures of every use case of a set, ours and the rivals'."""
    found = []
    gap = s.settings.stream.alert_gap // timedelta(milliseconds=1)
    for use_case in s.use_cases:
        every = windows(spark, s, use_case, families)
        if every is None:
            continue
        every = every[every["end_ms"] <= every["device_id"].map(ends(s.found))]
        grid = every.groupby(["device_id", "end_ms"], as_index=False).agg(score=("score", "max"), fired=("fired", "max"))
        truth = measures.Truth.of(grid["device_id"].to_numpy(dtype=str), grid["end_ms"].to_numpy(), MINUTE_MS, use_case, s.found.labels,
                                 s.train_end, taken(s.found))
        if not truth.events:
            continue
        marks = {
            "tidewatch": (grid["score"].to_numpy(), grid["fired"].to_numpy(dtype=bool)),
            **rivals.scores(spark, s.settings, list(s.found.columns), s.train_end, grid, SEED),
        }
        for who, (score, fired) in marks.items():
            found.append({"set": s.name, "use case": use_case, "who": who, **measures.figures(truth, score, fired, gap)})
    return found


def sets_of(options: argparse.Namespace) -> list[Path]:
    """The folders of the sets asked for; raises InputError if there is none."""
    folders = [p.parent for p in sorted(options.data.glob("*/set.json"))]
    folders = [f for f in folders if (not options.only or f.name in options.only) and f.name not in options.skip]
    if not folders:
        raise InputError(f"{options.data} has no such set.", "give --data a folder of sets; docs/detection.md says in which form")
    return folders


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(), "at": datetime.now(UTC).isoformat(timespec="seconds")}


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--data", type=Path, default=Path(os.environ.get("TIDEWATCH_LABELLED", ROOT.parent / "shared" / "data")), help="a folder of labelled sets")
    p.add_argument("--only", action="append", default=[], help="a set's folder; repeatable")
    p.add_argument("--skip", action="append", default=[], help="a set's folder; repeatable")
    p.add_argument("--family", action="append", default=[], help="DETECTOR=FAMILY instead of the use case's first; repeatable")
    p.add_argument("--quick", action="store_true", help=f"{QUICK_DEVICES} devices a set, half a day of injected incidents: to see that it runs")
    p.add_argument("--injected", action="store_true", help="incidents put into clean generated traffic, instead of the sets (with --only: beside them)")
    p.add_argument("--first", action="store_true", help="--injected at a first training: two days, judged by baselines made of them, instead of a week with baselines built each day")
    p.add_argument("--day", action="store_true", help="--injected with leaks alone that last eight to sixteen hours, so faint that no hour shows them")
    p.add_argument("--cache", type=Path, help="keep features here (default: a folder that is removed)")
    p.add_argument("--json", type=Path, help="write the figures here")
    options = p.parse_args(arguments)
    from bench import injected

    base = load()
    size = injected.QUICK if options.quick else injected.FIRST if options.first else injected.DAY if options.day else injected.FULL
    put_in = options.injected or options.first or options.day
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, sp.session(base, "quality") as spark:
        cache, jars = options.cache or Path(folder), (base.state_dir / "jars").resolve()
        families = dict(f.split("=", 1) for f in options.family)
        for path in [] if put_in and not options.only else sets_of(options):
            begin = time.monotonic()
            s = read(path, cache, spark, jars, options.quick)
            results += run(spark, s, families)
            print(f"{s.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
        put = injected.run(spark, cache, jars, families, size) if put_in else None
    if results:
        print(measures.table(results))
    if put:
        print(injected.table(put))
    if options.json:
        options.json.write_text(json.dumps({**machine(), "results": results, "injected": put}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
