"""What was sent is what the tables hold: nothing lost, nothing twice, everything broken in the dead letters."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from deltalake import DeltaTable

from tests.conftest import Stack
from tidewatch import tables
from tidewatch.pinot import query

pytestmark = pytest.mark.stack


def truth(stack: Stack) -> dict[str, Counter]:
    """What every run into this stack sent, per topic."""
    total = {"flow": Counter(), "reading": Counter()}
    for path in (stack.settings.state_dir / "data" / "generate").glob("*.json"):
        for topic, tally in json.loads(path.read_text())["topics"].items():
            total[topic].update(tally)
    return total


def delta_rows(stack: Stack, name: str) -> int:
    path = str(tables.table(name).path(stack.settings))
    return DeltaTable(path).count() if DeltaTable.is_deltatable(path) else 0


def pinot_rows(stack: Stack, name: str) -> int:
    return int(query(stack.settings, f"SELECT COUNT(*) FROM {name}")[0][0])


def test_counts_agree(stack: Stack) -> None:
    sent = truth(stack)
    want = {
        **{f"delta {t}": n["valid"] for t, n in sent.items()}, **{f"pinot {t}": n["unique"] for t, n in sent.items()},
        "delta dead_letters": sum(n["malformed"] + n["impossible"] for n in sent.values()),
    }
    until = time.monotonic() + 180
    while True:
        have = {what: (delta_rows if what.startswith("delta") else pinot_rows)(stack, what.split()[1]) for what in want}
        if have == want or time.monotonic() > until:
            break
        time.sleep(3)
    assert have == want


def test_the_reasons_are_the_rules_that_were_broken(stack: Stack) -> None:
    sent: Counter[str] = Counter()
    for tally in truth(stack).values():
        sent.update({n.removeprefix("impossible."): c for n, c in tally.items() if n.startswith("impossible.")})
        sent["malformed"] += tally["malformed"]
    table = DeltaTable(tables.table("dead_letters").path(stack.settings)).to_pyarrow_table(columns=["reason"])
    assert Counter(table["reason"].to_pylist()) == +sent
