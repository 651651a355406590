"""Promotion and rollback on a real MLflow: bad challengers are refused with the reason, and nothing stays halfway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tests.jobs import conftest
from tests.jobs.conftest import run
from tests.test_scoring import arrays
from tidewatch import detectors, scoring, settings
from tidewatch.detectors import Detector, of_use_case
from tidewatch.promotion import Backtest

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore")]
USE_CASE = "lie"
DETECTORS = of_use_case(USE_CASE)
END = datetime(2026, 3, 2, tzinfo=UTC)
DEVICES, EACH = 40, 120


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    """A state folder with an MLflow server; Kafka is nowhere."""
    with conftest.state(tmp_path_factory.mktemp("state"), TIDEWATCH_PORTS__KAFKA=str(conftest.port())) as s:
        server = [conftest.start_mlflow(s)]
        try:
            SERVERS[s.mlflow] = server
            yield s
        finally:
            conftest.stop(server[0])


SERVERS: dict[str, list[subprocess.Popen[bytes]]] = {}


def windows(d: Detector, seed: int) -> Any:
    """Ordinary windows of devices whose levels differ, beside their baselines."""
    from jobs import backtest

    rng = np.random.default_rng(seed)
    n, width = DEVICES * EACH, len(d.signals)
    device = np.repeat(np.array([f"dev-{i:03d}" for i in range(DEVICES)]), EACH)
    center = np.repeat(np.random.default_rng(1).uniform(4, 9, (DEVICES, width)), EACH, axis=0)
    scale = np.maximum(np.full((n, width), 0.2), [s.scale_floor for s in d.signals])
    observed = scoring.inverse(center + scale * rng.standard_t(20, (n, width)), [s.transform for s in d.signals])
    end = np.tile(np.arange(1, EACH + 1) * 60_000, DEVICES)
    return backtest.Windows(device, end - 60_000, end, observed, center, scale)


def fitted(d: Detector, w: Any, family: str) -> scoring.DetectorModel:
    s = d.signals
    z = scoring.standardize(w.observed, w.center, w.scale, [x.transform for x in s], [x.direction for x in s], np.array([x.scale_floor for x in s]))
    return scoring.fit(d, family, arrays(family, z), w.center.mean(axis=0), w.scale.mean(axis=0), z)


def good(family: str = "pca") -> scoring.Model:
    return scoring.Model(USE_CASE, family, {d.name: fitted(d, windows(d, 1), family) for d in DETECTORS})


def constant() -> scoring.Model:
    """Every window is as ordinary as can be."""
    m = good()
    never = scoring.Calibration(np.linspace(1e9, 2e9, len(scoring.BODY)), 1.0, 0.0)
    return replace(m, detectors={n: replace(x, calibration=never) for n, x in m.detectors.items()})


def alarming() -> scoring.Model:
    """Every window is an alarm, the farther the higher."""
    m = good()
    always = scoring.Calibration(np.linspace(-20.0, -10.0, len(scoring.BODY)), 1.0, 0.0)
    return replace(m, detectors={n: replace(x, calibration=always) for n, x in m.detectors.items()})


class Dice:
    """A distance that has nothing to do with the window: far with the probability `share`."""

    def __init__(self, share: float) -> None:
        self.share, self.rng = share, np.random.default_rng(3)

    def __call__(self, family: str, arrays: Any, z: Any) -> Any:
        return np.where(self.rng.random(len(z)) < self.share, self.rng.uniform(40, 60, len(z)), self.rng.uniform(0, 1, len(z)))


def shuffled() -> scoring.Model:
    """Trained on windows beside the baselines of other devices."""
    found = {}
    for d in DETECTORS:
        w = windows(d, 1)
        found[d.name] = fitted(d, replace(w, observed=np.random.default_rng(2).permutation(w.observed)), "pca")
    return scoring.Model(USE_CASE, "pca", found)


def trained(s: settings.Settings, end: datetime, models: dict[str, scoring.Model], **metrics: float) -> dict[str, str]:
    """What `jobs.train` does after fitting: back-test and register each model, and measure the champion; versions by name.

    A model whose name begins with `random` is measured by dice.
    """
    import mlflow

    from jobs import backtest, cli, registry

    c = registry.client(s)
    labels = backtest.Labels(*(np.zeros(0, t) for t in ("U1", np.int64, np.int64, "U1")))
    held = {d.name: windows(d, 9) for d in DETECTORS}

    def figures(m: scoring.Model) -> tuple[Backtest, dict[str, float]]:
        return backtest.run(m, DETECTORS, held, labels, timedelta(minutes=10), 1)

    tags = {"use_case": USE_CASE, "window_end": cli.iso(end)}
    champion = registry.champion(c, USE_CASE)
    versions = {}
    with mlflow.start_run(run_name="train", tags=tags) as parent:
        if champion:
            mlflow.log_metrics({f"champion_{k}": v for k, v in figures(registry.read(registry.uri(s, c, champion)))[0].metrics().items()})
            mlflow.set_tag("champion_version", champion.version)
        for name, model in models.items():
            with pytest.MonkeyPatch.context() as patch:
                if name.startswith("random"):
                    patch.setattr(scoring, "distance", Dice(float(name.split()[1])))
                b, more = figures(model)
            versions[name] = registry.log_version(
                c, model, DETECTORS, name=name, parent=parent.info.run_id, params={},
                metrics={**more, **b.metrics(), **metrics}, tags={**tags, "family": model.family, "training": parent.info.run_id},
            )
    return versions


def promote(capsys: pytest.CaptureFixture[str], end: datetime, *more: str, publish: bool = False, code: int = 0) -> dict[str, Any]:
    done = run(capsys, "promote", "--end", end.isoformat(), "--at", end.isoformat(), "--use-case", USE_CASE, *more,
               *([] if publish else ["--no-publish"]), code=code)
    return {**done.get("models", {}).get(USE_CASE, {}), "stderr": done["stderr"]}


BAD: dict[str, tuple[Callable[[], scoring.Model], str]] = {
    "constant": (constant, "the same score"),
    "alarming": (alarming, "of the clean windows anomalous"),
    "random 0.4": (good, "of the clean windows anomalous"),
    "random 0.02": (good, "almost nothing"),
}


def check_refused(s: settings.Settings, done: dict[str, Any], versions: dict[str, str], why: dict[str, str]) -> None:
    """Each is refused with its reason: in the summary, in what the job said, and in MLflow's tags beside the rule."""
    from jobs import registry

    c = registry.client(s)
    for name, version in versions.items():
        if name not in why:
            continue
        tags = registry.version(c, USE_CASE, version).tags
        assert why[name] in done["refused"][version], (name, done["refused"][version])
        assert tags["decision"] == f"refused: {done['refused'][version]}" and f"version {version} refused: " in done["stderr"]
        assert json.loads(tags["rule"])["rule"]["min_windows_per_second"] == s.promotion.min_windows_per_second


