"""What is wrong with the bundle, found without a server."""

from __future__ import annotations

from tidewatch.dashboards import datasets, files, style
from tidewatch.dashboards.charts import columns_of
from tidewatch.settings import ROOT


def problems() -> tuple[str, ...]:
    """What is wrong with the bundle, walking dashboard, chart, dataset, column; empty if nothing is."""
    wrong = [f"{p.relative_to(ROOT)} is not current" for p, text in datasets.wanted().items() if not p.exists() or p.read_text() != text]
    b = files.read()
    by_uuid = {d["uuid"]: d for d in b.datasets.values()}
    charts = {c["uuid"]: c for c in b.charts.values()}
    everything = [*b.charts.values(), *b.dashboards.values(), *b.datasets.values()]
    if len({x["uuid"] for x in everything}) != len(everything):
        wrong.append("two files have the same uuid")
    for name, chart in b.charts.items():
        data = by_uuid.get(chart["dataset_uuid"])
        if data is None:
            wrong.append(f"{name}: there is no dataset {chart['dataset_uuid']}")
            continue
        if chart["viz_type"] != chart["params"]["viz_type"]:
            wrong.append(f"{name}: viz_type differs from that in params")
        if not style.sentence(chart):
            wrong.append(f"{name}: the description does not end with what an empty chart means (`empty: …`)")
        known = {c["column_name"] for c in data["columns"]}
        wrong += [f"{name}: {data['table_name']} has no column {c!r}" for c in sorted(columns_of(chart["params"]) - known)]
    used = set()
    slugs = [d["slug"] for d in b.dashboards.values()]
    if len(set(slugs)) != len(slugs):
        wrong.append("two dashboards have the same slug")
    for name, dashboard in b.dashboards.items():
        filters = dashboard["metadata"].get("native_filter_configuration", ())
        for key, item in dashboard["position"].items():
            if not isinstance(item, dict):
                continue
            wrong += [f"{name}: {key} has a child {c!r} that is not there" for c in item.get("children", ()) if c not in dashboard["position"]]
            if item["type"] == "CHART":
                used.add(item["meta"]["uuid"])
                if item["meta"]["uuid"] not in charts:
                    wrong.append(f"{name}: {key} shows a chart that is not there")
                times = [f["name"] for f in filters if f["filterType"] == "filter_time" and item["meta"]["chartId"] not in f["scope"]["excluded"]]
                if len(times) > 1:
                    # Superset would listen to the last one
                    wrong.append(f"{name}: {key} gets its time from {' and '.join(map(repr, times))}")
        for f in filters:
            if f.get("requiredFirst") and f["cascadeParentIds"]:
                # Superset draws no chart until such a filter has a value
                wrong.append(f"{name}: the page waits for the filter {f['name']!r}, which may have nothing to choose from")
            for target in f["targets"]:
                if not target:
                    continue
                data = by_uuid.get(target.get("datasetUuid"))
                if data is None:
                    wrong.append(f"{name}: the filter {f['name']!r} reads a dataset that is not there")
                elif target["column"]["name"] not in {c["column_name"] for c in data["columns"]}:
                    wrong.append(f"{name}: the filter {f['name']!r} reads {target['column']['name']!r}, which {data['table_name']} has not")
    wrong += [f"{name}: no dashboard shows it" for name, c in b.charts.items() if c["uuid"] not in used]
    return tuple(wrong)
