"""Promotion: the newest training's best challenger becomes champion, if the rule of `tidewatch.promotion` says so.

Challengers and champion were measured by `jobs.train` on the same held-out windows. A win sets the alias `champion`,
tags the version with decision and rule, and tells the stream by the topic `models`. No win is not an error: the
champion stays, and the summary says why; so it is when nothing was trained, for want of events of a use case.
Every challenger is tagged with what became of it (`decision`) and by which limits (`rule`).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tidewatch import tables
from tidewatch.detectors import CANDIDATES, of_use_case
from tidewatch.errors import InputError
from tidewatch.promotion import Backtest, Candidate, Decision, decide, unfit
from tidewatch.settings import Settings

from jobs import champions, cli, lake, registry, shadow
from jobs.topics import publish as send


def promote(
    settings: Settings, use_case: str, end: datetime, valid_from: datetime, at: datetime, *, force: bool, publish: bool, dry_run: bool = False,
) -> dict[str, Any]:
    """Decide for one use case and carry it out (unless `dry_run`); the part of the summary that tells of it."""
    c = registry.client(settings)
    if not dry_run:
        champions.repair(settings, c, use_case, publish=publish)
    of_window = [v for v in registry.versions(c, use_case) if v.tags.get("window_end") == cli.iso(end) and "training" in v.tags]
    if not of_window:
        reason = f"nothing was trained on a window that ends at {cli.iso(end)}"
        cli.say(f"{use_case}: {reason}: the champion stays")
        champion = registry.champion(c, use_case)
        return {"promoted": "", "champion": str(champion.version) if champion else "", "reason": reason}
    training = of_window[0].tags["training"]
    versions = [v for v in of_window if v.tags["training"] == training]
    run = c.get_run(training)
    champion = registry.champion(c, use_case)
    if run.info.status != "FINISHED":
        reason = f"the training on the window that ends at {cli.iso(end)} has not ended, or was killed"
        cli.say(f"{use_case}: {reason}: the champion stays")
        return {"promoted": "", "champion": str(champion.version) if champion else "", "reason": reason}
    if champion and champion.tags.get("training") == training:
        row = _again(settings, use_case, str(champion.version), publish=publish)
        return {"promoted": "", "champion": str(champion.version), "reason": "this training's winner is the champion already", **row}
    measured, present = run.data.tags.get("champion_version", ""), str(champion.version) if champion else ""
    if present != measured:
        raise InputError(f"{use_case}: the champion has changed since the training (it was {measured or 'nobody'}, it is {present or 'nobody'}).",
                         "run jobs.train again, so that both are measured on the same windows")
    detectors = of_use_case(use_case)
    measures = [c.get_run(v.run_id or v.tags["run_id"]).data.metrics for v in versions]
    challengers = [
        Candidate(str(v.version), v.tags.get("family", ""), Backtest.of(m), registry.flaw(settings, c, v, detectors)) for v, m in zip(versions, measures, strict=True)
    ]
    decision = decide(Backtest.of_champion(run.data.metrics) if champion else None, challengers, settings.promotion,
                      first=CANDIDATES[use_case][0], force=force)
    for version, why in sorted(decision.refused.items(), key=lambda x: int(x[0])):
        cli.say(f"{use_case}: version {version} refused: {why}")
    cli.say(f"{use_case}: {'version ' + decision.winner + ' wins' if decision.winner else 'the champion stays'}: {decision.reason}")
    if dry_run:
        return {"promoted": "", "winner": decision.winner, "champion": present, "reason": decision.reason, "refused": dict(decision.refused)}
    for v in versions:
        c.set_model_version_tag(v.name, v.version, "rule", decision.as_json())
        if str(v.version) != decision.winner:
            c.set_model_version_tag(v.name, v.version, "decision", "refused: " + decision.refused.get(str(v.version), decision.reason))
    before = {k.removeprefix("champion_"): x for k, x in run.data.metrics.items() if k.startswith("champion_")}
    _describe(settings, c, use_case, versions, challengers, decision, [marked(m, before) for m in measures])
    if not decision.winner:
        _keep(settings, use_case, training, end, at, present, challengers, decision, publish=publish)
        return {"promoted": "", "champion": present, "reason": decision.reason, "refused": dict(decision.refused),
                **_beside(settings, use_case, challengers, decision, valid_from, at, publish=publish)}
    winner = next(v for v in versions if str(v.version) == decision.winner)
    newest = max(champions.records(settings, use_case), key=lambda r: r["valid_from"], default=None)
    if newest and newest["valid_from"] > cli.millis(valid_from):
        cli.say(f"{use_case}: version {newest['version']} holds from a later event time on; the stream takes the new one only before that")
    address = champions.install(settings, c, winner, use_case, valid_from=valid_from, at=at, reason=decision.reason, publish=publish,
                                tags={"decision": "promoted", "valid_from": cli.iso(valid_from)})
    _keep(settings, use_case, training, end, at, present, challengers, decision, publish=publish)
    return {"promoted": decision.winner, "champion": decision.winner, "reason": decision.reason, "refused": dict(decision.refused),
            "valid_from": cli.iso(valid_from), "uri": address, **_beside(settings, use_case, challengers, decision, valid_from, at, publish=publish)}


def _beside(
    settings: Settings, use_case: str, challengers: list[Candidate], decision: Decision, valid_from: datetime, at: datetime, *, publish: bool,
) -> dict[str, str]:
    """With the setting `promotion.shadow`, the best challenger that is fit and did not win scores beside the champion."""
    fit = [k for k in challengers if k.version != decision.winner and not k.flaw and not unfit(k.backtest, settings.promotion)]
    if not settings.promotion.shadow or not fit or not champions.records(settings, use_case):
        return {}
    best = max(fit, key=lambda k: (k.backtest.detection, -k.backtest.false_alerts))
    return {"shadow": str(shadow.put(settings, use_case, best.version, valid_from, at, publish=publish)["shadow"])}


def _keep(
    settings: Settings, use_case: str, training: str, end: datetime, at: datetime, champion: str, challengers: list[Candidate], decision: Decision, *, publish: bool,
) -> None:
    """One row of `decisions` for each challenger; the same training decided again replaces them."""
    rows = [{
        "use_case": use_case, "version": c.version, "family": c.family, "training": training, "window_end": cli.millis(end), "decided_at": cli.millis(at),
        "champion": champion, "promoted": c.version == decision.winner,
        "reason": decision.reason if c.version == decision.winner else decision.refused.get(c.version, decision.reason),
        **{k: v if v is not None and math.isfinite(v) else None for k, v in (
            ("detection", c.backtest.detection), ("recall_injected", c.backtest.recall_injected),
            ("recall_labelled", c.backtest.recall_labelled), ("false_alerts", c.backtest.false_alerts))},
    } for c in challengers]
    lake.replace(settings, tables.DECISIONS, rows, f"use_case = '{use_case}' AND training = '{training}'")
    if publish:
        send(settings, tables.DECISIONS, rows, "use_case", "decided_at")


def _describe(
    settings: Settings, c: Any, use_case: str, versions: list[Any], challengers: list[Candidate], decision: Decision, marks: list[str],
) -> None:
    """What MLflow's pages say of the model and of each version: what it is for, from what it was made, what was decided and where;
    `marks`: of each version, what it makes of marked alerts."""
    detectors = of_use_case(use_case)
    told = "\n".join(f"- **{d.title}** (`{d.name}`, {d.technique}): {d.doc}" for d in detectors)
    c.update_registered_model(registry.model_name(use_case), (
        f"Scores the windows of every device for the use case **{use_case}**. The version with the alias `champion` scores now; "
        f"from which score on a window is an anomaly stands with each version (`threshold_…`).\n\n{told}\n\n"
        f"[Dashboard]({settings.superset}/superset/dashboard/models/) · [go back to an older version]({settings.airflow}/dags/rollback)"
    ))
    run = os.environ.get("DAG_RUN_URL", "")
    for v, k, said in zip(versions, challengers, marks, strict=True):
        b, won = k.backtest, k.version == decision.winner
        c.update_model_version(v.name, v.version, (
            f"**{'Promoted' if won else 'Refused'}**: {decision.reason if won else decision.refused.get(k.version, decision.reason)}\n\n"
            f"Family {k.family}; detection {b.detection:.3f}, {b.false_alerts:.3g} false alerts a device and day.\n\n"
            f"{said}Learned from {v.tags.get('window_start', '?')} to {v.tags.get('window_end', '?')}, "
            f"Delta versions {v.tags.get('delta_versions', '?')}, code {v.tags.get('git_revision', '?')}."
            + (f"\n\n[The run in Airflow]({run})" if run else "")
        ))
        if run:
            c.set_model_version_tag(v.name, v.version, "dag_run", run)


def marked(metrics: Mapping[str, float], before: Mapping[str, float]) -> str:
    """What a version makes of the alerts that analysts marked, beside the champion before it; '' if none is marked.

    >>> marked({"marked_true": 4, "recall_marked": 1, "marked_false": 2, "false_marked": 0, "precision_marked": 1}, {"precision_marked": 2 / 3})
    'Of the alerts that analysts marked it would raise 4 of 4 true and 0 of 2 false ones: precision 1.00, of the champion before 0.67.\\n\\n'
    """
    parts = [f"{round(metrics[share] * metrics[n])} of {metrics[n]:.0f} {word}"
             for n, share, word in (("marked_true", "recall_marked", "true"), ("marked_false", "false_marked", "false")) if n in metrics]
    if not parts:
        return ""
    precision = [f"{m['precision_marked']:.2f}" if "precision_marked" in m else "unknown" for m in (metrics, before)]
    return f"Of the alerts that analysts marked it would raise {' and '.join(parts)} ones: precision {precision[0]}, of the champion before {precision[1]}.\n\n"


def _again(settings: Settings, use_case: str, version: str, *, publish: bool) -> dict[str, Any]:
    """Send the champion's record again, in case Kafka missed it."""
    known = [r for r in champions.history(settings, use_case) if r["version"] == version]
    if known and publish:
        champions.resend(settings, known[-1])
    return {"uri": known[-1]["uri"]} if known else {}


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    with cli.one_at_a_time(settings, "promotion"):
        done = {
            u: promote(settings, u, options.end, options.valid_from or options.end, options.at, force=options.force, publish=not options.no_publish,
                       dry_run=options.dry_run)
            for u in cli.use_cases(options)
        }
    return {"job": "promote", "end": cli.iso(options.end), "models": done}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__, start=False)
    cli.use_case(p)
    p.add_argument("--valid-from", type=cli.moment, help="event time from which the stream uses it (default: --end)")
    p.add_argument("--at", type=cli.moment, default=datetime.now(UTC), help="when the promotion is said to happen (default: now)")
    p.add_argument("--force", action="store_true", help="promote the best fit challenger even if it does not beat the champion")
    p.add_argument("--dry-run", action="store_true", help="say who would win and why, change nothing")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
