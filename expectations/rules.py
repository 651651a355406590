"""The house's own rules: what a batch must be that no contract says. A rule is one number of the window and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import great_expectations.expectations as gxe

TABLE = "window_figures"
"""The one-row table on which the rules are checked."""


@dataclass(frozen=True)
class Rule:
    """One figure of the whole window, as Spark SQL over the tables it names, and its limits."""

    name: str
    doc: str
    sql: str
    """One number; `{table}` is the window's rows of a table of the catalogue. NULL: nothing to judge."""
    minimum: float | None = None
    maximum: float | None = None
    needs: tuple[str, ...] = ()
    """Events of which the window must have rows for the rule to apply."""


RULES: tuple[Rule, ...] = (
    Rule(
        "dead_letter_share", "At most five of a hundred events are unusable: more is a broken sender or a wrong contract.",
        "SELECT (SELECT COUNT(*) FROM {dead_letters}) / NULLIF((SELECT COUNT(*) FROM {dead_letters}) "
        "+ (SELECT COUNT(*) FROM {flow}) + (SELECT COUNT(*) FROM {reading}), 0)", 0.0, 0.05,
    ),
    Rule(
        "flow_twice_in_the_lake", "No Kafka record is in the lake twice.",
        "SELECT COUNT(*) - COUNT(DISTINCT kafka_partition, kafka_offset) FROM {flow}", 0.0, 0.0, ("flow",),
    ),
    Rule(
        "reading_twice_in_the_lake", "No Kafka record is in the lake twice.",
        "SELECT COUNT(*) - COUNT(DISTINCT kafka_partition, kafka_offset) FROM {reading}", 0.0, 0.0, ("reading",),
    ),
    Rule(
        "flows_all_counted", "Every flow of the window is in one of its minutes.",
        "SELECT (SELECT SUM(flows) FROM {flow_1m}) / NULLIF((SELECT COUNT(*) FROM {flow}), 0)", 1.0, 1.0, ("flow",),
    ),
    Rule(
        "readings_all_counted", "Every reading of the window is in one of its minutes.",
        "SELECT (SELECT SUM(readings) FROM {reading_1m}) / NULLIF((SELECT COUNT(*) FROM {reading}), 0)", 1.0, 1.0, ("reading",),
    ),
    Rule(
        "missing_share", "At least half of the readings have a value.",
        "SELECT SUM(missing) / NULLIF(SUM(readings), 0) FROM {reading_1m}", 0.0, 0.5, ("reading",),
    ),
    Rule(
        "devices_heard", "At least half of the inventory said something: less is an outage of the pipeline, not of devices.",
        "SELECT (SELECT COUNT(DISTINCT a.device_id) FROM {activity_10m} a JOIN {devices} d ON a.device_id = d.device_id) "
        "/ NULLIF((SELECT COUNT(*) FROM {devices}), 0)", 0.5, 1.0,
    ),
)


def suite(figures: Mapping[str, float | None]) -> list[Any]:
    """The rules as expectations on the one-row table of figures; a rule with nothing to judge is left out."""
    return [
        gxe.ExpectColumnValuesToBeBetween(column=r.name, min_value=r.minimum, max_value=r.maximum, notes=r.doc)
        for r in RULES if figures.get(r.name) is not None
    ]
