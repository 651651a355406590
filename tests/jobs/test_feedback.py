"""Feedback: a mark is kept once an alert, and the next training knows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer", reason="the tools environment has it")

from jobs import backtest, feedback, lake
from tests.jobs.test_lifecycle import DETECTORS, good, windows
from tidewatch import cli, scoring, settings, tables
from tidewatch import feedback as marking
from tidewatch.errors import InputError

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def alert(device: str, start: int, end: int, n: int = 1, use_case: str = "lie") -> dict[str, Any]:
    row: dict[str, Any] = {c.name: "" if c.type == "string" else [] if c.type.endswith("[]") else 0.0 for c in tables.ALERTS.columns}
    return row | {"alert_id": f"{use_case}:{device}:{start}", "use_case": use_case, "detector": DETECTORS[0].name, "device_id": device,
                  "start": start, "end": end, "windows": n, "severity": "low", "score": 0.6}


@pytest.fixture
def s(tmp_path: Path) -> settings.Settings:
    s = settings.load(state_dir=tmp_path)
    lake.replace(s, tables.ALERTS, [alert("a", 0, 60_000), alert("a", 0, 180_000, 3), alert("it's", 0, 60_000)], "true")
    return s


def mark(s: settings.Settings, alert_id: str, verdict: str) -> list[dict[str, Any]]:
    return marking.mark(s, alert_id, verdict, analyst="kim", note="", at=AT, publish=False)


def test_a_mark_takes_the_alerts_newest_state_and_replaces_an_earlier_mark(s: settings.Settings) -> None:
    assert [r["end"] for r in mark(s, "lie:a:0", "true")] == [180_000]
    mark(s, "lie:it's:0", "benign")
    mark(s, "lie:a:0", "false")
    rows = {r["alert_id"]: r for r in lake.read(s, tables.FEEDBACK)}
    assert {k: r["verdict"] for k, r in rows.items()} == {"lie:a:0": "false", "lie:it's:0": "benign"}
    assert rows["lie:a:0"]["start"] == 0 and rows["lie:a:0"]["marked_at"] == AT.timestamp() * 1000 and rows["lie:a:0"]["analyst"] == "kim"


def test_a_mark_on_a_group_is_one_on_each_member(s: settings.Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    group = alert("*", 0, 180_000)["alert_id"]
    members = [alert("b", 0, 60_000), alert("b", 0, 120_000, 2) | {"group_id": group}, alert("c", 60_000, 120_000) | {"group_id": group}]
    lake.replace(s, tables.ALERTS, [alert("*", 0, 180_000), *members, alert("d", 0, 60_000)], "true")
    mark(s, "lie:b:0", "true")
    monkeypatch.setattr("tidewatch.commands.feedback.current", lambda: s)
    with pytest.raises(SystemExit):
        cli.main(["feedback", group, "false", "--no-publish"])
    assert f"{group} is marked false with its 2 members" in " ".join(capsys.readouterr().out.split())
    rows = {r["alert_id"]: r for r in lake.read(s, tables.FEEDBACK)}
    assert {k: (r["verdict"], r["end"]) for k, r in rows.items()} == {group: ("false", 180_000), "lie:b:0": ("false", 120_000), "lie:c:60000": ("false", 120_000)}
    read = feedback.read(s, datetime(1970, 1, 1, tzinfo=UTC), AT)
    assert read.labels.device.tolist() == ["b", "c"] and set(read.verdict) == {"false"}


def test_what_is_no_alert_or_no_verdict_is_named(s: settings.Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no alert"):
        mark(s, "lie:nobody:0", "true")
    with pytest.raises(InputError, match="no verdict"):
        mark(s, "lie:a:0", "maybe")
    monkeypatch.setattr("tidewatch.commands.feedback.current", lambda: s)
    with pytest.raises(SystemExit) as done:
        cli.main(["feedback", "lie:a:0", "true", "--no-publish", "--note", "seen it"])
    assert done.value.code == 0 and "is marked true" in capsys.readouterr().out
    assert lake.read(s, tables.FEEDBACK)[0]["note"] == "seen it"


def test_the_form_marks_as_the_command_does(s: settings.Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import mark as job

    monkeypatch.setattr("jobs.cli.current", lambda: s)
    assert job.main(["--alert", "lie:a:0", "--verdict", "benign", "--analyst", "kim", "--at", "2026-03-02T12:00", "--no-publish"]) == 0
    assert '"verdict": "benign"' in capsys.readouterr().out
    assert [(r["verdict"], r["analyst"], r["marked_at"]) for r in lake.read(s, tables.FEEDBACK)] == [("benign", "kim", AT.timestamp() * 1000)]
    assert job.main(["--alert", "lie:nobody:0", "--verdict", "true", "--no-publish"]) == 1 and "no alert" in capsys.readouterr().err


def test_true_marks_are_labels_and_benign_ones_are_nobodys(s: settings.Settings) -> None:
    mark(s, "lie:a:0", "true")
    mark(s, "lie:it's:0", "benign")
    marks = feedback.read(s, AT - timedelta(days=365 * 100), AT)
    known = backtest.Labels(np.array(["z"]), np.array([1]), np.array([2]), np.array(["leak"]))
    got = feedback.labelled(known, marks)
    assert list(zip(got.device, got.use_case, got.end_ms, strict=True)) == [("z", "leak", 2), ("a", "lie", 180_000), ("it's", "other", 60_000)]
    assert len(feedback.read(s, AT, AT + timedelta(days=1)).verdict) == 0, "alerts of another time"
    empty = settings.load(state_dir=s.state_dir / "other")
    assert len(feedback.labelled(known, feedback.read(empty, AT, AT)).device) == 1


def test_precision_is_that_of_the_marked_alerts() -> None:
    """Two true alerts, one of them seen; three false ones, one raised again: precision 1 of 2."""
    model = good()
    read = {d.name: windows(d, 9) for d in DETECTORS}
    d = DETECTORS[0]
    w = read[d.name]
    observed = w.observed.copy()
    for device in ("dev-001", "dev-011"):
        observed[(w.device == device) & (w.start_ms == 600_000)] *= 50
    read[d.name] = backtest.Windows(w.device, w.start_ms, w.end_ms, observed, w.center, w.scale)
    devices = np.array(["dev-001", "dev-002", "dev-011", "dev-012", "dev-013", "dev-014"])
    n = len(devices)
    marks = feedback.Marks(
        backtest.Labels(devices, np.full(n, 600_000), np.full(n, 660_000), np.array(["lie"] * 5 + ["leak"])),
        np.array(["true", "true", "false", "false", "false", "false"]),
    )
    got = feedback.figures(model, DETECTORS, read, marks, timedelta(minutes=10), 1)
    assert got == {"marked_true": 2, "recall_marked": 0.5, "marked_false": 3, "false_marked": pytest.approx(1 / 3), "precision_marked": pytest.approx(0.5)}
    nothing = feedback.Marks(marks.labels, np.full(n, "benign"))
    assert feedback.figures(model, DETECTORS, read, nothing, timedelta(minutes=10), 1) == {}


def test_thresholds_rise_above_what_was_marked_false_but_not_over_what_is_true() -> None:
    """A mild alert marked as false is raised no more; one that is as loud as a true incident is not worth that incident."""
    model = good()
    d = DETECTORS[0]
    read = {x.name: windows(x, 9) for x in DETECTORS}
    w = read[d.name]
    observed = w.observed.copy()
    for device, strength in (("dev-001", 5.5), ("dev-002", 9.0), ("dev-003", 7.0)):
        at = (w.device == device) & (w.start_ms == 600_000)
        z = w.center[at] + np.eye(len(d.signals))[0] * strength * w.scale[at]
        observed[at] = scoring.inverse(z, [x.transform for x in d.signals])
    read[d.name] = backtest.Windows(w.device, w.start_ms, w.end_ms, observed, w.center, w.scale)
    low = replace(model, detectors={n: replace(m, threshold=0.2) for n, m in model.detectors.items()})

    def said(*verdicts: str) -> feedback.Marks:
        n = len(verdicts)
        return feedback.Marks(backtest.Labels(np.array(["dev-001", "dev-002", "dev-003"])[:n], np.full(n, 600_000), np.full(n, 660_000), np.full(n, "lie")), np.array(verdicts))

    def heeded(marks: feedback.Marks) -> scoring.Model:
        none = backtest.Labels(*(np.zeros(0, t) for t in ("U1", np.int64, np.int64, "U1")))
        return feedback.heed(low, DETECTORS, read, read, feedback.labelled(none, marks), marks, 1)

    mild, loud, third = feedback.peaks(low, d, read[d.name], said("false", "false", "false").labels)
    assert 0.2 < mild < third < loud
    got = heeded(said("false"))
    assert got.detectors[d.name].threshold == np.nextafter(mild, 1.0)
    gap = timedelta(minutes=10)
    assert feedback.figures(low, DETECTORS, read, said("false"), gap, 1)["false_marked"] == 1
    assert feedback.figures(got, DETECTORS[:1], read, said("false"), gap, 1)["false_marked"] == 0
    kept = heeded(said("true", "false"))
    assert kept.detectors[d.name].threshold == 0.2, "above the false one lies the true one"
    assert heeded(said("false", "false", "true")).detectors[d.name].threshold == np.nextafter(mild, 1.0)
    assert heeded(said("benign")).detectors[d.name].threshold == 0.2
