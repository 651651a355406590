"""Settings: read once, typed, and a wrong one stops the start with its name."""

from pathlib import Path

import pytest

from tidewatch.errors import SettingsError
from tidewatch.settings import Ports, load


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [n for n in os.environ if n.startswith("TIDEWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEWATCH_CONFIG", str(tmp_path / "tidewatch.toml"))


def test_the_defaults_stay_on_loopback() -> None:
    s = load()
    assert s.kafka.startswith("127.0.0.1:")
    for url in (s.pinot_controller, s.pinot_broker, s.flink_rest, s.mlflow, s.airflow, s.superset, s.reports):
        assert url.startswith("http://127.0.0.1:")


def test_an_external_address_replaces_the_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEWATCH_EXTERNAL__KAFKA", "broker-1:9092,broker-2:9092")
    assert load().kafka == "broker-1:9092,broker-2:9092"


def test_the_file_is_read_and_a_variable_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tidewatch.toml").write_text("[stream]\nparallelism = 3\nlateness = 'PT20S'\n")
    assert load().stream.parallelism == 3 and load().stream.lateness.total_seconds() == 20
    monkeypatch.setenv("TIDEWATCH_STREAM__PARALLELISM", "4")
    assert load().stream.parallelism == 4


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [("TIDEWATCH_PORTS__KAFKA", "many", "ports.kafka"), ("TIDEWATCH_STREAM__PARALLELISM", "0", "stream.parallelism"),
     ("TIDEWATCH_NETWORK__INSIDE", '["10.0.0.0/99"]', "network.inside")],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, where: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=where.replace(".", r"\.")):
        load()


def test_a_secret_is_made_once_and_readable_by_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = load(state_dir=tmp_path)
    made = iter(["-an-option-not-a-secret", "a-secret-of-24-characters"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: next(made))
    first = s.secret("some_password")
    assert not first.startswith("-")
    assert first == s.secret("some_password") and len(first) >= 24
    assert (tmp_path / "secrets" / "some_password").stat().st_mode & 0o777 == 0o600


def test_ports_from_a_base_are_all_different() -> None:
    ports = Ports.from_base(25000)
    values = list(ports.model_dump().values())
    assert len(values) == len(set(values)) and min(values) == 25000
