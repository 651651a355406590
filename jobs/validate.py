"""The gate: Great Expectations over the window's bronze and silver; a failing batch stops the run with a report.

Writes one row an expectation to `validations` and the Data Docs that people read. An empty window fails, unless
`--allow-empty`: features without events teach a model nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidewatch import events, features, tables
from tidewatch.errors import GateError
from tidewatch.settings import Settings

from jobs import cli, lake, reports
from jobs import spark as sp
from jobs.topics import publish as send

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SITE = "tidewatch"
EXAMPLES = 5
"""So many of the rows that break an expectation are told."""


def context(settings: Settings) -> Any:
    """The file context, with Data Docs where the reports are served."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    root, docs = settings.state_dir / "gx", settings.state_dir / "reports" / "data-docs"
    root.mkdir(parents=True, exist_ok=True)
    c = gx.get_context(mode="file", project_root_dir=str(root))
    c.variables.progress_bars = {"globally": False, "metric_calculations": False}  # type: ignore[assignment]
    config = {
        "class_name": "SiteBuilder", "show_how_to_buttons": False, "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
    }
    for name in list(c.get_site_names()):
        if name != SITE:
            c.delete_data_docs_site(name)
    if SITE in c.get_site_names():
        c.update_data_docs_site(SITE, config)
    else:
        c.add_data_docs_site(SITE, config)
    return c


def relations(settings: Settings, start: datetime, end: datetime) -> dict[str, str]:
    """The window's rows of each table as a query: events in [start, end), windows that end in (start, end]."""
    found = {n: sp.window(settings, tables.table(n), start, end) for n in events.names()}
    found |= {n: sp.window(settings, tables.table(n), start, end, closed="right") for n in features.names()}
    found["dead_letters"] = sp.window(settings, tables.DEAD_LETTERS, start, end)
    found["devices"] = sp.whole(settings, "devices")
    return found


def checked(settings: Settings) -> list[str]:
    """What is validated: every source that has ever sent something, and the views that read it."""
    found = [n for n in events.names() if lake.count(settings, tables.table(n))]
    for n in features.names():
        if any(s.name in found for s in features.view(n).sources):
            found.append(n)
    return found


def figures(spark: SparkSession, where: dict[str, str], counts: dict[str, int]) -> dict[str, float | None]:
    """The figure of each rule; None where there is nothing to judge."""
    from expectations.rules import RULES

    found: dict[str, float | None] = {}
    for r in RULES:
        if any(not counts.get(n) for n in r.needs):
            found[r.name] = None
            continue
        value = spark.sql(r.sql.format(**where)).first()[0]
        found[r.name] = None if value is None else float(value)
    return found


def keys_of(name: str) -> tuple[str, ...]:
    """The columns by which a row of a table is found again; none for the window's own figures, which are no rows."""
    known = tables.catalogue().get(name)
    return known.keys if known else ()


def examples(result: Mapping[str, Any]) -> str:
    """The first rows that break an expectation, each by its keys and the value; '' if it has none to tell.

    >>> examples({"partial_unexpected_index_list": [{"device_id": "d", "event_id": 7, "bytes": -1}]})
    'device_id d, event_id 7, bytes -1'
    """
    rows = result.get("partial_unexpected_index_list") or []
    return "; ".join(", ".join(f"{k} {v}" for k, v in r.items()) for r in rows[:EXAMPLES] if isinstance(r, dict))


def check(context: Any, name: str, frame: DataFrame, suite: list[Any], run: tuple[datetime, datetime], *, brief: bool) -> tuple[Any, Any]:
    """Run a suite on a frame; its result and its identifier in the Data Docs, which is that of the window `run`: again replaces it.

    `brief` asks only whether each expectation holds, which costs a fraction of asking what was seen; otherwise the first
    rows that break one are kept with their keys.
    """
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    source = context.data_sources.add_or_update_spark(SITE)
    names = {a.name for a in source.assets}
    asset = source.get_asset(name) if name in names else source.add_dataframe_asset(name=name)
    batches = {b.name: b for b in asset.batch_definitions}
    batch = batches.get("window") or asset.add_batch_definition_whole_dataframe("window")
    made = context.suites.add_or_update(gx.ExpectationSuite(name=name, expectations=suite))
    definition = context.validation_definitions.add_or_update(gx.ValidationDefinition(name=name, data=batch, suite=made))
    checkpoint = context.checkpoints.add_or_update(gx.Checkpoint(
        name=name, validation_definitions=[definition],
        result_format={"result_format": "BOOLEAN_ONLY"} if brief else {
            "result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES, **({"unexpected_index_column_names": list(keys)} if (keys := keys_of(name)) else {})},
    ))
    start, end = run
    result = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=RunIdentifier(run_name=f"{start:%Y%m%dT%H%M%SZ}", run_time=end))
    identifier, validated = next(iter(result.run_results.items()))
    return validated, identifier


def _suites(identifiers: list[Any]) -> list[Any]:
    return [i.expectation_suite_identifier for i in identifiers]


