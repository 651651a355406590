"""The scorer's models: loaded once, kept on disk, and what holds when a version cannot be had."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.flink
pytest.importorskip("pyflink", reason="the flink environment has it")

import pandas as pd  # noqa: E402

from streaming import scorer  # noqa: E402
from streaming.windows import wanted  # noqa: E402
from tests.test_scoring import model as make  # noqa: E402
from tidewatch import scoring  # noqa: E402
from tidewatch.detectors import all_detectors  # noqa: E402

LEAK = next(d for d in all_detectors() if d.name == "exfiltration")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and counts how often."""

    asked: list[str] = []

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address that serves it."""
    folder = tmp_path / "www"
    folder.mkdir()
    Quiet.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_model_is_loaded_once_and_survives_the_registry(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "1.json").write_text(scoring.dump(make(LEAK)))
    models = scorer.Models(tmp_path / "cache")
    for _ in range(3):
        found = models.get("leak", "1", f"{address}/1.json")
        assert found is not None and found[0] == "1"
    assert len(Quiet.asked) == 1
    (folder / "1.json").unlink()
    assert scorer.Models(tmp_path / "cache").get("leak", "1", f"{address}/1.json") is not None


def test_a_version_that_cannot_be_loaded_leaves_the_one_before(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    models = scorer.Models(tmp_path / "cache")
    assert models.get("leak", "1", f"{address}/1.json") is None
    (folder / "2.json").write_text(scoring.dump(make(LEAK)))
    (folder / "3.json").write_text("{}")
    assert models.get("leak", "2", f"{address}/2.json")[0] == "2"  # type: ignore[index]
    assert models.get("leak", "3", f"{address}/3.json")[0] == "2"  # type: ignore[index]
    assert models.get("lie", "3", f"{address}/3.json") is None


def packed(numbers: Any) -> bytes:
    """As Match.java hands them over."""
    return np.asarray(numbers, dtype="<f8").tobytes()


def asked(use_case: str, detector: str, uri: str, shadow: str = "", shadow_uri: str = "") -> str:
    """As Match.java asks, by a model's version 1."""
    return "\n".join((use_case, detector, "1", uri, shadow, shadow_uri))


def context(lost: list[int]) -> Any:
    """What the scorer is opened with; `lost` gets the numbers of windows that stay unscored."""
    return types.SimpleNamespace(get_metric_group=lambda: types.SimpleNamespace(counter=lambda _: types.SimpleNamespace(inc=lost.append)))


def explained(observed: np.ndarray, *, of_kind: bool = True, score: float | None = None) -> list[dict[str, Any]]:
    """The results of windows with one metric each, against the same baseline."""
    center, scale = np.log1p(np.array([[2e4, 1.0, 1.0, 2e4]] * len(observed))), np.full((len(observed), 4), 0.5)
    scored = scoring.score(make(LEAK), LEAK.name, observed, center, scale)
    rows = np.arange(len(observed))
    found = scorer.explain(LEAK, "4", 0.5, scored.score if score is None else np.full(len(rows), score), rows, rows + 7, np.full(len(rows), of_kind), scored, observed)
    assert set(found) == {n for n, _ in scorer.RESULT if not n.startswith("shadow")}
    return [{n: v[i] for n, v in found.items()} for i in range(len(rows))]


def test_a_result_tells_why() -> None:
    observed = np.array([[1e9, 3.0, 1000.0, 2e4], [2e4, 1.0, 1.0, 2e4]])
    row, usual = explained(observed)
    assert row["anomalous"] and row["severity"] == "critical" and row["model_version"] == "leak/4" and row["baseline"] == "kind"
    assert row["top_signals"][0] == "external_bytes_out" and sum(row["top_shares"]) == pytest.approx(1)
    assert row["reason"] == "bytes sent to outside addresses in a minute: 1 GB, expected 20 kB for devices of its kind"
    assert (row["usual_low"], row["usual_high"]) == pytest.approx(np.expm1(np.log1p(2e4) + np.array([-1.5, 1.5])))
    assert (row["place"], usual["place"]) == (7, 8) and row["signals"].tolist() == observed[0].tolist()
    assert not usual["anomalous"] and usual["reason"] == "" and usual["severity"] == "low" and usual["signals"].tolist() == observed[1].tolist()
    assert explained(observed, of_kind=False)[0]["baseline"] == "device"


def test_what_is_told_has_six_significant_digits() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=5000) * 10.0 ** rng.integers(-15, 20, size=5000)
    got = scorer.shortened(x)
    assert got.tolist() == [float(f"{v:.5e}") if v != round(v) else v for v in x.tolist()]
    kept = [0.0, 123_456_789.0, -1e300, 1e-300, np.inf, -np.inf]
    assert scorer.shortened(np.array([[*kept, np.nan]]))[0, :-1].tolist() == kept and np.isnan(scorer.shortened(np.array([np.nan]))[0])


@pytest.mark.parametrize(("score", "severity"), [(0.1, "low"), *((least, name) for least, name in LEAK.severities), (0.99, "critical")])
def test_severity_is_the_detectors(score: float, severity: str) -> None:
    row, = explained(np.array([[1e9, 3.0, 1000.0, 2e4]]), score=score)
    assert row["severity"] == severity == LEAK.severity(score)


