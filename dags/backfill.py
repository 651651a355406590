"""Builds the features of an older stretch of time again, for instance after late events or a corrected contract.

Starts `feature_store` with the window given here: build, gate, baselines; then, as after every good build, `retrain` and
`refresh_dashboards` follow by themselves. It waits its turn if `feature_store` is running. Building a window twice gives the same tables.
"""

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "backfill",
    schedule=None,
    params={
        "start": Param(type="string", format="date-time", title="Start", description="First instant of the window to build again (UTC)."),
        "end": Param(type="string", format="date-time", title="End", description="First instant after that window (UTC)."),
    },
    tags=["tidewatch", "features", "by hand"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    TriggerDagRunOperator(
        task_id="start_feature_store", trigger_dag_id="feature_store",
        conf={"start": "{{ iso(cycle(dag_run, params).start) }}", "end": "{{ iso(cycle(dag_run, params).end) }}"},
    )
