"""Pinot's decoder of JSON gives what Pinot's own decoder and `jsonPath` give, but for a null within an array."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tidewatch.settings import current
from tidewatch.stack import jvm, pinot_decoder, pinot_tables
from tidewatch.stack.java_compiler import compile_jar
from tidewatch.tables import catalogue

# of the stack, for it needs Pinot's jars and Java, but no server
pytestmark = pytest.mark.stack
JAVA = Path(__file__).parent / "java"
QUIET = '<Configuration><Loggers><Root level="off"/></Loggers></Configuration>'
Rows = Callable[[str, bool, Sequence[bytes]], list[str]]


def configs(name: str, ours: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A table's schema and configuration; not ours: with Pinot's decoder and a transform a derived column."""
    t = catalogue()[name]
    table = pinot_tables.config(t)
    if not ours:
        stream = table["tableIndexConfig"]["streamConfigs"]
        stream.pop("stream.kafka.decoder.prop.elements", None)
        stream["stream.kafka.decoder.class.name"] = "org.apache.pinot.plugin.inputformat.json.JSONMessageDecoder"
        table.setdefault("ingestionConfig", {"transformConfigs": []})["transformConfigs"] += [
            {"columnName": d.column.name, "transformFunction": f"jsonPath({d.array}, '$[{d.index}]')"} for d in pinot_tables.derived(name)
        ]
    return pinot_tables.schema(t), table


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What Pinot makes of records: a line each, `null` for one that is skipped."""
    settings, folder = current(), tmp_path_factory.mktemp("rows")
    pinot_decoder.build(settings)
    jars = sorted((settings.state_dir / "jars" / "pinot").glob("*.jar"))
    compile_jar(settings, "the test's Java", [JAVA], jars, folder / "rows.jar")
    (folder / "log4j2.xml").write_text(QUIET)

    def read(name: str, ours: bool, records: Sequence[bytes]) -> list[str]:
        for file, made in zip(("schema.json", "table.json"), configs(name, ours), strict=True):
            (folder / file).write_text(json.dumps(made))
        done = subprocess.run(
            [jvm.java(), f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}", "-cp", ":".join(map(str, [folder / "rows.jar", *jars])),
             "tidewatch.pinot.Rows", str(folder / "schema.json"), str(folder / "table.json")],
            input=b"".join(base64.b64encode(r) + b"\n" for r in records), capture_output=True, check=False,
        )
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        found = done.stdout.decode().splitlines()
        assert len(found) == len(records)
        return found

    return read


def a_score(**changes: Any) -> dict[str, Any]:
    return {
        "use_case": "leak", "detector": "exfiltration", "device_id": "dev-1", "metric": "", "window_start": 1_795_474_740_000,
        "window_end": 1_795_474_800_000, "score": 0.13346879375398904, "anomalous": False, "model_version": "leak/3", "baseline": "device",
        "top_signals": ["external_destinations", "bytes_out", "failed"], "top_observed": [1.0, 125116.0, 0.5], "top_expected": [1.73093, 103394.0, 3.0],
        "top_shares": [0.470119, 0.279414, 0.170569], "signals": [18985.0, 1.0, 0.366214, 125116.0], "expected": [16332.9, 1.73093, 0.279256, 103394.0],
        "usual_low": 6533.16, "usual_high": 26132.6, "shadow_version": None, "shadow_score": None, "shadow_anomalous": None, **changes,
    }


def an_alert(**changes: Any) -> dict[str, Any]:
    return {
        "alert_id": "leak:dev-1:0", "use_case": "leak", "detector": "exfiltration", "device_id": "*", "metric": "", "start": 0, "end": 1_795_474_800_000,
        "windows": 3, "severity": "high", "score": 0.75, "model_version": "leak/3", "baseline": "device", "top_signals": ["a", "b"],
        "top_observed": [1.5, 2], "top_expected": [0.0, -1e-7], "top_shares": [0.5, 0.5], "technique": "T1048", "title": "t", "reason": "r", "kind": "",
        "site": "", "status": "open", "group_id": "", "members": 2, "member_ids": ["dev-1", "dev-2"], "suppressed_by": "", **changes,
    }


def numbers(rng: random.Random, n: int) -> list[str]:
    """Numbers as JSON may have them: with few digits and many, exponents near and far."""
    def one() -> str:
        digits = "".join(rng.choices("0123456789", k=rng.randint(1, rng.choice((6, 19)))))
        whole, fraction = digits[: (at := rng.randint(0, len(digits)))].lstrip("0") or "0", digits[at:]
        return "".join((rng.choice(("", "-")), whole, f".{fraction}" if fraction else "", rng.choice(("", "", f"{rng.choice('eE')}{rng.choice(('', '+', '-'))}{rng.randint(0, 30)}"))))

    edges = ["0", "-0.0", "5", "1E7", "1.79188188E8", "1e22", "1e23", "9007199254740993.0", "9007199254740992e1", "4.9e-324", "1e400", "-1e400", "1e-99999", "1e999999999999",
             "123456789012345678901234567890", "2147483648", "9223372036854775808", '"NaN"', '"-Infinity"', '"7.5"']
    return edges + [one() for _ in range(n - len(edges))]


SCORES: tuple[dict[str, Any], ...] = (
    a_score(), a_score(anomalous=True, shadow_version="leak/4", shadow_score=0.25, shadow_anomalous=True), a_score(shadow_anomalous=False),
    a_score(device_id='gerät-€-𝄞 "\\/\b\n\t\x00\u2028', top_signals=['"a"', "ß", "x, [y]"]),
    a_score(signals=[1.0] * 12, expected=[5], top_signals=["$[0]"]), a_score(signals=[], expected=[], top_signals=[], top_observed=[]),
    a_score(signals=None, expected=None, top_signals=None, top_observed=None, top_expected=None, top_shares=None),
    a_score(signals=[None] * 4, expected=[None]), a_score(expected=[1.5, 2, None]), a_score(top_shares=[None, 0.5, 0.5]),
    {"window_end": 1_795_474_800_000}, a_score(nobody={"asks": ["for", {"this": 1}]}, nor=[[1], {}]), a_score(score=1, usual_low="6.5", window_start="1795474740000"),
    {k: v for k, v in a_score().items() if k not in ("signals", "top_signals", "score")},
)
ALERTS: tuple[dict[str, Any], ...] = (
    an_alert(), an_alert(member_ids=[]), an_alert(member_ids=["one"], top_signals=["a"], top_observed=[1], top_expected=[None], top_shares=[1.0]),
    an_alert(top_signals=None, top_observed=None, top_expected=None, top_shares=None), an_alert(title="ü" * 600, reason="€" * 600, metric="é" * 600),
)


def test_rows_are_those_of_pinots_own_decoder(rows: Rows) -> None:
    rng = random.Random(3)
    fuzz = numbers(rng, 600)
    body = json.dumps(a_score(score="#", signals=["#"] * 10, usual_low="#"))
    scores = [json.dumps(r, ensure_ascii=i % 2 == 0).encode() for i in range(2) for r in SCORES]
    for i in range(0, len(fuzz), 12):
        text = body
        for n in fuzz[i : i + 12]:
            text = text.replace('"#"', n, 1)
        scores.append(text.replace('"#"', "0").encode())
    good = scores[0]
    scores += [b" \n" + good + b"\n", good + b"x", good + good, good[:-1] + b', "signals": [2.0], "score": 0.5, "top_signals": null}']
    alerts = [json.dumps(r, ensure_ascii=False).encode() for r in ALERTS]
    for name, records in (("scores", scores), ("alerts", alerts)):
        ours, theirs = rows(name, True, records), rows(name, False, records)
        for record, our, their in zip(records, ours, theirs, strict=True):
            assert our == their, record.decode()
        assert "null" not in ours
        if name == "scores":
            values, null = json.loads(ours[0])
    assert (values["first_signal"], values["observed_1"], values["expected_4"], values["anomalous"]) == ("external_destinations", 18985.0, 103394.0, 0)
    assert {"observed_5", "expected_10", "shadow_score"} <= set(null) and "observed_4" not in null


def test_a_broken_record_is_skipped_and_the_next_one_read(rows: Rows) -> None:
    good = json.dumps(a_score(device_id="gerät")).encode()
    broken = [b"", b" ", b"null", b"7", b'"text"', b"[]", b"[{}]", b"\x00", b"\xff" * 9, b"{'a': 1}", b'{"score": NaN}', b'{"score": 01}', b'{"signals": [1.0,]}',
              b'{"device_id": "\xff"}', b'{"device_id": "a\nb"}', *(good[:n] for n in range(0, len(good), 7))]
    records = [r for b in broken for r in (b, good)]
    ours = rows("scores", True, records)
    assert set(ours[::2]) == {"null"} and len(set(ours[1::2])) == 1
    assert ours == rows("scores", False, records)


def test_a_null_keeps_its_place_in_an_array(rows: Rows) -> None:
    """Pinot leaves it out before `jsonPath` counts, so that the next signal's value would stand in its column."""
    record = json.dumps(a_score(signals=[None, 1.0, None, 3.0], top_signals=["a", None, "c"])).encode()
    (values, null), (theirs, _) = (json.loads(rows("scores", ours, [record])[0]) for ours in (True, False))
    assert [values[f"observed_{i}"] for i in (2, 4)] == [1.0, 3.0] and {"observed_1", "observed_3"} <= set(null)
    assert [theirs[f"observed_{i}"] for i in (1, 2)] == [1.0, 3.0]
    assert values["top_signals"] == theirs["top_signals"] == ["a", "c"]


def test_what_is_no_flat_record_is_skipped(rows: Rows) -> None:
    nested = [json.dumps(r).encode() for r in (a_score(device_id={"a": 1}), a_score(signals=[[1.0]]), a_score(top_signals=[{}]), a_score(signals={"0": 1.0}))]
    assert rows("scores", True, nested) == ["null"] * 4
    # a lone value is no array: its elements are not there
    values, null = json.loads(rows("scores", True, [json.dumps(a_score(top_signals="a", signals=5)).encode()])[0])
    assert values["top_signals"] == ["a"] and {"first_signal", "observed_1"} <= set(null)
