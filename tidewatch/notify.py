"""The notifier: news of alerts as OCSF Detection Findings to the topic `findings`, and from there to webhooks.

`python -m tidewatch.notify`. What is news: an alert that is new, has become more severe, has twice the members, is kept
quiet or no longer, or has ended; a group is told and not its members. Findings are written exactly once: each with the
offset of its alert, in one Kafka transaction; what was told is read back from `findings` at the start. Each webhook has a
thread and a group offset of its own, which is committed once the receiver has said yes: at least once, in order, and one
that is down holds up no other.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidewatch import alerts, ocsf, topics
from tidewatch.errors import ContractError
from tidewatch.settings import Settings, Webhook, current
from tidewatch.severity import LEVELS
from tidewatch.tables import ALERTS, FINDINGS

if TYPE_CHECKING:
    import requests
    from confluent_kafka import Consumer, Message

log = logging.getLogger(__name__)
GROUP = "tidewatch-notifier"
KEEP = 100_000
"""Ended alerts that are remembered, so that a repeated row is not told anew."""
REFUSED = frozenset({400, 413, 422})
"""Answers that no repetition changes: the finding is left out, with an error in the log; it stays in `findings`."""
AGAIN_SECONDS = 30.0
"""After all retries of a post."""


@dataclass(frozen=True)
class Told:
    """What was told of an alert last."""

    severity: str
    members: int
    quiet: bool
    ended: bool

    @classmethod
    def by(cls, finding: Mapping[str, Any]) -> Told:
        """As a finding says it."""
        severity = next(name for name, (i, _) in ocsf.SEVERITIES.items() if i == finding["severity_id"])
        members = finding["evidences"][0]["data"].get("members", 1)
        return cls(severity, members, finding["status_id"] == ocsf.SUPPRESSED[0], finding["activity_id"] == ocsf.ACTIVITIES["Close"])


def news(told: Told | None, alert: Mapping[str, Any]) -> str:
    """The activity that the alert's new state is (Create, Update, Close), or '' if it is no news."""
    quiet, ended = not alerts.is_listed(alert), alert["status"] == "closed"
    if told is None:
        return "" if quiet else "Create"
    if told.ended:
        return ""
    if quiet != told.quiet:
        return "Update"
    if quiet:
        return ""
    if ended:
        return "Close"
    more_severe = LEVELS.index(alert["severity"]) > LEVELS.index(told.severity)
    return "Update" if more_severe or alert["members"] >= 2 * max(1, told.members) else ""


