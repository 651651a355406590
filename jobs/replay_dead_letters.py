"""Sends dead letters again, as they were, to the topic they came from; after the contract or a decoder was corrected.

What is still unusable comes back as a dead letter. `--dry-run` only counts.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections import Counter
from datetime import datetime
from typing import Any

from tidewatch import events, tables
from tidewatch.errors import ServiceError
from tidewatch.settings import Settings

from jobs import cli, lake

TIMEOUT_SECONDS = 60


def letters(settings: Settings, start: datetime, end: datetime, source: str, reason: str) -> list[dict[str, Any]]:
    """The dead letters that the broker received in [start, end), in the order of their topics."""
    first, last = cli.millis(start), cli.millis(end)
    found = [
        r for r in lake.read(settings, tables.DEAD_LETTERS)
        if first <= r["ingested_at"] < last and source in ("all", r["source"]) and reason in ("", r["reason"])
    ]
    return sorted(found, key=lambda r: (r["source"], r["kafka_partition"], r["kafka_offset"]))


def send(settings: Settings, found: list[dict[str, Any]]) -> None:
    """Send each letter's original bytes, keyed by its device; raises ServiceError unless the broker took them all."""
    from confluent_kafka import Producer

    failed: list[str] = []
    producer = Producer({"bootstrap.servers": settings.kafka, "acks": "all", "enable.idempotence": True, "log_level": 0})
    for r in found:
        while True:
            try:
                producer.produce(r["source"], base64.b64decode(r["original"]), (r["device_id"] or "").encode() or None,
                                 on_delivery=lambda error, _: failed.append(str(error)) if error else None)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(TIMEOUT_SECONDS)
    if failed or left:
        raise ServiceError(f"Kafka at {settings.kafka} did not take {len(failed) + left} of {len(found)} letters: {failed[0] if failed else 'timeout'}.",
                           "is it up? `tidewatch status`; letters sent twice do no harm")


def work(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    found = letters(settings, options.start, options.end, options.source, options.reason)
    reasons = dict(Counter(f"{r['source']} {r['reason']}" for r in found).most_common())
    for name, n in reasons.items():
        cli.say(f"{n:7,} {name}")
    if not options.dry_run:
        send(settings, found)
    return {"job": "replay_dead_letters", "start": cli.iso(options.start), "end": cli.iso(options.end),
            "letters": len(found), "sent": 0 if options.dry_run else len(found), "reasons": reasons}


def main(arguments: list[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--source", choices=["all", *events.names()], default="all", help="of which topic (default all)")
    p.add_argument("--reason", default="", help="only letters with this reason (default every reason)")
    p.add_argument("--dry-run", action="store_true", help="only count what would be sent")
    return cli.run(p, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
