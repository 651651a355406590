"""Puts an older model of one use case back as champion: one click when a promotion turns out badly.

Moves the registry's alias `champion` back to the version before (or to `version`) and tells the running stream.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "rollback",
    schedule=None,
    params={
        "use_case": Param(house.USE_CASES[0], enum=list(house.USE_CASES), title="Use case", description="Whose champion goes back."),
        "version": Param(None, type=["null", "integer"], minimum=1, title="Version", description="The version to go back to. Empty: the champion before this one."),
    },
    tags=["tidewatch", "models", "by hand"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    house.Job(
        task_id="rollback", job="rollback",
        arguments="--use-case {{ cases(params)[0] }} --at {{ iso(dag_run.run_after) }}{% if params.version %} --version {{ params.version | int }}{% endif %}",
        outlets=[house.MODELS], execution_timeout=timedelta(minutes=15),
    )
