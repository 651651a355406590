"""Builds the features of the cycle that has just closed, lets the gate judge them, and renews the devices' baselines.

`build_features` turns bronze events into the windows of every feature view (replacing exactly the run's window),
`validate` checks events and windows against their expectations: if it refuses, the run stops here, baselines and models
stay as they are, and the task's *Report* button shows what was wrong. `build_baselines` learns what is normal for each
device and publishes it to the stream; `consistency` counts where the stream saw other windows than the store has, and stops nothing. A good run publishes the asset `tidewatch://feature_store`, which starts `retrain`.

Runs every `batch.cycle` for the last closed cycle. To build a longer or an older window (a backfill), start it by hand
with `start` and `end`; running a window twice gives the same tables.
"""

from datetime import timedelta

from airflow.sdk import DAG
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "feature_store",
    schedule=house.every(settings.batch.cycle),
    params=house.WINDOW_PARAMS,
    tags=["tidewatch", "features", "gate"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    build = house.Job(task_id="build_features", job="build_features", arguments="{{ cycle(dag_run, params) }}", **house.SPARK)
    gate = house.Job(
        task_id="validate", job="validate", arguments="{{ cycle(dag_run, params) }}", gate=True,
        execution_timeout=timedelta(minutes=30), **house.SPARK,
    )
    baselines = house.Job(
        task_id="build_baselines", job="build_baselines",
        arguments="{{ baseline(dag_run, params) }}",
        outlets=[house.FEATURES],
        publishes={"start": "{{ iso(cycle(dag_run, params).start) }}", "end": "{{ iso(cycle(dag_run, params).end) }}"},
        execution_timeout=timedelta(minutes=30), **house.SPARK,
    )
    consistency = house.Job(
        task_id="consistency", job="consistency", arguments="{{ cycle(dag_run, params) }}", execution_timeout=timedelta(minutes=30), **house.SPARK,
    )
    build >> gate >> baselines >> consistency
