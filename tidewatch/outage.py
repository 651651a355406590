"""Total outage: no event from any source, or from one, told by the wall clock, for event time stands still then.

`python -m tidewatch.outage` looks every `outage.every` at when the brokers received each source's newest event. None for
`outage.after`: an outage, told to the topic `outages`, from where the stream takes it among the alerts; closed with the
first event after it. What it says depends on nothing but the brokers' clock and its own. While nothing comes from any source, a rule keeps quiet what would be told of every single
device once events come again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tidewatch.errors import ServiceError
from tidewatch.events import names as sources
from tidewatch.settings import Settings, current
from tidewatch.tables import OUTAGES

log = logging.getLogger(__name__)
DETECTOR = "outage"
USE_CASE = "silent"
TECHNIQUE = "T1489"
EVERYTHING = ""
"""The source of a total outage."""
ABSENCE = "silence,collapse"
"""Detectors that tell of every device what a total outage explains."""
AGAIN_MS = 300_000
"""An outage that lasts is told again so often: an alert that is not is taken for ended."""
MARGIN_MS = 60_000
"""Windows are whole minutes: those that the outage cut short lie up to so far before and after it."""


@dataclass(frozen=True)
class Outage:
    """A time without events; milliseconds since 1970 by the brokers' clock."""

    source: str
    start: int
    """When the last event before it came."""
    end: int
    """Until when nothing came, so far."""
    status: str = "open"

    @property
    def alert_id(self) -> str:
        return f"{USE_CASE}:{DETECTOR}:{self.source}:{self.start}"

    def row(self) -> dict[str, Any]:
        """The row of the topic `outages`."""
        what = f"the source {self.source}" if self.source else "any source"
        last = f"{datetime.fromtimestamp(self.start / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        until = f"{datetime.fromtimestamp(self.end / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        return {
            "alert_id": self.alert_id, "use_case": USE_CASE, **asdict(self), "title": f"No events from {what}",
            "reason": f"the last event came at {last}, and none until {until}" + (", when events came again" if self.status == "closed" else ""),
        }


def step(
    held: Mapping[str, Outage], newest: Mapping[str, int], since_ms: int, now_ms: int, after_ms: int,
) -> list[Outage]:
    """The outages with news: begun, lasting, or closed.

    `held` are the open ones by source; `newest` is when each source's newest event came, without sources that never
    sent; nothing is told of the time before `since_ms`, when nobody watched.
    """
    # what Kafka has deleted meanwhile leaves nothing but what is held
    seen = {s: o.start for s, o in held.items()} | dict(newest) | ({EVERYTHING: max(newest.values())} if newest else {})
    found = []
    for source, at in seen.items():
        outage = held.get(source)
        still = now_ms - max(at, since_ms) > after_ms
        if outage is None:
            # a source is out by itself if others kept sending all the while
            if still and (source == EVERYTHING or seen[EVERYTHING] - at > after_ms):
                found.append(Outage(source, at, now_ms))
        elif at > outage.start:
            found.append(replace(outage, end=at, status="closed"))
        elif now_ms - outage.end >= AGAIN_MS:
            found.append(replace(outage, end=now_ms))
    return found


def rule(outage: Outage) -> dict[str, Any]:
    """The rule that a total outage puts over the devices' own silence, as `quiet.add` takes it."""
    from tidewatch.quiet import FOREVER

    return {
        "rule": outage.alert_id, "use_case": USE_CASE, "detector": ABSENCE, "since_ms": outage.start - MARGIN_MS,
        "until_ms": outage.end + MARGIN_MS if outage.status == "closed" else FOREVER,
        "reason": "no device sent anything", "who": "outage",
    }


class Ticker:
    """Rounds of looking; remembers which outages are open."""

    def __init__(self, settings: Settings, topic_sources: Sequence[str] = ()) -> None:
        from confluent_kafka.admin import AdminClient

        self.settings = settings
        self.sources = tuple(topic_sources or sources())
        self.admin = AdminClient({"bootstrap.servers": settings.kafka, "log_level": 0})
        self.since: int | None = None
        self.held: dict[str, Outage] | None = None

    def newest(self) -> dict[str, int]:
        """When each source's newest event came; raises KafkaException if the brokers do not answer."""
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        there = self.admin.list_topics(timeout=10).topics
        newest: Callable[[], Any] = OffsetSpec.max_timestamp
        asked: dict[Any, Any] = {TopicPartition(s, p): newest() for s in self.sources if s in there for p in there[s].partitions}
        found: dict[str, int] = {}
        for partition, answer in (self.admin.list_offsets(asked, request_timeout=10) if asked else {}).items():
            at = answer.result(10).timestamp
            if at is not None and at > 0:
                found[partition.topic] = max(at, found.get(partition.topic, 0))
        return found

    def round(self, now_ms: int) -> list[Outage]:
        """Look once and tell what is new; raises KafkaException or ServiceError if the brokers do not answer."""
        from jobs import topics

        from tidewatch import quiet
        from tidewatch.topics import read

        after = round(self.settings.outage.after.total_seconds() * 1000)
        newest = self.newest()
        if self.held is None:
            kept = (Outage(**{k: row[k] for k in ("source", "start", "end", "status")}) for row in read(self.settings, OUTAGES.name).values())
            self.held = {o.source: o for o in kept if o.status == "open"}
        self.since = self.since or now_ms
        found = step(self.held, newest, self.since, now_ms, after)
        for outage in found:
            opens, closes = outage.source not in self.held, outage.status == "closed"
            if outage.source == EVERYTHING and opens:
                quiet.add(self.settings, **rule(outage))
            topics.publish(self.settings, OUTAGES, [outage.row()], "alert_id", "end")
            if closes:
                if outage.source == EVERYTHING:
                    quiet.add(self.settings, **rule(outage))
                del self.held[outage.source]
            else:
                self.held[outage.source] = outage
            if opens or closes:
                log.warning("%s: %s", outage.row()["title"], outage.row()["reason"])
        return found


def main() -> None:
    """Look for ever; a round that the brokers do not answer says nothing of the devices, nor does the time until the next."""
    from confluent_kafka import KafkaException

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = current()
    ticker = Ticker(settings)
    while True:
        try:
            ticker.round(round(time.time() * 1000))
        except (KafkaException, ServiceError, OSError) as e:
            log.warning("the brokers do not answer: %s", str(e)[:300])
            ticker.since = None
        time.sleep(settings.outage.every.total_seconds())


if __name__ == "__main__":
    main()
