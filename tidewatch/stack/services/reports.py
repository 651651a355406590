"""A file server for the start page, the data quality reports (Great Expectations' Data Docs) and the metrics."""

from __future__ import annotations

from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service, probe


def services(settings: Settings) -> tuple[Service, ...]:
    folder = settings.state_dir / "reports"
    return (
        Service(
            name="reports",
            doc="start page, data quality reports, metrics",
            command=(
                str(settings.env_python("tools")), "-m", "http.server", str(settings.ports.reports), "--bind", "127.0.0.1", "--directory", str(folder),
            ),
            memory_mb=30,
            ready=lambda s: probe.answers(f"{s.reports}/"),
            ready_timeout=30,
            ports=("reports",),
            files={folder / "index.html": (ROOT / "tidewatch" / "stack" / "start.html").read_text()},
            url=lambda s: s.reports,
        ),
    )
