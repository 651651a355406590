"""Refreshes Superset's datasets and warms the caches of its charts, so that an analyst's first click is quick.

Starts by itself after new models (`tidewatch://models`), which is the end of each cycle; or by hand.
A chart whose query fails makes the run fail, with the chart's name in the log.
"""

from datetime import timedelta

from airflow.sdk import DAG
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "refresh_dashboards",
    schedule=[house.MODELS],
    params={"end": house.WINDOW_PARAMS["end"]},
    tags=["tidewatch", "dashboards"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    house.Job(
        task_id="refresh_dashboards", job="refresh_dashboards", arguments="--end {{ iso(cycle(dag_run, params).end) }}",
        env_group="tools", retries=2, execution_timeout=timedelta(minutes=15),
    )
