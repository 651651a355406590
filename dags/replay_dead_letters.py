"""Sends dead letters again, with their original bytes, to the topic they came from: after the contract or a decoder was corrected.

What is still unusable comes back as a dead letter. What can be used now is counted in Delta by the next build of its window
(`backfill`), for the stream has closed that window long ago. Look at the reasons first, on the dashboard *Data quality*.
Sending the same letters twice makes duplicates, which Pinot and the features remove.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param
from tidewatch import events
from tidewatch.settings import current

from dags import house

settings = current()

with DAG(
    "replay_dead_letters",
    schedule=None,
    params={
        "start": Param(type="string", format="date-time", title="Start", description="Letters that the broker received from this instant on (UTC)."),
        "end": Param(type="string", format="date-time", title="End", description="Letters that the broker received before this instant (UTC)."),
        "source": Param("all", enum=["all", *events.names()], title="Source", description="Of which topic."),
        "reason": Param(None, type=["null", "string"], pattern="^[a-z0-9_]+$", title="Reason", description="Only letters with this reason, for instance bytes_out_range. Empty: every reason."),
        "dry_run": Param(True, type="boolean", title="Dry run", description="Only count what would be sent."),
    },
    tags=["tidewatch", "by hand"],
    doc_md=__doc__,
    **house.defaults(settings),
):
    house.Job(
        task_id="replay_dead_letters", job="replay_dead_letters",
        arguments="{{ cycle(dag_run, params) }} {{ letters(params) }}", execution_timeout=timedelta(minutes=30),
    )
