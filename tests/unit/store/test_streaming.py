"""The records of a large experiment are read one after another."""

import tracemalloc
import uuid

import pytest

from mltraq_ds import Experiment, create_session, load_results
from mltraq_ds.errors import CorruptRecordError
from mltraq_ds.storage import LocalStorage, open_storage
from mltraq_ds.store import FileStoreConfig, RunRecord, layout, reading, run_mapping, single_records, streaming


@pytest.fixture(params=["folder", "memory"])
def config(request, tmp_path):
    """Return the configuration of a store, in a folder and on an object store."""
    return FileStoreConfig(root=tmp_path if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def test_all_of_them(config):
    """Runs of the generation come first, as they were put since; deleted ones do not, and new ones come last."""
    store = config.scoped("p").connect()
    with create_session("sqlite://", config.root) as session:
        experiment = Experiment(session, "p", "p").add_runs(x=list(range(300)))
        experiment.persist()
        runs = list(experiment.runs)
    store.put_run_record(RunRecord.failed(runs[7], "p", notes="over"))
    store.delete_run(runs[8])
    for run in ("b", "a"):
        store.put_run_record(RunRecord.success(run, "p"))
    found = list(streaming.bodies(config.open_storage(), "p"))
    assert [body["id_run"] for body in found] == [*runs[:8], *runs[9:], "a", "b"]
    assert found[7]["about"] == {"notes": "over"}
    assert found == reading.snapshot(config.open_storage(), "p").bodies
    assert list(streaming.bodies(config.open_storage(), "none")) == []


def test_few_are_in_memory(tmp_path):
    """Reading the first of 2,000 records of 2 KB each takes less memory than a quarter of them."""
    config = FileStoreConfig(root=tmp_path, experiment_id="a")
    config.connect().put_run_record(RunRecord.success("0", "a"))
    storage = LocalStorage(tmp_path, durability="relaxed")
    for n in range(2000):
        data = single_records.to_bytes("a", run_mapping.record_to(RunRecord.success(f"{n}", "a", notes="x" * 2000)))
        storage.put(layout.run_record_key("a", f"{n}"), [data], size=len(data), replace=True)
    results = load_results(config)
    tracemalloc.start()
    try:
        next(iter(results))
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def test_damage_among_them(config):
    """A damaged record is raised, or handed to `on_corrupt` while the table has all others."""
    store = config.scoped("a").connect()
    for run in "123":
        store.put_run_record(RunRecord.success(run, "a", metrics={"loss": 0.5}))
    storage = open_storage(config.root)
    key = layout.run_record_key("a", "2")
    storage.put(key, [data := storage.read(key)[:-9]], size=len(data), replace=True)
    with pytest.raises(CorruptRecordError, match=r"2\.json"):
        load_results(config, "a").to_dataframe()
    errors = []
    results = load_results(config, "a", on_corrupt=errors.append).filter(status="success")
    assert results.to_dataframe()["run_id"].tolist() == ["1", "3"]
    assert [type(one) for one in errors] == [CorruptRecordError]
