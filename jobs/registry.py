"""The model registry: versions, their figures and files, and the alias `champion`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tidewatch import scoring
from tidewatch.detectors import Detector
from tidewatch.errors import ContractError, InputError, ServiceError
from tidewatch.settings import ROOT, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
REFUSED = "refused"
"""Tag of a version that was champion and was left by a rollback: when, and for which."""
PROMOTING = "promoting"
"""Tag of a version while it is made champion: event time from which it scores. Still there afterwards: that did not end."""
SHADOW = "shadow"
"""Tag of the version that scores beside the champion: since when."""
EXPERIMENT = "tidewatch"
ARTIFACT = "artifacts/model.json"
"""Where `model.json` lies within a logged model."""


def model_name(use_case: str) -> str:
    """The registered model of a use case."""
    return f"tidewatch-{use_case}"


def client(settings: Settings) -> MlflowClient:
    """A client of the MLflow server; raises ServiceError if it does not answer."""
    try:
        with urllib.request.urlopen(f"{settings.mlflow}/health", timeout=10) as answer:
            answer.read()
    except (OSError, urllib.error.URLError) as e:
        raise ServiceError(f"MLflow at {settings.mlflow} does not answer: {e}.", "is it up? `tidewatch status`") from e
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    import mlflow

    mlflow.set_tracking_uri(settings.mlflow)
    mlflow.set_experiment(EXPERIMENT)
    return mlflow.MlflowClient()


def champion(c: MlflowClient, use_case: str) -> ModelVersion | None:
    """The version that carries the alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return c.get_model_version_by_alias(model_name(use_case), CHAMPION)
    except MlflowException as e:
        if e.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def versions(c: MlflowClient, use_case: str) -> list[ModelVersion]:
    """Every version of a use case, newest first."""
    found = c.search_model_versions(f"name = '{model_name(use_case)}'", max_results=1000)
    return sorted(found, key=lambda v: -int(v.version))


def uri(settings: Settings, c: MlflowClient, v: ModelVersion) -> str:
    """The http address of a version's `model.json` at MLflow's artifact proxy; raises ServiceError if it is not proxied."""
    where = c.get_model_version_download_uri(v.name, v.version)
    if where.startswith("models:/"):
        where = c.get_logged_model(where.removeprefix("models:/")).artifact_location
    scheme, _, path = where.partition(":")
    if scheme != "mlflow-artifacts":
        raise ServiceError(f"the files of {v.name} version {v.version} are at {where}, not behind MLflow's proxy.", "start the server with --artifacts-destination")
    return f"{settings.mlflow}/api/2.0/mlflow-artifacts/artifacts/{path.lstrip('/')}/{ARTIFACT}"


def read(address: str) -> scoring.Model:
    """The model at an address; raises InputError if it is not there, ContractError if it is none, ServiceError without an answer."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return scoring.load(answer.read().decode())
    except urllib.error.HTTPError as e:
        if e.code != 404:
            raise ServiceError(f"{address} cannot be read: {e}.", "is MLflow up? `tidewatch status`") from e
        raise InputError(f"there is no file at {address}.", "train again") from e
    except OSError as e:
        raise ServiceError(f"{address} cannot be read: {e}.", "is MLflow up? `tidewatch status`") from e


def example(model: scoring.Model, detectors: tuple[Detector, ...]) -> Any:
    """An input example: the first example of each detector of the model."""
    import pandas as pd

    rows = []
    for d in detectors:
        m, e = model.detectors[d.name], d.examples[0]
        rows.append({"detector": d.name, "signals": [float(e.observed[s.name]) for s in d.signals],
                     "center": m.center.tolist(), "scale": m.scale.tolist()})
    return pd.DataFrame(rows)


def signature() -> Any:
    """What every logged model takes and gives: windows in, scores with their reasons out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    doubles = Array(DataType.double)
    return ModelSignature(
        Schema([ColSpec(DataType.string, "detector"), *(ColSpec(doubles, n) for n in ("signals", "center", "scale"))]),
        Schema([ColSpec(DataType.double, "score"), ColSpec(DataType.string, "baseline"), *(ColSpec(doubles, n) for n in ("share", "expected"))]),
    )


