"""What the running chain finds on real labelled data: servers, stream, Airflow, models, alerts; one fresh stack a set.

    python bench/live.py [--data DIR] [--only SET] [--skip SET] [--json FILE]

In the tools environment. Of each set all events before the first of its test part are replayed through Kafka, Airflow
builds features, trains and promotes, then the rest is replayed and the alerts in Pinot are held against the labels. Nothing
is shifted: event times are the set's own. A set whose devices were recorded at different times cannot be cut at one moment:
it is left out, and said so (bench/quality.py measures it offline).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tidewatch import alerts
from tidewatch.commands.demo import delta_rows, iso, wait
from tidewatch.inputs import replay
from tidewatch.pinot import query
from tidewatch.settings import ROOT, Ports, Settings, load

console = Console(highlight=False, width=160)
LEAST_HISTORY = 0.5
"""Share of the train part's events that must come before the first event of the test part."""
DAY_MS = 86_400_000


class Stack:
    """A stack of its own: state folder, ports, and the command line."""

    def __init__(self, set_: replay.LabelledSet) -> None:
        main = load()
        self.folder = Path(tempfile.mkdtemp(prefix="tidewatch-live-"))
        for shared in ("env", "jars"):
            (self.folder / shared).symlink_to(main.state_dir / shared)
        ports = Ports.free()
        self.env = {
            **os.environ, "PYTHONPATH": str(ROOT), "TIDEWATCH_STATE_DIR": str(self.folder), "TIDEWATCH_PORTS": json.dumps(ports.model_dump()),
            "TIDEWATCH_NETWORK__INSIDE": json.dumps([*main.network.inside, *set_.inside]),
        }
        self.settings: Settings = load(state_dir=self.folder, ports=ports)

    def run(self, *arguments: str, capture: bool = False) -> str:
        console.print(f"[cyan]$ tidewatch {' '.join(arguments)}[/]")
        done = subprocess.run([str(ROOT / "bin" / "tidewatch"), *arguments], env=self.env, text=True, check=True,
                              stdout=subprocess.PIPE if capture else None)
        return done.stdout or ""

    def close(self) -> None:
        subprocess.run([str(ROOT / "bin" / "tidewatch"), "down"], env=self.env, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def cut(folder: Path) -> int | None:
    """When the test part begins, milliseconds; None if most of the train part comes later: devices recorded at different times."""
    import pandas as pd

    frames = [pd.read_parquet(p, columns=["ts", "split"]) for p in (folder / "flows.parquet", folder / "readings.parquet") if p.exists()]
    frame = pd.concat(frames, ignore_index=True)
    first = frame.loc[frame["split"] == "test", "ts"].min()
    train = frame.loc[frame["split"] == "train", "ts"]
    return int(first.timestamp() * 1000) if (train < first).mean() >= LEAST_HISTORY else None


def span(found: replay.LabelledSet) -> tuple[datetime, datetime]:
    """From the minute of the first event to the minute after the last."""
    return datetime.fromtimestamp(found.start_ms // 60_000 * 60, UTC), datetime.fromtimestamp(found.end_ms // 60_000 * 60 + 60, UTC)


def measure(folder: Path, keep_logs: Path | None) -> dict[str, Any]:
    """One set through a stack of its own; its figures, or `skipped` with the reason."""
    whole, at = replay.load(folder), cut(folder)
    if at is None:
        return {"set": whole.name, "skipped": "its devices were recorded at different times"}
    train, test = replay.between(whole, None, at), replay.between(whole, at, None)
    stack = Stack(train)
    s, begin = stack.settings, time.monotonic()
    try:
        stack.run("up")
        stack.run("stream", "start")
        start, end = span(train)
        produced = _replay(stack, folder, "--to", at)
        wait("train events in Delta", 900, lambda: (delta_rows(s, "flow", "reading", "dead_letters"), produced))
        stack.run("dag", "trigger", "feature_store", "--conf", f"start={iso(start)}", "--conf", f"end={iso(end)}", "--wait", "--follow")
        models = json.loads(stack.run("model", "list", "--json", capture=True))
        produced += _replay(stack, folder, "--from", at)
        wait("test events in Delta", 900, lambda: (delta_rows(s, "flow", "reading", "dead_letters"), produced))
        _settle(s, test.end_ms)
        found = alerts.fetch(s)
        rows = verdicts(test, found)
        return {"set": train.name, "events": produced, "seconds": round(time.monotonic() - begin), "use_cases": rows,
                "champions": [f"{m['use_case']}: {m['family']}" for m in models if m["state"] == "champion"],
                "refused": [f"{m['use_case']}, {m['family']}: {m['reason']}" for m in models if m["state"] == "refused"]}
    finally:
        if keep_logs is not None and s.logs.exists():
            shutil.copytree(s.logs, keep_logs / train.name, dirs_exist_ok=True)
        stack.close()


def _replay(stack: Stack, folder: Path, side: str, at_ms: int) -> int:
    at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    out = stack.run("replay", str(folder), side, at, "--json", capture=True)
    return int(json.loads(out[out.index("{"):])["produced_total"])


def _settle(settings: Settings, end_ms: int) -> None:
    """Until the scores have come as near to the end as they will: the last windows stay open without a later event."""
    newest, since = 0.0, time.monotonic()
    while time.monotonic() - since < 60:
        rows = query(settings, "SELECT MAX(window_end) FROM scores")
        now = float(rows[0][0]) if rows and isinstance(rows[0][0], int | float) else 0.0
        if now > newest:
            newest, since = now, time.monotonic()
        time.sleep(3)
    console.print(f"  scored until {datetime.fromtimestamp(max(newest, 0) / 1000, UTC):%Y-%m-%d %H:%M}, the events end at {datetime.fromtimestamp(end_ms / 1000, UTC):%H:%M}")


def verdicts(test: replay.LabelledSet, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a use case: the labels that end in the test part, and the alerts that do, held against each other."""
    known = [x for x in test.labels if x["end"] > test.start_ms]
    raised = [a for a in found if a["end"] > test.start_ms]
    days = len(test.devices) * (test.end_ms - test.start_ms) / DAY_MS
    return [
        {"use_case": v.use_case, "incidents": v.incidents, "found": v.found, "alerts": v.alerts, "right": v.right, "wrong": v.wrong,
         "wrong_a_device_day": round(v.wrong / days, 3), "delay_s": v.delay_s}
        for v in alerts.compare(raised, known, slack_ms=60_000) if v.incidents or v.alerts
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TIDEWATCH_LABELLED", ROOT.parent / "shared" / "data")))
    parser.add_argument("--only", action="append", default=[], metavar="SET", help="repeatable")
    parser.add_argument("--skip", action="append", default=[], metavar="SET", help="repeatable")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--logs", type=Path, help="keep the servers' logs here")
    o = parser.parse_args()
    folders = [p.parent for p in sorted(o.data.glob("*/set.json")) if (not o.only or p.parent.name in o.only) and p.parent.name not in o.skip]
    if not folders:
        print(f"no set in {o.data}: give --data DIR, a folder of folders in the form of docs/inputs.md", file=sys.stderr)
        return 1
    results = []
    shown = Table("set", "use case", "incidents", "found", "alerts", "right", "wrong", "wrong a device-day", "delay s", "champions")
    for folder in folders:
        console.rule(folder.name)
        try:
            r = measure(folder, o.logs)
        except subprocess.CalledProcessError as e:
            r = {"set": folder.name, "skipped": f"`tidewatch {' '.join(e.cmd[1:])}` failed"}
        results.append(r)
        for line in r.get("refused", ()):
            console.print(f"  refused: {line}")
        if "skipped" in r:
            shown.add_row(r["set"], f"not run: {r['skipped']}")
        for row in r.get("use_cases", ()):
            delay = "" if row["delay_s"] is None else f"{row['delay_s']:.0f}"
            shown.add_row(r["set"], *(str(row[k]) for k in ("use_case", "incidents", "found", "alerts", "right", "wrong", "wrong_a_device_day")), delay,
                          ", ".join(r["champions"]))
        if o.json:
            o.json.write_text(json.dumps(results, indent=1))
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
