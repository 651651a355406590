"""Sample rows for the tests of what people look at: a few devices, one incident of each use case, all from a seed."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterator
from typing import Any

from tidewatch import detectors, events
from tidewatch.tables import catalogue

MINUTE = 60_000
DEVICES = tuple(f"{kind}-{i:02d}" for kind in ("server", "camera", "sensor", "workstation") for i in range(1, 4))
INCIDENTS = (
    ("exfiltration", "server-02", "", -95, -80, 0.93),
    ("silence", "camera-01", "", -60, -35, 0.71),
    ("flood", "server-01", "", -150, -140, 0.82),
    ("corruption", "sensor-03", "temperature_c", -40, -2, 0.64),
    ("corruption", "sensor-01", "humidity_percent", -170, -162, 0.55),
)
"""Detector, device, metric, first and last minute before the end, score."""


def _expected(d: detectors.Detector, minute: int) -> list[float]:
    rhythm = 1 + 0.4 * math.sin(minute / 60)
    return [{"external_bytes_out": 2e4, "external_destinations": 3, "external_ratio": 0.4, "inbound_flows": 20,
             "inbound_sources": 9, "failed_flows": 1, "silent_seconds": 4, "events": 110, "value_mean": 20, "value_min": 19,
             "value_max": 21, "value_range": 2, "missing_share": 0}[s.name] * rhythm for s in d.signals]


def rows(end: int, seed: int = 7, minutes: int = 180) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(table, key, row) of the JSON topics, for the minutes before `end` (UTC milliseconds)."""
    rng = random.Random(seed)
    by_name = {d.name: d for d in detectors.all_detectors()}
    start = end - minutes * MINUTE
    for n in DEVICES:
        yield "devices", n, {"device_id": n, "kind": n.split("-")[0], "site": "north" if n.endswith("1") else "south", "address": "", "added_at": start}
    for i, u in enumerate(detectors.USE_CASES):
        yield "models", u, {"use_case": u, "version": "1", "valid_from": start, "uri": "", "promoted_at": start + i * MINUTE, "reason": "first champion"}
    for run in range(3):
        for table, expectation, ok in (("flow", "expect_column_values_to_be_between", True), ("flow", "expect_column_values_to_be_unique", True),
                                       ("reading", "expect_column_values_to_not_be_null", run != 1)):
            yield "validations", table, {
                "run_id": f"run-{run}", "run_at": start + run * 60 * MINUTE, "table_name": table, "expectation": expectation,
                "column_name": "event_id", "success": ok, "observed": "0 of 1000" if ok else "31 of 1000", "unexpected": 0 if ok else 31, "report": "",
            }
    for i in range(60):
        source, reason = rng.choice([("flow", "malformed"), ("flow", "bytes_out_range"), ("reading", "ts_future"), ("reading", "malformed")])
        at = start + rng.randrange(minutes * MINUTE)
        yield "dead_letters", source, {
            "source": source, "kafka_partition": i % 4, "kafka_offset": i, "ingested_at": at, "reason": reason,
            "detail": "byte 14 of 60", "device_id": rng.choice(DEVICES), "original": "AAECAw==",
        }
    alerts: dict[int, dict[str, Any]] = {}
    for m in range(-minutes, 0):
        window = {"window_start": end + m * MINUTE, "window_end": end + (m + 1) * MINUTE}
        for n in DEVICES:
            for name, d in by_name.items():
                metrics = ("temperature_c", "humidity_percent") if name == "corruption" else ("",)
                if (name == "corruption") != n.startswith("sensor") and name not in ("silence",):
                    continue
                for metric in metrics:
                    expected = _expected(d, m)
                    observed = [x * rng.uniform(0.8, 1.25) for x in expected]
                    score = rng.uniform(0, 0.25)
                    for k, (who, device, its, first, last, height) in enumerate(INCIDENTS):
                        if (who, device, its) == (name, n, metric) and first <= m < last:
                            score = height - rng.uniform(0, 0.05)
                            observed[0] = expected[0] * 60
                            alert = alerts.setdefault(k, {**window, "windows": 0, "score": 0.0})
                            alert |= {"window_end": window["window_end"], "windows": alert["windows"] + 1, "score": max(alert["score"], score)}
                    why = {
                        "model_version": f"{d.use_case}/1", "baseline": "device", "top_signals": [s.name for s in d.signals][:3],
                        "top_observed": observed[:3], "top_expected": expected[:3], "top_shares": [0.8, 0.15, 0.05][: len(d.signals)],
                    }
                    yield "scores", n, {
                        "use_case": d.use_case, "detector": name, "device_id": n, "metric": metric, **window, "score": score,
                        "anomalous": score >= d.threshold, **why, "signals": [*observed[:-1], None], "expected": expected,
                    }
                    for k, (who, device, its, _, last, _) in enumerate(INCIDENTS):
                        if (who, device, its) == (name, n, metric) and k in alerts and m <= last:
                            a = alerts[k]
                            yield "alerts", n, {
                                "alert_id": f"{d.use_case}:{n}:{a['window_start']}", "use_case": d.use_case, "detector": name, "device_id": n,
                                "metric": metric, "start": a["window_start"], "end": a["window_end"], "windows": a["windows"],
                                "severity": d.severity(a["score"]), "score": a["score"], **why, "technique": d.technique, "title": d.title,
                                "reason": f"{d.signals[0].name} is {observed[0]:.0f}, expected {expected[0]:.0f}",
                            }
            if n.startswith("sensor"):
                for metric, level in (("temperature_c", 20.0), ("humidity_percent", 55.0)):
                    low = level - rng.uniform(0.5, 1.5)
                    yield "reading_1m", n, {
                        "device_id": n, "metric": metric, **window, "readings": 6, "missing": 0, "errors": 0, "value_sum": level * 6,
                        "value_min": low, "value_max": 2 * level - low, "last_ts": window["window_end"] - 4000,
                    }
            else:
                flows = rng.randrange(10, 40)
                leak = 60 if n == "server-02" and -95 <= m < -80 else 1
                yield "flow_1m", n, {
                    "device_id": n, **window, "flows": flows, "bytes_out": flows * 900 * leak, "bytes_in": flows * 1500, "external_flows": flows // 3,
                    "external_bytes_out": flows * 300 * leak, "external_bytes_in": flows * 800, "destinations": 8, "external_destinations": 3,
                    "inbound_flows": flows // 2, "inbound_sources": 4, "failed_flows": 1, "last_ts": window["window_end"] - 1000,
                }


