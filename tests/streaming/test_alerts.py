"""Anomalous windows become alerts: they merge, many devices at once are one, severity rises with time and spread."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from typing import Any

import pytest

from streaming import job
from tidewatch import outage, quiet, severity
from tidewatch.settings import Alerts, current, load
from tidewatch.tables import ALERTS

MINUTE, T0 = 60_000, 1_795_474_800_000


def at(minute: float) -> int:
    return T0 + round(minute * MINUTE)


def window(device: str, use_case: str, end: int, score: float = 0.6, **more: Any) -> dict[str, Any]:
    """An anomalous window of one minute that ends at that minute."""
    return {
        "use_case": use_case, "device_id": device, "detector": "d", "metric": "", "window_start_ms": at(end - 1),
        "window_end_ms": at(end), "severity": "low", "score": score, "model_version": "m/1", "baseline": "device",
        "top_signals": ["a"], "top_observed": [1.0], "top_expected": [None], "top_shares": [1.0], "technique": "T1", "title": "t",
        "reason": f"score {score}", **more,
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of `alerts` that Flink makes of the anomalous windows of all cases, with the job's own SQL from there on."""
    pytest.importorskip("pyflink", reason="the flink environment has it")
    from pyflink.table import EnvironmentSettings, TableEnvironment

    from streaming import build

    build.build(current())
    folder = tmp_path_factory.mktemp("rows")
    te = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in {"table.local-time-zone": "UTC", "parallelism.default": "1", "pipeline.jars": build.jar_path(current()).as_uri()}.items():
        te.get_config().set(key, value)
    for name, of in job.JAVA_FUNCTIONS.items():
        te.execute_sql(f"CREATE TEMPORARY SYSTEM FUNCTION {name} AS 'tidewatch.stream.{of}' LANGUAGE JAVA")

    def table(name: str, columns: str, found: list[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in found))
        te.execute_sql(f"CREATE TABLE `{name}` ({columns}) WITH ('connector'='filesystem', 'path'='{(folder / name).as_uri()}', 'format'='json')")

    def control(name: str, key: str, columns: str, found: list[dict[str, Any]]) -> None:
        """A table with a version a key, as the job's own over a compacted topic."""
        table(f"{name}_rows", f"{columns}, `valid` AS TO_TIMESTAMP_LTZ(0, 3), WATERMARK FOR `valid` AS `valid`", found)
        te.create_temporary_view(name, te.sql_query(
            f"SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY `{key}` ORDER BY `valid` DESC) AS `n` FROM `{name}_rows`) WHERE `n` = 1"))

    table("anomalous", """
      `use_case` STRING, `device_id` STRING, `detector` STRING, `metric` STRING, `window_start_ms` BIGINT, `window_end_ms` BIGINT,
      `severity` STRING, `score` DOUBLE, `model_version` STRING, `baseline` STRING, `top_signals` ARRAY<STRING>,
      `top_observed` ARRAY<DOUBLE>, `top_expected` ARRAY<DOUBLE>, `top_shares` ARRAY<DOUBLE>, `technique` STRING, `title` STRING, `reason` STRING,
      `rowtime` AS TO_TIMESTAMP_LTZ(`window_end_ms` - 1, 3), WATERMARK FOR `rowtime` AS `rowtime` - INTERVAL '0.001' SECOND""",
          sorted((w for case in CASES for w in case()), key=lambda w: w["window_end_ms"]))
    table("outages", """`alert_id` STRING, `use_case` STRING, `start` BIGINT, `end` BIGINT, `status` STRING, `title` STRING, `reason` STRING,
      `rowtime` AS TO_TIMESTAMP_LTZ(`end`, 3), WATERMARK FOR `rowtime` AS `rowtime`""", [o.row() for o in OUTAGES])
    control("devices", "device_id", "`device_id` STRING, `kind` STRING, `site` STRING", [
        {"device_id": f"cam-{i:02}", "kind": "camera" if i else "server", "site": "north"} for i in range(12)])
    control("quiet", "use_case", "`use_case` STRING, `rules` STRING", quiet.records(RULES))
    for name, sql in job.views_sql(load(alerts=Alerts(group_devices=3, group_within=timedelta(minutes=5), group_named=3))):
        if name in ("placed", "incidents", "grouped", "unsent", "alerts"):
            te.create_temporary_view(name, te.sql_query(sql))
    # arrays as text: PyFlink cannot collect an empty one
    columns = [(c.name, f"CAST(`{c.name}` AS STRING)" if c.type.endswith("[]") else f"`{c.name}`") for c in ALERTS.columns]
    te.create_temporary_view("told", te.sql_query(job.select_topic_sql(ALERTS, "alerts")).alias(*(n for n, _ in columns)))
    with te.execute_sql(f"SELECT {', '.join(sql for _, sql in columns)} FROM `told`").collect() as answer:
        return [dict(zip([n for n, _ in columns], r, strict=True)) for r in answer]


