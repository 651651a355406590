"""The whole chain on real servers: what went in came out, once; each use case was found; nothing is lost in a crash.

The tests run in the order in which they stand: each leaves the stack usable for the next.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from tests.conftest import Stack
from tidewatch import detectors, tables
from tidewatch.pinot import query
from tidewatch.settings import Settings
from tidewatch.stack.processes import MARK

pytestmark = pytest.mark.stack


def eventually(what: str, seconds: float, ask: Callable[[], Any], want: Callable[[Any], bool]) -> Any:
    """Ask until the answer is wanted; fails with the last answer."""
    until = time.monotonic() + seconds
    while True:
        got = ask()
        if want(got):
            return got
        if time.monotonic() > until:
            pytest.fail(f"{what}: still {got!r} after {seconds:.0f} s")
        time.sleep(2)


def manifests(settings: Settings) -> list[dict[str, Any]]:
    """The generator's own account of every run, oldest first."""
    folder = settings.state_dir / "data" / "generate"
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime)]


def newest(settings: Settings) -> datetime:
    """Up to when events were generated."""
    return max(datetime.fromtimestamp(m["end_ms"] / 1000, UTC) for m in manifests(settings))


def lake(settings: Settings, sql: str, *names: str) -> list[tuple[Any, ...]]:
    """Rows of a query over Delta tables, each a view of its own name."""
    import duckdb
    from deltalake import DeltaTable

    with duckdb.connect() as db:
        for name in names:
            db.register(name, DeltaTable(str(tables.table(name).path(settings))).to_pyarrow_dataset())
        return db.execute(sql).fetchall()


def account(settings: Settings) -> dict[str, dict[str, int]]:
    """What was produced, by topic, over all runs of the generator."""
    total: dict[str, dict[str, int]] = {"flow": {}, "reading": {}}
    for m in manifests(settings):
        for topic, tally in m["topics"].items():
            for key, value in tally.items():
                total[topic][key] = total[topic].get(key, 0) + value
    return total


def rows_in_delta(settings: Settings) -> int:
    return int(lake(settings, "SELECT (SELECT COUNT(*) FROM flow) + (SELECT COUNT(*) FROM reading) + (SELECT COUNT(*) FROM dead_letters)",
                    "flow", "reading", "dead_letters")[0][0])


def check_counts(settings: Settings) -> None:
    """Every produced event is in Delta or a dead letter, once, and what it says is unchanged."""
    made = account(settings)
    produced = sum(t["records"] for t in made.values())
    eventually("events in Delta and dead letters", 300, lambda: rows_in_delta(settings), lambda n: n >= produced)
    for name, tally in made.items():
        rows, records = lake(settings, f"SELECT COUNT(*), COUNT(DISTINCT (kafka_partition, kafka_offset)) FROM {name}", name)[0]
        # an id is one device's: an unknown device may send what another has sent
        unique, checksum = lake(settings, f"SELECT COUNT(*), SUM(event_id::HUGEINT) FROM (SELECT DISTINCT device_id, event_id FROM {name})", name)[0]
        assert rows == records == tally["valid"], name
        assert unique == tally["unique"], name
        assert int(checksum) == tally["event_id_sum"], name
    rows, records = lake(settings, "SELECT COUNT(*), COUNT(DISTINCT (source, kafka_partition, kafka_offset)) FROM dead_letters", "dead_letters")[0]
    assert rows == records == sum(t["malformed"] + t["impossible"] for t in made.values())


def test_every_event_is_in_delta_once_or_a_dead_letter(stack: Stack) -> None:
    check_counts(stack.settings)


def test_pinot_counts_what_is_valid_without_duplicates(stack: Stack) -> None:
    for name, tally in account(stack.settings).items():
        eventually(f"rows of {name} in Pinot", 120, lambda n=name: query(stack.settings, f"SELECT COUNT(*) FROM {n}")[0][0],
                   lambda n, want=tally["unique"]: n == want)


def test_pinot_and_delta_agree_on_what_is_outside(stack: Stack) -> None:
    outside = int(lake(stack.settings, "SELECT COUNT(*) FROM (SELECT DISTINCT device_id, event_id FROM flow WHERE external)", "flow")[0][0])
    assert 0 < outside == query(stack.settings, "SELECT COUNT(*) FROM flow WHERE external = true")[0][0]


