"""Suites that follow from the contracts and the feature views: nothing here knows a table by name."""

from __future__ import annotations

from typing import Any

import great_expectations.expectations as gxe
from tidewatch import events, features, tables

ADDRESSES = {"device_id"}


def suite(name: str) -> list[Any]:
    """What the table of a contract or of a feature view must be."""
    return event(name) if name in events.names() else view(name)


def event(name: str) -> list[Any]:
    """A bronze table: rows there, required columns filled, values in the contract's ranges and sets."""
    table = tables.table(name)
    found: list[Any] = [gxe.ExpectTableRowCountToBeBetween(min_value=1)]
    found += [gxe.ExpectColumnValuesToNotBeNull(column=c.name) for c in table.columns if not c.nullable]
    for f in events.contract(name).fields:
        if f.minimum is not None or f.maximum is not None:
            found.append(gxe.ExpectColumnValuesToBeBetween(column=f.name, min_value=f.minimum, max_value=f.maximum))
        if f.values:
            found.append(gxe.ExpectColumnValuesToBeInSet(column=f.name, value_set=list(f.values)))
        if f.min_length is not None or f.max_length is not None:
            found.append(gxe.ExpectColumnValueLengthsToBeBetween(column=f.name, min_value=f.min_length, max_value=f.max_length))
    return found


def view(name: str) -> list[Any]:
    """A silver table: rows there, one a key and window, keys filled, counts never negative."""
    table = tables.table(name)
    found: list[Any] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=list(table.keys)),
    ]
    found += [gxe.ExpectColumnValuesToNotBeNull(column=c.name) for c in table.columns if not c.nullable]
    found += [
        gxe.ExpectColumnValuesToBeBetween(column=f.name, min_value=0) for f in features.view(name).features if f.type == "long"
    ]
    return found
