"""What all DAGs share: the task that runs one job, the window of a run, defaults, and what happens on failure."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset, BaseOperatorLink, CronTriggerTimetable, Param
from airflow.sdk.exceptions import AirflowFailException
from tidewatch import orchestrator
from tidewatch.errors import TidewatchError
from tidewatch.settings import ROOT, Settings, current

log = logging.getLogger(__name__)

FEATURES = Asset("tidewatch://feature_store", group="tidewatch")
MODELS = Asset("tidewatch://models", group="tidewatch")
USE_CASES = ("silent", "leak", "lie")
SETTLE = timedelta(minutes=5)
"""How long after its end a cycle counts as closed: late events and the commit to Delta."""


# -- time: a run's window comes from its parameters, or from when the run was due; never from the clock
@dataclass(frozen=True)
class Window:
    """A closed stretch of event time [start, end), UTC; as text, the arguments of a job."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError(f"the window is empty: start {iso(self.start)} is not before end {iso(self.end)}; correct the run's parameters")

    def __str__(self) -> str:
        return f"--start {iso(self.start)} --end {iso(self.end)}"


def iso(t: datetime) -> str:
    """`2026-03-01T04:00:00Z`"""
    return t.astimezone(UTC).isoformat(timespec="milliseconds" if t.microsecond else "seconds").replace("+00:00", "Z")


def instant(text: str | None) -> datetime | None:
    """An ISO time of a parameter; without an offset it is UTC. Raises ValueError on anything else."""
    if not text:
        return None
    try:
        t = datetime.fromisoformat(text)
    except ValueError as e:
        raise ValueError(f"{text!r} is not an ISO time such as 2026-03-01T04:00:00Z; correct the run's parameters") from e
    return (t if t.tzinfo else t.replace(tzinfo=UTC)).astimezone(UTC)


def last_closed(run_after: datetime, cycle: timedelta, settle: timedelta = SETTLE) -> datetime:
    """The end of the last cycle that had closed when the run was due; cycles are counted from midnight UTC."""
    settled = run_after.astimezone(UTC) - settle
    return settled - (settled - datetime(1970, 1, 1, tzinfo=UTC)) % cycle


def cycle_window(run_after: datetime, params: Mapping[str, Any], cycle: timedelta) -> Window:
    """What a feature build covers: `start` and `end` if given, else the last closed cycle."""
    end = instant(params.get("end")) or last_closed(run_after, cycle)
    return Window(instant(params.get("start")) or end - cycle, end)


def cycle_so_far(run_after: datetime, params: Mapping[str, Any], cycle: timedelta, watch: timedelta) -> Window:
    """From where the present cycle began to the end of what was watched; raises ValueError at the very beginning of one."""
    end = cycle_window(run_after, params, watch).end
    return Window(end - (end - datetime(1970, 1, 1, tzinfo=UTC)) % cycle, end)


def baseline_window(run_after: datetime, params: Mapping[str, Any], cycle: timedelta, length: timedelta) -> Window:
    """What baselines are learned from: up to the end of the feature build, `length` back or further if it covers more."""
    built = cycle_window(run_after, params, cycle)
    return Window(min(built.end - length, built.start), built.end)


def learning_window(run_after: datetime, params: Mapping[str, Any], events: Iterable[Mapping[str, Any]],
                    cycle: timedelta, length: timedelta) -> Window:
    """What is learned from: up to the newest feature build (`events`: what it published), `length` back or further if it covered more."""
    built = [e for e in events if e.get("end")]
    end = instant(params.get("end")) or max((t for e in built if (t := instant(e["end"]))), default=last_closed(run_after, cycle))
    starts = [t for e in built if (t := instant(e.get("start")))]
    return Window(instant(params.get("start")) or min([end - length, *starts]), end)


