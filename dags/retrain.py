"""Trains challengers for the three use cases and promotes one only if it beats the champion in the back-test.

Starts by itself when `feature_store` has published new features, and learns from the `batch.training_window` before their
end. By hand it takes a use case, a window, and `force` (promote the best challenger even without a win, for instance after
a deliberate change of a detector). A promotion moves the registry's alias `champion` and tells the running stream, which
swaps at that event time; without a win the champion stays and the task's log says why.
Publishes the asset `tidewatch://models`, which starts `refresh_dashboards`.
"""

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "retrain",
    schedule=[house.FEATURES],
    params={
        "use_case": Param("all", enum=["all", *house.USE_CASES], title="Use case", description="Which models to train: silent (device falls quiet or is flooded), leak, lie, or all."),
        **house.WINDOW_PARAMS,
        "force": Param(False, type="boolean", title="Force", description="Promote the best challenger even if it does not beat the champion."),
    },
    tags=["tidewatch", "models"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    train = house.Job(
        task_id="train", job="train",
        arguments="{{ learning(dag_run, params, triggering_asset_events) }}{% for c in cases(params) %} --use-case {{ c }}{% endfor %}",
        execution_timeout=timedelta(hours=2), **house.SPARK,
    )
    done = EmptyOperator(task_id="models_renewed", outlets=[house.MODELS], trigger_rule="none_failed_min_one_success")
    for use_case in house.USE_CASES:
        promote = house.Job(
            task_id=f"promote_{use_case}", job="promote", when=f"'{use_case}' in cases(params)",
            arguments=f"--use-case {use_case} --end {{{{ iso(learning(dag_run, params, triggering_asset_events).end) }}}}{{% if params.force %}} --force{{% endif %}}",
            execution_timeout=timedelta(minutes=15),
        )
        train >> promote >> done
