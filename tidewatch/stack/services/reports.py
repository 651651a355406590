"""A file server for the data quality reports (Great Expectations' Data Docs)."""

from __future__ import annotations

from tidewatch.settings import Settings
from tidewatch.stack import Service, probe


def services(settings: Settings) -> tuple[Service, ...]:
    folder = settings.state_dir / "reports"
    return (
        Service(
            name="reports",
            doc="data quality reports",
            command=(
                str(settings.env_python("tools")), "-m", "http.server", str(settings.ports.reports), "--bind", "127.0.0.1", "--directory", str(folder),
            ),
            memory_mb=30,
            ready=lambda s: probe.answers(f"{s.reports}/"),
            ready_timeout=30,
            ports=("reports",),
            prepare=lambda s: (s.state_dir / "reports").mkdir(parents=True, exist_ok=True),
            url=lambda s: s.reports,
        ),
    )
