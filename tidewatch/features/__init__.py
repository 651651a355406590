"""Feature views: one value a view, rendered to Flink SQL and to Spark SQL, so that stream and batch agree.

A view is a window over a source (an event contract, or windows of other views), grouped by its keys.
Expressions use only what means the same in both engines (the lists of `render.py`, which refuses all else):
COUNT, SUM, MIN, MAX, BIT_OR, CASE, COUNT(DISTINCT …) FILTER (WHERE …) (those of one column share their state), arithmetic on DOUBLE, CRC32(text): a BIGINT of
0 to 2^32 - 1, ADDRESS_BIT(crc): the bit (BIGINT) of the group of an address with this CRC-32, and ADDRESS_SUM(crc, number, k): the sum
(BIGINT) over the addresses of group k. No AVG or STDDEV over BIGINT.

Columns a view may read of an event source: the contract's fields, and `external` (BOOLEAN: the other end is
outside the inside networks; null for sources without addresses), which the decoder adds once per event.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass

from tidewatch.errors import ContractError

SUM_GROUPS = 8
"""Groups of addresses that `ADDRESS_SUM` adds up apart, by CRC-32: one row of a count-min sketch (Cormode and Muthukrishnan 2005)."""


@dataclass(frozen=True)
class Feature:
    """One column of a view: an aggregate expression over the rows of a window."""

    name: str
    expression: str
    type: str
    """`long` or `double`."""
    doc: str
    unit: str = ""


@dataclass(frozen=True)
class Source:
    """Rows a view reads: an event contract's, or another view's windows, projected to `columns`.

    `columns` maps a column's name to an SQL expression over the source's row.
    """

    name: str
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FeatureView:
    """A windowed aggregation. Its name is the topic's, the Pinot table's and the Delta table's."""

    name: str
    doc: str
    sources: tuple[Source, ...]
    keys: tuple[str, ...]
    size_seconds: int
    slide_seconds: int
    """Equal to `size_seconds`: tumbling."""
    features: tuple[Feature, ...]
    delay_seconds: int = 0
    """So much later than its end the stream closes a window, so that not all that it scores comes at once; the window is the same.
    Over windows of other views: at least theirs, and less than such a window more, else it would hold others. Over raw events: the
    same for all views of a source, whose time attribute runs ahead (`render.ahead_seconds`)."""
    published: bool = True
    """The stream writes its windows to Kafka (and so to Pinot) and to Delta; False: only the scores tell them."""

    @property
    def tumbling(self) -> bool:
        return self.size_seconds == self.slide_seconds

    @property
    def over_views(self) -> bool:
        """True if it reads windows of other views, not raw events."""
        from tidewatch import events

        return self.sources[0].name not in events.names()


def names() -> tuple[str, ...]:
    """Every feature view, in an order in which a view comes after the views it reads."""
    found = {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
    views = {n: m.VIEW for n, m in found.items() if hasattr(m, "VIEW")}
    ordered: list[str] = []
    while len(ordered) < len(views):
        ready = [
            n for n, v in sorted(views.items())
            if n not in ordered and all(s.name in ordered or s.name not in views for s in v.sources)
        ]
        if not ready:
            raise ContractError(f"feature views read each other in a circle: {sorted(set(views) - set(ordered))}.")
        ordered += ready
    return tuple(ordered)


def view(name: str) -> FeatureView:
    """One feature view; raises ContractError if there is none of that name."""
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError:
        raise ContractError(f"there is no feature view {name!r}.", f"one of: {', '.join(names())}") from None
    found: FeatureView = module.VIEW
    if found.name != name:
        raise ContractError(f"tidewatch/features/{name}.py defines the view {found.name!r}.", "give both the same name")
    return found
