"""The contracts, views, detectors and the catalogue hold together."""

from pathlib import Path

import fastavro
import pytest

from tidewatch import detectors, events, features, tables
from tidewatch.errors import ContractError
from tidewatch.settings import load


@pytest.mark.parametrize("name", events.names())
def test_a_contract_is_valid_avro_and_says_what_each_field_is(name: str) -> None:
    c = events.contract(name)
    fastavro.parse_schema(fastavro.schema.load_schema(events.HERE / f"{name}.avsc"))
    assert c.key.name == "device_id" and c.time.type == "long"
    assert c["event_id"].type == "long"
    assert all(f.doc for f in c.fields)


def test_an_unknown_name_says_which_there_are() -> None:
    for call in (events.contract, features.view, tables.table):
        with pytest.raises(ContractError, match="one of: "):
            call("nowhere")
    with pytest.raises(ContractError, match="silent, leak, lie"):
        detectors.of_use_case("sleepy")


@pytest.mark.parametrize("name", features.names())
def test_a_view_has_unique_columns_and_reads_only_what_there_is(name: str) -> None:
    v = features.view(name)
    columns = [c.name for c in tables.view_columns(name)]
    assert len(columns) == len(set(columns))
    assert v.size_seconds % v.slide_seconds == 0
    assert all(s.name in (*events.names(), *features.names()) for s in v.sources)
    assert all(f.type in ("long", "double") and f.doc for f in v.features)


def test_views_come_after_what_they_read() -> None:
    order = features.names()
    for n in order:
        for s in features.view(n).sources:
            assert s.name in events.names() or order.index(s.name) < order.index(n)


def test_there_is_a_detector_for_every_use_case() -> None:
    assert {d.use_case for d in detectors.all_detectors()} == set(detectors.USE_CASES)


@pytest.mark.parametrize("d", detectors.all_detectors(), ids=lambda d: d.name)
def test_a_detector_has_what_an_analyst_expects(d: detectors.Detector) -> None:
    assert d.view in features.names()
    assert d.technique.startswith("T1")
    assert d.false_positives and d.title and d.doc
    assert (load().state_dir.parent / d.runbook).suffix == ".md"
    assert {e.hit for e in d.examples} == {True, False}
    for e in d.examples:
        assert set(e.observed) == set(e.expected) == {s.name for s in d.signals}
    assert d.severity(1.0) == "critical" and d.severity(0.0) == "low" and d.severity(d.threshold) == "medium"
    assert all(s.scale_floor > 0 for s in d.signals)
    assert {x for s in d.signals for x in (s.varies, s.learned_with)} - {""} <= {s.name for s in d.signals}


@pytest.mark.parametrize("t", tables.catalogue().values(), ids=lambda t: t.name)
def test_a_table_is_well_formed(t: tables.Table) -> None:
    names = [c.name for c in t.columns]
    assert len(names) == len(set(names))
    assert t.time in names and set(t.keys) <= set(names)
    assert all(c.type in tables.TYPES and c.doc for c in t.columns)
    assert bool(t.delta) == bool(t.writer)
    assert not t.pinot or t.topic, "Pinot ingests from the topic"


def test_a_delta_table_is_read_without_python_in_arrows_threads(tmp_path: Path) -> None:
    """Through deltalake's own file system a process that ends soon after a read may be aborted."""
    pa = pytest.importorskip("pyarrow")
    deltalake = pytest.importorskip("deltalake")
    from pyarrow import fs

    settings = load(state_dir=tmp_path)
    assert tables.LABELS.dataset(settings) is None
    tables.LABELS.path(settings).parent.mkdir(parents=True)
    deltalake.write_deltalake(str(tables.LABELS.path(settings)), pa.table({"device_id": ["a", "b"]}))
    found = tables.LABELS.dataset(settings)
    assert found is not None and found.to_table()["device_id"].to_pylist() == ["a", "b"]
    assert isinstance(found.filesystem, fs.SubTreeFileSystem) and isinstance(found.filesystem.base_fs, fs.LocalFileSystem)
