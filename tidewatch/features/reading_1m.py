"""What a metric of a device read in a minute: the base of the longer reading views."""

from tidewatch.features import Feature, FeatureView, Source

VIEW = FeatureView(
    name="reading_1m",
    doc=__doc__ or "",
    sources=(Source("reading"),),
    keys=("device_id", "metric"),
    size_seconds=60,
    slide_seconds=60,
    delay_seconds=2,  # what flows show is scored first, then this
    features=(
        Feature("readings", "COUNT(*)", "long", "reports in the window, with a value or without", "readings"),
        Feature("missing", "SUM(CASE WHEN value IS NULL THEN 1 ELSE 0 END)", "long", "reports without a value", "readings"),
        Feature("errors", "SUM(CASE WHEN status <> 'ok' THEN 1 ELSE 0 END)", "long", "reports that the device itself marks as not ok", "readings"),
        Feature("value_sum", "SUM(value)", "double", "sum of the values"),
        Feature("value_min", "MIN(value)", "double", "smallest value"),
        Feature("value_max", "MAX(value)", "double", "largest value"),
        Feature("last_ts", "MAX(ts)", "long", "event time of the last report, UTC milliseconds", "ms"),
    ),
)
