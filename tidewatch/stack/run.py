"""One service of the table in the foreground, for a container: `python -m tidewatch.stack.run SERVICE`; `--ready` asks whether it serves."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tidewatch.errors import SettingsError, TidewatchError
from tidewatch.settings import Settings, current
from tidewatch.stack import Service, processes, supervisor, table


def ready(settings: Settings, service: Service) -> bool:
    try:
        return service.ready(settings)
    except (OSError, http.client.HTTPException, ValueError, TidewatchError):
        return False


def run(settings: Settings, service: Service) -> int:
    """Prepare and start it, set it up once it serves, pass signals on; returns its exit code."""
    for path, text in service.files.items():
        supervisor.write_private(path, text)
    if service.prepare:
        service.prepare(settings)
    process = subprocess.Popen(service.command, env=processes.lowered() | dict(service.env))
    stop = getattr(signal, f"SIG{service.stop_signal}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.send_signal(stop))

    def set_up() -> None:
        while process.poll() is None and not ready(settings, service):
            time.sleep(1)
        if service.after and process.poll() is None:
            try:
                service.after(settings)
            except TidewatchError as e:
                print(f"error: {e}", file=sys.stderr, flush=True)
                process.send_signal(stop)  # the container ends and is started again
        marker(settings, service).touch()

    marker(settings, service).unlink(missing_ok=True)
    threading.Thread(target=set_up, daemon=True).start()
    return process.wait()


def marker(settings: Settings, service: Service) -> Path:
    """Stands for 'it was set up since its last start'; its health depends on that too."""
    return supervisor.run_dir(settings) / f"{service.name}.set-up"


def main(arguments: list[str]) -> int:
    settings = current()
    rows = table(settings)
    names = [a for a in arguments if not a.startswith("-")]
    if len(names) != 1 or names[0] not in rows:
        raise SettingsError(f"name one service, not {names}.", f"one of: {', '.join(rows)}")
    service = rows[names[0]]
    if "--ready" in arguments:
        return 0 if marker(settings, service).exists() and ready(settings, service) else 1
    os.umask(0o077)
    return run(settings, service)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TidewatchError as e:
        sys.exit(f"error: {e}")
