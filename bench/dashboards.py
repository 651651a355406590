"""How long Pinot takes for each chart of the dashboards, with a day of windows of so many devices, while the stream runs.

    python bench/dashboards.py [--devices 10000] [--hours 24] [--raw-hours 24] [--rate 1000] [--repeats 30]
                               [--quick] [--json FILE]

Starts servers of its own (`bench/servers.py`: Kafka, Flink, Pinot, the committer, the observer; Superset for a while). What the
charts read is in Pinot before the first query:

- raw events of `--raw-hours` hours at `--rate` a second, from the generator, read by Pinot from Kafka;
- a window of every device, and of every metric of a device, each minute of `--hours` hours, and a score for each detector that
  looks at it. Made up, of a plausible size. Pinot reads as many of them from their topics as fill one segment a
  partition; these segments are then uploaded again and again, under other names and with their windows' times (the
  dictionaries of two columns) moved, until the hours are full: in size, encoding, indexes and order they are segments that Pinot
  made from the stream. So values repeat, every 100 minutes for flow_1m and 11 for scores, and no hour differs from another;
- alerts, dead letters, runs and measurements, in numbers such as a day brings.

The stream starts before the copies are uploaded, and `--rate` events a second come until the end. Then each chart's query goes
to Pinot's broker: once to warm up (`first ms`), `--repeats` times to be measured, round by round, one query at a time. The queries
are Superset's: it is asked for each chart as the dashboard's page asks when it opens, its filters at their defaults (the device
page with the device of a new incident), but for the SQL instead of the answer. Superset's cache and own time are left out.

The bars: p99 under 1 s, of the overview under 100 ms. `CPU s` is what Pinot used from a query's start to its end, its reading of
the topics included. The hours end when the bench starts: "Last day" has lost as many of their first minutes when it asks as it
took to load, and the minutes before the stream's start are empty.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from bench.made_up import HOUR, MINUTE, WINDOWS, Maker, Row, rest
from bench.segments import copies, first_segments, say
from bench.servers import Job, bench_network, knowledge, rows_in, rows_of, servers, tidewatch, until
from jobs.refresh_dashboards import asked
from tidewatch import events, tables
from tidewatch.dashboards import files, server
from tidewatch.inputs.generate import Generator
from tidewatch.inputs.network import Network
from tidewatch.inputs.send import Kafka
from tidewatch.settings import Settings
from tidewatch.stack import control

BARS = {"overview": 100.0}
BAR = 1000.0
"""Milliseconds of p99, of every other dashboard."""
STEP_MS = 250
IDLE_SECONDS = 20


# -- events


def history(settings: Settings, net: Network, period_ms: int, start_ms: int, end_ms: int) -> None:
    """Raw events of the time, read by Pinot; the stream, which reads its topics from the beginning, does not find them there."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    source, unique, told = Generator(net, start_ms, None, period_ms=period_ms), 0, time.monotonic()
    with Kafka(settings, events.names()) as kafka:
        for at in range(start_ms + 10_000, end_ms + 10_000, 10_000):
            for p in source.advance(min(at, end_ms)):
                kafka.send(p)
                unique += p.tally["unique"]
            if time.monotonic() - told > 30:
                told = time.monotonic()
                there = sum(rows_in(settings, n) for n in events.names())
                say(f"raw events: {unique:,} sent, {(at - start_ms) / (end_ms - start_ms):.0%} of the time; {there:,} in Pinot")
    until(3600, lambda: sum(rows_in(settings, n) for n in events.names()) >= unique, f"Pinot to show {unique:,} events")
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    known = admin.list_topics(timeout=10).topics
    for f in admin.delete_records([TopicPartition(n, p, -1) for n in events.names() for p in known[n].partitions]).values():
        f.result(30)
    say(f"raw events: {unique:,} in Pinot")


