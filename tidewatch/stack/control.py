"""Up and down: services start in the order of their needs, independent ones at the same time, and stop in reverse."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import os
import socket
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from tidewatch.errors import ServiceError, SettingsError, TidewatchError
from tidewatch.settings import Settings
from tidewatch.stack import Service, install, jvm, processes, supervisor, table

Say = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """What `tidewatch status` shows of one service."""

    service: str
    state: str
    """ready, starting (runs, does not serve yet), failed or stopped"""
    pid: int | None
    uptime_s: int | None
    memory_mb: int | None
    url: str
    doc: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def chosen(rows: Mapping[str, Service], names: Iterable[str]) -> dict[str, Service]:
    """The named services and everything they need, in starting order; every service if none is named."""
    names = list(names)
    unknown = [n for n in names if n not in rows]
    if unknown:
        raise SettingsError(f"there is no service {unknown[0]!r}.", f"one of: {', '.join(rows)}")
    wanted: set[str] = set()
    todo = names or list(rows)
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += rows[name].needs
    return {n: s for n, s in rows.items() if n in wanted}


def dependants(rows: Mapping[str, Service], names: Iterable[str]) -> set[str]:
    """The named services and every one that needs them, directly or not."""
    found = set(names)
    while more := {n for n, s in rows.items() if n not in found and found & set(s.needs)}:
        found |= more
    return found


def taken(settings: Settings, service: Service) -> list[str]:
    """A sentence for each port of the service that something else listens on."""
    sentences = []
    for name in service.ports:
        port = int(getattr(settings.ports, name))
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError as e:
                who = processes.holder(port)
                by = f"is taken by {who}" if who else "is taken by another program" if e.errno == errno.EADDRINUSE else f"cannot be used ({e.strerror})"
                sentences.append(f"port {port} (setting ports.{name}, for {service.name}) {by}.")
    return sentences


@contextlib.contextmanager
def locked(settings: Settings, say: Say) -> Iterator[None]:
    """One `up` or `down` at a time."""
    path = supervisor.run_dir(settings) / "lock"
    with path.open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another tidewatch up or down to end …")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def writable(settings: Settings) -> None:
    """Make the state folder; raises ServiceError if it cannot be written."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        probe = settings.state_dir / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as e:
        raise ServiceError(f"the state folder {settings.state_dir} cannot be written: {e.strerror}.",
                           "change its owner, or set state_dir to another folder") from e


def up(settings: Settings, names: Iterable[str] = (), say: Say = print) -> None:
    """Start services and wait until they serve; what already serves is kept. Raises ServiceError naming the one that does not."""
    writable(settings)
    rows, names = table(settings), list(names)
    wanted = chosen(rows, names)
    if absent := _not_installed(settings, wanted):
        raise ServiceError(f"not installed, or from older pins: {', '.join(absent)}.", "run `make install`")
    if any(Path(s.command[0]).name == "java" for s in wanted.values()):
        jvm.home()
    begin = time.monotonic()
    with locked(settings, say):
        if not supervisor.alive(settings) and (left := processes.sweep(settings)):
            say(f"ended {left} processes that an earlier run left behind")
        runs = {n for n, p in supervisor.states(settings).items() if p["statename"] in supervisor.UP}
        busy = [sentence for s in wanted.values() if s.name not in runs for sentence in taken(settings, s)]
        if busy:
            raise ServiceError(" ".join(busy), "end that program, or set another port in tidewatch.toml or TIDEWATCH_PORTS__…")
        changed = supervisor.start(settings, rows, say)
        for name in changed:
            say(f"  {name}: its settings changed, it is restarted")
        if names and (restarted := [n for n in changed if n in runs]):
            wanted = chosen(rows, [*wanted, *restarted])
        _start_all(settings, wanted, say)
    say(f"{len(wanted)} services ready after {time.monotonic() - begin:.0f} s")


def _not_installed(settings: Settings, wanted: Mapping[str, Service]) -> list[str]:
    words = "\n".join(" ".join((*s.command, *s.env.values())) for s in wanted.values())
    state = settings.state_dir
    return [part for part in install.missing(settings)
            if f"{state}/{part.replace('environment ', 'env/').replace('jars ', 'jars/')}/" in words]


def _start_all(settings: Settings, wanted: Mapping[str, Service], say: Say) -> None:
    """Start each service once those that it needs serve. One that fails keeps back only what needs it; the first failure is raised at the end."""
    give_up = threading.Event()
    done: set[str] = set()
    running: dict[Future[None], str] = {}
    failed: dict[str, BaseException] = {}
    begin = said = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(4, len(wanted))) as pool:
        try:
            while True:
                for s in wanted.values():
                    if s.name not in done and s.name not in failed and s.name not in running.values() and all(n in done for n in s.needs):
                        running[pool.submit(_start_one, settings, s, say, give_up)] = s.name
                if not running:
                    break
                ended, _ = wait(running, return_when=FIRST_COMPLETED, timeout=1)
                if not ended and time.monotonic() - said >= 10:
                    said = time.monotonic()
                    say(f"  … {said - begin:.0f} s: waiting for {', '.join(sorted(running.values()))}")
                for f in ended:
                    name = running.pop(f)
                    error = f.exception()
                    if error is None:
                        done.add(name)
                    else:
                        failed[name] = error
                        say(f"  {name}: FAILED")
        finally:
            give_up.set()
    if failed:
        if waiting := wanted.keys() - done - failed.keys():
            say(f"  not started, since they need it: {', '.join(sorted(waiting))}")
        raise next(iter(failed.values()))


