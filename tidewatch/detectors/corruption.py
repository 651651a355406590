"""A metric that lies: out of its range, stuck, drifting, noisy, jumping or missing against its own baseline."""

from tidewatch.detectors import Detector, Example, Signal

DETECTOR = Detector(
    name="corruption",
    use_case="lie",
    title="Device sends erroneous data",
    doc=__doc__ or "",
    view="reading_10m",
    signals=(
        Signal("value_mean", "value_mean", 0, "identity", "", "mean of the values in ten minutes", 1e-6),
        Signal("value_min", "value_min", 0, "identity", "", "smallest value", 1e-6),
        Signal("value_max", "value_max", 0, "identity", "", "largest value", 1e-6),
        Signal("value_range", "value_range", 0, "identity", "", "largest minus smallest value", 1e-6),
        Signal("missing_share", "CAST(missing AS DOUBLE) / CAST(readings AS DOUBLE)", 1, "identity", "", "share of reports without a value", 0.05),
    ),
    technique="T1565",
    runbook="docs/runbooks/corruption.md",
    false_positives=("a recalibrated or replaced sensor", "a changed unit after a firmware update"),
    examples=(
        Example("a spike", {"value_mean": 24, "value_min": 19.5, "value_max": 95, "value_range": 75.5, "missing_share": 0}, {"value_mean": 20, "value_min": 19, "value_max": 21, "value_range": 2, "missing_share": 0}, True),
        Example("an ordinary window", {"value_mean": 20.2, "value_min": 19.1, "value_max": 21.3, "value_range": 2.2, "missing_share": 0}, {"value_mean": 20, "value_min": 19, "value_max": 21, "value_range": 2, "missing_share": 0}, False),
    ),
)
