"""The scorer's models: loaded once, kept on disk, and what holds when a version cannot be had."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.flink
pytest.importorskip("pyflink", reason="the flink environment has it")

import pandas as pd  # noqa: E402

from streaming import scorer  # noqa: E402
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


def test_a_result_tells_why() -> None:
    observed = np.array([[1e9, 3.0, 1000.0, 2e4], [np.nan] * 4])
    center, scale = np.log1p(np.array([[2e4, 1.0, 1.0, 2e4]] * 2)), np.full((2, 4), 0.5)
    scored = scoring.score(make(LEAK), LEAK.name, observed, center, scale)
    hit = scorer.explain(LEAK, "4", 0.5, float(scored.score[0]), 0, "", "kind", scored, observed)
    row = dict(zip((n for n, _ in scorer.RESULT), hit, strict=True))
    assert row["anomalous"] and row["severity"] == "critical" and row["model_version"] == "leak/4" and row["baseline"] == "kind"
    assert row["top_signals"][0] == "external_bytes_out" and sum(row["top_shares"]) == pytest.approx(1)
    assert row["reason"] == "bytes sent to outside addresses in a minute: 1 GB, expected 20 kB for devices of its kind"
    assert row["metric"] == "" and row["signals"] == observed[0].tolist() and np.isnan(scored.score[1])


def test_the_windows_of_a_lookback_become_signals_as_in_batch() -> None:
    """What Flink hands over, oldest first and fewer at the beginning, against what the batch side makes of the same rows."""
    rng = np.random.default_rng(1)
    d = next(d for d in all_detectors() if d.name == "corruption")
    assert d.lookback is not None
    end, inputs = 60_000.0 * np.arange(1, 51), rng.normal(size=(len(d.lookback.inputs), 50))
    inputs[0, 7] = np.nan
    rows: list[object] = []
    for i in range(50):
        first = max(0, i + 1 - d.lookback.windows)
        rows.append([None if np.isnan(x) else x for x in np.concatenate([end[first:i + 1], *(c[first:i + 1] for c in inputs)])])
    got = scorer.observe(d, rows)
    at = np.arange(50)[:, None] - np.arange(d.lookback.windows - 1, -1, -1)
    there = at >= 0
    at = np.maximum(at, 0)
    want = d.lookback.signals(np.where(there, end[at], -np.inf), np.where(there[:, None, :], inputs[:, at].transpose(1, 0, 2), np.nan))
    np.testing.assert_array_equal(got, want)
    assert np.isnan(scorer.observe(d, [None, [1.0, 2.0]])[:, 0]).all()


def test_rows_of_another_length_are_no_baseline() -> None:
    found = scorer.matrix(pd.Series([None, [1.0, None], [1.0], np.array([3.0, 4.0])]), 2)
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [1, np.nan], [np.nan, np.nan], [3, 4]])