def _start_one(settings: Settings, service: Service, say: Say, give_up: threading.Event) -> None:
    name, begin = service.name, time.monotonic()
    ask = supervisor.client(settings)
    state = ask.getProcessInfo(name)
    reused = state["statename"] in supervisor.UP
    if not reused:
        for path, text in service.files.items():
            supervisor.write_private(path, text)
        if service.prepare:
            service.prepare(settings)
        if give_up.is_set():
            return
        try:
            ask.startProcess(name, False)
        except xmlrpc.client.Fault as e:
            if "ALREADY_STARTED" not in e.faultString:
                raise _failed(settings, service, f"could not be started ({e.faultString})") from e
    _await(settings, service, give_up)
    if give_up.is_set():
        return
    processes.remember(settings, ask.getProcessInfo(name)["pid"])
    took = time.monotonic() - begin
    if service.after:
        service.after(settings)
    extra = f", set up in {time.monotonic() - begin - took:.0f} s" if service.after and time.monotonic() - begin - took >= 1 else ""
    say(f"  {name}: {'already running' if reused else f'ready in {took:.0f} s'}{extra}")


def patience(service: Service) -> float:
    """Seconds to wait for a service: longer, up to four times, while more programs want the processors than there are."""
    crowd = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return service.ready_timeout * min(4.0, max(1.0, crowd))


def _await(settings: Settings, service: Service, give_up: threading.Event) -> None:
    ask, name, begin, pids = supervisor.client(settings), service.name, time.monotonic(), set[int]()
    why = ""
    while not give_up.is_set():
        info = ask.getProcessInfo(name)
        if info["statename"] in ("FATAL", "EXITED", "STOPPED", "UNKNOWN"):
            raise _failed(settings, service, f"ended by itself ({info['description'] or info['statename']})")
        if info["pid"]:
            pids.add(info["pid"])
        if len(pids) > 4:
            raise _failed(settings, service, "dies again and again")
        if info["statename"] == "RUNNING":
            try:
                if service.ready(settings):
                    return
                why = "it runs but does not serve yet"
            except (OSError, http.client.HTTPException, ValueError) as e:
                why = f"{e}"
        now = time.monotonic()
        if now - begin > patience(service):
            raise _failed(settings, service, f"was not ready after {now - begin:.0f} s ({why})")
        time.sleep(0.5)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a text file; none if there is no file."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - 400 * lines))
            return f.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _failed(settings: Settings, service: Service, what: str) -> ServiceError:
    log = supervisor.log_file(settings, service.name)
    last = "\n".join(f"  | {line[:300]}" for line in tail(log, 12))
    return ServiceError(f"{service.name} {what}. Its last lines:\n{last or '  | (it wrote nothing)'}",
                        f"`tidewatch logs {service.name}` shows more, `tidewatch doctor` checks the machine; then run `tidewatch up` again")


def down(settings: Settings, names: Iterable[str] = (), say: Say = print) -> None:
    """Stop services (and those that need them) in reverse order; without names everything, and nothing stays behind."""
    rows = table(settings)
    names = list(names)
    chosen(rows, names)
    begin = time.monotonic()
    with locked(settings, say):
        states = supervisor.states(settings)
        if states:
            with contextlib.suppress(OSError, xmlrpc.client.Error):
                processes.remember(settings, supervisor.client(settings).getPID())
            stop = dependants(rows, names) if names else set(states)
            _stop_all(settings, rows, {n for n in stop if states.get(n, {}).get("statename") in (*supervisor.UP, "BACKOFF", "STOPPING")}, say)
        if not names:
            supervisor.shutdown(settings)
            if left := processes.sweep(settings):
                say(f"  ended {left} processes that did not end with their server")
            say(f"everything is stopped ({time.monotonic() - begin:.0f} s)")


def _stop_all(settings: Settings, rows: Mapping[str, Service], names: set[str], say: Say) -> None:
    """Each service stops as soon as everything that needs it has."""
    left, running = set(names), dict[Future[None], str]()
    with ThreadPoolExecutor(max_workers=max(4, len(names))) as pool:
        while left or running:
            for name in sorted(left):
                if not any(name in rows[other].needs for other in left | set(running.values()) if other in rows and other != name):
                    running[pool.submit(_stop_one, settings, name, say)] = name
                    left.discard(name)
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for f in ended:
                running.pop(f)
                f.result()


def _stop_one(settings: Settings, name: str, say: Say) -> None:
    begin = time.monotonic()
    try:
        supervisor.client(settings).stopProcess(name)
    except xmlrpc.client.Fault as e:
        if "NOT_RUNNING" not in e.faultString:
            raise ServiceError(f"{name} could not be stopped: {e.faultString}.", "run `tidewatch down` without a name: it ends what is left") from e
    except (OSError, http.client.HTTPException):
        return  # supervisord is gone: the sweep ends what is left
    say(f"  {name}: stopped in {time.monotonic() - begin:.0f} s")


def status(settings: Settings) -> list[Status]:
    """Every service with its state, in starting order."""
    rows, states = table(settings), supervisor.states(settings)

    def one(s: Service) -> Status:
        info = states.get(s.name, {})
        name = info.get("statename", "STOPPED")
        runs = name in supervisor.UP and bool(info.get("pid"))
        state = "stopped"
        if runs:
            try:
                state = "ready" if s.ready(settings) else "starting"
            except (OSError, http.client.HTTPException, ValueError, TidewatchError):
                state = "starting"
        elif name in ("FATAL", "BACKOFF", "EXITED"):
            state = "failed"
        return Status(
            s.name, state, info["pid"] if runs else None, int(info["now"] - info["start"]) if runs else None,
            round(processes.memory(info["pid"]) / 2**20) if runs else None, s.url(settings) if s.url else "", s.doc,
        )

    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(one, rows.values()))