def between(rows: list[dict[str, Any]], first: float, last: float) -> list[dict[str, Any]]:
    """The rows of incidents that began between two minutes."""
    return [r for r in rows if at(first) <= r["start"] < at(last)]


def newest(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last row of each alert, as Pinot keeps it."""
    return {r["alert_id"]: r for r in rows}


@pytest.mark.parametrize(("of_score", "minutes", "members", "found"), [
    ("low", 0, 1, "low"), ("low", 29.9, 9, "low"), ("low", 30, 1, "medium"), ("low", 240, 1, "high"), ("low", 0, 10, "medium"),
    ("low", 0, 100, "high"), ("low", 30, 10, "high"), ("medium", 240, 100, "critical"), ("critical", 9999, 9999, "critical"), ("high", 0, 1, "high"),
])
def test_severity_follows_from_score_duration_and_spread(of_score: str, minutes: float, members: int, found: str) -> None:
    sql = severity.sql("s", "ms", "n")
    (told,) = sqlite3.connect(":memory:").execute(f"SELECT {sql} FROM (SELECT ? AS s, ? AS ms, ? AS n)", (of_score, minutes * MINUTE, members)).fetchone()
    assert told == found



def apart() -> list[dict[str, Any]]:
    """Two incidents of one device, told apart by the gap; another device and another use case stay by themselves."""
    return [
        window("a", "leak", 1), window("a", "leak", 2, 0.9), window("b", "leak", 2, 0.5), window("a", "leak", 12, 0.7),
        window("a", "lie", 12, 0.7, metric="cpu"), window("a", "lie", 12, 0.8, metric="temp"), window("a", "leak", 23, 0.55),
    ]


def together() -> list[dict[str, Any]]:
    """Twelve fall silent within five minutes, one alone half an hour before, one leaks meanwhile."""
    return [window("alone", "silent", 71), window("other", "leak", 102)] + [
        window(f"cam-{i:02}", "silent", minute, 0.6 + i / 100)
        for minute in range(101, 110) for i in range(12) if minute > 100 + i % 5
    ]


def one_by_one() -> list[dict[str, Any]]:
    return [window(d, "silent", 200 + k) for k, d in enumerate("abc", 1)]


def two_waves() -> list[dict[str, Any]]:
    """Three devices fall silent for forty minutes, half an hour later three more."""
    return [window(d, "silent", m) for m in range(301, 341) for d in "abc"] + [window(d, "silent", m) for m in range(330, 341) for d in "xyz"]


def planned() -> list[dict[str, Any]]:
    """Four in a maintenance window; one of them remains silent after it and is then snoozed."""
    return [window(f"p-{d}", "silent", m) for m in (401, 402, 403) for d in "abcd"] + [window("p-a", "silent", m) for m in (404, 405)]


def group_snoozed() -> list[dict[str, Any]]:
    return [window(f"s-{d}", "leak", m) for m in (501, 502) for d in "abc"]


CASES = (apart, together, one_by_one, two_waves, planned, group_snoozed)
RULES = (
    quiet.Rule("maintenance:night", use_case="silent", device="p-*", from_ms=at(400), until_ms=at(403)),
    quiet.Rule("snooze:1", device="p-a", from_ms=at(404)),
    quiet.Rule("snooze:2", use_case="leak", device="s-?", from_ms=at(501)),
    quiet.Rule("maintenance:cut", detector="outage", from_ms=at(700), until_ms=at(800)),
)
OUTAGES = (
    outage.Outage("", at(600), at(603)), outage.Outage("", at(600), at(605), "closed"), outage.Outage("flow", at(701), at(704)),
)


@pytest.mark.flink
@pytest.mark.filterwarnings("ignore")
class TestAlerts:
    """One run of Flink over all cases, which lie more than half an hour apart."""

    def test_windows_merge_into_incidents(self, rows: list[dict[str, Any]]) -> None:
        rows = between(rows, 0, 60)
        told = [(r["alert_id"], r["windows"], r["score"], r["metric"], r["reason"]) for r in rows if r["status"] == "open"]
        assert sorted(told, key=lambda t: t[0]) == [
            (f"leak:a:{at(0)}", 1, 0.6, "", "score 0.6"),
            (f"leak:a:{at(0)}", 2, 0.9, "", "score 0.9"),
            (f"leak:a:{at(0)}", 3, 0.9, "", "score 0.9"),  # ten minutes after the last window: the same incident still
            (f"leak:a:{at(22)}", 1, 0.55, "", "score 0.55"),
            (f"leak:b:{at(1)}", 1, 0.5, "", "score 0.5"),
            (f"lie:a:{at(11)}", 1, 0.7, "cpu", "score 0.7"),
            (f"lie:a:{at(11)}", 1, 0.8, "temp", "score 0.8"),  # two metrics, one window
        ]
        # every incident is closed once, in its last state
        last = newest(rows)
        assert sorted(r["alert_id"] for r in rows if r["status"] == "closed") == sorted(last)
        assert last[f"leak:a:{at(0)}"]["windows"] == 3
        assert {r["group_id"] for r in rows} == {""}

    def test_many_devices_at_once_are_one_incident(self, rows: list[dict[str, Any]]) -> None:
        rows = between(rows, 60, 190)
        last = newest(rows)
        (group,) = [r for r in last.values() if r["device_id"] == "*"]
        assert group["alert_id"] == f"silent:*:{at(100)}"
        assert (group["members"], group["kind"], group["site"], group["status"], group["score"], group["windows"]) == (12, "", "north", "closed", 0.71, 9)
        assert group["member_ids"] == "[cam-00, cam-05, cam-10]"
        assert group["reason"] == "12 devices at north: cam-00, cam-05, cam-10 and 9 more. The clearest, cam-11: score 0.71"
        assert group["severity"] == "medium"  # low by score, one more for its spread
        members = [r for r in last.values() if r["group_id"]]
        assert sorted(r["device_id"] for r in members) == [f"cam-{i:02}" for i in range(12)]
        assert {(r["group_id"], r["members"], r["severity"]) for r in members} == {(group["alert_id"], 1, "low")}
        # none of them was told as an alert of its own before the group was: each moment is looked at as a whole
        assert [r for r in rows if r["device_id"].startswith("cam") and not r["group_id"]] == []
        assert sorted(r["device_id"] for r in last.values() if not r["group_id"]) == ["*", "alone", "other"]
        # one row a moment: nine with windows, the others as members close
        assert [r["members"] for r in rows if r["device_id"] == "*"][:6] == [3, 6, 8, 10, 12, 12]

    def test_members_told_before_the_group_are_told_again(self, rows: list[dict[str, Any]]) -> None:
        rows = between(rows, 200, 290)
        group = f"silent:*:{at(200)}"
        assert [(r["group_id"], r["status"]) for r in rows if r["device_id"] == "a"] == [("", "open"), (group, "open"), (group, "closed")]
        assert [(r["members"], r["status"]) for r in rows if r["device_id"] == "*"] == [(3, "open"), (3, "open"), (3, "open"), (3, "closed")]
        assert [r for r in rows if r["device_id"] == "c" and not r["group_id"]] == []

    def test_a_second_wave_is_a_second_group_while_the_first_still_lasts(self, rows: list[dict[str, Any]]) -> None:
        last = newest(between(rows, 300, 390))
        assert {(r["group_id"], r["device_id"]) for r in last.values() if r["group_id"]} == (
            {(f"silent:*:{at(300)}", d) for d in "abc"} | {(f"silent:*:{at(329)}", d) for d in "xyz"})
        assert last[f"silent:*:{at(300)}"]["severity"] == "medium"  # it lasted

    def test_what_is_suppressed_counts_towards_no_group_and_ends_with_its_rule(self, rows: list[dict[str, Any]]) -> None:
        last = newest(between(rows, 400, 490))
        assert {i: (r["windows"], r["suppressed_by"]) for i, r in last.items()} == {
            **{f"silent:p-{d}:{at(400)}": (3, "maintenance:night") for d in "abcd"},
            # after the planned time it is another incident; snoozed, it is suppressed from then on
            f"silent:p-a:{at(403)}": (2, "snooze:1"),
        }

    def test_a_group_is_suppressed_with_its_members(self, rows: list[dict[str, Any]]) -> None:
        rows = [r for r in between(rows, 500, 590) if r["device_id"] == "*"]
        assert [(r["suppressed_by"], r["status"]) for r in rows] == [("", "open"), ("snooze:2", "open"), ("snooze:2", "closed")]

    def test_an_outage_is_an_alert_of_its_own(self, rows: list[dict[str, Any]]) -> None:
        last = newest([r for r in rows if r["detector"] == "outage"])
        told = {i: (r["title"], r["status"], r["windows"], r["severity"], r["suppressed_by"], r["device_id"]) for i, r in last.items()}
        assert told == {
            f"silent:outage::{at(600)}": ("No events from any source", "closed", 6, "critical", "", "*"),
            f"silent:outage:flow:{at(701)}": ("No events from the source flow", "open", 4, "critical", "maintenance:cut", "*"),
        }
