"""The service table: order, needs, external servers, and what is made of it."""

from __future__ import annotations

import configparser
import dataclasses
import uuid
from pathlib import Path

import pytest

from tidewatch import tables
from tidewatch.errors import ContractError, SettingsError
from tidewatch.settings import External, Metadata, Ports, Settings, load
from tidewatch.stack import compose, control, metadata, supervisor, table, topics
from tidewatch.stack.services import kafka


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(state_dir=tmp_path, ports=Ports.from_base(30500))


def test_a_service_comes_after_what_it_needs(settings: Settings) -> None:
    seen: set[str] = set()
    for s in table(settings).values():
        assert set(s.needs) <= seen
        seen.add(s.name)


def test_a_cluster_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [b"\xf8" + bytes(15), b"\x01" * 16]  # the first is written as -AAAA…
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=made.pop(0)))
    assert kafka._cluster_id() == "AQEBAQEBAQEBAQEBAQEBAQ"


def test_every_port_is_a_setting_and_has_one_owner(settings: Settings) -> None:
    ports = [p for s in table(settings).values() for p in s.ports]
    assert set(ports) <= set(Ports.model_fields)
    assert len(ports) == len(set(ports))


def test_chosen_takes_needs_along_and_keeps_the_order(settings: Settings) -> None:
    rows = table(settings)
    assert list(control.chosen(rows, ["pinot"])) == [n for n in rows if n in {"zookeeper", "kafka", "pinot"}]
    with pytest.raises(SettingsError, match="no service 'pinto'"):
        control.chosen(rows, ["pinto"])


def test_dependants_stop_with_what_they_need(settings: Settings) -> None:
    assert {"pinot", "flink_jobmanager", "flink_taskmanager", "zookeeper"} <= control.dependants(table(settings), ["zookeeper"])


def test_an_external_server_is_not_started_and_not_needed(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path, external=External(kafka="broker:9092"), metadata=Metadata(url="postgresql://u:p@db:5432"))
    rows = table(settings)
    assert not {"kafka", "postgres"} & set(rows)
    assert metadata.url(settings, "mlflow") == "postgresql+psycopg2://u:p@db:5432/mlflow"
    with pytest.raises(SettingsError, match=r"metadata\.url"):
        metadata.url(load(state_dir=tmp_path, metadata=Metadata(url="mysql://db")), "mlflow")


def test_supervisor_configuration_can_be_read_and_starts_nothing_by_itself(settings: Settings) -> None:
    rows = table(settings)
    parsed = configparser.RawConfigParser(delimiters=("=",), inline_comment_prefixes=(";",))
    parsed.read_string(supervisor.render(settings, rows))
    assert {s.removeprefix("program:") for s in parsed.sections() if s.startswith("program:")} == set(rows)
    assert all(parsed[f"program:{n}"]["autostart"] == "false" for n in rows)


def test_what_can_wait_stands_back_for_the_stream(settings: Settings) -> None:
    rows = table(settings)
    text = supervisor.render(settings, rows)
    assert {n for n, s in rows.items() if s.nice} == {"pinot", "committer", "mlflow", *(n for n in rows if n.startswith("airflow"))}
    assert text.count("command = nice -n ") == sum(s.nice > 0 for s in rows.values())
    assert supervisor.fingerprint(rows["pinot"]) != supervisor.fingerprint(dataclasses.replace(rows["pinot"], nice=0))


def test_flinks_worker_grows_with_the_settings(tmp_path: Path) -> None:
    small, large = (table(load(state_dir=tmp_path, stream=s))["flink_taskmanager"] for s in ({}, {"task_heap_mb": 6144, "parallelism": 6}))
    assert "-Xmx1664m" in small.command and "taskmanager.cpu.cores=4.0" in small.command
    assert {"-Xmx6272m", f"taskmanager.memory.task.heap.size={6144 * 2**20}b", "taskmanager.cpu.cores=6.0"} <= set(large.command)
    assert any("taskmanager.numberOfTaskSlots: 6\n" in text for text in large.files.values())
    assert large.memory_mb - small.memory_mb == 6144 - 1536
    disk = table(load(state_dir=tmp_path, stream={"state_backend": "rocksdb", "rocksdb_mb": 2048}))["flink_taskmanager"]
    assert disk.memory_mb - small.memory_mb == 2048 and "-Xmx1664m" in disk.command, "beside the heap"
    assert any('memory.fixed-per-tm: "2048m"\n' in text for text in disk.files.values())


def test_a_percent_sign_survives_and_a_quotation_mark_is_refused(settings: Settings) -> None:
    row = dataclasses.replace(table(settings)["reports"], env={"A": "50%"})
    assert 'A="50%%"' in supervisor.render(settings, {"reports": row})
    bad = dataclasses.replace(row, env={"A": 'x"y'})
    with pytest.raises(ContractError):
        supervisor.render(settings, {"reports": bad})


def test_a_changed_file_changes_the_fingerprint(settings: Settings) -> None:
    row = table(settings)["kafka"]
    other = dataclasses.replace(row, files={**row.files, settings.state_dir / "x": "y"})
    assert supervisor.fingerprint(row) != supervisor.fingerprint(other)


def test_a_webhook_more_or_another_secret_restarts_the_notifier(tmp_path: Path) -> None:
    def print_of(*secrets: str) -> str:
        hooks = [{"name": f"w{i}", "url": "https://a.example", "headers": {"Authorization": s}} for i, s in enumerate(secrets)]
        return supervisor.fingerprint(table(load(state_dir=tmp_path, alerts={"webhooks": hooks}))["notifier"])

    assert len({print_of(), print_of("a"), print_of("b"), print_of("a", "b")}) == 4
    assert print_of("a") == print_of("a")


def test_socket_path_fits_the_kernel(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    path = supervisor.socket_path(load(state_dir=deep))
    assert len(str(path)) < 100
    path.parent.rmdir()


def test_topics_are_those_of_the_catalogue(settings: Settings) -> None:
    wanted = topics.wanted(settings)
    assert set(wanted) == {t.name for t in tables.catalogue().values() if t.topic}
    assert wanted["flow"]["message.timestamp.type"] == "LogAppendTime"
    assert wanted["baselines"]["cleanup.policy"] == "compact"
    assert wanted["baselines"]["message.timestamp.type"] == "CreateTime"


def test_nothing_listens_beyond_loopback(settings: Settings) -> None:
    for s in table(settings).values():
        assert "0.0.0.0" not in " ".join((*s.command, *s.env.values(), *s.files.values())), s.name


def test_compose_file_is_current() -> None:
    assert compose.PATH.read_text() == compose.render()