def test_a_dead_letter_has_its_reason_and_the_original_bytes(stack: Stack) -> None:
    """Every malformed event is one, and every other reason is the rule that the generator broke, as often as it did."""
    made = account(stack.settings).values()
    want = Counter({"malformed": sum(t["malformed"] for t in made)})
    for tally in made:
        want.update({k.removeprefix("impossible."): v for k, v in tally.items() if k.startswith("impossible.")})
    reasons = dict(lake(stack.settings, "SELECT reason, COUNT(*) FROM dead_letters GROUP BY reason", "dead_letters"))
    assert reasons == +want
    for detail, original in lake(stack.settings, "SELECT detail, original FROM dead_letters LIMIT 50", "dead_letters"):
        assert detail and isinstance(base64.b64decode(original, validate=True), bytes)


def test_no_label_is_in_an_event(stack: Stack) -> None:
    assert lake(stack.settings, "SELECT COUNT(*) FROM labels", "labels")[0][0] > 0
    for name in ("flow", "reading"):
        assert not {"label", "use_case", "kind"} & {c.name for c in tables.table(name).columns}


def test_airflow_itself_built_validated_trained_and_refreshed(stack: Stack) -> None:
    for dag in ("feature_store", "retrain", "refresh_dashboards"):
        answer = json.loads(stack.run("dag", "status", dag, "--json").stdout)
        runs = answer["runs"] if isinstance(answer, dict) else answer
        # a scheduled run may be under way at this time of day
        ended = [r for r in runs if r["state"] not in ("queued", "running")]
        assert ended and ended[0]["state"] == "success", (dag, runs[:2])


def test_every_use_case_has_a_champion_and_its_scores_name_it(stack: Stack) -> None:
    _more(stack, 2)  # the tests of the screens may have changed the champion
    for use_case in detectors.USE_CASES:
        url = f"{stack.settings.mlflow}/api/2.0/mlflow/registered-models/alias?name=tidewatch-{use_case}&alias=champion"
        with urllib.request.urlopen(url, timeout=30) as answer:
            version = json.load(answer)["model_version"]["version"]
        eventually(f"scores by {use_case}/{version}", 120,
                   lambda v=f"{use_case}/{version}": query(stack.settings, f"SELECT COUNT(*) FROM scores WHERE model_version = '{v}'")[0][0], lambda n: n > 0)


def test_each_use_case_is_found_and_says_why(stack: Stack) -> None:
    found = lake(stack.settings, """
        SELECT l.use_case, COUNT(DISTINCT (l.device_id, l.start)) FROM labels l JOIN alerts a
        ON a.device_id = l.device_id AND a.use_case = l.use_case AND a.start <= l.end + INTERVAL 15 MINUTE AND a.end >= l.start
        GROUP BY 1""", "labels", "alerts")
    assert {u for u, _ in found} == set(detectors.USE_CASES), found
    rows = lake(stack.settings, "SELECT severity, technique, title, reason, top_signals, top_observed, top_expected FROM alerts WHERE detector <> 'outage'", "alerts")
    for severity, technique, title, reason, signals, observed, expected in rows:
        assert severity in ("low", "medium", "high", "critical") and technique.startswith("T1") and title and reason
        assert 1 <= len(signals) == len(observed) == len(expected) <= 3


def test_an_incident_is_one_row_in_pinot(stack: Stack) -> None:
    # both see an alert once its checkpoint is complete; then the lake waits for the committer's round, Pinot for its consumer
    eventually("alerts in the lake and rows in Pinot", 60, lambda: (
        lake(stack.settings, "SELECT COUNT(DISTINCT alert_id) FROM alerts WHERE detector <> 'outage'", "alerts")[0][0],
        query(stack.settings, "SELECT COUNT(*) FROM alerts WHERE detector <> 'outage'")[0][0],
    ), lambda n: n[0] == n[1] > 0)