def every(cycle: timedelta) -> CronTriggerTimetable:
    """A schedule on the clock for a cycle that divides a day; ten minutes after the end if it is hours long."""
    minutes, rest = divmod(cycle, timedelta(minutes=1))
    if rest or minutes < 1 or 1440 % minutes or (minutes > 60 and minutes % 60) or (minutes < 60 and 60 % minutes):
        raise ValueError(f"batch.cycle {cycle} does not divide a day evenly; set it to minutes that divide an hour or hours that divide a day")
    hours = minutes // 60
    if hours == 24:
        cron = "10 0 * * *"
    elif hours:
        cron = f"10 */{hours} * * *"
    else:
        cron = f"*/{minutes} * * * *"
    return CronTriggerTimetable(cron, timezone="UTC")


def event_extras(triggering_asset_events: Any, inlet_events: Any) -> list[dict[str, Any]]:
    """What the assets that started this run were published with; started by hand, what the task's first inlet was last."""
    if triggering_asset_events:
        return [dict(e.extra or {}) for found in triggering_asset_events.values() for e in found]
    return [dict(e.extra or {}) for e in inlet_events[0].ascending(False).limit(1)] if inlet_events else []


def trained_window(ti: Any) -> Window:
    """The window that this run's `train` learned from, as it said itself."""
    summary = ti.xcom_pull(task_ids="train")
    start, end = instant(summary["start"]), instant(summary["end"])
    if start is None or end is None:
        raise ValueError("the task `train` named no window; run it again")
    return Window(start, end)


def macros(settings: Settings) -> dict[str, Callable[..., object]]:
    """The functions that the commands' templates call. They return typed values only: no parameter reaches the shell as text."""
    batch = settings.batch
    return {
        "cycle": lambda dag_run, params: cycle_window(dag_run.run_after, params, batch.cycle),
        "learning": lambda dag_run, params, events, inlets: learning_window(
            dag_run.run_after, params, event_extras(events, inlets), batch.cycle, batch.training_window),
        "trained": trained_window,
        "watched": lambda dag_run, params: cycle_window(dag_run.run_after, params, batch.drift_watch),
        "cycle_so_far": lambda dag_run, params: cycle_so_far(dag_run.run_after, params, batch.cycle, batch.drift_watch),
        "baseline": lambda dag_run, params: baseline_window(dag_run.run_after, params, batch.cycle, batch.training_window),
        "cases": lambda params: [c for c in USE_CASES if params["use_case"] in ("all", c)],
        "letters": letters,
        "marking": marking,
        "iso": iso,
    }


def letters(params: Mapping[str, Any]) -> str:
    """The arguments of `replay_dead_letters`, each a word of a known form. Raises ValueError for another."""
    reason = params.get("reason") or ""
    if not re.fullmatch(r"[a-z0-9_]*", reason) or not re.fullmatch(r"[a-z0-9_]+", params["source"]):
        raise ValueError(f"{reason!r} is no reason; correct the run's parameters")
    return f"--source {params['source']}" + (f" --reason {reason}" if reason else "") + (" --dry-run" if params.get("dry_run", True) else "")


def marking(dag_run: Any, params: Mapping[str, Any]) -> str:
    """The arguments of `mark`, what a person typed in quotes of the shell. Raises ValueError for what is no alert's id."""
    alert, verdict = str(params["alert"]).strip(), params["verdict"]
    if not re.fullmatch(r"[a-z_]+:.+:-?\d+", alert) or not alert.isprintable() or verdict not in ("true", "false", "benign"):
        raise ValueError(f"{alert!r} is no alert's id such as leak:server-02:1772409600000; correct the run's parameters")
    words = ["--alert", alert, "--verdict", verdict, "--at", iso(dag_run.run_after), "--analyst", getattr(dag_run, "triggering_user_name", None) or ""]
    return shlex.join([*words, "--note", " ".join(str(params.get("note") or "").split())])


WINDOW_PARAMS = {
    "start": Param(None, type=["null", "string"], format="date-time", title="Start",
                   description="First instant of the window (UTC). Empty: worked out from the end."),
    "end": Param(None, type=["null", "string"], format="date-time", title="End",
                 description="First instant after the window (UTC). Empty: the last cycle that had closed when the run was due."),
}


