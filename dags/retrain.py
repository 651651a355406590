"""Trains challengers for the three use cases and promotes one only if it beats the champion in the back-test.

Starts by itself when `feature_store` has published new features, and learns from the `batch.training_window` before their
end. By hand it takes a use case, a window (by default up to the newest features there are), and `force` (promote the best challenger even without a win, for instance after
a deliberate change of a detector). A promotion moves the registry's alias `champion` and tells the running stream, which
swaps at that event time; without a win the champion stays and the task's log says why.
With the setting `promotion.approval` a person decides: if a challenger would win, the run waits for *Approve* or *Reject*
under *Required Actions* (two hours, then it counts as *Reject*); a rejected challenger stays one.
Publishes the asset `tidewatch://models`, which starts `refresh_dashboards`.
"""

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.python import ShortCircuitOperator
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
        task_id="train", job="train", inlets=[house.FEATURES],
        arguments="{{ learning(dag_run, params, triggering_asset_events, inlet_events) }}{% for c in cases(params) %} --use-case {{ c }}{% endfor %}",
        execution_timeout=timedelta(hours=2), **house.SPARK,
    )
    ready = train
    if settings.promotion.approval:
        judge = house.Job(
            task_id="judge", job="promote", execution_timeout=timedelta(minutes=15),
            arguments="--dry-run --end {{ iso(trained(ti).end) }}"
                      "{% for c in cases(params) %} --use-case {{ c }}{% endfor %}{% if params.force %} --force{% endif %}",
        )
        wins = ShortCircuitOperator(
            task_id="somebody_wins", python_callable=house.somebody_wins, op_args=[judge.output], ignore_downstream_trigger_rules=False,
        )
        ready = ApprovalOperator(
            task_id="approve", subject="New champions?", defaults=ApprovalOperator.REJECT, response_timeout=timedelta(hours=2),
            body="{% for u, m in ti.xcom_pull(task_ids='judge')['models'].items() if m.get('winner') %}"
                 "- **{{ u }}**: version {{ m.winner }} instead of {{ m.champion or 'nobody' }}: {{ m.reason }}\n{% endfor %}",
        )
        train >> judge >> wins >> ready
    done = EmptyOperator(task_id="models_renewed", outlets=[house.MODELS], trigger_rule="none_failed_min_one_success")
    for use_case in house.USE_CASES:
        promote = house.Job(
            task_id=f"promote_{use_case}", job="promote", when=f"'{use_case}' in cases(params)",
            arguments=f"--use-case {use_case} --end {{{{ iso(trained(ti).end) }}}}{{% if params.force %}} --force{{% endif %}}",
            execution_timeout=timedelta(minutes=15), trigger_rule="none_failed",
        )
        ready >> promote >> done
