"""The compiled requirement files hold what the groups in pyproject.toml ask for, pinned and with hashes."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tidewatch.settings import ROOT

GROUPS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]


def pins(group: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{group}.txt").read_text()
    assert "://" not in text, "no address of a registry in a compiled file"
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ \\;]+)", text, re.M)
    assert text.count("--hash=sha256:") >= len(found) > 10
    return {canonicalize_name(n): v for n, v in found}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_is_compiled_and_current(group: str) -> None:
    have = pins(group)
    for line in GROUPS[group]:
        want = Requirement(line)
        version = have.get(canonicalize_name(want.name))
        assert version, f"{want.name} is missing: make requirements"
        assert want.specifier.contains(version, prereleases=True), f"{line} against {version}: make requirements"


def test_the_owner_s_packages_are_named_at_the_top() -> None:
    text = (ROOT / "requirements.txt").read_text().lower()
    for name in ("apache-airflow", "pyspark", "delta-spark", "apache-flink", "kafka-python", "pinotdb", "mlflow", "great-expectations", "apache-superset"):
        assert name in text, name
