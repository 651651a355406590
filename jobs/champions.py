"""The table and topic `models`: which version scores from when on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidewatch import tables
from tidewatch.settings import Settings

from jobs import cli, lake, registry
from jobs.topics import publish as send

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def history(settings: Settings, use_case: str) -> list[dict[str, Any]]:
    """What was promoted when, newest last."""
    rows = [r for r in lake.read(settings, tables.MODELS) if r["use_case"] == use_case]
    return sorted(rows, key=lambda r: (r["promoted_at"], r["valid_from"]))


def record(
    settings: Settings, *, use_case: str, version: str, valid_from: datetime, uri: str, promoted_at: datetime, reason: str, publish: bool,
) -> dict[str, Any]:
    """Store and publish one promotion; the same version and `valid_from` again changes nothing but sends the record again."""
    row = {
        "use_case": use_case, "version": version, "valid_from": cli.millis(valid_from), "uri": uri,
        "promoted_at": cli.millis(promoted_at), "reason": reason,
    }
    same = [r for r in history(settings, use_case) if (r["version"], r["valid_from"]) == (version, row["valid_from"])]
    if same:
        row = {c.name: same[-1][c.name] for c in tables.MODELS.columns}
    else:
        lake.replace(settings, tables.MODELS, [row], (
            f"use_case = '{use_case}' AND version = '{version}' AND valid_from = arrow_cast('{_text(valid_from)}', 'Timestamp(Microsecond, None)')"
        ))
    if publish:
        resend(settings, row)
    return row


def install(
    settings: Settings, c: MlflowClient, v: ModelVersion, use_case: str, *, valid_from: datetime, at: datetime, reason: str,
    tags: Mapping[str, str], publish: bool,
) -> str:
    """Make a version champion: for the stream (table and topic `models`), then in the registry; its address.

    A tag `promoting` stands around it. Whatever stops it halfway, the next `repair` ends it; until then the stream and the
    registry each have a champion that works.
    """
    address = registry.uri(settings, c, v)
    registry.read(address)  # the stream must be able to
    c.set_model_version_tag(v.name, v.version, registry.PROMOTING, json.dumps({"valid_from": cli.iso(valid_from), "tags": dict(tags)}))
    record(settings, use_case=use_case, version=str(v.version), valid_from=valid_from, uri=address, promoted_at=at, reason=reason, publish=publish)
    registry.crown(c, use_case, str(v.version), tags)
    return address


def repair(settings: Settings, c: MlflowClient, use_case: str, *, publish: bool) -> str:
    """End a promotion or rollback that was stopped halfway; the version that it was about, or ''.

    If the table `models` has it already, it is carried out to the end, else taken back: it never happened.
    """
    for v in registry.versions(c, use_case):
        if registry.PROMOTING not in v.tags:
            continue
        begun = json.loads(v.tags[registry.PROMOTING])
        newest = history(settings, use_case)[-1:]
        if newest and (newest[0]["version"], newest[0]["valid_from"]) == (str(v.version), cli.millis(cli.moment(begun["valid_from"]))):
            if publish:
                resend(settings, newest[0])
            registry.crown(c, use_case, str(v.version), begun["tags"])
            cli.say(f"{use_case}: the promotion of version {v.version} had been stopped halfway: it is champion now")
        else:
            c.delete_model_version_tag(v.name, v.version, registry.PROMOTING)
            cli.say(f"{use_case}: a promotion of version {v.version} had been stopped before it told anyone: taken back")
        return str(v.version)
    return ""


def resend(settings: Settings, row: dict[str, Any]) -> None:
    """Publish a stored row."""
    send(settings, tables.MODELS, [row], "use_case", "valid_from")


def _text(t: datetime) -> str:
    return t.strftime("%Y-%m-%dT%H:%M:%S.%f")