def test_1_without_a_champion_bad_challengers_are_refused(home: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs import champions, registry

    versions = trained(home, END, {n: make() for n, (make, _) in BAD.items()})
    done = promote(capsys, END)
    assert done["promoted"] == "" and done["champion"] == "" and done["reason"] == "no challenger is fit"
    check_refused(home, done, versions, {n: why for n, (_, why) in BAD.items()})
    assert promote(capsys, END, "--force")["promoted"] == "", "force drops the comparison, never the fitness"
    assert registry.champion(registry.client(home), USE_CASE) is None and champions.history(home, USE_CASE) == []


def test_2_a_good_one_among_bad_ones_wins(home: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs import registry

    end = END + timedelta(hours=4)
    versions = trained(home, end, {"good": good(), **{n: make() for n, (make, _) in BAD.items()}})
    judged = promote(capsys, end, "--dry-run")
    assert judged["winner"] == versions["good"] and judged["promoted"] == "" and registry.champion(registry.client(home), USE_CASE) is None
    done = promote(capsys, end)
    assert done["promoted"] == versions["good"]
    check_refused(home, done, versions, {n: why for n, (_, why) in BAD.items()})
    tags = registry.version(registry.client(home), USE_CASE, versions["good"]).tags
    assert tags["decision"] == "promoted" and json.loads(tags["rule"])["winner"] == versions["good"] and registry.PROMOTING not in tags


def test_3_what_is_worse_than_the_champion_is_refused(home: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    end = END + timedelta(hours=8)
    versions = trained(home, end, {"shuffled": shuffled(), "constant": constant(), "the same again": good()})
    done = promote(capsys, end)
    assert done["promoted"] == "" and done["champion"]
    check_refused(home, done, versions, {"shuffled": "it finds", "constant": "the same score", "the same again": "against the champion's"})


def test_4_what_the_stream_cannot_use_is_refused(
    home: settings.Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Figures too good to be true, all of them."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    from jobs import registry

    end = END + timedelta(hours=12)
    name = DETECTORS[0].name
    best = {"recall_injected": 1.0, "false_alerts": 0.0}
    dump = scoring.dump

    def broken(m: scoring.Model) -> str:
        raw = json.loads(dump(m))
        raw["detectors"][name]["center"][0] = float("nan")
        return json.dumps(raw)

    m = good()
    renamed = replace(m, detectors={n: replace(x, signals=(*x.signals[:-1], "moon_phase")) for n, x in m.detectors.items()})
    reasons = {}
    for what, why in (("nan", "not finite"), ("signature", "its signature is not"), ("signals", "moon_phase"), ("slow", "windows a CPU second")):
        with monkeypatch.context() as patch:
            if what == "nan":
                patch.setattr(scoring, "dump", broken)
            if what == "signature":
                other = ModelSignature(Schema([ColSpec(DataType.double, "x")]), Schema([ColSpec(DataType.string, "y")]))
                patch.setattr(registry, "signature", lambda given=other: given)
                patch.setattr(registry, "example", lambda *_: None)
            more = {**best, **({"windows_per_second": 10.0} if what == "slow" else {})}
            versions = trained(home, end, {what: renamed if what == "signals" else good()}, **more)
        done = promote(capsys, end)
        assert done["promoted"] == "" and done["champion"]
        check_refused(home, done, versions, {what: why})
        assert promote(capsys, end, "--force")["promoted"] == ""
        reasons[what] = next(iter(done["refused"].values()))
        end += timedelta(minutes=1)
    assert len(set(reasons.values())) == 4


def better(s: settings.Settings, end: datetime) -> str:
    """A training whose one challenger beats the champion by its figures; its version."""
    from jobs import registry

    version = trained(s, end, {"better": good("kmeans")}, recall_injected=1.0, false_alerts=0.0)["better"]
    c = registry.client(s)
    c.log_metric(registry.version(c, USE_CASE, version).tags["training"], "champion_recall_injected", 0.5, step=1)
    return version


@pytest.mark.parametrize("where", ["before anyone is told", "before the stream is told", "before the registry is told"])
def test_5_a_promotion_stopped_halfway_is_ended_or_taken_back_by_the_next(
    home: settings.Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str,
) -> None:
    from jobs import champions, registry, topics

    c = registry.client(home)
    end = END + timedelta(hours=16, minutes=len(where))
    before = registry.champion(c, USE_CASE).version
    rows = len(champions.history(home, USE_CASE))
    version = better(home, end)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if "stream" in where:
            patch.setattr(topics, "TIMEOUT_SECONDS", 1.0)
            assert "Kafka" in promote(capsys, end, publish=True, code=1)["stderr"]
        else:
            patch.setattr(*(champions, "record", stopped) if "anyone" in where else (registry, "crown", stopped))
            with pytest.raises(KeyboardInterrupt):
                promote(capsys, end)
    assert registry.champion(c, USE_CASE).version == before, "the champion keeps scoring"
    assert len(champions.history(home, USE_CASE)) == rows + ("anyone" not in where)
    done = promote(capsys, end)
    assert "stopped" in done["stderr"] and done["champion"] == version == registry.champion(c, USE_CASE).version
    assert len(champions.history(home, USE_CASE)) == rows + 1 and champions.history(home, USE_CASE)[-1]["version"] == version
    tags = registry.version(c, USE_CASE, version).tags
    assert tags["decision"] == "promoted" and registry.PROMOTING not in tags
    assert promote(capsys, end)["promoted"] == ""


def test_6_rollback_marks_what_it_leaves(home: settings.Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import champions, registry

    c = registry.client(home)
    order = [r["version"] for r in champions.history(home, USE_CASE)]
    assert len(order) == 4

    def back(minute: int, *more: str, code: int = 0) -> dict[str, Any]:
        return run(capsys, "rollback", "--use-case", USE_CASE, "--no-publish", "--at", f"2026-03-04T00:{minute:02d}:00Z", *more, code=code)

    for i, expected in enumerate(reversed(order[:-1])):
        done = back(i)["models"][USE_CASE]
        assert done["champion"] == expected == registry.champion(c, USE_CASE).version
        assert f"rolled back to version {expected}" in registry.version(c, USE_CASE, done["from"]).tags["refused"]
    assert "that was not refused" in back(10, code=1)["stderr"]
    with monkeypatch.context() as patch:
        patch.setattr(detectors, "of_use_case", lambda _: (*DETECTORS, replace(DETECTORS[0], name="younger")))
        done = back(11, "--version", order[1])
    assert done["models"][USE_CASE]["unscored"] == ["younger"] and "does not know younger" in done["stderr"]
    done = back(12, "--version", order[-1])
    assert done["models"][USE_CASE]["champion"] == order[-1] and done["models"][USE_CASE]["unscored"] == []
    assert "refused" not in registry.version(c, USE_CASE, order[-1]).tags, "who is called back by name is refused no more"


def test_7_without_mlflow_nothing_changes_and_the_next_run_works(home: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs import champions, registry

    end = END + timedelta(hours=30)
    version = better(home, end)
    rows = champions.history(home, USE_CASE)
    server = SERVERS[home.mlflow]
    conftest.stop(server[0])
    try:
        assert "MLflow" in promote(capsys, end, code=1)["stderr"]
        assert "MLflow" in run(capsys, "rollback", "--use-case", USE_CASE, "--no-publish", code=1)["stderr"]
        assert champions.history(home, USE_CASE) == rows
    finally:
        server[0] = conftest.start_mlflow(home)
    assert promote(capsys, end)["promoted"] == version == registry.champion(registry.client(home), USE_CASE).version


def test_8_two_promotions_at_once_make_one_champion(home: settings.Settings) -> None:
    from jobs import champions, registry

    end = END + timedelta(hours=34)
    version = better(home, end)
    rows = len(champions.history(home, USE_CASE))
    command = [sys.executable, "-m", "jobs.promote", "--end", end.isoformat(), "--at", end.isoformat(), "--use-case", USE_CASE, "--no-publish"]
    both = [subprocess.Popen(command, cwd=settings.ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [json.loads(p.communicate(timeout=300)[0])["models"][USE_CASE] for p in both]
    assert sorted(x["promoted"] for x in said) == ["", version] and {x["champion"] for x in said} == {version}
    assert len(champions.history(home, USE_CASE)) == rows + 1
    assert registry.champion(registry.client(home), USE_CASE).version == version


def test_9_a_challenger_scores_beside_the_champion_until_it_is_told_not_to(
    home: settings.Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jobs import champions, registry

    c = registry.client(home)
    present = str(registry.champion(c, USE_CASE).version)
    before = len(champions.history(home, USE_CASE))
    other, flawed = two(c, present)

    def beside(version: str, minute: int, code: int = 0, day: int = 5) -> dict[str, Any]:
        return run(capsys, "shadow", "--use-case", USE_CASE, "--version", version, "--no-publish", "--at", f"2026-03-{day:02d}T00:{minute:02d}:00.123456Z", code=code)

    done = beside(other, 0)["models"][USE_CASE]
    assert done["shadow"] == other and done["champion"] == present and champions.shadow(home, USE_CASE)[0] == other
    newest = champions.records(home, USE_CASE)[-1]
    assert newest["version"] == present and newest["shadow_uri"] == registry.uri(home, c, registry.version(c, USE_CASE, other))
    assert len(champions.history(home, USE_CASE)) == before, "no promotion"
    assert newest["valid_from"] == max(r["valid_from"] for r in champions.records(home, USE_CASE)[:-1]) + 1, "no later than it must"
    assert registry.version(c, USE_CASE, other).tags["shadow"].startswith("since 2026-03-05T00:00")
    assert "is the champion" in beside(present, 1, code=1)["stderr"]
    assert "moon_phase" in beside(flawed, 1, code=1)["stderr"]
    assert "no version 999" in beside("999", 1, code=1)["stderr"]
    flawed_back = ("rollback", "--use-case", USE_CASE, "--version", flawed, "--no-publish", "--at", "2026-03-05T00:02:00Z")
    assert "moon_phase" in run(capsys, *flawed_back, code=1)["stderr"] and str(registry.champion(c, USE_CASE).version) == present
    # it goes on beside the next champion, and not beside itself
    end = END + timedelta(days=4)
    version = better(home, end)
    assert promote(capsys, end)["promoted"] == version and champions.shadow(home, USE_CASE)[0] == other
    done = run(capsys, "rollback", "--use-case", USE_CASE, "--version", other, "--no-publish", "--at", "2026-03-07T01:00:00.000321Z")
    assert champions.shadow(home, USE_CASE) == ("", "")
    assert beside("off", 59, day=8)["models"][USE_CASE]["shadow"] == ""
    # with the setting, the best that is fit and did not win
    end = END + timedelta(days=8)
    versions = trained(home, end, {"the same again": good(), "constant": constant()})
    monkeypatch.setenv("TIDEWATCH_PROMOTION__SHADOW", "true")
    settings.current.cache_clear()
    done = promote(capsys, end)
    settings.current.cache_clear()
    assert done["promoted"] == "" and done["shadow"] == versions["the same again"] == champions.shadow(home, USE_CASE)[0]


def two(c: Any, present: str) -> tuple[str, str]:
    """A version that could score, and one that was trained for other signals."""
    from jobs import registry

    found = [v for v in registry.versions(c, USE_CASE) if str(v.version) != present]
    flawed = next(v for v in found if "moon_phase" in v.tags.get("decision", ""))
    fine = next(v for v in found if "against the champion's" in v.tags.get("decision", ""))
    return str(fine.version), str(flawed.version)


def test_10_a_training_that_was_killed_promotes_nobody_and_the_next_does(home: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The process that trains is killed while its versions are being registered."""
    from jobs import champions, registry

    c = registry.client(home)
    end = END + timedelta(days=9)
    present = str(registry.champion(c, USE_CASE).version)
    rows = champions.records(home, USE_CASE)
    known = len(registry.versions(c, USE_CASE))
    script = (
        "import sys, datetime; from tests.jobs import test_lifecycle as t; from tidewatch import settings; "
        "t.trained(settings.current(), datetime.datetime.fromisoformat(sys.argv[1]), {str(i): t.good('kmeans') for i in range(20)}, recall_injected=1.0, false_alerts=0.0)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, end.isoformat()], cwd=settings.ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    conftest.until(lambda: len(registry.versions(c, USE_CASE)) > known, 300)
    assert process.poll() is None, "it was too quick to be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    done = promote(capsys, end)
    assert done["promoted"] == "" and done["champion"] == present and "was killed" in done["reason"]
    assert champions.records(home, USE_CASE) == rows and registry.champion(c, USE_CASE).version == present
    version = better(home, end)
    assert promote(capsys, end)["promoted"] == version == registry.champion(c, USE_CASE).version
