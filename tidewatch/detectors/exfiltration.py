"""A device that sends data outside: more bytes, more outside addresses, a worse ratio than its baseline knows."""

from tidewatch.detectors import Detector, Example, Signal

DETECTOR = Detector(
    name="exfiltration",
    use_case="leak",
    title="Device sends data outside",
    doc=__doc__ or "",
    view="flow_1m",
    signals=(
        Signal("external_bytes_out", "CAST(external_bytes_out AS DOUBLE)", 1, "log1p", "B", "bytes sent to outside addresses in a minute", 0.5),
        Signal("external_destinations", "CAST(external_destinations AS DOUBLE)", 1, "log1p", "addresses", "distinct outside addresses the device opened flows to", 0.35),
        Signal("external_ratio", "(external_bytes_out + 1000.0) / (external_bytes_in + 1000.0)", 1, "log1p", "", "outside bytes sent for each received (each plus 1 kB, so that small talk counts little)", 0.35),
        Signal("bytes_out", "CAST(bytes_out AS DOUBLE)", 1, "log1p", "B", "bytes sent to any address in a minute", 0.5),
    ),
    technique="T1041",
    runbook="docs/runbooks/exfiltration.md",
    false_positives=("a backup to a new provider", "a software release uploaded by a build server"),
    examples=(
        Example("a gigabyte to a stranger", {"external_bytes_out": 1e9, "external_destinations": 2, "external_ratio": 5e4, "bytes_out": 1e9}, {"external_bytes_out": 2e4, "external_destinations": 1, "external_ratio": 0.4, "bytes_out": 1e5}, True),
        Example("a large mail", {"external_bytes_out": 6e4, "external_destinations": 1, "external_ratio": 0.9, "bytes_out": 1.5e5}, {"external_bytes_out": 2e4, "external_destinations": 1, "external_ratio": 0.4, "bytes_out": 1e5}, False),
    ),
)