def rows_of(validated: Any, table: str, run_id: str, run_at: int, report: str) -> list[dict[str, Any]]:
    """One row of `validations` an expectation."""
    found = []
    for r in validated.results:
        config = r.expectation_config
        kwargs = {k: v for k, v in config.kwargs.items() if k not in ("batch_id", "column", "column_list")}
        column = config.kwargs.get("column") or ", ".join(config.kwargs.get("column_list") or [])
        result = r.result or {}
        broken = r.exception_info if not r.success and not result else {}
        observed = result.get("observed_value", result.get("unexpected_percent"))
        if observed is not None and "observed_value" not in result:
            observed = f"{observed:.4g} % of {result.get('element_count')} rows break it" + (f": {some}" if (some := examples(result)) and not r.success else "")
        limits = ", ".join(f"{k} {v}" for k, v in sorted(kwargs.items()) if v is not None and v != [])
        found.append({
            "run_id": run_id, "run_at": run_at, "table_name": table, "expectation": config.type + (f" ({limits})" if limits else ""), "column_name": column,
            "success": bool(r.success), "observed": str(broken)[:500] if broken else "" if observed is None else str(observed)[:500],
            "unexpected": int(result.get("unexpected_count") or 0), "report": report,
        })
    return found


def validate(spark: SparkSession, settings: Settings, start: datetime, end: datetime, *, allow_empty: bool, publish: bool) -> dict[str, Any]:
    """Check the window; raises GateError, with the summary, if an expectation does not hold."""
    from expectations import derive, rules

    where = relations(settings, start, end)
    run_id, run_at = f"{cli.iso(start)}/{cli.iso(end)}", cli.millis(end)
    index = f"{settings.reports}/data-docs/index.html"
    summary: dict[str, Any] = {"job": "validate", "start": cli.iso(start), "end": cli.iso(end), "report": index, "run_id": run_id}
    names = checked(settings)
    found_rows = spark.sql(" UNION ALL ".join(f"SELECT '{n}', COUNT(*) FROM {where[n]}" for n in names)).collect() if names else []
    counts: dict[str, int] = {r[0]: r[1] for r in found_rows}
    if not sum(counts.values()):
        if allow_empty:
            cli.say("no rows in the window: nothing to validate")
            return {**summary, "success": True, "expectations": 0, "failed": 0, "rows": counts}
        raise _failed(f"no rows between {cli.iso(start)} and {cli.iso(end)}.", "see that the stream runs and that build_features covered the window, "
                      "or pass --allow-empty", {**summary, "success": False, "expectations": 0, "failed": 0, "rows": counts})
    gx = context(settings)
    found: list[dict[str, Any]] = []
    identifiers = []
    for n in names:
        begin = time.monotonic()
        frame = spark.sql(f"SELECT * FROM {where[n]}")
        if n in features.names():
            frame = frame.cache()
        validated, identifier = check(gx, n, frame, derive.suite(n), (start, end), brief=True)
        if not validated.success:
            validated, identifier = check(gx, n, frame, derive.suite(n), (start, end), brief=False)
        frame.unpersist()
        identifiers.append(identifier)
        found += rows_of(validated, n, run_id, run_at, reports.address(settings.reports, identifier))
        cli.say(f"{n}: {counts[n]:,} rows, {'passed' if validated.success else 'FAILED'} in {time.monotonic() - begin:.1f} s")
    begin = time.monotonic()
    values = figures(spark, where, counts)
    cli.say(f"{rules.TABLE}: {len(values)} figures in {time.monotonic() - begin:.1f} s")
    suite = rules.suite(values)
    if suite:
        columns = ", ".join(f"CAST({values[e.column]!r} AS DOUBLE) AS `{e.column}`" for e in suite)
        validated, identifier = check(gx, rules.TABLE, spark.sql(f"SELECT {columns}"), suite, (start, end), brief=False)
        identifiers.append(identifier)
        rows = rows_of(validated, rules.TABLE, run_id, run_at, reports.address(settings.reports, identifier))
        for r in rows:
            r["observed"] = f"{values[r['column_name']]:g}"
        found += rows
        cli.say(f"{rules.TABLE}: {', '.join(f'{k} {v:g}' for k, v in values.items() if v is not None)}, {'passed' if validated.success else 'FAILED'}")
    begin = time.monotonic()
    gx.build_data_docs(site_names=[SITE], resource_identifiers=[*identifiers, *_suites(identifiers)])
    lake.replace(settings, tables.VALIDATIONS, found, f"run_id = '{run_id}'")
    reports.finish(settings.state_dir / "reports" / "data-docs", lake.read(settings, tables.VALIDATIONS), settings.batch.retention)
    cli.say(f"report built in {time.monotonic() - begin:.1f} s")
    if publish:
        send(settings, tables.VALIDATIONS, found, "run_id", "run_at")
    bad = [r for r in found if not r["success"]]
    summary |= {"success": not bad, "expectations": len(found), "failed": len(bad), "rows": counts}
    if bad:
        summary["report"] = bad[0]["report"]
        told = "; ".join(
            f"{r['table_name']}{'.' + r['column_name'] if r['column_name'] else ''}: {r['expectation']}, observed {r['observed'] or r['unexpected']}" for r in bad[:5]
        )
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise _failed(f"{len(bad)} of {len(found)} expectations do not hold: {told}{more}. Report: {summary['report']}.",
                      "correct the source (docs/batch.md, the gate), build the features again, and run again", summary)
    return summary


def _failed(reason: str, fix: str, summary: dict[str, Any]) -> GateError:
    error = GateError(reason, fix)
    error.summary = summary  # type: ignore[attr-defined]
    return error


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    with sp.session(settings, "validate") as spark:
        return validate(spark, settings, options.start, options.end, allow_empty=options.allow_empty, publish=not options.no_publish)


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--allow-empty", action="store_true", help="a window without rows passes")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
