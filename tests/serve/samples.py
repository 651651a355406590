"""Sample events for the tests of what Pinot reads."""

from __future__ import annotations

import io
import json
from typing import Any

from tidewatch import events


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
