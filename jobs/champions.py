"""The table and topic `models`: which version scores from when on, and which challenger beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tidewatch import tables
from tidewatch.settings import Settings

from jobs import cli, lake, registry
from jobs.topics import publish as send

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

BESIDE = "shadow: "
"""How the reason of a record begins that only changes who scores beside the champion."""


def records(settings: Settings, use_case: str) -> list[dict[str, Any]]:
    """Every record of a use case, newest last: promotions, rollbacks, and changes of the shadow."""
    rows = [{"shadow_version": "", "shadow_uri": "", **r} for r in lake.read(settings, tables.MODELS) if r["use_case"] == use_case]
    for r in rows:
        r["shadow_version"], r["shadow_uri"] = r["shadow_version"] or "", r["shadow_uri"] or ""
    return sorted(rows, key=lambda r: (r["promoted_at"], r["valid_from"]))


def history(settings: Settings, use_case: str) -> list[dict[str, Any]]:
    """What was promoted when, newest last; records that only changed the shadow are left out."""
    return [r for r in records(settings, use_case) if not r["reason"].startswith(BESIDE)]


def record(
    settings: Settings, *, use_case: str, version: str, valid_from: datetime, uri: str, promoted_at: datetime, reason: str, publish: bool,
    shadow: tuple[str, str] = ("", ""),
) -> dict[str, Any]:
    """Store and publish one promotion; the same version and `valid_from` again changes nothing but sends the record again.

    `shadow`: version and address of the challenger that scores beside it.
    """
    row = {
        "use_case": use_case, "version": version, "valid_from": cli.millis(valid_from), "uri": uri,
        "promoted_at": cli.millis(promoted_at), "reason": reason, "shadow_version": shadow[0], "shadow_uri": shadow[1],
    }
    same = [r for r in records(settings, use_case) if (r["version"], r["valid_from"]) == (version, row["valid_from"])]
    if same:
        row = {c.name: same[-1][c.name] for c in tables.MODELS.columns}
    else:
        lake.replace(settings, tables.MODELS, [row], (
            f"use_case = '{use_case}' AND version = '{version}' AND valid_from = {lake.instant(datetime.fromtimestamp(row['valid_from'] / 1000, UTC))}"
        ))
    if publish:
        resend(settings, row)
    return row


def install(
    settings: Settings, c: MlflowClient, v: ModelVersion, use_case: str, *, valid_from: datetime, at: datetime, reason: str,
    tags: Mapping[str, str], publish: bool,
) -> str:
    """Make a version champion: for the stream (table and topic `models`), then in the registry; its address. The challenger
    that scored beside the one before goes on doing so, but for the new champion itself.

    A tag `promoting` stands around it. Whatever stops it halfway, the next `repair` ends it; until then the stream and the
    registry each have a champion that works.
    """
    address = registry.uri(settings, c, v)
    registry.read(address)  # the stream must be able to
    c.set_model_version_tag(v.name, v.version, registry.PROMOTING, json.dumps({"valid_from": cli.iso(valid_from), "tags": dict(tags)}))
    beside = shadow(settings, use_case)
    record(settings, use_case=use_case, version=str(v.version), valid_from=valid_from, uri=address, promoted_at=at, reason=reason, publish=publish,
           shadow=beside if beside[0] != str(v.version) else ("", ""))
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
        newest = records(settings, use_case)[-1:]
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


def shadow(settings: Settings, use_case: str) -> tuple[str, str]:
    """Version and address of the challenger that scores beside the champion; '' if none does."""
    newest = records(settings, use_case)[-1:]
    return (newest[0]["shadow_version"], newest[0]["shadow_uri"]) if newest else ("", "")


def after(known: list[dict[str, Any]], wanted: datetime | None = None) -> datetime:
    """The event time from which a record that follows all `known` ones can hold: `wanted`, if it is later than theirs."""
    soonest = datetime.fromtimestamp((max((r["valid_from"] for r in known), default=-1) + 1) / 1000, UTC)
    return soonest if wanted is None else max(wanted, soonest)


def resend(settings: Settings, row: dict[str, Any]) -> None:
    """Publish a stored row."""
    send(settings, tables.MODELS, [row], "use_case", "valid_from")

