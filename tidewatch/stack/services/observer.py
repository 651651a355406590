"""The observer: measures the pipeline once a minute for the dashboards, the start page and Prometheus."""

from __future__ import annotations

from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service


def services(settings: Settings) -> tuple[Service, ...]:
    return (
        Service(
            name="observer",
            doc="measures the pipeline every minute",
            command=(str(settings.env_python("tools")), "-m", "tidewatch.observer"),
            memory_mb=150,
            ready=lambda s: True,  # it listens nowhere; the supervisor knows that it runs
            ready_timeout=30,
            needs=("kafka",),
            env={"PYTHONPATH": str(ROOT)},
        ),
    )
