"""The replay of real labelled data: a folder with `set.json`, readings and flows becomes events of the same topics.

The form: `readings.parquet` (device_id, ts, split, one column a metric; null: reported without a value; no row: nothing
sent), `flows.parquet` (device_id, ts of the start, duration in seconds, src_ip, …), `incidents.parquet` (device_id,
start, end, use_case, kind). A flow is sent when it ends.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tidewatch import events
from tidewatch.errors import InputError
from tidewatch.inputs.encode import Array, Column, Text, Words, encode
from tidewatch.inputs.parcel import Parcel
from tidewatch.settings import Settings

Split = Literal["train", "test", "all"]
FLOW_COLUMNS = ("device_id", "ts", "duration", "src_ip", "src_port", "dst_ip", "dst_port", "proto",
                "bytes_out", "bytes_in", "pkts_out", "pkts_in", "status", "split")
INCIDENT_COLUMNS = ("device_id", "start", "end", "use_case", "kind")
# Zeek's conn_state, https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html; and our own words
OUTCOMES = {
    "SF": "ok", "S1": "ok", "S2": "ok", "S3": "ok", "S0": "unanswered", "SH": "unanswered", "REJ": "refused",
    "RSTO": "reset", "RSTR": "reset", "RSTOS0": "reset", "RSTRH": "reset", "SHR": "other", "OTH": "other",
    "ok": "ok", "refused": "refused", "reset": "reset", "unanswered": "unanswered", "other": "other",
}
# an id is the millisecond it was sent in and a place in it, so that the same data at another time has other ids
PLACES = 2**12


@dataclass(frozen=True)
class LabelledSet:
    """A folder in the documented form, read."""

    name: str
    inside: tuple[str, ...]
    """Networks that count as inside."""
    columns: dict[str, dict[str, Column]]
    """Of each topic: the contract's columns in the order of time."""
    labels: list[dict[str, Any]]
    devices: list[dict[str, Any]]
    start_ms: int
    end_ms: int
    """Just after the last event."""

    @property
    def events(self) -> int:
        return sum(len(_array(c["ts"])) for c in self.columns.values())


def _frame(path: Path, columns: tuple[str, ...]) -> Any:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read: {e}.", "give a folder in the form that docs/inputs.md describes") from e
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}.", "docs/inputs.md describes the form")
    return frame


def _ms(times: Any) -> Array:
    ms: Array = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64)
    return ms


def _ids(device: Array, ts: Array, where: Path) -> Array:
    """Places within a device's millisecond, in the order given; raises InputError if there are too many."""
    order = np.lexsort((np.arange(len(ts)), ts, device))
    new = np.ones(len(ts), bool)
    new[1:] = (device[order][1:] != device[order][:-1]) | (ts[order][1:] != ts[order][:-1])
    at = np.arange(len(ts))
    place = np.empty(len(ts), np.int64)
    place[order] = at - np.maximum.accumulate(np.where(new, at, 0))
    if place.max(initial=0) >= PLACES:
        raise InputError(f"{where}: a device has more than {PLACES} events in one millisecond.")
    return ts * PLACES + place


def _flows(path: Path, split: Split, shift_ms: int) -> dict[str, Column]:
    frame = _frame(path, FLOW_COLUMNS)
    if split != "all":
        frame = frame[frame["split"] == split]
    duration = np.maximum(frame["duration"].to_numpy(dtype=float, na_value=0.0), 0)
    ts = _ms(frame["ts"]) + np.round(duration * 1000).astype(np.int64) + shift_ms
    order = np.argsort(ts, kind="stable")
    frame, ts, duration = frame.iloc[order], ts[order], duration[order]
    device = Text.of(frame["device_id"].astype(str).to_numpy())

    def counts(name: str) -> Array:
        values: Array = np.maximum(np.nan_to_num(frame[name].to_numpy(dtype=float, na_value=np.nan)), 0).astype(np.int64)
        return values

    def port(name: str) -> Array:
        values = frame[name].to_numpy(dtype=float, na_value=np.nan)
        return np.ma.masked_array(np.nan_to_num(values).astype(np.int64), np.isnan(values))

    def words(name: str, missing: str) -> list[str]:
        return [missing if w is None else str(w) for w in frame[name].astype(object).where(frame[name].notna(), None)]

    openers = words("src_ip", "unknown")
    mine = [o == d for o, d in zip(openers, frame["device_id"].astype(str), strict=True)]
    return {
        "device_id": device, "event_id": _ids(device.codes, ts, path), "ts": ts,
        "direction": Text.of(["out" if m else "in" for m in mine]),
        "src_ip": Text.of(openers), "src_port": port("src_port"),
        "dst_ip": Text.of(words("dst_ip", "unknown")), "dst_port": port("dst_port"),
        "proto": Text.of([w.lower() for w in words("proto", "unknown")]),
        "bytes_out": counts("bytes_out"), "bytes_in": counts("bytes_in"),
        "pkts_out": counts("pkts_out"), "pkts_in": counts("pkts_in"),
        "duration_ms": np.round(duration * 1000).astype(np.int64),
        # a source that has no word for the outcome says nothing against it
        "status": Text.of([OUTCOMES.get(w, "other") for w in words("status", "ok")]),
    }


