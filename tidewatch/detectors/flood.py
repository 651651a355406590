"""A device in a flood: far more inbound flows from more sources, or itself after far more others, than its baseline knows, many failing."""

from tidewatch.detectors import Detector, Example, Signal

DETECTOR = Detector(
    name="flood",
    use_case="silent",
    title="Device is flooded",
    doc=__doc__ or "",
    view="flow_1m",
    signals=(
        Signal("inbound_flows", "CAST(inbound_flows AS DOUBLE)", 1, "log1p", "flows", "flows others opened to the device in a minute", 0.35),
        Signal("inbound_sources", "CAST(inbound_sources AS DOUBLE)", 1, "log1p", "addresses", "distinct addresses that opened them", 0.35),
        Signal("destinations", "CAST(destinations AS DOUBLE)", 1, "log1p", "addresses", "distinct addresses the device opened flows to", 0.35),
        Signal("failed_flows", "CAST(failed_flows AS DOUBLE)", 1, "log1p", "flows", "flows refused, reset or unanswered", 0.35),
    ),
    technique="T1499",
    runbook="docs/runbooks/flood.md",
    false_positives=("a scanner of the security team", "a popular release or event"),
    examples=(
        Example("thousands of sources", {"inbound_flows": 5000, "inbound_sources": 3000, "destinations": 4, "failed_flows": 2500}, {"inbound_flows": 20, "inbound_sources": 10, "destinations": 4, "failed_flows": 1}, True),
        Example("a busy minute", {"inbound_flows": 35, "inbound_sources": 16, "destinations": 5, "failed_flows": 2}, {"inbound_flows": 20, "inbound_sources": 10, "destinations": 4, "failed_flows": 1}, False),
    ),
)