# -- a task
class ReportLink(BaseOperatorLink):
    """A button on the task: the report that its job wrote (the gate's Data Docs)."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return getattr(operator, "report", "") or ""


STAND_BACK = "{ command -p nice > /proc/self/autogroup; } 2>/dev/null; "
"""A task is a session of its own, and Linux shares the cores out among sessions first (sched(7), autogroup): the nice value that
it has from Airflow counts against the stream's servers only once its session has it, too. Elsewhere it does nothing."""


class Job(BashOperator):
    """One job of `jobs/` as a task: `python -m jobs.<job> <arguments>` in its own environment.

    The job's last line, one JSON object, is the task's return value; an asset in `outlets` is published with `publishes`
    and that summary. A gate (`gate=True`) that fails with its summary has refused the batch: it fails at once, without a retry.
    """

    template_fields = (*BashOperator.template_fields, "publishes")
    operator_extra_links = (ReportLink(),)
    ui_color = "#e6f2f5"

    def __init__(self, *, job: str, arguments: str = "", when: str = "", env_group: str = "spark", gate: bool = False,
                 publishes: dict[str, str] | None = None, **kwargs: Any) -> None:
        settings = current()
        run = f"{STAND_BACK}exec {shlex.quote(str(settings.env_python(env_group)))} -m jobs.{job} {arguments}".strip()
        skip = f"{{% if not ({when}) %}}exit 99{{% else %}}" if when else ""
        super().__init__(bash_command=skip + run + ("{% endif %}" if when else ""), cwd=str(ROOT), **kwargs)
        self.publishes = publishes or {}
        self.gate = gate
        self.report = ""
        self.refused: dict[str, Any] | None = None

    def get_env(self, context: Any) -> dict[str, str]:
        """The server's own environment without Airflow's settings: a job does not know that Airflow runs it."""
        env = {k: v for k, v in super().get_env(context).items() if not k.startswith(("AIRFLOW__", "_AIRFLOW", "AIRFLOW_HOME", "AIRFLOW_CONFIG", "OTEL_"))}
        run = context["dag_run"]
        env["DAG_RUN_URL"] = f"{current().airflow}/dags/{run.dag_id}/runs/{quote(run.run_id)}"
        return env | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TIDEWATCH_STATE_DIR": str(current().state_dir)}

    def _run_inline_command(self, bash_path: str, env: dict[str, str]) -> Any:
        done = super()._run_inline_command(bash_path, env)
        self.report = report_in(done.output, current().reports)
        if self.report:
            self.log.info("Report: %s", self.report)
        if self.gate and done.exit_code == 1 and "output" not in summary_of(done.output):
            self.refused = summary_of(done.output)
            raise AirflowFailException(f"The gate refused: {done.output}")
        return done

    def execute(self, context: Any) -> dict[str, Any]:
        summary = summary_of(super().execute(context))
        note(current(), context, told(self.task_id, summary))
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {**self.publishes, "summary": summary}
        return summary


def summary_of(line: str | None) -> dict[str, Any]:
    """A job's last line as the JSON object that it is; anything else becomes {"output": line}."""
    try:
        value = json.loads(line or "")
    except ValueError:
        value = line
    return value if isinstance(value, dict) else {"output": value}


def report_in(line: str | None, reports: str) -> str:
    """The address of a report in a job's last line: `report` of its JSON, else the first one below `reports`."""
    named = summary_of(line).get("report")
    if isinstance(named, str) and named.startswith("http"):
        return named
    found = re.search(re.escape(reports) + r"/[^\s\"'<>]+", line or "")
    return found.group().rstrip(".,;)") if found else ""


def somebody_wins(summary: Mapping[str, Any]) -> bool:
    """True if a dry run of `promote` names a winner: is there anything to approve?"""
    return any(m.get("winner") for m in summary.get("models", {}).values())


def asks_for_retraining(summary: Mapping[str, Any]) -> bool:
    """True if `drift` found that a cycle should start early."""
    return bool(summary.get("retrain"))