def _readings(path: Path, split: Split, shift_ms: int) -> dict[str, Column]:
    frame = _frame(path, ("device_id", "ts", "split"))
    metrics = [c for c in frame.columns if c not in ("device_id", "ts", "split")]
    # a metric that a device never has is not one of its metrics: no value to miss
    has = frame[metrics].notna().groupby(frame["device_id"].astype(str)).any()
    if split != "all":
        frame = frame[frame["split"] == split]
    ts = _ms(frame["ts"]) + shift_ms
    order = np.argsort(ts, kind="stable")
    frame, ts = frame.iloc[order], ts[order]
    ids = Text.of(frame["device_id"].astype(str).to_numpy())
    row, metric = np.nonzero(has.loc[list(ids.words.values)].to_numpy()[ids.codes])
    device, ts = Text(ids.codes[row], ids.words), ts[row]
    values = frame[metrics].to_numpy(dtype=np.float64, na_value=np.nan)[row, metric]
    return {
        "device_id": device, "event_id": _ids(device.codes, ts, path), "ts": ts, "metric": Text(metric, Words.of(metrics)),
        "value": np.ma.masked_invalid(values), "status": Text(np.zeros(len(ts), np.int64), Words.of(["ok"])),
    }


def load(folder: Path, split: Split = "all", shift_to_ms: int | None = None) -> LabelledSet:
    """Read a set, its first event moved to `shift_to_ms` if given; raises InputError saying what is wrong with it."""
    try:
        about = json.loads((folder / "set.json").read_text())
        name, inside = str(about["name"]), tuple(about.get("inside_networks", ()))
    except FileNotFoundError:
        raise InputError(f"{folder} has no set.json.", "give a folder in the form that docs/inputs.md describes") from None
    except (ValueError, KeyError) as e:
        raise InputError(f"{folder / 'set.json'} is wrong: {e!r}.", "docs/inputs.md describes the form") from e
    parts = [(t, folder / f"{t}s.parquet", read) for t, read in (("flow", _flows), ("reading", _readings))]
    if not any(p.exists() for _, p, _ in parts):
        raise InputError(f"{folder} has neither flows.parquet nor readings.parquet.", "docs/inputs.md describes the form")
    columns = {t: read(p, split, 0) for t, p, read in parts if p.exists()}
    columns = {t: c for t, c in columns.items() if len(_array(c["ts"]))}
    if not columns:
        raise InputError(f"{folder}: the split {split!r} has no events.", "give --split all")
    start = min(int(_array(c["ts"]).min()) for c in columns.values())
    shift = 0 if shift_to_ms is None else shift_to_ms - start
    if shift:
        columns = {t: read(p, split, shift) for t, p, read in parts if t in columns}
    end = max(int(_array(c["ts"]).max()) for c in columns.values()) + 1
    start += shift
    incidents = folder / "incidents.parquet"
    labels: list[dict[str, Any]] = []
    if incidents.exists():
        frame = _frame(incidents, INCIDENT_COLUMNS)
        spans = zip(_ms(frame["start"]) + shift, _ms(frame["end"]) + shift, strict=True)
        labels = [
            {"device_id": str(d), "start": int(s), "end": int(e), "use_case": str(u), "kind": str(k), "origin": name}
            for (d, u, k), (s, e) in zip(frame[["device_id", "use_case", "kind"]].itertuples(index=False, name=None), spans, strict=True)
            if e >= start and s < end
        ]
    known = sorted({d for c in columns.values() if isinstance(c["device_id"], Text) for d in c["device_id"].words.values})
    devices = [{"device_id": d, "kind": name, "site": name, "address": "", "added_at": start} for d in known]
    return LabelledSet(name, inside, columns, labels, devices, start, end)


