"""A device that stops sending: nothing in its newest minutes, though its baseline expects something."""

from tidewatch.detectors import Detector, Example, Signal

DETECTOR = Detector(
    name="silence",
    use_case="silent",
    title="Device fell silent",
    doc=__doc__ or "",
    view="activity_10m",
    signals=(
        Signal("silent_seconds", "(window_end_ms - last_ts) / 1000.0", 1, "log1p", "s", "time since the device's last event", 0.35),
        Signal("events", "CAST(events AS DOUBLE)", -1, "log1p", "events", "events in ten minutes", 0.25),
    ),
    technique="T1489",
    runbook="docs/runbooks/silence.md",
    false_positives=("planned maintenance or a reboot", "a device that was taken out of service but is still in the inventory"),
    examples=(
        Example("busy device, four minutes without a word", {"silent_seconds": 240, "events": 60}, {"silent_seconds": 3, "events": 110}, True),
        Example("slow device, its usual pause", {"silent_seconds": 240, "events": 3}, {"silent_seconds": 150, "events": 4}, False),
    ),
)
