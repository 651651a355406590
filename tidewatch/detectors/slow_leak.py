"""A device that leaks slowly: what no single minute shows adds up over an hour."""

from datetime import timedelta

from tidewatch.detectors import Detector, Example, Signal

DETECTOR = Detector(
    name="slow_leak",
    use_case="leak",
    title="Device leaks slowly",
    doc=__doc__ or "",
    view="egress_1h",
    history=timedelta(hours=5),
    signals=(
        Signal("external_bytes_out_1h", "CAST(external_bytes_out AS DOUBLE)", 1, "log1p", "B", "bytes sent to outside addresses in an hour", 0.25),
        Signal("external_ratio_1h", "(external_bytes_out + 10000.0) / (external_bytes_in + 10000.0)", 1, "log1p", "", "outside bytes sent in an hour for each received (each plus 10 kB, so that small talk counts little)", 0.2),
        Signal("bytes_out_1h", "CAST(bytes_out AS DOUBLE)", 1, "log1p", "B", "bytes sent to any address in an hour", 0.25),
    ),
    technique="T1048",
    runbook="docs/runbooks/slow_leak.md",
    false_positives=("a synchronisation that runs for the first time", "a long call or meeting with video"),
    examples=(
        Example("half a gigabyte in small pieces", {"external_bytes_out_1h": 5e8, "external_ratio_1h": 90, "bytes_out_1h": 5.2e8}, {"external_bytes_out_1h": 6e5, "external_ratio_1h": 0.3, "bytes_out_1h": 5e6}, True),
        Example("a busy hour", {"external_bytes_out_1h": 8e5, "external_ratio_1h": 0.35, "bytes_out_1h": 6e6}, {"external_bytes_out_1h": 6e5, "external_ratio_1h": 0.3, "bytes_out_1h": 5e6}, False),
    ),
)
