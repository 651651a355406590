"""Airflow's own metrics arrive where `external.otlp` says: its real client, a receiver that reads what it sends."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tidewatch.settings import External, load
from tidewatch.stack.services import airflow as service

pytest.importorskip("airflow", reason="needs the airflow environment")
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]
SEND = """
from airflow.observability.metrics.stats_utils import get_stats_factory
stats = get_stats_factory()()
stats.incr("dagrun.finished_for_test", 3)
from opentelemetry import metrics
metrics.get_meter_provider().force_flush()
"""


@pytest.fixture
def receiver() -> Iterator[tuple[str, dict[str, float]]]:
    """Its address, and the sums that arrived by name."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    found: dict[str, float] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent = ExportMetricsServiceRequest.FromString(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            for metric in (m for r in sent.resource_metrics for s in r.scope_metrics for m in s.metrics):
                found[metric.name] = sum(p.as_int or p.as_double for p in metric.sum.data_points)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/metrics", found
    server.shutdown()
    server.server_close()


def test_metrics_arrive_where_they_are_sent(receiver: tuple[str, dict[str, float]], tmp_path: Path) -> None:
    address, found = receiver
    settings = load(state_dir=tmp_path, external=External(otlp=address))
    conf = tmp_path / "conf" / "airflow" / "airflow.cfg"
    conf.parent.mkdir(parents=True)
    conf.write_text(service.configuration(settings))
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | service.environment(settings)
    done = subprocess.run([sys.executable, "-c", SEND], env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert found.get("airflow.dagrun.finished_for_test") == 3, (found, done.stderr[-500:])
