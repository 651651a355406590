"""A metric of a device over ten minutes, every minute: level, spread and gaps, the signs of a device that lies."""

from tidewatch.features import Feature, FeatureView, Source

VIEW = FeatureView(
    name="reading_10m",
    doc=__doc__ or "",
    sources=(Source("reading_1m"),),
    keys=("device_id", "metric"),
    size_seconds=600,
    slide_seconds=60,
    published=False,
    features=(
        Feature("readings", "SUM(readings)", "long", "reports in the window", "readings"),
        Feature("missing", "SUM(missing)", "long", "reports without a value", "readings"),
        Feature("errors", "SUM(errors)", "long", "reports that the device itself marks as not ok", "readings"),
        Feature("value_mean", "SUM(value_sum) / SUM(CAST(readings - missing AS DOUBLE))", "double", "mean of the values"),
        Feature("value_min", "MIN(value_min)", "double", "smallest value"),
        Feature("value_max", "MAX(value_max)", "double", "largest value"),
        Feature("value_range", "MAX(value_max) - MIN(value_min)", "double", "largest minus smallest value: zero for a stuck metric, wide for a noisy one"),
    ),
)
