"""The renderer: feature views, detector signals and a contract's impossible values as Flink SQL and as Spark SQL.

Expressions are written once, in the portable part of both languages: the functions and words listed here, the
columns of the source, and literals. Anything else is refused. Identifiers are quoted (`external` and `value` are
reserved words in Flink) and a literal with a decimal point becomes a DOUBLE in both (`1000.0` is else a DECIMAL).

Spark sessions must run with `spark.sql.session.timeZone=UTC`, Flink jobs with `table.local-time-zone=UTC`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import timedelta

from tidewatch import events, features
from tidewatch.detectors import Detector
from tidewatch.errors import ContractError
from tidewatch.events import Contract
from tidewatch.features import FeatureView, Source
from tidewatch.settings import Limits

WORDS = frozenset({
    "CASE", "WHEN", "THEN", "ELSE", "END", "AND", "OR", "NOT", "IS", "NULL", "IN", "BETWEEN", "LIKE", "DISTINCT",
    "AS", "DOUBLE", "BIGINT", "TRUE", "FALSE", "FILTER", "WHERE",
})
FUNCTIONS = frozenset({
    "COUNT", "SUM", "MIN", "MAX", "CAST", "COALESCE", "NULLIF", "ABS", "LN", "SQRT", "POWER", "FLOOR", "CEIL",
    "LOWER", "UPPER", "CHAR_LENGTH", "BIT_OR", "CRC32", "ADDRESS_BIT", "ADDRESS_SUM",
})
ADDRESS_GROUPS = 52
"""Groups of addresses that `ADDRESS_BIT` tells apart, by CRC-32: as many as a DOUBLE holds exactly, one bit each."""
SQL_TYPES = {"long": "BIGINT", "double": "DOUBLE"}
HOUR = "HOUR(`window_end`)"
"""The hour of the day (UTC) whose baseline a window is compared with; the same text in both engines."""

_TOKEN = re.compile(
    r"(?P<string>'(?:[^']|'')*')"
    r"|(?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<space>\s+)"
    r"|(?P<sign><>|<=|>=|[=<>()+\-*/,%])"
)
_SUM = re.compile(r"\bADDRESS_SUM\((`\w+`), (`\w+`), (\d+)\)")


def quoted(name: str) -> str:
    """An identifier in the quotes that both engines understand."""
    return f"`{name}`"


def expression(text: str, columns: Collection[str], where: str = "expression") -> str:
    """One portable expression with its identifiers quoted; raises ContractError at what is not portable."""
    done, at = [], 0
    while at < len(text):
        m = _TOKEN.match(text, at)
        if not m:
            raise ContractError(f"{where}: {text!r} has {text[at]!r}, which the renderer does not know.")
        token, at = m.group(), m.end()
        if m["number"] and "." in token and "e" not in token.lower():
            token += "E0"
        elif m["name"] and token in columns:
            token = quoted(token)
        elif m["name"] and token not in (FUNCTIONS if text[at:].lstrip().startswith("(") and token not in WORDS else WORDS):
            raise ContractError(
                f"{where}: {text!r} uses {token!r}, which is neither a column nor portable.",
                f"columns: {', '.join(sorted(columns))}; functions: {', '.join(sorted(FUNCTIONS))}",
            )
        done.append(token)
    return "".join(done)


def source_columns(source: Source) -> tuple[tuple[str, str], ...]:
    """What a view reads of a source, as (name, expression over the source's row), the event time left out."""
    if source.columns:
        return source.columns
    if source.name in events.names():
        names = [f.name for f in events.contract(source.name).fields] + ["external"]
    else:
        v = features.view(source.name)
        names = [*v.keys, *(f.name for f in v.features)]
    return tuple((n, n) for n in names)


def _available(source: Source) -> set[str]:
    return {n for n, _ in source_columns(Source(source.name))}


def row_sql(view: FeatureView, source: Source) -> list[str]:
    """The columns that a view reads of one of its sources, each as SQL with its name."""
    available = _available(source)
    return [f"{expression(e, available, view.name)} AS {quoted(n)}" for n, e in source_columns(source)]


def _input_names(view: FeatureView) -> list[str]:
    first = [n for n, _ in source_columns(view.sources[0])]
    for s in view.sources[1:]:
        if [n for n, _ in source_columns(s)] != first:
            raise ContractError(f"{view.name}: its sources do not offer the same columns.")
    return first


def _aggregates(view: FeatureView) -> list[str]:
    names = _input_names(view)
    return [
        f"CAST({expression(f.expression, names, f'{view.name}.{f.name}')} AS {SQL_TYPES[f.type]}) AS {quoted(f.name)}"
        for f in view.features
    ]


def _flink_aggregates(view: FeatureView) -> list[str]:
    """With the Java functions: one gives the sums of all groups, and Flink computes it once."""
    return [_SUM.sub(r"ADDRESS_SUMS(\1, \2)[\3]", a) for a in _aggregates(view)]


def spark_aggregates(view: FeatureView) -> list[str]:
    """The features of a view, each as SQL with its name, with what Spark has of its own."""
    bits = (re.sub(r"\bADDRESS_BIT\((`\w+`)\)", rf"SHIFTLEFT(1L, CAST(\1 % {ADDRESS_GROUPS} AS INT))", a) for a in _aggregates(view))
    return [_SUM.sub(rf"SUM(CASE WHEN \1 % {features.SUM_GROUPS} + 1 = \3 THEN \2 ELSE 0 END)", a) for a in bits]


def _list(parts: Collection[str], indent: str = "  ") -> str:
    return f",\n{indent}".join(parts)


# -- Flink
def flink_interval(span: timedelta) -> str:
    """A time span below 100 days as a Flink literal."""
    minutes, seconds = divmod(span - timedelta(days=span.days), timedelta(minutes=1))
    return f"INTERVAL '{span.days} {minutes // 60:02}:{minutes % 60:02}:{seconds.total_seconds():06.3f}' DAY TO SECOND"


def ahead_seconds(source: str) -> int:
    """So far the time attribute of an event source is ahead of the event time: its views' delay. Raises ContractError if they differ."""
    delays = {features.view(n).name: features.view(n).delay_seconds for n in features.names() if source in {s.name for s in features.view(n).sources}}
    if len(set(delays.values())) > 1:
        raise ContractError(f"the views over {source} have different delays: {delays}.", "give all of them the same")
    return next(iter(delays.values()), 0)


def flink_view_sql(view: FeatureView) -> tuple[tuple[str, str], ...]:
    """The view as Flink queries, (name, query) in order, each to be made a temporary view of that name.

    Every source is a relation of its own name with a time attribute `rowtime`, of an event `ahead_seconds` ahead. The last query is the view:
    keys, `window_start`, `window_end` (TIMESTAMP_LTZ(3)), features, `window_end_ms` (BIGINT), `rowtime`.
    """
    selects = []
    for s in view.sources:
        selects.append(f"SELECT\n  {_list([*row_sql(view, s), '`rowtime`'])}\nFROM {quoted(s.name)}")
    _input_names(view)
    given = quoted(f"{view.name}_input")
    time = "DESCRIPTOR(`rowtime`)"
    size, slide = (flink_interval(timedelta(seconds=x)) for x in (view.size_seconds, view.slide_seconds))
    later = [view.delay_seconds - (features.view(s.name).delay_seconds if view.over_views else ahead_seconds(s.name)) for s in view.sources]
    room = min(features.view(s.name).slide_seconds for s in view.sources) if view.over_views else 1
    if not all(0 <= x < room for x in later):
        raise ContractError(
            f"{view.name}: with a delay of {view.delay_seconds} s its windows would hold something else.",
            "over windows: at least theirs and less than one of them more; over raw events: 0 or more, the same in all views",
        )
    offset = f", {flink_interval(timedelta(seconds=view.delay_seconds))}" if view.delay_seconds else ""
    window = f"TUMBLE(TABLE {given}, {time}, {size}{offset})" if view.tumbling else f"HOP(TABLE {given}, {time}, {slide}, {size}{offset})"
    keys = [quoted(k) for k in view.keys]
    # the engine's own bounds are without a zone, and dear to convert; its time is a millisecond before the end
    end = f"tidewatch_millis(`window_time`) + {1 - 1000 * view.delay_seconds}"
    columns = [
        *keys, f"tidewatch_time({end} - {1000 * view.size_seconds}) AS `window_start`", f"tidewatch_time({end}) AS `window_end`", *_flink_aggregates(view),
        f"{end} AS `window_end_ms`", "`window_time` AS `rowtime`",
    ]
    return (
        (f"{view.name}_input", "\nUNION ALL\n".join(selects)),
        (
            view.name,
            f"SELECT\n  {_list(columns)}\nFROM TABLE({window})\n"
            f"GROUP BY {', '.join([*keys, '`window_start`', '`window_end`', '`window_time`'])}",
        ),
    )


# -- Spark
def spark_view_sql(
    view: FeatureView, relations: Mapping[str, str] | None = None, *,
    start_ms: int | None = None, end_ms: int | None = None,
) -> str:
    """The view as one Spark query, of the windows whose end lies in (start_ms, end_ms] (None: no bound).

    A source is read from `relations[name]` (a table, a view, or a query in parentheses), by default from the
    relation of its own name: an event's Delta table as it is (`ts` a timestamp), or a view's table with its
    `window_end`. It must hold the rows from `start_ms - view.size_seconds * 1000` on.
    Columns: `tables.view_columns(view.name)` (timestamps as TIMESTAMP_NTZ, UTC), then `window_end_ms` (BIGINT).
    """
    selects = []
    for s in view.sources:
        relation = (relations or {}).get(s.name, quoted(s.name))
        available = _available(s)
        moment = quoted("window_end")
        replaced = {}
        shift = " - 1"
        if s.name in events.names():
            time = events.contract(s.name).time.name
            moment, shift = quoted(time), ""
            replaced = {quoted(time): f"UNIX_MILLIS(CAST({quoted(time)} AS TIMESTAMP))"}
        columns = []
        for n, e in source_columns(s):
            sql = expression(e, available, view.name)
            for old, new in replaced.items():
                sql = sql.replace(old, new)
            columns.append(f"{sql} AS {quoted(n)}")
        row = f"UNIX_MILLIS(CAST({moment} AS TIMESTAMP)){shift}"
        selects.append(f"  SELECT\n    {_list([*columns, f'{row} AS `row_ms`'], '    ')}\n  FROM {relation}")
    _input_names(view)
    size, slide = view.size_seconds * 1000, view.slide_seconds * 1000
    newest = f"`row_ms` - PMOD(`row_ms`, {slide}L)"
    end = (
        f"{newest} + {size}L" if view.tumbling
        else f"EXPLODE(SEQUENCE({newest} + {slide}L, {newest} + {size}L, {slide}L))"
    )
    near = [f"`row_ms` >= {start_ms - size}L"] if start_ms is not None else []
    near += [f"`row_ms` < {end_ms}L"] if end_ms is not None else []
    bounds = [f"`window_end_ms` > {start_ms}L"] if start_ms is not None else []
    bounds += [f"`window_end_ms` <= {end_ms}L"] if end_ms is not None else []
    keys = [quoted(k) for k in view.keys]
    if (panes := _panes(view)) is not None:
        return _sliding(view, selects, panes, near, bounds)
    columns = [
        *keys,
        f"CAST(TIMESTAMP_MILLIS(`window_end_ms` - {size}L) AS TIMESTAMP_NTZ) AS `window_start`",
        "CAST(TIMESTAMP_MILLIS(`window_end_ms`) AS TIMESTAMP_NTZ) AS `window_end`",
        *spark_aggregates(view), "`window_end_ms`",
    ]
    return (
        "WITH `input` AS (\n" + "\n  UNION ALL\n".join(selects) + "\n), `placed` AS (\n"
        f"  SELECT *, {end} AS `window_end_ms` FROM `input`{_where(near)}\n)\n"
        f"SELECT\n  {_list(columns)}\nFROM `placed`{_where(bounds)}\n"
        f"GROUP BY {', '.join([*keys, '`window_end_ms`'])}"
    )


def _panes(view: FeatureView) -> list[tuple[str, str]] | None:
    """(aggregate function, feature) of a sliding view whose windows can be put together from panes of one slide each; else None."""
    if view.tumbling or view.size_seconds % view.slide_seconds:
        return None
    found = [re.fullmatch(r"(SUM|MIN|MAX|BIT_OR)\(\w+\)", f.expression) for f in view.features]
    return [(m[1], f.name) for m, f in zip(found, view.features, strict=True) if m] if all(found) else None


def _sliding(view: FeatureView, selects: list[str], panes: list[tuple[str, str]], near: list[str], bounds: list[str]) -> str:
    """A sliding view from panes: each row is aggregated once into its pane and not into every window that it lies in.

    A window without a row in its newest pane still ends there, so panes without rows are filled in behind each pane, up to
    the next one or as long as a window lasts.
    """
    size, slide = view.size_seconds * 1000, view.slide_seconds * 1000
    keys = ", ".join(quoted(k) for k in view.keys)
    names = ", ".join(quoted(n) for _, n in panes)
    filled = ", ".join(f"CASE WHEN `window_end_ms` = `pane_ms` THEN {quoted(n)} END AS {quoted(n)}" for _, n in panes)
    sums = _list([f"CAST({a}({quoted(n)}) OVER `w` AS {SQL_TYPES[f.type]}) AS {quoted(n)}" for (a, n), f in zip(panes, view.features, strict=True)])
    pane = f"`row_ms` - PMOD(`row_ms`, {slide}L) + {slide}L"
    last = f"LEAST(`pane_ms` + {size - slide}L, COALESCE(LEAD(`pane_ms`) OVER (PARTITION BY {keys} ORDER BY `pane_ms`) - {slide}L, {2**62}L))"
    return (
        "WITH `input` AS (\n" + "\n  UNION ALL\n".join(selects) + "\n), `panes` AS (\n"
        f"  SELECT {keys}, `pane_ms`, {', '.join(spark_aggregates(view))}\n"
        f"  FROM (SELECT /*+ REPARTITION({keys}) */ *, {pane} AS `pane_ms` FROM `input`{_where(near)})\n  GROUP BY {keys}, `pane_ms`\n), `filled` AS (\n"
        f"  SELECT {keys}, `window_end_ms`, {filled}\n"
        f"  FROM (SELECT *, EXPLODE(SEQUENCE(`pane_ms`, `last_ms`, {slide}L)) AS `window_end_ms` FROM (SELECT {keys}, `pane_ms`, {names}, {last} AS `last_ms` FROM `panes`))\n"
        "), `slid` AS (\n"
        f"  SELECT {keys}, `window_end_ms`, {sums}\n  FROM `filled`\n"
        f"  WINDOW `w` AS (PARTITION BY {keys} ORDER BY `window_end_ms` RANGE BETWEEN {size - slide}L PRECEDING AND CURRENT ROW)\n)\n"
        f"SELECT {keys}, CAST(TIMESTAMP_MILLIS(`window_end_ms` - {size}L) AS TIMESTAMP_NTZ) AS `window_start`, "
        f"CAST(TIMESTAMP_MILLIS(`window_end_ms`) AS TIMESTAMP_NTZ) AS `window_end`, {names}, `window_end_ms`\nFROM `slid`{_where(bounds)}"
    )


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


# -- both
def signals(detector: Detector) -> tuple[tuple[str, str], ...]:
    """The detector's signals, or the inputs of its lookback, as (name, SQL of type DOUBLE) over its view's columns; the
    same text in both engines."""
    v = features.view(detector.view)
    names = [*v.keys, *(f.name for f in v.features), "window_end_ms"]
    wanted = detector.lookback.inputs if detector.lookback else tuple((s.name, s.expression) for s in detector.signals)
    return tuple((n, f"CAST({expression(e, names, f'{detector.name}.{n}')} AS DOUBLE)") for n, e in wanted)


def metric(detector: Detector) -> str:
    """SQL of the detector's `metric` column: the view's key beside the device, or ''."""
    keys = features.view(detector.view).keys
    return quoted("metric") if "metric" in keys else "''"


def entity(detector: Detector) -> str:
    """SQL of the baseline's key, detector|device_id|metric; the same text in both engines."""
    return f"CONCAT('{detector.name}|', `device_id`, '|', {metric(detector)})"


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def time_rules(
    contract: Contract, limits: Limits, *, time_ms: str = "", received_ms: str = "`ingested_ms`",
) -> tuple[tuple[str, str], ...]:
    """What makes an event's time impossible: (reason, SQL that is true then).

    `time_ms` and `received_ms` are SQL for the event time and the broker's time as BIGINT milliseconds; by default
    the contract's own time column and `ingested_ms`. A null never fires.
    """
    time_ms = time_ms or quoted(contract.time.name)
    return (
        (f"{contract.time.name}_future", f"{time_ms} > {received_ms} + {_ms(limits.max_future)}"),
        (f"{contract.time.name}_past", f"{time_ms} < {received_ms} - {_ms(limits.max_past)}"),
    )


def predicates(
    contract: Contract, limits: Limits, *, time_ms: str = "", received_ms: str = "`ingested_ms`",
) -> tuple[tuple[str, str], ...]:
    """What makes a decoded event impossible: (reason, SQL that is true then), in the order in which they are tried.

    The same rules as the decoder's (`streaming/java`) for engines that have only SQL; `time_ms`, `received_ms`: see
    `time_rules`. A null never fires. NaN and infinity do not come this far: they are malformed.
    """
    found: list[tuple[str, str]] = []
    for f in contract.fields:
        name = quoted(f.name)

        def number(x: float, kind: str = f.type) -> str:
            return f"{float(x):.17E}" if kind == "double" else str(int(x))

        out = [f"{name} < {number(f.minimum)}"] if f.minimum is not None else []
        out += [f"{name} > {number(f.maximum)}"] if f.maximum is not None else []
        if out:
            found.append((f"{f.name}_range", " OR ".join(out)))
        out = [f"CHAR_LENGTH({name}) < {f.min_length}"] if f.min_length is not None else []
        out += [f"CHAR_LENGTH({name}) > {f.max_length}"] if f.max_length is not None else []
        if out:
            found.append((f"{f.name}_length", " OR ".join(out)))
        if f.values:
            listed = ", ".join("'" + v.replace("'", "''") + "'" for v in f.values)
            found.append((f"{f.name}_values", f"{name} NOT IN ({listed})"))
    return (*found, *time_rules(contract, limits, time_ms=time_ms, received_ms=received_ms))


def reason_sql(rules: Collection[tuple[str, str]]) -> str:
    """The first rule that an event breaks, as SQL: its reason, or NULL."""
    whens = "\n".join(f"  WHEN {sql} THEN '{reason}'" for reason, sql in rules)
    return f"CASE\n{whens}\nEND"
