"""Looks for drift between the cycles: have the devices' signals moved away from what the champions learned from?

`drift` compares what the stream logged in the last `batch.drift_watch` with the champions' training windows (population
stability index, a row a signal in the table `drift`). If one has moved by more than `batch.drift_limit` and nothing was
trained since the cycle began, the run starts `feature_store` for the cycle so far; its gate, its baselines and `retrain`
follow as always, and a challenger still has to win. At most one early cycle in each `batch.cycle`.
"""

from datetime import timedelta

from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "watch",
    schedule=house.every(settings.batch.drift_watch),
    params=house.WINDOW_PARAMS,
    tags=["tidewatch", "features", "models"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    drift = house.Job(
        task_id="drift", job="drift", arguments="{{ watched(dag_run, params) }}", execution_timeout=timedelta(minutes=30), **house.SPARK,
    )
    early = ShortCircuitOperator(task_id="drifted", python_callable=house.asks_for_retraining, op_args=[drift.output])
    start = TriggerDagRunOperator(
        task_id="start_feature_store", trigger_dag_id="feature_store",
        conf={"start": "{{ iso(cycle_so_far(dag_run, params).start) }}", "end": "{{ iso(cycle_so_far(dag_run, params).end) }}"},
    )
    drift >> early >> start