def json_messages(end: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(topic, key, value) of `rows`."""
    for table, key, row in rows(end):
        yield table, key.encode(), json.dumps(row).encode()


def event(name: str, number: int, ts: int, device: str = "server-01", **changes: Any) -> dict[str, Any]:
    """One possible event of a contract."""
    row: dict[str, Any] = {
        "flow": {"direction": "out", "src_ip": "10.0.0.1", "src_port": 40000, "dst_ip": "10.0.0.2", "dst_port": 443, "proto": "tcp",
                 "bytes_out": 900, "bytes_in": 1500, "pkts_out": 4, "pkts_in": 5, "duration_ms": 30, "status": "ok"},
        "reading": {"metric": "temperature_c", "value": 20.5, "status": "ok"},
    }[name]
    return {"device_id": device, "event_id": number, "ts": ts, **row, **changes}


def encoded(name: str, row: dict[str, Any]) -> bytes:
    """An event as its topic carries it: schemaless Avro."""
    import fastavro

    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(events.contract(name).schema)), row)
    return out.getvalue()


def topics() -> dict[str, dict[str, str]]:
    """The configuration of every topic that Pinot reads."""
    return {
        t.name: {"cleanup.policy": "compact"} if t.compacted else {"message.timestamp.type": "LogAppendTime"}
        for t in catalogue().values() if t.pinot
    }
