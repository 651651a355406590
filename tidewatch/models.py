"""The models' versions as MLflow's registry tells them, by its REST API in the standard library alone."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidewatch.errors import ServiceError
from tidewatch.settings import ROOT, Settings

FIGURES = ("detection", "recall_injected", "recall_labelled", "false_alerts", "windows_per_second", "precision_marked")
"""Metrics of a version's run that tell how good it was in its back-test."""


@dataclass(frozen=True)
class Version:
    """One version of a use case's model."""

    use_case: str
    version: int
    family: str
    window_end: str
    """End of the window that it learned from, ISO 8601; '': not told."""
    state: str
    """champion, shadow (it scores beside the champion), refused (it lost, or was rolled back), past (it was champion) or
    challenger (not judged yet)."""
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


def _get(settings: Settings, path: str, **query: str | int) -> dict[str, Any]:
    address = f"{settings.mlflow}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as e:
        if e.code == 404:
            return {}
        raise ServiceError(f"MLflow refuses {path}: {e.read().decode(errors='replace')[:300]}") from e
    except OSError as e:
        raise ServiceError(f"MLflow at {settings.mlflow} does not answer: {e}.", "is it up? `tidewatch status`") from e


def state(tags: Mapping[str, str], champion: bool) -> tuple[str, str]:
    """How a version stands, and why, from its tags."""
    if champion:
        return "champion", tags.get("rolled_back", "")
    if "shadow" in tags:
        return "shadow", tags["shadow"]
    if "refused" in tags:
        return "refused", tags["refused"]
    decision = tags.get("decision", "")
    if decision.startswith("refused: "):
        return "refused", decision.removeprefix("refused: ")
    return ("past", "") if decision or "valid_from" in tags else ("challenger", "")


def versions(settings: Settings, use_cases: Iterable[str], limit: int) -> list[Version]:
    """The newest `limit` versions of each use case, newest first, and its champion however old; ServiceError without MLflow."""
    found = []
    for use_case in use_cases:
        name = f"tidewatch-{use_case}"
        aliases = _get(settings, "registered-models/get", name=name).get("registered_model", {}).get("aliases", [])
        champion = next((int(a["version"]) for a in aliases if a["alias"] == "champion"), 0)
        rows = _get(settings, "model-versions/search", filter=f"name='{name}'", max_results=1000).get("model_versions", [])
        rows.sort(key=lambda v: -int(v["version"]))
        for i, v in enumerate(rows):
            number = int(v["version"])
            if i >= limit and number != champion:
                continue
            tags = {t["key"]: t["value"] for t in v.get("tags", [])}
            run = _get(settings, "runs/get", run_id=v.get("run_id") or tags.get("run_id", "")).get("run", {})
            metrics = {m["key"]: float(m["value"]) for m in run.get("data", {}).get("metrics", [])}
            found.append(Version(use_case, number, tags.get("family", ""), tags.get("window_end", ""), *state(tags, number == champion),
                                 {k: metrics[k] for k in FIGURES if k in metrics}))
    return found


def rollback(settings: Settings, use_case: str, version: int | None) -> dict[str, Any]:
    """Run `jobs.rollback` in its environment; its summary. Raises ServiceError with the job's last words if it fails."""
    return _job(settings, "rollback", use_case, [] if version is None else ["--version", str(version)])


def shadow(settings: Settings, use_case: str, version: str) -> dict[str, Any]:
    """Run `jobs.shadow` in its environment, `version` a number or `off`; its summary. Raises ServiceError as `rollback` does."""
    return _job(settings, "shadow", use_case, ["--version", version])


def _job(settings: Settings, job: str, use_case: str, arguments: list[str]) -> dict[str, Any]:
    python = settings.env_python("spark")
    if not python.exists():
        raise ServiceError(f"there is no environment {python.parent.parent}.", "run `tidewatch install`")
    command = [str(python), "-m", f"jobs.{job}", "--use-case", use_case, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        log = settings.state_dir / "log" / f"{job}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stderr)
        reason, _, fix = last[0].partition(" Fix: ")
        raise ServiceError(reason.partition(": ")[2] or reason, fix or f"what it said before stands in {log}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1])["models"][use_case])
