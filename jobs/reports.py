"""Great Expectations' pages made fit for a closed network: no outside address, a style of our own, an index of the runs.

GX's pages load their style and scripts from public hosts and its logo with the project's identifier. Here each page loads
`style.css` beside it instead, and `index.html` is a plain table: every run, every table, what held, and its page.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

STYLE = """
:root { --ink: #1f2a33; --soft: #5d6b77; --line: #dfe5ea; --good: #2e7d4f; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #f6f8f9; }
a { color: #14647f; } h1 { font-size: 1.5rem; } h4, h5, h6, p { margin: .2rem 0; }
.page, .container-fluid.pt-4 { padding: 1.2rem 1.5rem 3rem; } .page { max-width: 80rem; margin: auto; } .page td:nth-child(1), .page td:nth-child(3) { white-space: nowrap; }
table { width: 100%; border-collapse: collapse; background: #fff; border: 1px solid var(--line); margin: .5rem 0; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); font-size: .9rem; } th { color: var(--soft); }
.good, .text-success { color: var(--good); } .bad, .text-danger { color: var(--bad); } .text-warning { color: #a06a00; }
.fas { font-style: normal; } .fa-check-circle::before { content: "✔"; } .fa-times::before, .fa-times-circle::before { content: "✘"; }
.fa-exclamation-triangle::before, .fa-exclamation-circle::before { content: "!"; }
nav.navbar { background: #fff; border-bottom: 1px solid var(--line); padding: .5rem 1.5rem; } nav.navbar img { height: 34px !important; vertical-align: middle; }
.ge-breadcrumbs { display: inline-flex; gap: .6rem; list-style: none; margin: 0; padding: 0; } .ge-breadcrumbs-item + .ge-breadcrumbs-item::before { content: "/ "; }
.container-fluid.pt-4 > .row { display: grid; grid-template-columns: 15rem 1fr; gap: 1.5rem; } .sticky { position: sticky; top: 1rem; }
.ge-section { background: #fff; border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem; margin-bottom: .8rem; } .ge-section .row { display: block; }
.card { background: #fff; border: 1px solid var(--line); border-radius: .4rem; margin: .6rem 0; } .card-header, .card-body { padding: .4rem .7rem; }
.nav { list-style: none; margin: 0; padding: 0; } .card nav.navbar { border: 0; padding: 0; } .nav a { text-decoration: none; }
.badge { padding: 0 .4em; border-radius: .3em; background: #eef2f5; font-size: .85em; } [data-toggle=collapse], .sticky > .card:first-of-type, footer { display: none; }
@media (max-width: 800px) { .container-fluid.pt-4 > .row { display: block; } }
"""
_OUTSIDE = re.compile(r"<link\b[^>]*href=\"https?://[^>]*>|<script\b[^>]*src=\"https?://[^>]*>\s*</script>|<footer\b.*?</footer>", re.DOTALL)
_LOGO = re.compile(r"src=\"https?://[^\"]*\"")
_TO_THE_MINUTE = re.compile(r"T(\d\d:\d\d):00Z")
_MARK = '<link rel="stylesheet" href="/data-docs/style.css">'


def address(reports: str, identifier: Any) -> str:
    """Where a validation's page is served."""
    return f"{reports}/data-docs/validations/{'/'.join(str(part) for part in identifier.to_tuple())}.html"


def offline(page: str) -> str:
    """A page without outside addresses and with our style; doing it twice changes nothing.

    >>> offline('<head><link rel="stylesheet" href="https://x/y.css"></head><img src="https://x/z.png">')
    '<head><link rel="stylesheet" href="/data-docs/style.css"></head><img src="/data-docs/static/images/logo-long.png">'
    """
    page = _LOGO.sub('src="/data-docs/static/images/logo-long.png"', _OUTSIDE.sub("", page))
    return page if _MARK in page else page.replace("</head>", f"{_MARK}</head>", 1)


def index(rows: Iterable[Mapping[str, Any]]) -> str:
    """The index: a line a run and table, newest run first, failed ones first within it."""
    runs: dict[tuple[int, str, str], list[Mapping[str, Any]]] = {}
    for r in rows:
        runs.setdefault((r["run_at"], r["run_id"], r["table_name"]), []).append(r)
    lines = []
    for (_, run, table), of in sorted(runs.items(), key=lambda x: (-x[0][0], x[0][1], all(r["success"] for r in x[1]), x[0][2])):
        bad = [r for r in of if not r["success"]]
        what = "; ".join(f"{r['column_name'] + ': ' if r['column_name'] else ''}{r['expectation']}, observed {r['observed'] or r['unexpected']}" for r in bad[:3])
        mark = f'<span class="bad">✘ {len(bad)} of {len(of)} failed</span>' if bad else f'<span class="good">✔ {len(of)} held</span>'
        link = next((r["report"] for r in of if r["report"]), "")
        window = _TO_THE_MINUTE.sub(r" \1", run).replace("/", " to ")
        lines.append(f"<tr><td>{html.escape(window)}</td><td>{html.escape(table)}</td><td>{mark}</td><td>{html.escape(what)}</td>"
                     f'<td><a href="{html.escape(link)}">report</a></td></tr>')
    body = "".join(lines) or '<tr><td colspan="5">Nothing has been validated yet: the DAG feature_store does it after each build.</td></tr>'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data quality reports</title>{_MARK}</head><body><div class="page">'
        '<p><a href="/">Tidewatch</a></p><h1>Data quality reports</h1><p>What Great Expectations found, newest first; windows in UTC.</p>'
        f"<table><thead><tr><th>window</th><th>table</th><th>outcome</th><th>what failed</th><th></th></tr></thead><tbody>{body}</tbody></table></div></body></html>"
    )


def forget(folder: Path, keep: timedelta) -> int:
    """Delete the pages of runs older than `keep` before the newest run; how many there were."""
    times: dict[Path, datetime] = {}
    for path in folder.glob("validations/*/*/*"):
        times[path] = datetime.strptime(path.name.split(".")[0].rstrip("Z"), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    old = [p for p, t in times.items() if t < max(times.values()) - keep]
    for path in old:
        shutil.rmtree(path)
    return len(old)


def finish(folder: Path, rows: Iterable[Mapping[str, Any]], keep: timedelta) -> None:
    """After GX has built its pages: forget old ones, make all of them fit for a closed network, write index and style."""
    forget(folder, keep)
    for path in folder.rglob("*.html"):
        text = path.read_text()
        fit = offline(text)
        if fit != text:
            path.write_text(fit)
    (folder / "style.css").write_text(STYLE)
    known = list(rows)
    oldest = max((r["run_at"] for r in known), default=0) - round(keep.total_seconds() * 1000)
    (folder / "index.html").write_text(index(r for r in known if r["run_at"] >= oldest))
