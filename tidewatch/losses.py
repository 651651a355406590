"""Events that Kafka deleted before the stream read them: counted when it happens, and told for a day.

A stream that starts again behind the oldest event that Kafka still has goes on from that one, and its next checkpoint
commits an offset past the gap: the gap can be seen for seconds only, so what was read last is remembered here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

DAY_S = 86_400.0


@dataclass(frozen=True)
class Memory:
    """Offsets by `topic/partition`, and losses as (seconds since 1970, events)."""

    read: dict[str, int] = field(default_factory=dict)
    losses: tuple[tuple[float, int], ...] = ()

    @classmethod
    def load(cls, path: Path) -> Memory:
        """What an earlier observer kept; empty if there is nothing that can be read."""
        try:
            kept = json.loads(path.read_text())
            return cls({str(k): int(v) for k, v in kept["read"].items()}, tuple((float(t), int(n)) for t, n in kept["losses"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(path)

    def seen(self, now: float, begins: Mapping[str, int], read: Mapping[str, int]) -> tuple[Memory, int]:
        """What to remember after a look at Kafka, and the events lost within the last day, at most.

        `begins` is the oldest offset that Kafka still has, `read` the next one that the stream wants (its last checkpoint's).
        At most: a stream that read just ahead of the deletion, both between two looks, is counted as if it had not.

        >>> Memory({"flow/0": 10}).seen(0.0, {"flow/0": 25}, {"flow/0": 10})   # the stream stands still
        (Memory(read={'flow/0': 10}, losses=()), 15)
        >>> Memory({"flow/0": 10}).seen(0.0, {"flow/0": 25}, {"flow/0": 40})   # it went on past the gap
        (Memory(read={'flow/0': 40}, losses=((0.0, 15),)), 15)
        """
        waiting = passed = 0
        for key, low in begins.items():
            before = self.read.get(key, read.get(key))
            if before is None:
                continue
            gap = max(0, low - before)
            if read.get(key, before) > before:
                passed += gap
            else:
                waiting += gap
        losses = tuple(x for x in (*self.losses, *(((now, passed),) if passed else ())) if x[0] > now - DAY_S)
        return Memory(self.read | dict(read), losses), waiting + sum(n for _, n in losses)
