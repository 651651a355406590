"""`tidewatch stream start|stop|status`: the Flink job, with a savepoint at each stop that the next start resumes from."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidewatch.settings import current

app = typer.Typer(help="The Flink job: start, stop with a savepoint, see how it stands.", no_args_is_help=True)
console = Console(highlight=False)


@app.command()
def start(
    fresh: Annotated[bool, typer.Option("--fresh", help="begin without earlier state, at the Kafka offsets read last")] = False,
) -> None:
    """Submit the job, resuming from the newest savepoint or checkpoint, and wait until it runs."""
    from streaming import control

    begin = time.monotonic()
    job = control.start(current(), fresh=fresh, say=lambda line: print(line, flush=True))
    print(f"the stream runs: job {job} ({time.monotonic() - begin:.0f} s)")


@app.command()
def stop() -> None:
    """Stop the job with a savepoint."""
    from streaming import control

    print(f"stopped, savepoint {control.stop(current()).rsplit('/', 1)[-1]}")


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="print JSON for a script")] = False) -> None:
    """Show the job's state, checkpoints, lag and last error; exit code 1 when it does not run."""
    from streaming import control

    now = control.status(current(), deep=True)
    if as_json:
        print(json.dumps(now.document(), indent=2))
    else:
        grid = Table.grid(padding=(0, 2))
        grid.add_row("state", f"{now.state} ({now.tasks_running} of {now.tasks} tasks run)" if now.job_id else now.state)
        if now.job_id:
            grid.add_row("job", now.job_id)
            grid.add_row("up", f"{now.uptime_seconds:,.0f} s, {now.restarts} restarts")
            if now.checkpoint_seconds is not None:
                size = (now.checkpoint_bytes or 0) / 1e6
                grid.add_row("checkpoints", f"{now.checkpoints} done, {now.checkpoints_failed} failed; last {now.checkpoint_age_seconds:.0f} s ago: {now.checkpoint_seconds:.1f} s, {size:.1f} MB")
            else:
                grid.add_row("checkpoints", f"none yet, {now.checkpoints_failed} failed")
            grid.add_row("lag", "unknown" if now.lag is None else f"{now.lag:,} events at the last checkpoint")
            grid.add_row("late", "unknown" if now.late is None else f"{now.late:,} parts of windows came too late")
            if now.last_error:
                grid.add_row("last error", f"{now.last_error_seconds_ago:,.0f} s ago: {control.cause(now.last_error)[:300]}")
        console.print(grid)
    if now.state != "RUNNING":
        raise typer.Exit(1)


def register(root: typer.Typer) -> None:
    """Add the commands to the command line."""
    root.add_typer(app, name="stream")