def test_what_was_not_observed_is_no_reason() -> None:
    row, none = explained(np.array([[1e9, np.nan, 1000.0, 2e4], [np.nan] * 4]))
    assert set(row["top_signals"]) == {s.name for s in LEAK.signals} - {LEAK.signals[1].name}
    assert np.isfinite(row["top_observed"]).all() and np.isfinite(row["top_expected"]).all()
    assert len(row["top_observed"]) == len(row["top_expected"]) == len(row["top_shares"]) == 3
    assert len(none["top_signals"]) == 1


def test_windows_are_scored_in_their_places(served: tuple[Path, str], tmp_path: Path) -> None:
    """Devices with several metrics, one without a model, one that said nothing: each row's result is its own."""
    folder, address = served
    lie = next(d for d in all_detectors() if d.name == "corruption")
    (folder / "leak.json").write_text(scoring.dump(make(LEAK)))
    (folder / "lie.json").write_text(scoring.dump(make(lie)))
    f = scorer.Scorer(str(tmp_path / "cache"))
    lost: list[int] = []
    f.open(context(lost))
    (hands, _), rng = f._handed["corruption"], np.random.default_rng(1)
    size, d = (1 + len(hands.inputs)) * hands.lookback, len(lie.signals)

    def window(values: np.ndarray) -> bytes:
        return packed(np.concatenate([60_000.0 * np.arange(hands.lookback), values.ravel()]))

    usual, odd = rng.normal(size=(len(hands.inputs), hands.lookback)), rng.normal(size=(len(hands.inputs), hands.lookback))
    odd[:, -1] = 1e6
    alone, unknown, usually = packed(np.zeros(1 + len(f._handed[LEAK.name][0].inputs))), packed([np.nan] * 8), packed([np.zeros(d), np.ones(d)])
    rows = [
        (asked("leak", LEAK.name, f"{address}/leak.json"), alone, " ", unknown),
        (asked("lie", "corruption", f"{address}/lie.json"), window(usual) + window(odd), " k", usually * 2),
        (asked("silent", "flood", f"{address}/none.json"), alone, " ", unknown),
        (asked("lie", "corruption", f"{address}/lie.json"), packed([np.nan] * size), "d", usually),
        (asked("lie", "corruption", f"{address}/lie.json"), window(usual), "d", usually),
    ]
    got = f.eval(*(pd.Series(list(column)) for column in zip(*rows, strict=True)))
    assert list(got.columns) == [n for n, _ in scorer.RESULT] and lost == [1]
    assert got["score"].isna().tolist() == [False, False, True, True, False]
    assert got["place"].tolist() == [1, 2, None, None, 1] and got["baseline"].tolist() == ["global", "kind", None, None, "device"]
    assert got["anomalous"][1] and got["reason"][1] and got["score"][1] > got["score"][4]
    assert [len(x) for x in got["signals"].dropna()] == [4, d, d]


def test_a_shadow_scores_beside_and_changes_nothing_else(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    one = make(LEAK)
    (folder / "1.json").write_text(scoring.dump(one))
    low = dataclasses.replace(one, detectors={n: dataclasses.replace(m, threshold=0.01) for n, m in one.detectors.items()})
    (folder / "2.json").write_text(scoring.dump(low))
    (folder / "3.json").write_text("{}")
    f = scorer.Scorer(str(tmp_path / "cache"))
    f.open(context([]))
    hands, center = f._handed[LEAK.name][0], np.log1p([2e4, 1.0, 1.0, 2e4])

    def rows(shadow: str) -> pd.DataFrame:
        uri = f"{address}/{shadow}.json" if shadow else ""
        windows = [dict(zip(wanted(LEAK), x, strict=True)) for x in ([1e9, 3.0, 1000.0, 2e4], [4e4, 1.0, 1.0, 2e4])]
        inputs = [packed([0.0, *(w.get(sql, 0.0) for sql in hands.inputs)]) for w in windows]
        row = asked("leak", LEAK.name, f"{address}/1.json", shadow, uri)
        return f.eval(*map(pd.Series, [[row] * 2, inputs, ["d"] * 2, [packed([center, np.full(4, 0.5)])] * 2]))

    alone = rows("")
    assert alone["score"].notna().all() and alone[["shadow_version", "shadow_score", "shadow_anomalous"]].isna().all(axis=None)
    both = rows("2")
    assert set(both["shadow_version"]) == {"leak/2"} and both["shadow_score"].tolist() == both["score"].tolist()
    assert both["anomalous"].tolist() == [True, False] and both["shadow_anomalous"].tolist() == [True, True]
    same = [n for n in alone if not n.startswith("shadow")]
    for other in (both, rows("3")):  # a shadow that cannot be had is no harm
        assert all(np.array_equal(a, b) for n in same for a, b in zip(other[n], alone[n], strict=True))
    assert f._models.get("leak", "9", f"{address}/9.json")[0] == "1", "a shadow never stands in for the champion"  # type: ignore[index]


@pytest.mark.parametrize("started_by_flink", [True, False])
def test_a_worker_ends_with_its_taskmanager_and_nothing_else_does(started_by_flink: bool) -> None:
    program = "from streaming.scorer import end_with_flink; import time; end_with_flink(); print('up', flush=True); time.sleep(60)"
    words = [sys.executable, "-c", program, *([scorer.WORKER] if started_by_flink else [])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        assert worker.stdout.readline() == "up\n"
        assert worker.poll() is None
        worker.stdin.close()  # as when the process that holds it is killed
        try:
            worker.wait(2 if not started_by_flink else 20)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        worker.kill()
    assert ended == started_by_flink
