"""The batch side by hand on real Spark, Delta and MLflow: features, baselines, gate, training, promotion, rollback, twice."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jobs import conftest, synthetic
from tests.jobs.conftest import run
from tidewatch import detectors, features, scoring, settings, tables

pytestmark = [
    pytest.mark.spark,
    # third parties' own
    pytest.mark.filterwarnings("ignore"),
]
END = synthetic.START + timedelta(hours=3)
WINDOW = ["--start", "2026-03-02T00:00:00Z", "--end", "2026-03-02T03:00:00Z"]
DEVICES = 24


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    """A state folder with a filled bronze, and an MLflow server on a free port."""
    # the back-test here has a sixth of a device-day: one alert is six a day
    with conftest.state(tmp_path_factory.mktemp("state"), TIDEWATCH_PROMOTION__MAX_FALSE_ALERTS="20") as s:
        server = conftest.start_mlflow(s)
        try:
            synthetic.fill(s, devices=DEVICES, hours=3)
            yield s
        finally:
            conftest.stop(server)


def content(s: settings.Settings, name: str) -> list[tuple[Any, ...]]:
    """Every row of a Delta table, sorted; doubles to ten digits, since the order in which Spark adds may differ."""
    from deltalake import DeltaTable

    table = tables.table(name)
    frame = DeltaTable(str(table.path(s))).to_pandas(columns=[c.name for c in table.columns])
    return sorted(tuple([f"{y:.10g}" for y in x] if isinstance(x, np.ndarray) else f"{x:.10g}" if isinstance(x, float) else x for x in row) for row in frame.itertuples(index=False))


def test_1_features_and_baselines_twice_are_the_same(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    names = (*features.names(), "baselines")
    first = run(capsys, "build_features", *WINDOW, "--with-baselines", "--no-publish")
    assert set(first["tables"]) == set(names[:-1]) and all(first["tables"].values())
    before = {n: content(lake, n) for n in names}
    second = run(capsys, "build_features", *WINDOW, "--with-baselines", "--no-publish")
    assert first["tables"] == second["tables"] and {n: content(lake, n) for n in names} == before
    assert sum(r[4] for r in before["flow_1m"]) > 0
    # the hop view's last windows, built again alone, find the rows from before their start
    third = run(capsys, "build_features", "--start", "2026-03-02T02:30:00Z", "--end", "2026-03-02T03:00:00Z")
    assert third["rows"] < first["rows"] and {n: content(lake, n) for n in names} == before


def test_2_every_flow_is_in_its_minute(lake: settings.Settings) -> None:
    from deltalake import DeltaTable

    flow = DeltaTable(str(tables.table("flow").path(lake))).to_pandas()
    view = DeltaTable(str(tables.table("flow_1m").path(lake))).to_pandas()
    assert view["flows"].sum() == len(flow) and view["bytes_out"].sum() == flow["bytes_out"].sum()
    mine = flow[flow["device_id"] == "dev-0003"]
    expected = mine.groupby(mine["ts"].dt.floor("min"))["dst_ip"].agg(lambda x: x[mine.loc[x.index, "direction"] == "out"].nunique())
    got = view[view["device_id"] == "dev-0003"].set_index("window_start")["destinations"].sort_index()
    assert got.tolist() == expected.tolist() and (got.index == expected.index).all()


def test_3_baselines_are_what_numpy_finds(lake: settings.Settings) -> None:
    from deltalake import DeltaTable

    found = DeltaTable(str(tables.BASELINES.path(lake))).to_pandas().set_index("entity")
    view = DeltaTable(str(tables.table("flow_1m").path(lake))).to_pandas()
    assert (found["center"].map(len) == found["scale"].map(len) * 24).all()
    mine = view[view["device_id"] == "dev-0003"]
    mine = mine[mine["inbound_flows"] > 0]
    inbound = np.log1p(mine["inbound_flows"].to_numpy(float))
    row = found.loc["flood|dev-0003|"]
    center = np.asarray(row["center"]).reshape(24, -1)
    assert center[:, 0] == pytest.approx(np.median(inbound)), "hours never seen: every hour has the whole window's median"
    assert row["source"] == "device" and row["kind"] == "server" and row["windows"] >= len(mine)
    silent = found[found["device_id"] == synthetic.device(DEVICES - 1)]
    assert (silent["source"] == "kind").all() and (silent["windows"] == 0).all() and len(silent) >= 3
    assert all((np.asarray(x) > 0).all() for x in found["scale"])


def test_4_the_gate_passes_and_its_rows_are_the_same_twice(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "validate", *WINDOW, "--no-publish")
    assert done["success"] and done["failed"] == 0 and done["expectations"] > 50
    before = content(lake, "validations")
    assert len(before) == done["expectations"]
    assert (lake.state_dir / "reports" / "data-docs" / "index.html").exists()
    run(capsys, "validate", *WINDOW, "--no-publish")
    assert content(lake, "validations") == before


def test_5_an_empty_window_is_no_error_for_features_but_fails_the_gate(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = ["--start", "2026-03-09T00:00:00Z", "--end", "2026-03-09T03:00:00Z"]
    assert run(capsys, "build_features", *nothing, "--no-publish")["rows"] == 0
    failed = run(capsys, "validate", *nothing, "--no-publish", code=1)
    assert "no rows" in failed["stderr"] and failed["success"] is False
    assert run(capsys, "validate", *nothing, "--no-publish", "--allow-empty")["success"]
    refused = run(capsys, "train", *nothing, code=1)
    assert "only 0 windows" in refused["stderr"]


def test_6_training_registers_candidates_that_load_without_spark(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "train", *WINDOW, "--use-case", "silent", "--use-case", "lie")
    assert set(done["models"]) == {"silent", "lie"} and set(done["models"]["lie"]) == {"pca", "kmeans", "gmm"}
    assert done["models"]["lie"]["pca"]["recall_injected"] > 0.5 and done["models"]["lie"]["pca"]["false_alerts"] <= 20
    from jobs import registry

    c = registry.client(lake)
    v = registry.version(c, "lie", done["models"]["lie"]["gmm"]["version"])
    assert v.tags["family"] == "gmm" and v.tags["window_end"] == "2026-03-02T03:00:00Z" and json.loads(v.tags["delta_versions"])["reading_1m"] >= 0
    model = registry.read(registry.uri(lake, c, v))
    assert model.use_case == "lie" and set(model.detectors) == {"corruption"}
    import mlflow

    d = detectors.of_use_case("lie")
    loaded = mlflow.pyfunc.load_model(f"models:/{v.name}/{v.version}")
    assert loaded.metadata.signature and loaded.input_example is not None
    run_id = v.run_id or v.tags["run_id"]
    assert {a.path for a in c.list_artifacts(run_id, "plots")} == {f"plots/{n}.png" for n in ("score_distributions", "precision_recall", "feature_importances")}
    rows = registry.example(model, d)
    direct = scoring.score(model, "corruption", *(np.array(rows[x].tolist()) for x in ("signals", "center", "scale")))
    assert loaded.predict(rows)["score"].tolist() == direct.score.tolist()


def test_7_promotion_rolls_forward_and_back(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs import champions, registry

    c = registry.client(lake)
    end = ["--end", "2026-03-02T03:00:00Z", "--no-publish", "--use-case", "lie"]
    assert "nothing was trained" in run(capsys, "promote", "--end", "2026-03-03", "--use-case", "lie", "--no-publish")["stderr"]
    first = run(capsys, "promote", *end)["models"]["lie"]
    assert first["promoted"] == registry.champion(c, "lie").version
    assert registry.version(c, "lie", first["promoted"]).tags["family"] == "pca", "the first family is the first champion"
    with urllib.request.urlopen(first["uri"], timeout=30) as answer:
        assert scoring.load(answer.read().decode()).family == "pca"
    again = run(capsys, "promote", *end)["models"]["lie"]
    assert again["promoted"] == "" and again["champion"] == first["promoted"] and len(champions.history(lake, "lie")) == 1
    assert "no champion before" in run(capsys, "rollback", "--use-case", "lie", "--no-publish", code=1)["stderr"]

    run(capsys, "train", *WINDOW, "--use-case", "lie")
    other = next(str(v.version) for v in registry.versions(c, "lie") if str(v.version) != str(first["promoted"]) and v.tags["training"] == registry.version(c, "lie", first["promoted"]).tags["training"])
    c.set_registered_model_alias("tidewatch-lie", "champion", other)
    assert "changed since the training" in run(capsys, "promote", *end, code=1)["stderr"]
    c.set_registered_model_alias("tidewatch-lie", "champion", first["promoted"])
    forced = run(capsys, "promote", *end, "--force", "--valid-from", "2026-03-02T04:00:00Z")["models"]["lie"]
    assert forced["promoted"] not in ("", first["promoted"]) and "forced" in forced["reason"]
    back = run(capsys, "rollback", "--use-case", "lie", "--no-publish", "--at", "2026-03-02T05:00:00Z")["models"]["lie"]
    assert back["champion"] == first["promoted"] == registry.champion(c, "lie").version
    rows = champions.history(lake, "lie")
    assert [r["version"] for r in sorted(rows, key=lambda r: r["valid_from"])] == [first["promoted"], forced["promoted"], first["promoted"]]
    assert "has no version 99" in run(capsys, "rollback", "--use-case", "lie", "--version", "99", "--no-publish", code=1)["stderr"]


def test_8_a_worthless_challenger_leaves_the_champion(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A training in whose run the champion found everything: no challenger can beat it."""
    from jobs import registry

    run(capsys, "train", *WINDOW, "--use-case", "lie")
    c = registry.client(lake)
    champion = registry.champion(c, "lie").version
    newest = registry.versions(c, "lie")[0]
    c.log_metric(newest.tags["training"], "champion_recall_injected", 1.0, step=1)
    c.log_metric(newest.tags["training"], "champion_false_alerts", 0.0, step=1)
    done = run(capsys, "promote", "--end", "2026-03-02T03:00:00Z", "--no-publish", "--use-case", "lie")["models"]["lie"]
    assert done["promoted"] == "" and done["champion"] == champion == registry.champion(c, "lie").version
    assert "no challenger beats the champion" in done["reason"]
    assert registry.version(c, "lie", newest.version).tags["decision"].startswith("refused")


