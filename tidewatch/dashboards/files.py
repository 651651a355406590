"""The bundle's files: where they lie, how they are read, and uuids that never change."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewatch.errors import ContractError
from tidewatch.settings import ROOT

FOLDER = ROOT / "dashboards"
DATABASE = "tidewatch"
_SPACE = uuid.UUID("6f1d3c52-0b8a-4c57-9a3e-7d1de0a7e001")


def stable_uuid(kind: str, name: str) -> str:
    """The uuid of a thing by its kind and name: the same in every place."""
    return str(uuid.uuid5(_SPACE, f"{kind}/{name}"))


def text_of(value: Any) -> str:
    """A value as the YAML that the files hold."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def _read(path: Path) -> dict[str, Any]:
    import yaml

    found = yaml.safe_load(path.read_text())
    if not isinstance(found, dict):
        raise ContractError(f"{path.relative_to(ROOT)} is no YAML mapping.")
    return found


@dataclass(frozen=True)
class Bundle:
    """The files of `dashboards/`, by the path inside it."""

    charts: dict[str, dict[str, Any]]
    dashboards: dict[str, dict[str, Any]]
    datasets: dict[str, dict[str, Any]]

    def shown(self, dashboard: dict[str, Any]) -> list[dict[str, Any]]:
        """The charts on a dashboard."""
        on = {x["meta"]["uuid"] for x in dashboard["position"].values() if isinstance(x, dict) and x["type"] == "CHART"}
        return [c for c in self.charts.values() if c["uuid"] in on]


def read() -> Bundle:
    """Read the folder."""

    def part(name: str) -> dict[str, dict[str, Any]]:
        return {p.relative_to(FOLDER).as_posix(): _read(p) for p in sorted((FOLDER / name).rglob("*.yaml"))}

    return Bundle(part("charts"), part("dashboards"), part("datasets"))