def test_alerts_command_lists_them_for_a_script(stack: Stack) -> None:
    listed = [a for a in json.loads(stack.run("alerts", "--limit", "100000", "--json").stdout)["alerts"] if a["detector"] != "outage"]
    assert len(listed) == query(stack.settings, "SELECT COUNT(*) FROM alerts WHERE detector <> 'outage'")[0][0]


def _more(stack: Stack, minutes: int) -> None:
    last = newest(stack.settings)
    end = last + timedelta(minutes=minutes)
    assert end <= datetime.now(UTC) + timedelta(minutes=4), "events would lie in the future"
    stack.run("generate", "--start", last.isoformat(), "--end", end.isoformat(), "--devices", "40", "--seed", "7", "--incidents", "none", "--json")


def _pids(stack: Stack, service: str) -> int:
    return int(next(s["pid"] for s in json.loads(stack.run("status", "--json").stdout) if s["service"] == service))


def test_a_new_champion_scores_without_a_restart(stack: Stack) -> None:
    """A roll-back to another version and back again is taken by the running job within a minute."""
    job = json.loads(stack.run("stream", "status", "--json").stdout)
    url = f"{stack.settings.mlflow}/api/2.0/mlflow/registered-models/alias?name=tidewatch-leak&alias=champion"
    with urllib.request.urlopen(url, timeout=30) as answer:
        before = json.load(answer)["model_version"]["version"]
    with urllib.request.urlopen(f"{stack.settings.mlflow}/api/2.0/mlflow/registered-models/get?name=tidewatch-leak", timeout=30) as answer:
        assert json.load(answer)["registered_model"]["name"] == "tidewatch-leak"
    other = "1" if before != "1" else "2"
    stack.python("spark", "-m", "jobs.rollback", "--use-case", "leak", "--version", other, "--valid-from", newest(stack.settings).isoformat())
    time.sleep(5)
    _more(stack, 2)
    eventually("a score by the other version", 60,
               lambda: query(stack.settings, f"SELECT COUNT(*) FROM scores WHERE model_version = 'leak/{other}'")[0][0], lambda n: n > 0)
    after = json.loads(stack.run("stream", "status", "--json").stdout)
    assert after["job_id"] == job["job_id"], "the job was restarted"


def _processes(stack: Stack) -> dict[int, str]:
    """Every other process that bears the stack's mark, and its command line; found by other means than `down` uses."""
    found = psutil.process_iter(["cmdline", "environ"])
    return {p.pid: " ".join(p.info["cmdline"] or ()) for p in found
            if p.pid != os.getpid() and (p.info["environ"] or {}).get(MARK) == str(stack.settings.state_dir)}


def test_nothing_is_lost_or_doubled_when_processes_are_killed(stack: Stack) -> None:
    workers = {pid for pid, command in _processes(stack).items() if "beam_boot" in command}
    assert workers
    for service in ("flink_taskmanager", "committer"):
        os.kill(_pids(stack, service), signal.SIGKILL)
    _more(stack, 2)
    check_counts(stack.settings)
    assert not workers & _processes(stack).keys(), "Python workers outlive their TaskManager"


def test_a_stopped_stream_resumes_from_its_savepoint(stack: Stack) -> None:
    stack.run("stream", "stop")
    assert json.loads(stack.run("stream", "status", "--json", check=False).stdout)["state"] != "RUNNING"
    _more(stack, 1)
    stack.run("stream", "start")
    check_counts(stack.settings)


@pytest.mark.last
def test_down_leaves_no_process_and_up_comes_back_with_the_data(stack: Stack) -> None:
    if os.environ.get("TIDEWATCH_TEST_STACK"):
        pytest.skip("this stack is not ours to take down")
    alerts = query(stack.settings, "SELECT COUNT(*) FROM alerts WHERE detector <> 'outage'")[0][0]
    assert _processes(stack), "the stack runs"
    stack.run("down")
    assert _processes(stack) == {}
    stack.run("up", "zookeeper", "kafka", "pinot")
    eventually("alerts in Pinot after a restart", 180, lambda: query(stack.settings, "SELECT COUNT(*) FROM alerts WHERE detector <> 'outage'")[0][0], lambda n: n == alerts)
