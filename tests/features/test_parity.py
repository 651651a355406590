"""Stream and batch agree: every view, signal and predicate gives the same rows in Flink and in Spark."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.features import parity
from tidewatch.settings import ROOT, current


def run(engine: str, out: Path) -> dict[str, list[list[Any]]]:
    """One engine in its own environment."""
    done = subprocess.run(
        [str(current().env_python(engine)), "-m", "tests.features.parity", engine, str(out)], cwd=ROOT, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers: dict[str, list[list[Any]]] = json.loads(out.read_text())
    return answers


def ordered(found: list[list[Any]]) -> list[list[Any]]:
    """By what is exact; of doubles only that they are there (keys and times tell rows apart)."""
    return sorted(found, key=lambda r: [repr(v is None) if v is None or isinstance(v, float) else f"{v:>24}" for v in r])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return bool(a == b)


@pytest.mark.flink
def test_every_answer_is_the_same(tmp_path: Path) -> None:
    flink, spark = run("flink", tmp_path / "flink.json"), run("spark", tmp_path / "spark.json")
    assert flink.keys() == spark.keys() == {n for n, _ in parity.queries()}
    for name in flink:
        a, b = ordered(flink[name]), ordered(spark[name])
        assert len(a) == len(b) > 0, f"{name}: {len(a)} rows in Flink, {len(b)} in Spark"
        unequal = [(x, y) for x, y in zip(a, b, strict=True) if not all(map(same, x, y))]
        assert not unequal, f"{name}: {len(unequal)} of {len(a)} rows differ, the first: Flink {unequal[0][0]}, Spark {unequal[0][1]}"


def test_the_events_break_every_rule() -> None:
    """The odd events hold, for each limit, one just within and one just beyond (checked by count here, by reason above)."""
    from tidewatch import events

    for s in events.names():
        assert len(parity.odd(s)) > 2 * sum(f.minimum is not None for f in events.contract(s).fields)
