"""FileStore and sessions are two doors to the same files, and what one has put the other never removes."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session, options
from mltraq_ds.errors import (
    ConcurrentPersistError,
    CorruptRecordError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    UsageError,
)
from mltraq_ds.storage import open_storage
from mltraq_ds.store import FileStoreConfig, generations, layout, maintenance, retire, single_records
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.types import Provenance, RunRecord
from mltraq_ds.testing.store_hooks import artifact, full_record

ID = "my_exp:1.0"


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path):
    """Return where the store is."""
    options.set("datastore.durability", "relaxed")
    return str(tmp_path / "store") if request.param == "folder" else f"memory://two-doors{tmp_path}"


@pytest.fixture
def session(place, tmp_path):
    """Return a session that knows the store."""
    with create_session(f"sqlite:///{tmp_path}/index.db", place) as session:
        session.create_experiment("bystander").persist()
        yield session


@pytest.fixture
def files(session):
    """Return the collection by its other door."""
    return FileStore(session.storage)


def persisted(session, name="digits"):
    """Persist an experiment of two runs, each with a scalar, a list, config and a blob."""
    experiment = session.create_experiment(name, note="of the experiment")
    experiment.add_runs(lr=[0.1, 0.2])
    for number, run in enumerate(experiment.runs.values()):
        run.fields.loss = 1.0 + number
        run.fields.curve = [1, 2]
        run.fields.ds = DataStore(weights=np.arange(100) + number)
        run.config.epochs = 3
        run.about.tags = ["baseline"]
        run.status = "success"
    return experiment.persist()


def kinds(session):
    """Return what a check of the files finds."""
    return maintenance.check(session.storage, deep=True).kinds()


def test_a_persisted_run_is_a_record(session, files):
    """What persist has written is listed as run records: scalars are metrics, what is in a blob is an artifact."""
    experiment = persisted(session)
    store = files.scoped(experiment.id_experiment)
    assert experiment.id_experiment in files.list_experiments()
    for run in experiment.runs.values():
        record = store.get_run_record(run.id_run)
        assert record in store.list_run_records()
        assert (record.metrics, record.params_resolved) == ({"loss": run.fields.loss}, {"lr": run.params.lr})
        assert (record.status, record.tags, record.notes, record.error) == ("success", ["baseline"], None, None)
        (found,) = record.artifacts
        assert (found.name, found.kind, found.format) == ("ds", "datastore", "mltraq_ds/blob")
        assert session.storage.exists(found.uri)
        assert store.read_run(run.id_run).fields["ds"].weights.tolist() == run.fields.ds.weights.tolist()


def test_records_are_an_experiment(session, files):
    """An experiment that is known by records only is loaded by its id, and persisted as any other."""
    store = files.scoped(ID)
    records = [full_record("r1"), full_record("r2", status="cancelled", metrics={"x": float("inf")})]
    for record in records:
        store.put_run_record(record)
    assert dict(session.ls().set_index("id_experiment").runs) == {session.ls().id_experiment[0]: 0, ID: 2}
    session.rebuild_index()
    assert dict(session.ls().set_index("id_experiment").runs)[ID] == 2
    loaded = session.load_experiment(id_experiment=ID)
    assert (loaded.name, loaded.generation, sorted(loaded.runs)) == (ID, 0, ["r1", "r2"])
    run = loaded.runs["r1"]
    assert (run.params.lr, run.fields.loss, run.status) == (0.1, 0.1, "failed")
    assert (run.exception.type_name, run.about.tags, run.about.notes) == ("ValueError", ["baseline", "é"], "two\nlines")
    run.fields.ds = DataStore(a=np.arange(5))
    loaded.persist()
    assert loaded.generation == 1
    again = session.load_experiment(ID)
    assert again.runs["r1"].fields.ds.a.tolist() == [0, 1, 2, 3, 4]
    found = {record.run_id: record for record in store.list_run_records()}
    assert found["r2"] == records[1]
    assert replace(found["r1"], artifacts=records[0].artifacts) == records[0]
    assert kinds(session) == {}


def test_a_record_over_a_persisted_run(session, files):
    """A record of a persisted run replaces its scalars and status; config, lists and blobs stay."""
    experiment = persisted(session)
    store, run = files.scoped(experiment.id_experiment), experiment.runs.first()
    record = store.get_run_record(run.id_run)
    store.put_run_record(replace(record, metrics={"accuracy": 0.9}, notes="better", status="failed"))
    merged = session.load_experiment(id_experiment=experiment.id_experiment)
    now = merged.runs[run.id_run]
    assert dict(now.fields, ds=None) == {"accuracy": 0.9, "curve": [1, 2], "ds": None}
    assert (now.config.epochs, now.about.notes, now.status) == (3, "better", "failed")
    assert now.fields.ds.weights.tolist() == run.fields.ds.weights.tolist()
    assert list(merged.runs) == list(experiment.runs)
    assert merged.fields.note == "of the experiment"
    assert store.get_run_record(run.id_run).metrics == {"accuracy": 0.9}


def test_a_persist_folds_what_it_has_read(session, files):
    """A record that was put after loading stays current; one that was read is taken in and never comes back."""
    experiment = persisted(session)
    store = files.scoped(experiment.id_experiment)
    store.put_run_record(full_record("read", experiment.id_experiment, metrics={"v": 1}))
    loaded = session.load_experiment("digits")
    store.put_run_record(full_record("late", experiment.id_experiment, metrics={"v": 2}))
    loaded.runs["read"].fields.v = 10
    loaded.persist(if_exists="update")
    assert store.get_run_record("read").metrics["v"] == 10
    assert store.get_run_record("late").metrics["v"] == 2
    loaded.runs["read"].fields.v = 11
    loaded.persist(if_exists="update")
    assert {key: run.fields.v for key, run in session.load_experiment("digits").runs.items() if "v" in run.fields} == {
        "read": 11,
        "late": 2,
    }
    store.put_run_record(full_record("read", experiment.id_experiment, metrics={"v": 12}))
    assert store.get_run_record("read").metrics["v"] == 12
    folder = layout.folder_of(experiment.id_experiment)
    current = generations.current(session.storage, folder)
    assert len(current.folds) == 1
    session.load_experiment("digits").persist(if_exists="update")
    folds = generations.current(session.storage, folder).folds
    assert set(folds) == single_records.put_ids(session.storage, folder)
    assert not set(folds) & set(current.folds)
    assert kinds(session) == {}


def test_deleted_runs_stay_deleted(session, files):
    """A run that was deleted by one door is gone by both, also when a writer persists that still had it."""
    experiment = persisted(session)
    store, run = files.scoped(experiment.id_experiment), experiment.runs.first()
    store.put_log(run.id_run, "out", "text")
    store.delete_run(run.id_run)
    assert store.get_run_record(run.id_run) is None
    assert store.list_logs(run.id_run) == []
    assert run.id_run not in session.load_experiment("digits").runs
    experiment.fields.note = "again"
    experiment.persist(if_exists="update")
    assert run.id_run not in session.load_experiment("digits").runs
    session.load_experiment("digits").persist(if_exists="update")
    assert len(store.list_run_records()) == 1
    store.put_run_record(full_record(run.id_run, experiment.id_experiment))
    assert session.load_experiment("digits").runs[run.id_run].status == "failed"


def test_persisting_keeps_what_others_have_put(session, files):
    """Updating, replacing and sweeping leave logs, artifacts, results and records where they are."""
    experiment = persisted(session)
    store = files.scoped(experiment.id_experiment)
    put = store.put_artifact(b"model", artifact("m", "r"))
    store.put_log("r", "out", "text")
    store.put_derived("r", {"x": 1})
    store.put_result("r", "curve", [1, 2])
    store.put_experiment_manifest(experiment.id_experiment, {"n": 1})
    store.put_run_record(full_record("r", experiment.id_experiment))
    for how in ("update", "replace"):
        experiment.fields.note = how
        experiment.persist(if_exists=how)
        session.sweep(dry_run=False, grace_s=0)
        assert store.get_artifact(put.uri) == b"model"
        assert (store.get_log("r", "out"), store.get_derived("r")) == ("text", {"x": 1})
        assert store.get_result("r", "curve")["data"] == [1, 2]
        assert store.get_experiment_manifest(experiment.id_experiment) == {"n": 1}
        assert store.get_run_record("r") == full_record("r", experiment.id_experiment)
    assert kinds(session) == {}


def test_replacing_another_one_is_refused_where_it_has_more(session, files):
    """A new experiment does not take the place of one whose logs or records would go with it."""
    experiment = persisted(session)
    store = files.scoped(experiment.id_experiment)
    for put in (
        lambda: store.put_log("r", "out", "text"),
        lambda: store.put_run_record(full_record("r", store.experiment_id)),
    ):
        put()
        with pytest.raises(ExperimentExistsError, match="run store"):
            session.create_experiment("digits").persist(if_exists="replace")
        store.delete_run("r")
        if store.storage.exists(layout.run_record_key(store._folder, "r")):
            session.load_experiment("digits").persist(if_exists="update")  # takes in that it is gone
    new = session.create_experiment("digits").persist(if_exists="replace")
    assert session.load_experiment("digits").id_experiment == new.id_experiment
    assert experiment.id_experiment not in files.list_experiments()


def test_delete_removes_all(session, files):
    """A deleted experiment is gone with everything, by both doors, and its id can begin anew."""
    for id_experiment in (persisted(session).id_experiment, ID):
        store = files.scoped(id_experiment)
        store.put_run_record(full_record("r", id_experiment))
        store.put_artifact(b"model", artifact("m", "r"))
        store.put_log("r", "out", "text")
        session.delete_experiment(id_experiment=id_experiment)
        assert id_experiment not in files.list_experiments()
        assert (store.list_run_records(), store.list_artifacts("r"), store.list_logs("r")) == ([], [], [])
        with pytest.raises(ExperimentNotFoundError):
            session.load_experiment(id_experiment=id_experiment)
        with pytest.raises(ExperimentNotFoundError):
            session.delete_experiment(id_experiment=id_experiment)
        store.put_run_record(full_record("new", id_experiment))
        store.put_log("new", "out", "new")
        assert [one.run_id for one in store.list_run_records()] == ["new"]
        assert list(session.load_experiment(id_experiment=id_experiment).runs) == ["new"]
        assert store.get_log("new", "out") == "new"
        session.load_experiment(id_experiment=id_experiment).persist()
        assert [one.run_id for one in store.list_run_records()] == ["new"]
        assert kinds(session) == {}


def test_an_end_that_was_not_finished(session, files, tmp_path):
    """A put into an experiment whose deletion was killed begins it anew, and the next session tells the index."""
    id_experiment = persisted(session).id_experiment
    store = files.scoped(id_experiment)
    store.put_log("old", "out", "old")
    assert retire.end_experiment(session.storage, id_experiment, "killed") is not None
    store.put_run_record(full_record("new", id_experiment))
    with create_session(f"sqlite:///{tmp_path}/index.db", session.storage) as later:
        assert list(later.load_experiment(id_experiment=id_experiment).runs) == ["new"]
        if session.storage.is_local:  # elsewhere the end stays where it is, and sweep tells the index
            assert store.get_log("old", "out") is None
            with pytest.raises(ExperimentNotFoundError):
                later.load_experiment("digits")
        later.sweep(dry_run=False, grace_s=0)
        assert [one.run_id for one in store.list_run_records()] == ["new"]
        assert dict(later.ls().set_index("id_experiment").generation)[id_experiment] == 0


def test_two_that_load_records_only(session, files):
    """Of two that persist an experiment known by records the second is told, and nothing of the first is lost."""
    files.scoped(ID).put_run_record(full_record("r"))
    first, second = (session.load_experiment(id_experiment=ID) for _ in range(2))
    first.persist()
    with pytest.raises(ExperimentExistsError):
        second.persist()
    with pytest.raises(ConcurrentPersistError):
        second.persist(if_exists="update")
    assert session.load_experiment(ID).generation == 1


def test_check_finds_what_is_broken_beside_records(session, files):
    """Damaged records, entries, results and artifacts, and bytes without an entry, are in the result of check."""
    store = files.scoped(ID)
    for name in ("rotten", "gone", "cut"):
        store.put_artifact(b"0123456789", artifact(name, "r"))
    store.put_run_record(full_record("r"))
    store.put_result("r", "x", 1)
    assert kinds(session) == {}
    uris = {one.name: one.uri for one in store.list_artifacts("r")}
    folder = layout.folder_of(ID)
    _rewrite(session.storage, uris["rotten"], b"0123456780")
    _rewrite(session.storage, uris["cut"], b"012")
    session.storage.delete(uris["gone"])
    _rewrite(session.storage, f"{folder}/results/r/x.json", b"{}")
    _rewrite(session.storage, f"{folder}/runs/r.json", b"{}")
    orphan = f"{folder}/artifacts/r/{'0' * 32}-orphan"
    _rewrite(session.storage, orphan, b"x")
    found = {(one.kind, one.key) for one in maintenance.check(session.storage, deep=True)}
    assert found == {
        ("corrupt blob", uris["rotten"]),
        ("corrupt blob", uris["cut"]),
        ("dangling reference", uris["gone"]),
        ("unreadable record", f"{folder}/results/r/x.json"),
        ("unreadable record", f"{folder}/runs/r.json"),
        ("orphan", orphan),
    }
    with pytest.raises(CorruptRecordError, match=r"runs/r\.json"):
        session.load_experiment(id_experiment=ID)


def _rewrite(storage, key, data):
    storage.delete(key)
    storage.put(key, [data], size=len(data), parents=True)


def test_moved_store(tmp_path):
    """A store that was copied elsewhere, byte for byte, works there: everything inside is relative."""
    store = FileStore(open_storage(tmp_path / "old")).scoped(ID)
    store.put_run_record(full_record("r"))
    put = store.put_artifact(b"model", artifact("m", "r"))
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = FileStore(open_storage(tmp_path / "new")).scoped(ID)
    assert moved.list_run_records() == [full_record("r")]
    assert moved.get_artifact(moved.list_artifacts("r")[0].uri) == b"model"
    assert not os.path.isabs(put.uri)
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "new").rglob("*.json"))


def test_folder_of_this_machine(tmp_path):
    """Paths are given where there are some, and nothing is made by asking for them."""
    collection = FileStore(open_storage(tmp_path / "store"), root="./store")
    store = collection.scoped(ID)
    assert collection.get_working_directory() == tmp_path / "store"
    assert store.get_working_directory() == tmp_path / "store" / "my_exp=3a1.0"
    path = store.get_log_path("r", "out")
    assert not (tmp_path / "store").exists()
    store.put_log("r", "out", "text")
    assert path.read_text() == "text"
    with path.open("a") as file:
        file.write(" and more")
    assert store.get_log("r", "out") == "text and more"
    remote = FileStore(open_storage("memory://no-folder"), experiment_id=ID)
    for ask in (remote.get_working_directory, lambda: remote.get_log_path("r", "out")):
        with pytest.raises(UsageError, match="no folder of this machine"):
            ask()


def test_layout(tmp_path):
    """Files lie where the layout says."""
    store = FileStore(open_storage(tmp_path), experiment_id=ID)
    store.put_run_record(RunRecord.success("run_1", ID, provenance=Provenance(host="x")))
    uri = store.put_artifact(b"1", artifact("m.bin", "run_1")).uri
    store.put_derived("run_1", {})
    store.put_log("run_1", "out", "")
    store.put_result("run_1", "x", 1)
    store.put_experiment_manifest(ID, {}, timestamp="2024")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    names = (
        "_meta.json",
        "artifacts/run_1/_manifest/m.bin.json",
        "derived/run_1.json",
        "experiments/my=5fexp=3a1.0_2024.json",
        "logs/run=5f1_out.log",
        "results/run_1/x.json",
        "runs/run_1.json",
    )
    assert found == {"_store.json", uri, *(f"my_exp=3a1.0/{name}" for name in names)}


def test_works_without_sql(tmp_path):
    """A process that puts and reads through FileStore never imports SQLAlchemy."""
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from mltraq_ds.storage import open_storage\nfrom mltraq_ds.store.files import FileStore\n"
        "from mltraq_ds.store.types import RunRecord\n"
        f"store = FileStore(open_storage({str(tmp_path / 'store')!r})).scoped('e')\n"
        "store.put_run_record(RunRecord.success('r', 'e', metrics={'x': 1}))\n"
        "store.delete_run('r'); store.put_run_record(RunRecord.success('r', 'e', metrics={'x': 2}))\n"
        "print(store.list_run_records()[0].metrics, FileStore(store.storage).list_experiments())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("{'x': 2} ['e']", "")


def test_sweep_takes_bytes_without_an_entry(tmp_path):
    """Bytes of an artifact that no entry names go when they are old; those that an entry names never do."""
    session = create_session(f"sqlite:///{tmp_path}/index.db", tmp_path / "store")
    store = FileStore(session.storage).scoped(ID)
    store.put_run_record(full_record("r"))
    kept = store.put_artifact(b"1", artifact("kept", "r")).uri
    old, young = (f"{layout.folder_of(ID)}/artifacts/r/{digit * 32}-x" for digit in "01")
    for key in (old, young):
        _rewrite(session.storage, key, b"x")
    session.rebuild_index()
    late = time.time() + 2 * 3600  # a clock that goes on: nobody can set the change time of a file back
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: late)
        os.utime(tmp_path / "store" / young, (late, late))
        session.sweep(dry_run=False, grace_s=0)
    assert [session.storage.exists(key) for key in (kept, old, young)] == [True, False, True]
    assert store.get_artifact(kept) == b"1"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: {"run_id": "1"}, "a RunRecord, not a dict"),
        (lambda: RunRecord.success("1", "e", tags="abc"), "tags of run '1' is a list of texts, not a str"),
        (lambda: RunRecord.success("1", "e", tags=[1]), "among the tags"),
        (lambda: RunRecord.success("1", "e", metrics=None), "metrics of run '1' is a dictionary, not a NoneType"),
        (lambda: RunRecord.success("1", "e", params_resolved=[1]), "params_resolved"),
        (lambda: RunRecord.success("1", "e", provenance={}), "a Provenance, not a dict"),
    ],
)
def test_what_is_no_record(tmp_path, make, words):
    """A part of another kind is refused with its name, by the collection and by the experiment; nothing is written."""
    config = FileStoreConfig(root=tmp_path / "files")
    for store in (config.connect(), config.scoped("e").connect()):
        with pytest.raises(UsageError, match=words):
            store.put_run_record(make())
    assert not (tmp_path / "files").exists()
