"""`tidewatch dashboards`: bring Superset's dashboards in, take them out, check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Superset's dashboards as files.")


@app.command()
def apply(force: Annotated[bool, typer.Option("--force", help="also if the files have not changed since")] = False) -> None:
    """Import `dashboards/` into Superset, replacing what is there, if the files changed since the last time."""
    from tidewatch.dashboards import files, server
    from tidewatch.settings import current

    server.apply(current(), only_if_changed=not force)
    for d in files.read().dashboards.values():
        typer.echo(f"{d['dashboard_title']:24} {current().superset}/superset/dashboard/{d['slug']}/")


@app.command()
def export() -> None:
    """Write charts and dashboards as they are in Superset back to `dashboards/`."""
    from tidewatch.dashboards import server
    from tidewatch.settings import current

    typer.echo("\n".join(server.export(current())) or "nothing changed")


@app.command()
def generate() -> None:
    """Write the dataset files from the catalogue of tables."""
    from tidewatch.dashboards import datasets

    datasets.generate()


@app.command()
def validate() -> None:
    """Walk dashboard, chart, dataset and column, without a server."""
    from tidewatch.dashboards import check, files
    from tidewatch.errors import ContractError

    wrong = check.problems()
    if wrong:
        raise ContractError("the dashboards are wrong:\n  " + "\n  ".join(wrong), "correct the files; `tidewatch dashboards generate` renews the datasets")
    b = files.read()
    typer.echo(f"{len(b.dashboards)} dashboards, {len(b.charts)} charts, {len(b.datasets)} datasets: as they should be")


@app.command()
def screenshots(to: Annotated[Path | None, typer.Option("--to", help="folder; default docs/images")] = None) -> None:
    """Take a picture of every screen of the running stack, in the system's Chromium."""
    from tidewatch import screens
    from tidewatch.settings import current

    for path in screens.pictures(current(), to or screens.IMAGES):
        typer.echo(f"{path.name:20} {path.stat().st_size // 1024} kB")


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="dashboards")
