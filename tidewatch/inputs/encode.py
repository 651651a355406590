"""Avro, many events at once: numpy columns of one contract to the schemaless binary bodies that Kafka carries.

The form is the one of the Avro specification: a long is a zigzag variable-length integer, a double is eight
little-endian bytes, a string is its length and its UTF-8, a union is the branch's number and its value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tidewatch.errors import InputError
from tidewatch.events import Contract

Array = npt.NDArray[Any]
ROWS = 16384
"""Rows encoded at a time: their padded bytes stay in the processor's cache."""


@dataclass(frozen=True)
class Words:
    """Distinct strings, encoded once; columns of strings are numbers into them."""

    values: tuple[str, ...]
    padded: Array
    """Shape (words, longest): length and UTF-8 of each, zero-padded."""
    lengths: Array

    @classmethod
    def of(cls, values: Sequence[str]) -> Words:
        """The table of these strings, in this order."""
        encoded = []
        for v in values:
            text = v.encode()
            encoded.append(varint(len(text)) + text)
        lengths = np.array([len(e) for e in encoded], dtype=np.int64)
        width = int(lengths.max(initial=1))
        joined = b"".join(e.ljust(width, b"\0") for e in encoded)
        return cls(tuple(values), np.frombuffer(joined, dtype=np.uint8).reshape(len(encoded), width), lengths)


@dataclass(frozen=True)
class Text:
    """A column of strings: row i is `words.values[codes[i]]`."""

    codes: Array
    words: Words

    @classmethod
    def of(cls, values: Sequence[str]) -> Text:
        """A column of any strings, each distinct one encoded once."""
        distinct, codes = np.unique(np.asarray(values, dtype=object), return_inverse=True)
        return cls(codes, Words.of([str(v) for v in distinct]))


Column = Array | Text
"""Numbers (a masked array where some are null) or strings."""


@dataclass(frozen=True)
class Encoded:
    """The bodies of some events, one after the other."""

    data: bytes
    ends: Array
    """Where each body ends in `data`."""

    def split(self) -> list[bytes]:
        """One bytes object an event."""
        at, bodies = 0, []
        for end in self.ends.tolist():
            bodies.append(self.data[at:end])
            at = end
        return bodies


def varint(value: int) -> bytes:
    """One long as Avro writes it."""
    u = (value << 1) ^ (value >> 63)
    out = bytearray()
    while u > 0x7F:
        out.append(u & 0x7F | 0x80)
        u >>= 7
    out.append(u)
    return bytes(out)


def _longs(values: Array) -> tuple[Array, Array]:
    signed = np.ascontiguousarray(values, dtype=np.int64)
    u = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    width = max(1, -(-int(u.max(initial=0)).bit_length() // 7))
    padded = np.empty((len(u), width), dtype=np.uint8)
    lengths = np.ones(len(u), dtype=np.int64)
    for j in range(width):
        rest = u >> np.uint64(7)
        more = rest > 0
        padded[:, j] = (u & np.uint64(0x7F)).astype(np.uint8) | (more.view(np.uint8) << 7)
        lengths += more
        u = rest
    return padded, lengths


def _doubles(values: Array) -> tuple[Array, Array]:
    raw = np.ascontiguousarray(values, dtype="<f8").view(np.uint8).reshape(-1, 8)
    return raw, np.full(len(raw), 8, dtype=np.int64)


def _part(kind: str, column: Column, rows: slice) -> tuple[Array, Array]:
    if isinstance(column, Text):
        codes = column.codes[rows]
        return column.words.padded[codes], column.words.lengths[codes]
    values = np.ma.getdata(column)[rows]
    if kind in ("long", "int"):
        return _longs(values)
    if kind == "double":
        return _doubles(values)
    return values.astype(np.uint8).reshape(-1, 1), np.ones(len(values), dtype=np.int64)


def _branches(contract: Contract) -> dict[str, tuple[int, int]]:
    """Of every nullable field: the numbers of the null branch and of the other."""
    types = {f["name"]: f["type"] for f in json.loads(contract.schema)["fields"]}
    return {n: (t.index("null"), 1 - t.index("null")) for n, t in types.items() if isinstance(t, list)}


def encode(contract: Contract, columns: Mapping[str, Column]) -> Encoded:
    """Encode rows of one contract; raises InputError if a column is missing, or null where it may not be."""
    branches = _branches(contract)
    sizes = set()
    for f in contract.fields:
        column = columns.get(f.name)
        if column is None:
            raise InputError(f"{contract.name}: the column {f.name!r} is missing.")
        if isinstance(column, Text) != (f.type == "string"):
            raise InputError(f"{contract.name}.{f.name}: expected a column of type {f.type}.")
        if not f.nullable and not isinstance(column, Text) and bool(np.any(np.ma.getmaskarray(column))):
            raise InputError(f"{contract.name}.{f.name}: may not be null.")
        sizes.add(len(column.codes if isinstance(column, Text) else column))
    if len(sizes) != 1:
        raise InputError(f"{contract.name}: the columns have different lengths.")
    total = sizes.pop()
    flat, lengths = [], []
    for start in range(0, total, ROWS):
        rows = slice(start, min(start + ROWS, total))
        parts: list[tuple[Array, Array]] = []
        for f in contract.fields:
            column = columns[f.name]
            padded, size = _part(f.type, column, rows)
            if f.name in branches:
                null = np.ma.getmaskarray(column)[rows] if not isinstance(column, Text) else np.zeros(len(size), dtype=bool)
                zero, one = branches[f.name]
                parts.append((np.where(null, 2 * zero, 2 * one).astype(np.uint8)[:, None], np.ones_like(size)))
                size = np.where(null, 0, size)
            parts.append((padded, size))
        wide = np.concatenate([p for p, _ in parts], axis=1)
        used = np.concatenate([np.arange(p.shape[1]) < n[:, None] for p, n in parts], axis=1)
        flat.append(wide[used])
        lengths.append(np.sum([n for _, n in parts], axis=0))
    if not flat:
        return Encoded(b"", np.zeros(0, dtype=np.int64))
    return Encoded(np.concatenate(flat).tobytes(), np.cumsum(np.concatenate(lengths)))
