"""A dashboard's style sheet, made when it is applied: what each chart says when it has nothing to show, room for titles.

Superset has one sentence for every empty chart; each of ours has its own, in its description after "empty:".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MARK = "/* made by tidewatch/dashboards/style.py, do not edit */"
_GENERAL = """
.chart-slice .slice_container .ant-empty + *, .chart-slice .slice_container [aria-label=empty] + div { width: 100%; }
.chart-slice .slice_container [aria-label=empty] + div p { font-size: 0; margin: 0; }
.chart-slice .slice_container [aria-label=empty] + div p::after { font-size: 14px; line-height: 1.45; font-weight: 400; color: #5d6b77; }
.chart-slice[data-test-viz-type=big_number_total] .filter-counts { display: none; }
.chart-slice[data-test-viz-type=big_number_total] .slice_container [aria-label=empty] { display: none; }
.chart-slice[data-test-viz-type=big_number_total] .slice_container [aria-label=empty] + div p::after { font-size: 16px; }
"""


def sentence(chart: Mapping[str, Any]) -> str:
    """What follows "empty:" in the description, as a sentence; '' if nothing does."""
    text = str(chart.get("description") or "").partition("empty: ")[2].strip()
    return text[:1].upper() + text[1:]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def sheet(charts: Iterable[Mapping[str, Any]]) -> str:
    r"""The style sheet of a dashboard with these charts.

    >>> print(sheet([{"slice_name": "Lag", "description": "events; empty: not measured"}]).splitlines()[-1])
    .chart-slice[data-test-chart-name="Lag"] .slice_container [aria-label=empty] + div p:first-child::after { content: "Not measured"; }
    """
    lines = [
        f".chart-slice[data-test-chart-name={_quoted(c['slice_name'])}] .slice_container [aria-label=empty] + div p:first-child::after {{ content: {_quoted(sentence(c))}; }}"
        for c in charts if sentence(c)
    ]
    return MARK + _GENERAL + "\n".join(lines)


def without(css: str) -> str:
    """A dashboard's own style, without what was made here."""
    return css.partition(MARK)[0].rstrip()
