"""How many events a second the generator makes, encodes and hands to Kafka, and what that costs in CPU seconds.

    python bench/generator.py [--quick] [--json FILE]

With no broker at the address in the settings it measures the making alone. A topic of its own is made and removed.
`events/CPU s` counts every thread of the process: it is the rate on one core, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidewatch.errors import ServiceError
from tidewatch.inputs.generate import Generator
from tidewatch.inputs.network import network
from tidewatch.inputs.parcel import Parcel
from tidewatch.inputs.send import Kafka
from tidewatch.settings import Settings, load

START_MS = 1_763_942_400_000
TOPIC = "bench-generator"


def measure(send: Callable[[Parcel], None], flush: Callable[[], None], events: int) -> dict[str, Any]:
    """Make and send about so many events of a busy network: 2000 devices, 100,000 events a second."""
    net = network(2000, 2850, 7)
    source = Generator(net, START_MS, None, period_ms=1000)
    source.advance(START_MS + 200)
    count = size = 0
    until = START_MS + 200
    wall, cpu = time.perf_counter(), time.process_time()
    while count < events:
        until += 500
        for p in source.advance(until):
            send(replace(p, topic=TOPIC))
            count += len(p.bodies)
            size += sum(map(len, p.bodies))
    flush()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"events": count, "bytes an event": size / count, "wall s": wall, "cpu s": cpu, "events/s": count / wall,
            "events/CPU s": count / cpu, "CPU s a million": cpu / count * 1e6}


def topic(settings: Settings, make: bool) -> bool:
    """Make or remove the topic; False if no broker answers."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": settings.kafka, "log_level": 0})
    try:
        there = TOPIC in admin.list_topics(timeout=5).topics
        if make and not there:
            admin.create_topics([NewTopic(TOPIC, 4, 1)])[TOPIC].result(30)
            time.sleep(1)
        elif not make and there:
            admin.delete_topics([TOPIC])[TOPIC].result(30)
    except KafkaException:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    settings, events = load(), 200_000 if options.quick else 2_000_000
    figures = {"make and encode": measure(lambda _: None, lambda: None, events)}
    if topic(settings, make=True):
        try:
            with Kafka(settings, [TOPIC]) as kafka:
                figures["make, encode, Kafka"] = measure(kafka.send, kafka.flush, events)
        except ServiceError as e:
            print(f"Kafka: {e}")
        topic(settings, make=False)
    else:
        print(f"no broker at {settings.kafka}: the making alone")
    from rich.console import Console
    from rich.table import Table

    names = list(next(iter(figures.values())))
    table = Table("", *names)
    for what, f in figures.items():
        table.add_row(what, *(f"{f[n]:,.1f}" if f[n] < 1000 else f"{f[n]:,.0f}" for n in names))
    Console(width=140).print(table)
    if options.json:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(), "load": os.getloadavg()[0]}
        options.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
