"""How alive a device is, from everything it sends: the view that still has rows after a device's last event."""

from tidewatch.features import Feature, FeatureView, Source

VIEW = FeatureView(
    name="activity_10m",
    doc=__doc__ or "",
    sources=(
        Source("flow_1m", (("device_id", "device_id"), ("events", "flows"), ("last_ts", "last_ts"))),
        Source("reading_1m", (("device_id", "device_id"), ("events", "readings"), ("last_ts", "last_ts"))),
    ),
    keys=("device_id",),
    size_seconds=600,
    slide_seconds=60,
    delay_seconds=4,  # after reading_1m, of which it is made, has been scored
    published=False,
    features=(
        Feature("events", "SUM(events)", "long", "events of every kind in the window", "events"),
        Feature("last_ts", "MAX(last_ts)", "long", "event time of the last event, UTC milliseconds", "ms"),
    ),
)
