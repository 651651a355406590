"""Superset's dashboards as files: datasets from the catalogue, charts and dashboards by hand; checked, imported, exported.

`dashboards/` is a bundle in Superset's own export form (YAML): `files` reads it, `datasets` generates its datasets, `charts`
knows what a chart asks, `style` what it says when there is nothing, `check` walks it without a server, `server` brings it into Superset and takes it back.
"""