def send_now(settings: Settings, net: Network, period_ms: int, start_ms: int) -> None:
    """Send events as their time comes, until it is ended; in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    source, at = Generator(net, start_ms, None, period_ms=period_ms), start_ms
    with Kafka(settings, events.names()) as kafka:
        while os.getppid() != 1:
            at += STEP_MS
            time.sleep(max(0.0, at / 1000 - time.time()))
            for p in source.advance(at):
                kafka.send(p)


# -- queries


@dataclass(frozen=True)
class Asked:
    """A chart on a dashboard, and the SQL that Superset makes of it: where series are limited, first a query for their names."""

    dashboard: str
    chart: str
    sql: tuple[str, ...]


def queries(settings: Settings) -> list[Asked]:
    """Every chart's SQL, from a Superset that is started for it."""
    tidewatch(settings, "up", "superset")
    session, found = server.session(settings), {}
    for slug, chart, request in asked(settings, session, files.read()):
        if (slug, chart["slice_name"]) in found:  # the page of another device
            continue
        r = session.post(f"{settings.superset}/api/v1/chart/data", json={**request, "result_type": "query"}, timeout=120)
        answer = r.json()["result"][0] if r.ok else {"error": r.text}
        if answer.get("error") or not answer.get("query"):
            raise SystemExit(f"Superset makes no query of {slug}: {chart['slice_name']}: {str(answer.get('error'))[:500]}")
        parts = tuple(q.strip().rstrip(";") for q in answer["query"].split(";\n\n"))
        found[slug, chart["slice_name"]] = Asked(slug, chart["slice_name"], parts)
    # its memory is not under test
    tidewatch(settings, "down", "superset", "postgres")
    order = [*BARS, *sorted({a.dashboard for a in found.values()} - BARS.keys())]
    return sorted(found.values(), key=lambda a: order.index(a.dashboard))