def flaw(settings: Settings, c: MlflowClient, v: ModelVersion, detectors: Sequence[Detector]) -> str:
    """Why the stream could not score with a version, or ''; raises ServiceError if MLflow does not answer.

    Looked at are its signature, its `model.json` as the stream would read it, whether it was trained for the signals that the
    detectors have today, and the scores that it gives to their examples.
    """
    from mlflow.models import get_model_info

    try:
        found = get_model_info(f"models:/{v.name}/{v.version}").signature
        if found != signature():
            return f"its signature is not {signature().to_dict()}" if found else "it has no signature"
        model = read(uri(settings, c, v))
        if model_name(model.use_case) != v.name:
            return f"its model.json is a model of {model.use_case!r}"
        for d in detectors:
            if d.name not in model.detectors:
                continue
            signals = tuple(s.name for s in d.signals)
            if model.detectors[d.name].signals != signals:
                return f"{d.name}: it was trained for the signals {', '.join(model.detectors[d.name].signals)}, the stream has {', '.join(signals)}"
            rows = np.array([[float(e.observed[s]) for s in signals] for e in d.examples]).reshape(-1, len(signals))
            m = model.detectors[d.name]
            score = scoring.score(model, d.name, rows, np.tile(m.center, (len(rows), 1)), np.tile(m.scale, (len(rows), 1))).score
            if not (np.isfinite(score) & (score >= 0) & (score <= 1)).all():
                return f"{d.name}: its scores of the detector's examples are not between 0 and 1"
    except (ContractError, InputError) as e:
        return e.reason
    return ""


def log_version(
    c: MlflowClient, model: scoring.Model, detectors: tuple[Detector, ...], *, name: str, parent: str,
    params: Mapping[str, Any], metrics: Mapping[str, float], tags: Mapping[str, str], pictures: Iterable[tuple[str, Figure]] = (),
) -> str:
    """Log one candidate as a run, with pictures (file, figure) of its back-test, and register it; its version's number."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(run_name=name, nested=True, parent_run_id=parent or None, tags=dict(tags)) as run:
        path = Path(folder) / "model.json"
        path.write_text(scoring.dump(model))
        mlflow.log_params(dict(params))
        mlflow.log_metrics(dict(metrics))
        for file, figure in pictures:
            mlflow.log_figure(figure, f"plots/{file}")
        info = mlflow.pyfunc.log_model(
            name="model", python_model=str(ROOT / "jobs" / "pyfunc_model.py"), artifacts={"model": str(path)},
            code_paths=[str(_code(Path(folder)))], signature=signature(), input_example=example(model, detectors),
            pip_requirements=["numpy>=2,<3", "pandas>=2.2,<3"],
        )
        made = mlflow.register_model(info.model_uri, model_name(model.use_case), tags={**tags, "run_id": run.info.run_id})
    return str(made.version)


def _code(folder: Path) -> Path:
    """What of `tidewatch` the logged model needs, copied: scoring, and what it imports."""
    package = folder / "tidewatch"
    (package / "detectors").mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "scoring.py", "detectors/__init__.py"):
        shutil.copy(ROOT / "tidewatch" / name, package / name)
    return package


def crown(c: MlflowClient, use_case: str, version: str, tags: Mapping[str, str]) -> None:
    """Tag a version with the decision and give it the alias; it is not `promoting` any more."""
    name = model_name(use_case)
    for key, value in tags.items():
        c.set_model_version_tag(name, version, key, value)
    c.set_registered_model_alias(name, CHAMPION, version)
    if PROMOTING in c.get_model_version(name, version).tags:
        c.delete_model_version_tag(name, version, PROMOTING)


def mark_shadow(c: MlflowClient, use_case: str, number: str, since: str) -> None:
    """Tag the version that scores beside the champion ('': none does), and no other."""
    for v in versions(c, use_case):
        if str(v.version) == number:
            c.set_model_version_tag(v.name, v.version, SHADOW, since)
        elif SHADOW in v.tags:
            c.delete_model_version_tag(v.name, v.version, SHADOW)


def version(c: MlflowClient, use_case: str, number: str) -> ModelVersion:
    """One version; raises InputError if there is none of that number."""
    found = {v.version: v for v in versions(c, use_case)}
    if str(number) not in found:
        raise InputError(f"{model_name(use_case)} has no version {number}.", f"one of: {', '.join(map(str, found)) or 'none yet, run jobs.train'}")
    return found[str(number)]


def tag_json(value: Any) -> str:
    """A tag's value."""
    return json.dumps(value, sort_keys=True)
