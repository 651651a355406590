"""What a device sent and received in a minute: the base of flood and leak detection."""

from tidewatch.features import SUM_GROUPS, Feature, FeatureView, Source

_EXT_OUT = "external AND direction = 'out'"
_ROW = (
    *((n, n) for n in ("device_id", "ts", "direction", "bytes_out", "bytes_in", "status", "external")),
    # addresses as their CRC-32: every event is copied once on its way into the window, and a number is cheaper to copy, compare and keep
    ("dst", "CRC32(dst_ip)"),
    ("src", "CRC32(src_ip)"),
    ("outside", "CASE WHEN external THEN CASE WHEN direction = 'out' THEN CRC32(dst_ip) ELSE CRC32(src_ip) END END"),
)

VIEW = FeatureView(
    name="flow_1m",
    doc=__doc__ or "",
    sources=(Source("flow", _ROW),),
    keys=("device_id",),
    size_seconds=60,
    slide_seconds=60,
    features=(
        Feature("flows", "COUNT(*)", "long", "flows that ended in the window", "flows"),
        Feature("bytes_out", "SUM(bytes_out)", "long", "bytes the device sent", "B"),
        Feature("bytes_in", "SUM(bytes_in)", "long", "bytes the device received", "B"),
        Feature("external_flows", "SUM(CASE WHEN external THEN 1 ELSE 0 END)", "long", "flows with an outside address", "flows"),
        Feature("external_bytes_out", "SUM(CASE WHEN external THEN bytes_out ELSE 0 END)", "long", "bytes sent to outside addresses", "B"),
        Feature("external_bytes_in", "SUM(CASE WHEN external THEN bytes_in ELSE 0 END)", "long", "bytes received from outside addresses", "B"),
        Feature("destinations", "COUNT(DISTINCT dst) FILTER (WHERE direction = 'out')", "long", "distinct addresses (by CRC-32) the device opened flows to", "addresses"),
        Feature("external_destinations", f"COUNT(DISTINCT dst) FILTER (WHERE {_EXT_OUT})", "long", "distinct outside addresses (by CRC-32) the device opened flows to", "addresses"),
        Feature(
            "outside_groups", f"COALESCE(BIT_OR(CASE WHEN {_EXT_OUT} THEN ADDRESS_BIT(dst) END), 0)", "long",
            "groups of outside addresses (52, by a hash) the device opened flows to, a bit each",
        ),
        *(
            Feature(f"outside_bytes_{k}", f"ADDRESS_SUM(outside, bytes_out, {k})", "long", f"bytes sent to outside addresses of group {k} (of {SUM_GROUPS}, by a hash)", "B")
            for k in range(1, SUM_GROUPS + 1)
        ),
        Feature("inbound_flows", "SUM(CASE WHEN direction = 'in' THEN 1 ELSE 0 END)", "long", "flows others opened to the device", "flows"),
        Feature("inbound_sources", "COUNT(DISTINCT src) FILTER (WHERE direction = 'in')", "long", "distinct addresses (by CRC-32) that opened flows to the device", "addresses"),
        Feature("failed_flows", "SUM(CASE WHEN status <> 'ok' THEN 1 ELSE 0 END)", "long", "flows refused, reset or unanswered", "flows"),
        Feature("last_ts", "MAX(ts)", "long", "event time of the last flow, UTC milliseconds", "ms"),
    ),
)