class Memory:
    """What was told of each alert; ended ones only so many."""

    def __init__(self, findings: Iterable[Mapping[str, Any]] = ()) -> None:
        self._told: dict[str, Told] = {}
        for f in findings:
            self._keep(f)

    def _keep(self, finding: Mapping[str, Any]) -> None:
        uid = finding["finding_info"]["uid"]
        self._told.pop(uid, None)
        self._told[uid] = Told.by(finding)
        if len(self._told) > KEEP:
            oldest = next((u for u, t in self._told.items() if t.ended), next(iter(self._told)))
            del self._told[oldest]

    def findings(self, alert: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What is to be told of the alert's new state: nothing, or one finding; of an alert first seen ended, two."""
        made = []
        while activity := news(self._told.get(alert["alert_id"]), alert):
            finding = ocsf.finding(alert, activity)
            wrong = ocsf.problems(finding)
            if wrong:
                raise ContractError(f"the alert {alert['alert_id']} makes no OCSF finding: {'; '.join(wrong)}.")
            self._keep(finding)
            made.append(finding)
        return made


def alert_of(message: Message) -> dict[str, Any] | None:
    """The alert in a record of `alerts`; None if it cannot be used."""
    value = message.value()
    try:
        row = json.loads(value) if value else None
        return {c.name: row[c.name] for c in ALERTS.columns} if row else None
    except (ValueError, KeyError, TypeError) as e:
        log.error("alerts %s/%s is no alert: %s", message.partition(), message.offset(), e)
        return None


def _consumer(settings: Settings, topic: str, group: str, *, new_at_end: bool) -> Consumer:
    """A reader of a whole topic that goes on where its group committed last; it alone reads for the group."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({
        "bootstrap.servers": settings.kafka, "group.id": group, "enable.auto.commit": False, "isolation.level": "read_committed",
        "auto.offset.reset": "earliest", "enable.partition.eof": True, "log_level": 0,
    })
    parts = [TopicPartition(topic, p) for p in consumer.list_topics(topic, timeout=20).topics[topic].partitions]
    parts = consumer.committed(parts, timeout=20)
    for p in parts:
        if p.offset < 0 and new_at_end:
            p.offset = consumer.get_watermark_offsets(p, timeout=20)[1]
            consumer.commit(offsets=[p], asynchronous=False)
        elif p.offset < 0:
            p.offset = OFFSET_BEGINNING
    consumer.assign(parts)
    return consumer


class Converter:
    """From `alerts` to `findings`, exactly once."""

    def __init__(self, settings: Settings, group: str = GROUP) -> None:
        from confluent_kafka import Producer

        self.producer = Producer({
            "bootstrap.servers": settings.kafka, "transactional.id": group, "compression.type": "lz4", "log_level": 0,
        })
        # the transaction of a predecessor ends here, so that what it told is read whole
        self.producer.init_transactions(60)
        self.memory = Memory(topics.read(settings, FINDINGS.name).values())
        self.consumer = _consumer(settings, ALERTS.name, group, new_at_end=False)

    def round(self, timeout: float = 1.0) -> int:
        """Take what has come, tell what is news; how many findings. Raises KafkaException; begin anew with a new Converter then."""
        from confluent_kafka import KafkaException, TopicPartition

        messages = self.consumer.consume(500, timeout)
        if not messages:
            return 0
        found, ends = [], dict[tuple[str, int], int]()
        for m in messages:
            error = m.error()
            if error is not None and error.name() != "_PARTITION_EOF":
                raise KafkaException(error)
            if error is not None:
                continue
            ends[m.topic() or "", m.partition() or 0] = (m.offset() or 0) + 1
            alert = alert_of(m)
            found += self.memory.findings(alert) if alert else []
        if not ends:
            return 0
        self.producer.begin_transaction()
        for f in found:
            self.producer.produce(FINDINGS.name, json.dumps(f, allow_nan=False).encode(), f["finding_info"]["uid"].encode())
        self.producer.send_offsets_to_transaction(
            [TopicPartition(t, p, o) for (t, p), o in ends.items()], self.consumer.consumer_group_metadata())
        self.producer.commit_transaction(60)
        return len(found)

    def close(self) -> None:
        self.consumer.close()


def webhook_group(webhook: Webhook) -> str:
    """The consumer group whose offsets say what a webhook has got."""
    return f"tidewatch-webhook-{webhook.name}"


def session(webhook: Webhook) -> requests.Session:
    """What posts to a webhook: tries again after errors of the network and of the receiver, with growing pauses."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    made = requests.Session()
    made.headers.update({k: v.get_secret_value() for k, v in webhook.headers.items()})
    retry = Retry(
        total=webhook.retries, backoff_factor=0.5, backoff_max=30, status_forcelist=(408, 425, 429, 500, 502, 503, 504),
        allowed_methods=None, raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    return made


def post(webhook: Webhook, http: requests.Session, value: bytes) -> bool:
    """True once the receiver has the finding, or will never take it (which the log says); False if it is to be tried later."""
    import requests

    finding = json.loads(value or b"null")
    if finding is None or finding["severity_id"] < ocsf.SEVERITIES[webhook.min_severity][0]:
        return True
    uid = finding["metadata"]["uid"]
    try:
        answer = http.post(str(webhook.url), data=value, headers={"Content-Type": "application/json", "Idempotency-Key": uid},
                           timeout=webhook.timeout.total_seconds(), allow_redirects=False)
    except requests.RequestException as e:
        log.warning("webhook %s does not answer (%s); %s waits", webhook.name, type(e).__name__, uid)
        return False
    if 200 <= answer.status_code < 300:
        return True
    if answer.status_code in REFUSED:
        log.error("webhook %s refuses %s: %d %s", webhook.name, uid, answer.status_code, answer.text[:200])
        return True
    log.warning("webhook %s answers %d; %s waits", webhook.name, answer.status_code, uid)
    return False


def deliver(settings: Settings, webhook: Webhook, stop: threading.Event, again_seconds: float = AGAIN_SECONDS) -> None:
    """Post every finding to one webhook, in order, until `stop`; a new webhook begins with what comes from now on."""
    from confluent_kafka import KafkaException, TopicPartition

    http = session(webhook)
    while not stop.is_set():
        try:
            consumer = _consumer(settings, FINDINGS.name, webhook_group(webhook), new_at_end=True)
        except KafkaException as e:
            log.warning("webhook %s: the brokers do not answer: %s", webhook.name, e)
            stop.wait(again_seconds)
            continue
        try:
            while not stop.is_set():
                message = consumer.poll(0.5)
                if message is None:
                    continue
                error, end = message.error(), message.offset() or 0
                if error is not None and error.name() != "_PARTITION_EOF":
                    raise KafkaException(error)
                if error is None:
                    end += 1
                    while not post(webhook, http, message.value() or b""):
                        if stop.wait(again_seconds):
                            return
                # at a partition's end its offset passes the marks of transactions, so that nothing is left to count
                consumer.commit(offsets=[TopicPartition(FINDINGS.name, message.partition() or 0, end)], asynchronous=False)
        except KafkaException as e:
            log.warning("webhook %s: %s", webhook.name, e)
        finally:
            consumer.close()


def main() -> None:
    """Convert and deliver until told to stop; an error of the brokers ends it, and the supervisor starts it anew."""
    import signal

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings, stop = current(), threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    converter = Converter(settings)
    threads = [threading.Thread(target=deliver, args=(settings, w, stop), daemon=True) for w in settings.alerts.webhooks]
    for t in threads:
        t.start()
    while not stop.is_set():
        n = converter.round()
        if n:
            log.info("%d findings", n)
    converter.close()
    for t in threads:
        t.join(15)


if __name__ == "__main__":
    main()
