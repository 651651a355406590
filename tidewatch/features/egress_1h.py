"""What a device sent and received in an hour, every ten minutes, and to whom outside: the sums in which a slow leak shows."""

from tidewatch.features import Feature, FeatureView, Source

VIEW = FeatureView(
    name="egress_1h",
    doc=__doc__ or "",
    sources=(Source("flow_1m", tuple((n, n) for n in ("device_id", "external_flows", "external_bytes_out", "external_bytes_in", "bytes_out", "outside_groups"))),),
    keys=("device_id",),
    size_seconds=3600,
    slide_seconds=600,
    published=False,
    features=(
        Feature("external_flows", "SUM(external_flows)", "long", "flows with an outside address", "flows"),
        Feature("external_bytes_out", "SUM(external_bytes_out)", "long", "bytes sent to outside addresses", "B"),
        Feature("external_bytes_in", "SUM(external_bytes_in)", "long", "bytes received from outside addresses", "B"),
        Feature("bytes_out", "SUM(bytes_out)", "long", "bytes sent to any address", "B"),
        Feature("outside_groups", "BIT_OR(outside_groups)", "long", "groups of outside addresses the device opened flows to, a bit each"),
    ),
)
