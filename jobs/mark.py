"""Mark: an analyst's verdict on an alert, as `tidewatch feedback` writes it; the form is the DAG `feedback`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from tidewatch import feedback
from tidewatch.settings import Settings

from jobs import cli


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    rows = feedback.mark(settings, options.alert, options.verdict, analyst=options.analyst, note=options.note, at=options.at, publish=not options.no_publish)
    row = rows[0]
    cli.say(feedback.told(rows))
    return {"job": "mark", "alert": row["alert_id"], "verdict": row["verdict"], "use_case": row["use_case"], "analyst": row["analyst"], "marked": len(rows)}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__, start=False, end=False)
    p.add_argument("--alert", required=True, help="the alert's id")
    p.add_argument("--verdict", required=True, choices=feedback.VERDICTS, help="true, false, or benign: it happened and is nothing to act on")
    p.add_argument("--note", default="", help="why")
    p.add_argument("--analyst", default="", help="who says so")
    p.add_argument("--at", type=cli.moment, default=datetime.now(UTC), help="when (default: now)")
    cli.publish(p)
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
