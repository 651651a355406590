"""Event contracts: one Avro schema a source, with our own properties; everything downstream derives from them.

Properties of a field beyond Avro's: `role` (time, key, dimension, metric), `unit`, `min`, `max`, `values`,
`min_length`, `max_length`, `personal` (true: names a person or an address).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewatch.errors import ContractError

HERE = Path(__file__).parent
JAVA = HERE / "java"
"""Java that every decoder of events shares."""
ROLES = ("time", "key", "dimension", "metric")
TYPES = ("string", "long", "int", "double", "boolean")


@dataclass(frozen=True)
class Field:
    """One field of an event."""

    name: str
    type: str
    """`string`, `long`, `int`, `double` or `boolean`; time is a `long` of UTC milliseconds."""
    nullable: bool
    role: str
    doc: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = ()
    min_length: int | None = None
    max_length: int | None = None
    personal: bool = False


@dataclass(frozen=True)
class Contract:
    """One event source: its name is the topic's, the Pinot table's and the Delta table's."""

    name: str
    doc: str
    fields: tuple[Field, ...]
    schema: str
    """The Avro schema as JSON text."""

    @property
    def time(self) -> Field:
        return next(f for f in self.fields if f.role == "time")

    @property
    def key(self) -> Field:
        return next(f for f in self.fields if f.role == "key")

    @property
    def addressed(self) -> bool:
        """Its events have two ends, of which the device is one: decoders tell whether the other is outside (`external`)."""
        return {"src_ip", "dst_ip", "direction"} <= {f.name for f in self.fields}

    @property
    def rules(self) -> str:
        """The schema on one line, without its texts: what a decoder needs."""
        raw = json.loads(self.schema)
        raw.pop("doc", None)
        for f in raw["fields"]:
            for name in ("doc", "unit", "personal"):
                f.pop(name, None)
        return json.dumps(raw, separators=(",", ":"))

    def __getitem__(self, name: str) -> Field:
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(name)


def _field(raw: dict[str, Any], where: str) -> Field:
    kind = raw["type"]
    nullable = isinstance(kind, list)
    if isinstance(kind, list):
        kind = next(k for k in kind if k != "null")
    if isinstance(kind, dict):
        kind = kind["type"]
    if kind not in TYPES:
        raise ContractError(f"{where}.{raw['name']}: type {kind!r} is not one of {TYPES}.")
    if raw.get("role") not in ROLES:
        raise ContractError(f"{where}.{raw['name']}: role {raw.get('role')!r} is not one of {ROLES}.")
    if not raw.get("doc"):
        raise ContractError(f"{where}.{raw['name']}: has no doc.")
    return Field(
        name=raw["name"], type=kind, nullable=nullable, role=raw["role"], doc=raw["doc"], unit=raw.get("unit", ""),
        minimum=raw.get("min"), maximum=raw.get("max"), values=tuple(raw.get("values", ())),
        min_length=raw.get("min_length"), max_length=raw.get("max_length"), personal=raw.get("personal", False),
    )


@functools.cache
def contract(name: str) -> Contract:
    """Read one contract; raises ContractError if it does not exist or is defined wrongly."""
    path = HERE / f"{name}.avsc"
    if not path.exists():
        raise ContractError(f"there is no event contract {name!r}.", f"one of: {', '.join(names())}")
    raw = json.loads(path.read_text())
    fields = tuple(_field(f, name) for f in raw["fields"])
    for role in ("time", "key"):
        if sum(f.role == role for f in fields) != 1:
            raise ContractError(f"{name}: needs exactly one field with the role {role!r}.")
    return Contract(name, raw["doc"], fields, path.read_text())


def names() -> tuple[str, ...]:
    """Every event source that has a contract, sorted."""
    return tuple(sorted(p.stem for p in HERE.glob("*.avsc")))
