"""The stream's own job up to a point, from the topics' beginning: `python bench/stream_modes.py MODE GROUP` submits it.

Run by `bench/throughput.py` in the Flink environment; prints the job's id.
"""

from __future__ import annotations

import sys

from streaming import job
from tidewatch import events, features, settings, tables
from tidewatch.features import render

MODES = {
    "read": "source to nothing: Kafka and decoding",
    "window": "and validation, dead letters, windows",
    "score": "and scores, alerts, all topics",
    "delta": "and Delta",
}


def nowhere(sql: str) -> str:
    """A sink's CREATE TABLE with its connector replaced by one that drops everything."""
    return sql[: sql.rindex("WITH (")].replace(" PARTITIONED BY (`date`)", "") + "WITH ('connector' = 'blackhole')"


def statements(mode: str, group: str) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """(tables to create, relations to define, inserts) of the mode, reading every topic of events from its beginning."""
    s = settings.current()
    create, views, insert = job.build_statements(s)
    create = [
        sql.replace(f"'properties.group.id' = '{job.GROUP}'", f"'properties.group.id' = '{group}'").replace("'group-offsets'", "'earliest-offset'")
        for sql in create
    ]
    sinks = {sql.split("`")[1]: sql for sql in create if sql.split("`")[1].startswith(("topic_", "landing_"))}
    if mode == "delta":
        return create, views, insert
    if mode == "score":
        return ([c for c in create if not c.split("`")[1].startswith("landing_")], views, [i for i in insert if "INSERT INTO `topic_" in i])
    sources = [c for c in create if c.split("`")[1] not in sinks]
    if mode == "read":
        made, inserts = [], []
        for n in events.names():
            columns = ", ".join(f"{render.quoted(f.name)} {job.FLINK[f.type]}" for f in events.contract(n).fields)
            made.append(f"CREATE TABLE `nowhere_{n}` ({columns}) WITH ('connector' = 'blackhole')")
            inserts.append(f"INSERT INTO `nowhere_{n}` SELECT {', '.join(render.quoted(f.name) for f in events.contract(n).fields)} FROM `{n}_records`")
        return [*sources, *made], [], inserts
    wanted = [tables.table(n) for n in (*features.names(), "dead_letters")]
    reads = [v for v in views if v[0] not in ("windows", "told", "matched", "scores", "anomalous", "placed", "incidents", "grouped", "unsent", "alerts")]
    made = [nowhere(job.topic_sql(t, s)) for t in wanted]
    return [*sources, *made], reads, [job.insert_topic_sql(t, t.name) for t in wanted]


def main(mode: str, group: str) -> None:
    s = settings.current()
    config = {**job.configuration(s), "pipeline.name": group}
    print(job.prepare(s, config, statements(mode, group)).execute().get_job_client().get_job_id())


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in MODES:
        sys.exit(f"usage: stream_modes.py {{{','.join(MODES)}}} GROUP")
    main(*sys.argv[1:])