# -- notes: what a run built, promoted or refused, on the run itself
def told(task: str, summary: Mapping[str, Any]) -> str:
    """One line on what a job did, from its summary; '' if there is nothing to say.

    >>> told("validate", {"job": "validate", "expectations": 95, "failed": 0})
    'validate: 95 expectations, 0 failed'
    """
    match summary.get("job"):
        case "promote" | "rollback":
            def what(m: Mapping[str, Any]) -> str:
                if m.get("winner"):
                    return f"version {m['winner']} would win"
                return f"version {m['promoted']} promoted" if m.get("promoted") else f"champion is version {m.get('champion') or 'none'}"

            return "; ".join(f"{u}: {what(m)}, {m.get('reason', '')}" for u, m in dict(summary.get("models") or {}).items())
        case "validate":
            return f"{task}: {summary.get('expectations')} expectations, {summary.get('failed')} failed"
        case "mark":
            return f"{summary.get('alert')} is {summary.get('verdict')}"
        case "train":
            return f"{task}: " + "; ".join(f"{u}: {len(m) - ('champion' in m)} candidates" for u, m in dict(summary.get("models") or {}).items())
        case "replay_dead_letters":
            return f"{task}: {summary.get('sent')} of {summary.get('letters')} letters sent"
        case _ if "start" in summary and "end" in summary:
            return f"{task}: {summary['start']} to {summary['end']}"
    return ""


def note(settings: Settings, context: Mapping[str, Any], line: str) -> None:
    """Add a line to the run's note; a note that cannot be written is no reason to fail."""
    if not line:
        return
    run = context["dag_run"]
    folder = settings.state_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(folder / "notes.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tasks of one run end side by side
            client = orchestrator.Client(settings)
            before = orchestrator.run(client, run.dag_id, run.run_id).get("note") or ""
            orchestrator.annotate(client, run.dag_id, run.run_id, f"{before}\n\n{line}".strip()[-900:])
    except (TidewatchError, OSError) as e:
        log.warning("no note on the run: %s", e)


# -- failure
def failure_record(context: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to know about a failed task, as plain values."""
    ti, run = context["ti"], context["dag_run"]
    return {
        "dag": ti.dag_id, "task": ti.task_id, "run": ti.run_id, "attempt": ti.try_number, "run_after": iso(run.run_after),
        "error": str(context.get("exception") or "")[:1000], "report": getattr(context.get("task"), "report", ""),
        "log_url": getattr(ti, "log_url", ""),
    }


def _say(record: dict[str, Any]) -> None:
    log.error("FAILED %(dag)s.%(task)s, run %(run)s, attempt %(attempt)s: %(error)s", record)


def _keep(record: dict[str, Any]) -> None:
    path = current().logs / "dag_failures.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as f:
        f.write(json.dumps(record) + "\n")


NOTIFIERS: tuple[Callable[[dict[str, Any]], None], ...] = (_say, _keep)
"""Who hears of a failure, in turn; a webhook is one more function here."""


def on_failure(context: Mapping[str, Any]) -> None:
    """Tell every notifier that a task has failed for good (after its retries)."""
    record = failure_record(context)
    for tell in NOTIFIERS:
        tell(record)
    refused = getattr(context.get("task"), "refused", None)
    note(current(), context, told(record["task"], refused) if refused else f"{record['task']} failed: {record['error'][:200]}")


def defaults(settings: Settings) -> dict[str, Any]:
    """Arguments that every DAG passes on."""
    return {
        "catchup": False,
        "max_active_runs": 1,
        "user_defined_macros": macros(settings),
        "owner_links": {"tidewatch": f"{settings.reports}/"},
        "default_args": {
            "owner": "tidewatch",
            "retries": 1,
            "retry_delay": timedelta(seconds=30),
            "execution_timeout": timedelta(hours=1),
            "on_failure_callback": on_failure,
        },
    }


SPARK = {"pool": "spark"}
"""For tasks that start a Spark session: one at a time on this machine."""