def between(found: LabelledSet, start_ms: int | None, end_ms: int | None) -> LabelledSet:
    """The events in [start, end), None: no bound; raises InputError if there are none. Labels that overlap them stay."""
    columns = {}
    for topic, given in found.columns.items():
        ts = _array(given["ts"])
        rows = slice(0 if start_ms is None else int(np.searchsorted(ts, start_ms)), None if end_ms is None else int(np.searchsorted(ts, end_ms)))
        if len(ts[rows]):
            columns[topic] = _part(given, rows)
    if not columns:
        raise InputError(f"{found.name} has no events in that time: it reaches from {_utc(found.start_ms)} to {_utc(found.end_ms)}.")
    start = min(int(_array(c["ts"])[0]) for c in columns.values())
    end = max(int(_array(c["ts"])[-1]) for c in columns.values()) + 1
    return replace(found, columns=columns, start_ms=start, end_ms=end, labels=[x for x in found.labels if x["end"] >= start and x["start"] < end])


def _utc(ms: int) -> str:
    return str(np.datetime64(ms, "ms").astype("datetime64[s]")) + "Z"


def _part(columns: dict[str, Column], rows: slice) -> dict[str, Column]:
    return {n: Text(c.codes[rows], c.words) if isinstance(c, Text) else c[rows] for n, c in columns.items()}


def _array(column: Column) -> Array:
    if isinstance(column, Text):
        return column.codes
    return column


def differing_inside(found: LabelledSet, settings: Settings) -> str:
    """What to set if the set's networks are not the ones in the settings; '' if they agree or the set has no flows."""
    import ipaddress

    if "flow" not in found.columns or not found.inside:
        return ""
    ours = [ipaddress.ip_network(n) for n in settings.network.inside]
    theirs = [ipaddress.ip_network(n, strict=False) for n in found.inside]
    outside = [n for n in theirs if not any(n.version == o.version and n.subnet_of(o) for o in ours)]  # type: ignore[arg-type]
    if not outside:
        return ""
    value = json.dumps([*settings.network.inside, *map(str, outside)])
    return f"TIDEWATCH_NETWORK__INSIDE='{value}'"


@dataclass
class Replay:
    """A set on its way through time."""

    found: LabelledSet

    def __post_init__(self) -> None:
        self._at = dict.fromkeys(self.found.columns, 0)

    def advance(self, until_ms: int) -> list[Parcel]:
        """The events before `until_ms` that have not been given yet."""
        parcels = []
        for topic, columns in self.found.columns.items():
            start = self._at[topic]
            end = int(np.searchsorted(_array(columns["ts"]), until_ms))
            for a in range(start, end, 50_000):
                parcels.append(_parcel(topic, columns, slice(a, min(a + 50_000, end))))
            self._at[topic] = max(start, end)
        return parcels

    def finish(self, cut_ms: int) -> list[Parcel]:
        """Nothing is ever on its way: a set's events come in order."""
        return []


def _parcel(topic: str, columns: dict[str, Column], rows: slice) -> Parcel:
    part = _part(columns, rows)
    device, ids = part["device_id"], _array(part["event_id"])
    assert isinstance(device, Text)
    keys = [w.encode() for w in device.words.values]
    tally = Counter({"records": len(ids), "valid": len(ids), "unique": len(ids), "event_id_sum": int(ids.astype(object).sum())})
    if topic == "flow":
        tally["bytes_out_sum"] = int(_array(part["bytes_out"]).sum())
    else:
        tally["missing"] = int(np.ma.getmaskarray(_array(part["value"])).sum())
    return Parcel(topic, [keys[c] for c in device.codes.tolist()], encode(events.contract(topic), part).split(), tally,
                  int(_array(part["ts"])[-1]))
