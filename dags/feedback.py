"""A form for analysts: was this alert right? The next training takes the answer into account.

Reached from the alert tables of the dashboards, whose column *id* opens this page: press *Trigger*, paste the id, choose.
**true**: it happened, and the models must go on finding it. **false**: nothing happened; thresholds rise above such alerts where
that costs little. **benign**: it happened and is nothing to act on; it is neither learned nor held against a model.
The newest mark of an alert counts. The same from a shell: `tidewatch feedback ID true|false|benign`.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "feedback",
    schedule=None,
    params={
        "alert": Param(type="string", minLength=5, maxLength=300, title="Alert", description="The alert's id, as its table on the dashboard shows it: use_case:device:start."),
        "verdict": Param("true", type="string", enum=["true", "false", "benign"], title="Verdict", description="true: it happened. false: nothing happened. benign: it happened and is nothing to act on."),
        "note": Param(None, type=["null", "string"], maxLength=1000, title="Note", description="Why; for whoever reads it later."),
    },
    tags=["tidewatch", "models", "by hand"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    house.Job(task_id="mark", job="mark", arguments="{{ marking(dag_run, params) }}", execution_timeout=timedelta(minutes=5))
