"""The job's SQL is whole: every placeholder filled, every table of the stream written."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest

from streaming import control, job
from tidewatch import events, features, tables
from tidewatch.errors import ContractError
from tidewatch.settings import ROOT, Settings, current, load


@pytest.fixture
def settings(tmp_path) -> Settings:  # type: ignore[no-untyped-def]
    return load(state_dir=tmp_path)


def test_a_placeholder_that_nothing_fills_is_named() -> None:
    with pytest.raises(ContractError, match=r"models\.sql has the placeholder '\w+'"):
        job.fill("models", {"kafka": "x"})


def test_no_placeholder_is_left(settings: Settings) -> None:
    create, views, insert = job.build_statements(settings)
    for sql in [*create, *(q for _, q in views), *insert]:
        assert "${" not in sql


def test_every_table_of_the_stream_is_written(settings: Settings) -> None:
    _, _, insert = job.build_statements(settings)
    text = "\n".join(insert)
    for t in tables.catalogue().values():
        if t.writer == "stream":
            assert f"INSERT INTO `landing_{t.name}`" in text
        if t.topic == "json" and (t.writer == "stream" or tables.catalogue().get(f"{t.name}_online")):
            assert f"INSERT INTO `topic_{t.name}`" in text


def test_every_file_of_sql_is_used(settings: Settings) -> None:
    used = set()
    real = job.fill
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "fill", lambda name, values: (used.add(name), real(name, values))[1])
        job.build_statements(settings)
    assert used == {p.stem for p in job.SQL.glob("*.sql")}


def test_state_of_other_windows_has_another_uid(settings: Settings, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def uid(of: Settings) -> str:
        return re.findall(r"uid => '(match-[0-9a-f]{8})'", dict(job.views_sql(of))["matched"])[0]

    before, real = uid(settings), features.view
    assert uid(load(state_dir=tmp_path, stream={"lateness": "PT20S"})) == before
    monkeypatch.setattr(features, "view", lambda n: dataclasses.replace(real(n), delay_seconds=31) if n == "egress_1h" else real(n))
    assert uid(settings) != before


def test_checkpoints_are_set_in_the_job(settings: Settings) -> None:
    config = job.configuration(settings, "file:///somewhere")
    assert config["execution.checkpointing.mode"] == "EXACTLY_ONCE"
    assert config["execution.checkpointing.interval"] == "10000 ms"
    assert config["execution.state-recovery.path"] == "file:///somewhere"


def test_only_alerts_are_written_without_a_transaction(settings: Settings) -> None:
    for t, _, topic, _ in job.outputs():
        if topic:
            assert ("exactly-once" in job.topic_sql(t, settings)) == (t.name != "alerts")


def test_trusted_destinations_are_not_external(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = load(state_dir=tmp_path, network={"inside": ("10.0.0.0/8",), "trusted": ("203.0.113.0/24", "2001:db8::/32")})
    assert "'10.0.0.0/8,203.0.113.0/24,2001:db8::/32'" in job.records_sql(events.contract("flow"), settings)


@pytest.mark.flink
def test_flink_plans_the_whole_job_as_it_is_configured() -> None:
    done = subprocess.run([sys.executable, "-m", "streaming.job", "--explain"], env=control.client_env(current()), cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "PythonCalc" in done.stdout and "GlobalWindowAggregate" in done.stdout
