"""The live bench holds alerts against the labels of the test part only."""

import pytest

pytest.importorskip("rich", reason="the tools environment has it")

from bench.live import verdicts  # noqa: E402
from tidewatch.inputs.replay import LabelledSet  # noqa: E402

MINUTE = 60_000


def test_alerts_of_the_test_part_are_held_against_its_labels() -> None:
    label = {"use_case": "lie", "kind": "x", "origin": "s"}
    test = LabelledSet("s", (), {}, [
        {**label, "device_id": "a", "start": 10 * MINUTE, "end": 20 * MINUTE},
        {**label, "device_id": "b", "start": 1600 * MINUTE, "end": 1700 * MINUTE},
        {**label, "device_id": "b", "start": 2000 * MINUTE, "end": 2100 * MINUTE},
    ], [{"device_id": "a"}, {"device_id": "b"}], 1440 * MINUTE, 4320 * MINUTE)
    alert = {"use_case": "lie", "device_id": "b"}
    rows = verdicts(test, [
        {**alert, "start": 12 * MINUTE, "end": 13 * MINUTE}, {**alert, "start": 1610 * MINUTE, "end": 1620 * MINUTE},
        {**alert, "start": 3000 * MINUTE, "end": 3001 * MINUTE},
    ])
    assert rows == [{
        "use_case": "lie", "incidents": 2, "found": 1, "alerts": 2, "right": 1, "wrong": 1, "wrong_a_device_day": 0.25, "delay_s": 600.0,
    }]
