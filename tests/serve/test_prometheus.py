"""What Prometheus gets from Tidewatch: rules that fire when they should, endpoints that it can read."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidewatch.settings import ROOT, External, Ports, load
from tidewatch.stack import install, metrics, table
from tidewatch.stack.services import airflow

CONFIG = ROOT / "docker" / "prometheus.yaml"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool: apt-get install prometheus")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus: apt-get install prometheus")


@needs_promtool
@pytest.mark.parametrize("arguments", [("check", "config", "docker/prometheus.yaml"), ("test", "rules", "tests/serve/alerts.yaml")])
def test_rules(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_seen_to_fire() -> None:
    rules = {r["alert"] for g in yaml.safe_load((ROOT / "docker" / "alerts.yaml").read_text())["groups"] for r in g["rules"]}
    tests = yaml.safe_load((ROOT / "tests" / "serve" / "alerts.yaml").read_text())["tests"]
    assert {t["alertname"] for x in tests for t in x.get("alert_rule_test", ()) if t.get("exp_alerts")} == rules


def test_prometheus_reads_every_endpoint() -> None:
    targets = {t for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"] for c in job["static_configs"] for t in c["targets"]}
    ports = Ports()
    assert targets == {f"127.0.0.1:{p}" for p in (ports.reports, *(getattr(ports, f"{n}_metrics") for n in metrics.ENDPOINTS))}


def test_agents_listen_on_loopback(tmp_path: Path) -> None:
    rows = table(load(state_dir=tmp_path))
    for name in metrics.ENDPOINTS:
        option = next(w for w in rows[name].command if w.startswith("-javaagent:"))
        assert f"=127.0.0.1:{getattr(Ports(), f'{name}_metrics')}:" in option
        assert metrics.VERSION in option
        assert f"{name}_metrics" in rows[name].ports
    assert f"<version>{metrics.VERSION}</version>" in (install.POMS / "metrics" / "pom.xml").read_text()


def test_airflow_sends_its_metrics_only_where_told(tmp_path: Path) -> None:
    quiet, told = load(state_dir=tmp_path), load(state_dir=tmp_path, external=External(otlp="http://127.0.0.1:9/v1/metrics"))
    assert "otel_on = False" in airflow.configuration(quiet)
    assert "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" not in airflow.environment(quiet)
    assert "otel_on = True" in airflow.configuration(told)
    assert airflow.environment(told)["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] == "http://127.0.0.1:9/v1/metrics"


@pytest.mark.stack
@pytest.mark.parametrize(("service", "metric"), [
    ("kafka", 'kafka_topic_MessagesIn_total{topic="flow"}'), ("pinot", "pinot_realtimeRowsConsumed"),
    ("flink_jobmanager", "flink_jobmanager_job_lastCheckpointDuration"), ("flink_taskmanager", "flink_operator_numLateRecordsDropped"),
])
def test_each_java_server_has_an_endpoint(stack: Any, service: str, metric: str) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{getattr(stack.settings.ports, f'{service}_metrics')}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    assert any(line.startswith(metric) for line in lines)
    assert any(line.startswith("jvm_memory_used_bytes") for line in lines)


@pytest.mark.stack
@needs_prometheus
def test_a_prometheus_reads_the_stack_and_evaluates_the_rules(stack: Any, tmp_path: Path) -> None:
    text, ports = CONFIG.read_text(), stack.settings.ports
    for name in ("reports", *(f"{n}_metrics" for n in metrics.ENDPOINTS)):
        text = text.replace(f"127.0.0.1:{getattr(Ports(), name)}", f"127.0.0.1:{getattr(ports, name)}")
    text = text.replace("60s", "5s").replace("alerts.yaml", str(ROOT / "docker" / "alerts.yaml"))
    (tmp_path / "prometheus.yaml").write_text(text)
    port = Ports.free().kafka
    server = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path / 'prometheus.yaml'}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )

    def ask(what: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=10) as answer:
            return json.load(answer)["data"]

    try:
        deadline, targets, rules = time.monotonic() + 90, list[Any](), list[Any]()
        while time.monotonic() < deadline:
            time.sleep(3)
            try:
                targets, rules = ask("targets")["activeTargets"], [r for g in ask("rules")["groups"] for r in g["rules"]]
            except OSError:
                continue
            if targets and all(t["health"] == "up" for t in targets) and all(r["health"] == "ok" for r in rules):
                break
        assert {t["scrapeUrl"]: t["lastError"] for t in targets if t["health"] != "up"} == {}
        assert len(targets) == 1 + len(metrics.ENDPOINTS)
        assert {r["name"]: r.get("lastError") for r in rules if r["health"] != "ok"} == {}
        firing = {r["name"] for r in rules if r["state"] == "firing"}
        assert "DataLost" not in firing and "ObserverSilent" not in firing
    finally:
        server.terminate()
        server.wait(20)
