"""What every DAG must have, and how they are wired; read as Airflow reads them, without a server."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="needs the airflow environment")
pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]
DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(DAGS))


def test_every_file_is_read_and_is_named_after_its_dag(bag: Any) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == {p.stem for p in DAGS.glob("*.py")} - {"__init__", "house"}


def test_every_dag_keeps_the_house_rules(bag: Any) -> None:
    for dag in bag.dags.values():
        assert dag.max_active_runs == 1, dag.dag_id
        assert not dag.catchup, dag.dag_id
        assert "tidewatch" in dag.tags and len(dag.tags) >= 2, dag.dag_id
        assert dag.doc_md and len(dag.doc_md) > 100, dag.dag_id
        assert all(dag.params.get_param(p).description for p in dag.params), dag.dag_id
        for task in dag.tasks:
            assert task.owner == "tidewatch", task
            assert task.retries >= 1, task
            assert task.execution_timeout and task.execution_timeout <= timedelta(hours=2), task
            assert task.on_failure_callback, task


def test_jobs_run_in_their_environment_stand_back_and_take_no_raw_parameter(bag: Any, house: Any) -> None:
    for dag in bag.dags.values():
        for task in dag.tasks:
            if task.task_type != "Job":
                continue
            command = task.bash_command
            assert " -m jobs." in command and "exec " in command and house.STAND_BACK in command, task
            assert "{{ params." not in command.replace("{{ params.version | int }}", ""), "a parameter reaches the shell as text"


def test_a_job_stands_back_where_sessions_share_the_cores_and_runs_where_they_do_not(house: Any) -> None:
    def run(command: str) -> str:
        return subprocess.run(["nice", "-n", "10", "bash", "-c", command], start_new_session=True, text=True, capture_output=True, check=True).stdout

    switch = Path("/proc/sys/kernel/sched_autogroup_enabled")
    said = run(house.STAND_BACK + "cat /proc/self/autogroup 2>/dev/null; echo done").split("\n")
    assert said[-2] == "done"
    if switch.exists() and switch.read_text().strip() == "1" and os.geteuid() == 0:  # others may have to wait a tenth of a second for their turn
        assert said[0].endswith("nice 10")
    assert run(house.STAND_BACK.replace("autogroup", "nothing") + "echo done") == "done\n"


def test_a_spark_session_at_a_time(bag: Any) -> None:
    jobs = DAGS.parent / "jobs"
    sessions = {p.stem for p in jobs.glob("*.py") if "sp.session(" in p.read_text()} - {"spark"}
    assert {"build_features", "validate", "build_baselines", "train", "drift"} <= sessions
    tasks = [(d.dag_id, t) for d in bag.dags.values() for t in d.tasks if t.task_type == "Job"]
    for dag, task in tasks:
        job = re.search(r" -m jobs\.(\w+)", task.bash_command)[1]
        assert task.pool == "spark" or job not in sessions, f"{dag}.{task.task_id} starts a Spark session outside the pool"
    assert {("maintenance", "compact")} <= {(d, t.task_id) for d, t in tasks if t.pool == "spark"}


def test_the_gate_stands_before_baselines_and_before_the_asset(bag: Any) -> None:
    dag = bag.dags["feature_store"]
    assert dag.get_task("build_features").downstream_task_ids == {"validate"}
    assert dag.get_task("validate").downstream_task_ids == {"build_baselines"}
    publishing = [t.task_id for t in dag.tasks if t.outlets]
    assert publishing == ["build_baselines"]
    assert dag.get_task("build_baselines").trigger_rule == "all_success"
    assert dag.get_task("consistency").upstream_task_ids == {"build_baselines"}, "what only counts waits"


def test_retrain_follows_the_features_and_dashboards_follow_the_models(bag: Any) -> None:
    def starts(name: str) -> set[str]:
        return {asset.uri for asset in bag.dags[name].timetable.asset_condition.objects}

    def publishes(name: str) -> set[str]:
        return {a.uri for t in bag.dags[name].tasks for a in t.outlets}

    assert starts("retrain") == publishes("feature_store")
    assert starts("refresh_dashboards") == publishes("retrain") == publishes("rollback")
    train = bag.dags["retrain"].get_task("train")
    assert train.downstream_task_ids == {"promote_silent", "promote_leak", "promote_lie"}


def test_a_person_approves_if_the_setting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from tidewatch import settings

    monkeypatch.setenv("TIDEWATCH_PROMOTION__APPROVAL", "true")
    settings.current.cache_clear()
    try:
        found = DagBag(str(DAGS / "retrain.py"))
        assert found.import_errors == {}
        dag = found.dags["retrain"]
    finally:
        settings.current.cache_clear()
    assert dag.get_task("train").downstream_task_ids == {"judge"}
    assert "--dry-run" in dag.get_task("judge").bash_command
    assert dag.get_task("somebody_wins").downstream_task_ids == {"approve"}
    approve = dag.get_task("approve")
    assert approve.downstream_task_ids == {"promote_silent", "promote_leak", "promote_lie"}
    assert approve.defaults == ["Reject"], "silence is no consent"
    # nobody wins: `approve` is skipped, and the refusals are still written down
    assert all(dag.get_task(t).trigger_rule == "none_failed" for t in approve.downstream_task_ids)


def test_drift_starts_a_cycle_early(bag: Any, house: Any) -> None:
    dag = bag.dags["watch"]
    assert dag.get_task("drift").downstream_task_ids == {"drifted"} and dag.get_task("drifted").downstream_task_ids == {"start_feature_store"}
    start = dag.get_task("start_feature_store")
    assert start.trigger_dag_id == "feature_store" and set(start.conf) == {"start", "end"}
    assert house.asks_for_retraining({"retrain": True}) and not house.asks_for_retraining({"retrain": False}) and not house.asks_for_retraining({})
    due = datetime(2026, 3, 1, 14, 10, tzinfo=UTC)
    assert str(house.cycle_so_far(due, {}, FOUR, timedelta(hours=1))) == "--start 2026-03-01T12:00:00Z --end 2026-03-01T14:00:00Z"
    with pytest.raises(ValueError, match="empty"):
        house.cycle_so_far(NOON, {}, FOUR, timedelta(hours=1))


def test_there_is_something_to_approve_if_somebody_wins(house: Any) -> None:
    assert house.somebody_wins({"models": {"lie": {"winner": ""}, "leak": {"winner": "3"}}})
    assert not house.somebody_wins({"models": {"lie": {"winner": ""}, "leak": {"reason": "nothing was trained"}}}) and not house.somebody_wins({})


def test_what_an_analyst_types_reaches_the_job_as_it_is(house: Any) -> None:
    import shlex
    from types import SimpleNamespace

    run = SimpleNamespace(run_after=NOON, triggering_user_name="kim")
    got = house.marking(run, {"alert": " lie:it's $(odd):1772409600000 ", "verdict": "false", "note": "a `test`;\nrm"})
    assert shlex.split(got) == ["--alert", "lie:it's $(odd):1772409600000", "--verdict", "false", "--at", house.iso(NOON), "--analyst", "kim", "--note", "a `test`; rm"]
    for bad in ({"alert": "x", "verdict": "true"}, {"alert": "lie:a:1", "verdict": "maybe"}, {"alert": "lie:a\nb:1", "verdict": "true"}):
        with pytest.raises(ValueError, match="no alert's id"):
            house.marking(run, bad)


# -- windows
@pytest.fixture
def house() -> Any:
    from dags import house

    return house


NOON = datetime(2026, 3, 1, 12, 10, tzinfo=UTC)
FOUR = timedelta(hours=4)


@pytest.mark.parametrize(
    ("due", "end"),
    [("12:10", "12:00"), ("12:04", "08:00"), ("12:05", "12:00"), ("15:59", "12:00"), ("00:10", "00:00")],
)
def test_the_last_closed_cycle_leaves_time_to_settle(house: Any, due: str, end: str) -> None:
    run_after = datetime.fromisoformat(f"2026-03-01T{due}:00Z")
    assert house.last_closed(run_after, FOUR) == datetime.fromisoformat(f"2026-03-01T{end}:00Z")


def test_a_cycle_window_is_the_last_closed_cycle_or_what_was_asked_for(house: Any) -> None:
    assert str(house.cycle_window(NOON, {}, FOUR)) == "--start 2026-03-01T08:00:00Z --end 2026-03-01T12:00:00Z"
    asked = {"start": "2026-02-01T00:00:00Z", "end": "2026-02-02T01:00:00+01:00"}
    assert str(house.cycle_window(NOON, asked, FOUR)) == "--start 2026-02-01T00:00:00Z --end 2026-02-02T00:00:00Z"
    assert str(house.cycle_window(NOON, {"end": "2026-02-02T00:00:00"}, FOUR)) == "--start 2026-02-01T20:00:00Z --end 2026-02-02T00:00:00Z"


@pytest.mark.parametrize("bad", [{"start": "2026-03-02T00:00:00Z"}, {"end": "yesterday"}, {"start": "; rm -rf x"}])
def test_an_impossible_window_is_refused(house: Any, bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="correct the run's parameters"):
        house.cycle_window(NOON, bad, FOUR)


def test_learning_reaches_back_from_the_newest_build(house: Any) -> None:
    week = timedelta(days=7)
    events = [{"start": "2026-02-27T00:00:00Z", "end": "2026-02-28T00:00:00Z"}, {"end": "2026-02-27T00:00:00Z"}, {}]
    assert str(house.learning_window(NOON, {}, events, FOUR, week)) == "--start 2026-02-21T00:00:00Z --end 2026-02-28T00:00:00Z"
    long = [{"start": "2026-01-01T00:00:00Z", "end": "2026-02-28T00:00:00Z"}]
    assert str(house.learning_window(NOON, {}, long, FOUR, week)).startswith("--start 2026-01-01T00:00:00Z")
    assert str(house.learning_window(NOON, {}, [], FOUR, week)) == "--start 2026-02-22T12:00:00Z --end 2026-03-01T12:00:00Z"
    asked = {"start": "2026-02-01T00:00:00Z", "end": "2026-02-03T00:00:00Z"}
    assert str(house.learning_window(NOON, asked, events, FOUR, week)) == "--start 2026-02-01T00:00:00Z --end 2026-02-03T00:00:00Z"
    assert str(house.baseline_window(NOON, {}, FOUR, week)) == "--start 2026-02-22T12:00:00Z --end 2026-03-01T12:00:00Z"


class _Inlet(list):  # type: ignore[type-arg]
    """Events of an asset as Airflow hands them out, oldest first unless told otherwise."""

    def ascending(self, up: bool) -> _Inlet:
        return _Inlet(self if up else reversed(self))

    def limit(self, n: int) -> _Inlet:
        return _Inlet(self[:n])


def test_started_by_hand_it_learns_from_the_newest_features_and_promotes_what_was_trained(house: Any) -> None:
    from types import SimpleNamespace as Of

    built = [Of(extra={"end": "2026-02-27T00:00:00Z"}), Of(extra={"end": "2026-02-28T00:00:00Z"})]
    assert house.event_extras({}, [_Inlet(built)]) == [{"end": "2026-02-28T00:00:00Z"}]
    assert house.event_extras({}, [_Inlet()]) == house.event_extras(None, []) == []
    assert house.event_extras({"a": [Of(extra=None)]}, [_Inlet(built)]) == [{}]
    ti = Of(xcom_pull=lambda task_ids: {"start": "2026-02-21T00:00:00Z", "end": "2026-02-28T00:00:00Z"})
    assert str(house.trained_window(ti)) == "--start 2026-02-21T00:00:00Z --end 2026-02-28T00:00:00Z"


@pytest.mark.parametrize(("minutes", "cron"), [(240, "10 */4 * * *"), (60, "10 */1 * * *"), (1440, "10 0 * * *"), (15, "*/15 * * * *")])
def test_a_cycle_becomes_a_schedule(house: Any, minutes: int, cron: str) -> None:
    assert house.every(timedelta(minutes=minutes)).expression == cron


@pytest.mark.parametrize("cycle", [timedelta(hours=5), timedelta(minutes=90), timedelta(seconds=30), timedelta(minutes=7)])
def test_a_cycle_that_does_not_divide_a_day_is_refused(house: Any, cycle: timedelta) -> None:
    with pytest.raises(ValueError, match=r"batch\.cycle"):
        house.every(cycle)


# -- what a job says
def test_summary_and_report_of_a_last_line(house: Any) -> None:
    assert house.summary_of('{"rows": 3}') == {"rows": 3}
    assert house.summary_of("done") == {"output": "done"}
    assert house.summary_of("") == {"output": ""}
    reports = "http://127.0.0.1:19090"
    assert house.report_in('{"report": "http://127.0.0.1:19090/a/index.html"}', reports) == "http://127.0.0.1:19090/a/index.html"
    assert house.report_in(f"GateError: no. See {reports}/a/b.html.", reports) == f"{reports}/a/b.html"
    assert house.report_in("nothing", reports) == ""


def test_a_note_says_what_was_done(house: Any) -> None:
    assert house.told("validate", {"job": "validate", "expectations": 95, "failed": 2}) == "validate: 95 expectations, 2 failed"
    models = {"leak": {"promoted": "4", "reason": "better"}, "lie": {"promoted": "", "champion": "1", "reason": "no win"}, "silent": {"winner": "3", "reason": "x"}}
    assert house.told("promote_leak", {"job": "promote", "models": models}) == (
        "leak: version 4 promoted, better; lie: champion is version 1, no win; silent: version 3 would win, x")
    assert house.told("x", {"output": "?"}) == ""


def test_only_words_of_a_known_form_reach_the_replay_of_dead_letters(house: Any) -> None:
    assert house.letters({"source": "flow", "reason": "ts_future", "dry_run": False}) == "--source flow --reason ts_future"
    assert house.letters({"source": "all", "reason": None}) == "--source all --dry-run"
    for bad in ({"source": "flow", "reason": "x; rm -rf y"}, {"source": "$(x)", "reason": ""}):
        with pytest.raises(ValueError, match="correct the run's parameters"):
            house.letters(bad)


class _Told:
    """What Airflow hands to a failure callback, as far as it is read."""

    dag_id, task_id, run_id, try_number, log_url = "retrain", "train", "manual__1", 2, "http://x"
    run_after = NOON
    report = "http://r"


def test_a_failure_is_written_down(house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    from tidewatch.settings import load

    monkeypatch.setattr(house, "current", lambda: load(state_dir=tmp_path))
    context = {"ti": _Told(), "dag_run": _Told(), "task": _Told(), "exception": RuntimeError("out of memory")}
    house.on_failure(context)
    house.on_failure(context)
    path = tmp_path / "log" / "dag_failures.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2 and path.stat().st_mode & 0o077 == 0
    assert lines[0] | {"log_url": ""} == {
        "dag": "retrain", "task": "train", "run": "manual__1", "attempt": 2, "run_after": "2026-03-01T12:10:00Z",
        "error": "out of memory", "report": "http://r", "log_url": "",
    }