def test_9_bad_data_fails_the_gate_with_what_was_seen(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    n = 50
    ts = np.datetime64("2026-03-02T02:59:00", "ms") + np.arange(n).astype("timedelta64[ms]")
    synthetic.write(lake, "reading", {
        "device_id": np.full(n, "dev-0002"), "event_id": np.arange(n) - 7, "ts": ts, "metric": np.full(n, "temperature_c"), "value": np.full(n, 1e18),
        "status": np.full(n, "melted"), "external": np.full(n, None), "ingested_at": ts, "kafka_partition": np.zeros(n, int), "kafka_offset": np.arange(n),
    })
    failed = run(capsys, "validate", *WINDOW, "--no-publish", code=1)
    assert failed["success"] is False and failed["failed"] >= 4
    for told in ("GateError", "expect_column_values_to_be_in_set", "reading.status", "data-docs"):
        assert told in failed["stderr"]
    bad = {(r[2], r[4]) for r in content(lake, "validations") if not r[5]}
    observed = {(r[2], r[4]): r[6] for r in content(lake, "validations") if not r[5]}
    assert "device_id dev-0002, event_id -7" in observed["reading", "status"] and "status melted" in observed["reading", "status"]
    page = failed["report"].replace(lake.reports, str(lake.state_dir / "reports"))
    assert "melted" in Path(page).read_text() and "event_id" in Path(page).read_text()
    assert {("reading", "status"), ("reading", "value"), ("window_figures", "readings_all_counted"), ("window_figures", "reading_twice_in_the_lake")} <= bad


def test_maintenance_keeps_what_is_young(lake: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(lake, "flow_1m")
    done = run(capsys, "compact", "--end", "2026-03-03T00:00:00Z")
    assert {"flow", "flow_1m", "baselines", "models"} <= set(done["tables"]) and content(lake, "flow_1m") == before
    gone = run(capsys, "compact", "--end", "2026-05-01T00:00:00Z")
    assert gone["tables"]["flow_1m"]["rows_deleted"] == len(before) and content(lake, "flow_1m") == []
    assert content(lake, "baselines"), "gold is kept"


def test_the_jars_are_missed_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDEWATCH_STATE_DIR", str(tmp_path))
    settings.current.cache_clear()
    try:
        assert "tidewatch install" in run(capsys, "build_features", *WINDOW, code=1)["stderr"]
    finally:
        settings.current.cache_clear()
