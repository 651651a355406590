"""The committer: moves the stream's finished Parquet files into the Delta tables, each exactly once."""

from __future__ import annotations

from tidewatch.settings import ROOT, Settings
from tidewatch.stack import Service


def services(settings: Settings) -> tuple[Service, ...]:
    return (
        Service(
            name="committer",
            doc="commits the stream's files to Delta",
            command=(str(settings.env_python("tools")), "-m", "streaming.committer"),
            memory_mb=300,
            ready=lambda s: True,  # it listens nowhere; the supervisor knows that it runs
            ready_timeout=30,
            env={"PYTHONPATH": str(ROOT)},
            prepare=_folders,
            nice=5,
        ),
    )


def _folders(settings: Settings) -> None:
    for folder in (settings.landing, settings.lake):
        folder.mkdir(parents=True, exist_ok=True)