class Broker:
    """Pinot's broker, and the CPU seconds of Pinot, which is one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.session = requests.Session()
        self.process = psutil.Process(next(s.pid for s in control.status(settings) if s.service == "pinot" and s.pid))

    def cpu(self) -> float:
        t = self.process.cpu_times()
        return float(t.user + t.system)

    def ask(self, a: Asked) -> Row:
        """`ms`, `cpu` (Pinot's seconds meanwhile), `rows` and `scanned` of a chart's queries, one after the other, or an `error`: an answer from
        a part of the groups is one, too."""
        before, begin, scanned, rows = self.cpu(), time.perf_counter(), 0, 0
        for sql in a.sql:
            answer = self.session.post(f"{self.settings.pinot_broker}/query/sql", json={"sql": sql}, timeout=120).json()
            if answer.get("exceptions"):
                return {"error": str(answer["exceptions"][0].get("message"))[:300]}
            if answer.get("numGroupsLimitReached"):
                return {"error": "Pinot left groups out: pinot.server.query.executor.num.groups.limit"}
            scanned += answer["numDocsScanned"]
            rows = len((answer.get("resultTable") or {}).get("rows") or ())
        return {"ms": (time.perf_counter() - begin) * 1000, "cpu": self.cpu() - before, "rows": rows, "scanned": scanned}


def timed(settings: Settings, all_: Sequence[Asked], repeats: int) -> tuple[list[Row], float]:
    """A row a chart, and the cores that Pinot keeps busy when nobody asks. What failed once is not asked again."""
    broker, there = Broker(settings), rows_in(settings, "scores")
    before = broker.cpu()
    time.sleep(IDLE_SECONDS)
    idle = (broker.cpu() - before) / IDLE_SECONDS
    answers: dict[Asked, list[Row]] = {a: [] for a in all_}
    errors: dict[Asked, str] = {}
    for n in range(repeats + 1):
        begin = time.monotonic()
        for a in all_:
            if a in errors:
                continue
            try:
                answer = broker.ask(a)
            except (requests.RequestException, psutil.Error) as e:
                answer = {"error": f"Pinot broke off: {type(e).__name__}"}
                until(900, lambda: rows_in(settings, "scores") >= there, "Pinot to come back with its rows")
                broker = Broker(settings)
            if "error" in answer:
                errors[a] = answer["error"]
                say(f"{a.dashboard}: {a.chart}: {answer['error']}")
            answers[a].append(answer)
        say(f"{f'round {n} of {repeats}' if n else 'first round'}: {len(all_) - len(errors)} charts in {time.monotonic() - begin:.1f} s")
    found = []
    for a, rs in answers.items():
        bar = BARS.get(a.dashboard, BAR)
        figures: Row = {"met": False, "error": errors.get(a, "")}
        if a not in errors:
            p50, p99 = (float(q) for q in np.quantile([x["ms"] for x in rs[1:]], (0.5, 0.99)))
            figures = {
                "rows": rs[-1]["rows"], "scanned": rs[-1]["scanned"], "first ms": rs[0]["ms"], "p50 ms": p50, "p99 ms": p99,
                "cpu s": float(np.mean([x["cpu"] for x in rs[1:]])), "met": p99 < bar, "error": "",
            }
        found.append({"dashboard": a.dashboard, "chart": a.chart, "bar ms": bar, **figures, "sql": list(a.sql)})
    return found, idle


def run(devices: int, hours: float, raw_hours: float, rate: int, repeats: int, flush_rows: int | None) -> Row:
    """Fill, stream, ask: the figures."""
    overrides: dict[str, Any] = {}
    if flush_rows:
        os.environ["TIDEWATCH_PINOT__FLUSH_ROWS"] = str(flush_rows)
        overrides["pinot"] = {"flush_rows": flush_rows}
    begin = time.monotonic()
    with servers("bench-dashboards", **overrides) as settings:
        say("the servers start")
        tidewatch(settings, "up", "kafka", "pinot", "flink_taskmanager", "committer")
        net, period = bench_network(devices, rate)
        end = int(time.time() * 1000) // MINUTE * MINUTE
        start = end - round(hours * HOUR)
        knowledge(settings, net, start)
        sent = rest(settings, net, start, end, rate)
        say(f"rows of the other tables: {', '.join(f'{k} {v:,}' for k, v in sent.items())}")
        history(settings, net, period, end - round(raw_hours * HOUR), end)
        make, firsts = Maker(net, period, settings.topics.partitions), []
        for name in WINDOWS:
            firsts += first_segments(settings, make, name, hours, end)
        job = Job(settings, "delta", "bench-dashboards")
        before = sum(rows_of(settings, n) for n in events.names())
        begin_ms, fork = int(time.time() * 1000), multiprocessing.get_context("fork")
        sender = fork.Process(target=send_now, args=(settings, net, period, begin_ms), daemon=True)
        sender.start()
        try:
            tidewatch(settings, "up", "observer")
            say(f"the stream runs, {rate:,} events/s come")
            copies(settings, firsts, hours, end)
            filled_s = time.monotonic() - begin
            say("Superset starts, to be asked for the queries")
            all_ = queries(settings)
            counts = {n: rows_in(settings, n) for n in sorted(t.name for t in tables.catalogue().values() if t.pinot)}
            charts, idle = timed(settings, all_, repeats)
            job.read()  # an error if it failed
            if not sender.is_alive():
                raise SystemExit("the events stopped")
            sent_now = sum(rows_of(settings, n) for n in events.names()) - before
            scored = rows_in(settings, "scores", f"WHERE window_end > {end}")
        finally:
            sender.terminate()
            sender.join()
    return {
        "devices": devices, "hours": hours, "raw hours": raw_hours, "rate": rate, "repeats": repeats, "rows": counts,
        "filled s": filled_s, "sent": sent_now, "scored": scored, "idle cores": idle, "charts": charts,
    }


def show(r: Row) -> None:
    from rich.console import Console
    from rich.table import Table as Shown

    console = Console(width=180, highlight=False)
    shown = Shown("dashboard", "chart", "rows", "scanned", "first ms", "p50 ms", "p99 ms", "CPU s", "bar ms", "met")
    for c in r["charts"]:
        counts = [f"{c[k]:,}" if k in c else "" for k in ("rows", "scanned")]
        took = [f"{c[k]:,.0f}" if k in c else "" for k in ("first ms", "p50 ms", "p99 ms")]
        cpu = f"{c['cpu s']:.2f}" if "cpu s" in c else ""
        met = f"failed: {c['error']}" if c["error"] else "met" if c["met"] else "not met"
        shown.add_row(c["dashboard"], c["chart"], *counts, *took, cpu, f"{c['bar ms']:,.0f}", met)
    console.print(shown)
    mean, met_all = np.mean([c["cpu s"] for c in r["charts"] if "cpu s" in c]), sum(c["met"] for c in r["charts"])
    console.print(f"{met_all} of {len(r['charts'])} meet their bar; CPU seconds a query, mean of all: {mean:.2f}; Pinot without queries: {r['idle cores']:.2f} cores")
    console.print(f"meanwhile {r['sent']:,} events came and {r['scored']:,} scores were made of them")
    rows = ", ".join(f"{k} {v:,}" for k, v in r["rows"].items())
    console.print(f"{r['devices']:,} devices, {r['rate']:,} events/s, filled in {r['filled s']:,.0f} s; rows in Pinot: {rows}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=24, help="of windows and scores (default 24)")
    parser.add_argument("--raw-hours", type=float, help="of raw events (default: as --hours)")
    parser.add_argument("--rate", type=int, default=1000, help="events a second (default 1000)")
    parser.add_argument("--repeats", type=int, default=30, help="of each query (default 30)")
    parser.add_argument("--quick", action="store_true", help="100 devices, an hour, 3 repeats, small segments: to see that it works")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    o = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    if o.quick:
        found = run(100, 1, 0.25, 40, 3, 4000)
    else:
        found = run(o.devices, o.hours, o.hours if o.raw_hours is None else o.raw_hours, o.rate, o.repeats, None)
    if o.json:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
        o.json.write_text(json.dumps({"machine": machine, **found}, indent=1))
    show(found)


if __name__ == "__main__":
    main()
