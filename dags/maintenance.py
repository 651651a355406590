"""Keeps the lake small and quick: joins small files (OPTIMIZE), deletes rows past their retention, and removes files
that no version needs any more (VACUUM).

Runs every night at 02:40 UTC; retention is `batch.retention` and `batch.vacuum_retention`.
"""

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "maintenance",
    schedule=CronTriggerTimetable("40 2 * * *", timezone="UTC"),
    params={"end": house.WINDOW_PARAMS["end"]},
    tags=["tidewatch", "lake"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    house.Job(
        task_id="compact", job="compact", arguments="--end {{ iso(cycle(dag_run, params).end) }}",
        execution_timeout=timedelta(hours=2), **house.SPARK,
    )
