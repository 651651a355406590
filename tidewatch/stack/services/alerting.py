"""What stands beside the stream for alerts: the ticker that tells total outages, and the notifier that tells others of alerts."""

from __future__ import annotations

import hashlib

from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service


def _digest(settings: Settings) -> str:
    """Changes with what the two read of the settings, so that `tidewatch up` restarts them then."""
    headers = [{k: v.get_secret_value() for k, v in w.headers.items()} for w in settings.alerts.webhooks]
    return hashlib.sha256(repr((settings.outage, settings.maintenance, settings.alerts.webhooks, headers)).encode()).hexdigest()[:16]


def services(settings: Settings) -> tuple[Service, ...]:
    return tuple(
        Service(
            name=name,
            doc=doc,
            command=(str(settings.env_python("tools")), "-m", module),
            memory_mb=150,
            ready=lambda s: True,  # it listens nowhere; the supervisor knows that it runs
            ready_timeout=30,
            needs=("kafka",),
            env={"PYTHONPATH": str(ROOT), "ALERTING_SETTINGS": _digest(settings)},
        )
        for name, doc, module in (
            ("ticker", "tells by the wall clock when no events come at all", "tidewatch.outage"),
            ("notifier", "tells news of alerts: OCSF findings, webhooks", "tidewatch.notify"),
        )
    )
