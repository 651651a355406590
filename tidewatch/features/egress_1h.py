"""What a device sent and received in an hour, every ten minutes, and to whom outside: the sums in which a slow leak shows."""

from tidewatch.features import SUM_GROUPS, Feature, FeatureView, Source

_GROUPS = range(1, SUM_GROUPS + 1)
_SAME = ("device_id", "external_flows", "external_bytes_out", "external_bytes_in", "bytes_out", "outside_groups")

VIEW = FeatureView(
    name="egress_1h",
    doc=__doc__ or "",
    sources=(Source("flow_1m", (*((n, n) for n in _SAME), *((f"outside_log_{k}", f"LN(1.0 + outside_bytes_{k} / 1000.0)") for k in _GROUPS))),),
    keys=("device_id",),
    size_seconds=3600,
    slide_seconds=600,
    delay_seconds=30,  # every tenth minute its windows would close in one burst with all the minute's
    published=False,
    features=(
        Feature("external_flows", "SUM(external_flows)", "long", "flows with an outside address", "flows"),
        Feature("external_bytes_out", "SUM(external_bytes_out)", "long", "bytes sent to outside addresses", "B"),
        Feature("external_bytes_in", "SUM(external_bytes_in)", "long", "bytes received from outside addresses", "B"),
        Feature("bytes_out", "SUM(bytes_out)", "long", "bytes sent to any address", "B"),
        Feature("outside_groups", "BIT_OR(outside_groups)", "long", "groups of outside addresses the device opened flows to, a bit each"),
        *(
            Feature(f"outside_log_{k}", f"SUM(outside_log_{k})", "double",
                    f"sum over the minutes of ln(1 + kB sent to outside addresses of group {k}, of {SUM_GROUPS} by a hash)")
            for k in _GROUPS
        ),
    ),
)
