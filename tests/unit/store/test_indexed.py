"""Stores with an index: what the files say is what the index says, and what is served."""

import os
import pickle
import shutil
import sqlite3
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from mltraq_ds import create_session
from mltraq_ds.errors import ConflictError, CorruptRecordError, DatabaseUnavailableError, IndexBehindWarning, UsageError
from mltraq_ds.store import FileStoreConfig, IndexedStore, RunRecord, SqliteStoreConfig
from mltraq_ds.store.run_filter import RunFilter


def a_record(i, experiment="exp:1", **more):
    metrics = {"loss": i / 2, "depth": i, "bad": float("nan"), "odd name": "x"}
    status = "failed" if i % 3 == 0 else "success"
    return RunRecord(f"run-{i}", experiment, status, metrics=metrics, params_resolved={"lr": 0.1}, tags=["a"], **more)


@pytest.fixture
def config(tmp_path, store_url):
    """Return the configuration of a store with an index, in a folder and on an object store."""
    return SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/index.db", file_root=store_url)


@pytest.fixture
def local(tmp_path):
    """Return the configuration of a store with an index in a folder."""
    return SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/index.db", file_root=tmp_path / "files")


@pytest.fixture
def store(config):
    """Return a collection with three records in one experiment and one in another."""
    with config.connect() as store:
        for i in range(3):
            store.put_run_record(a_record(i))
        store.put_run_record(a_record(3, "other"))
        yield store


def rows(store, query):
    """Read the index by SQL."""
    return store.link.database.query(query).to_numpy().tolist()


def by_id(records):
    return sorted(records, key=lambda record: record.run_id)


def same(found, expected):
    """Compare records; NaN is equal to NaN."""
    return repr(by_id(found)) == repr(by_id(expected))


def test_both_say_the_same(store, config):
    """What is put is in the files, in the index, and listed alike by both, in new objects too."""
    expected = [a_record(0), a_record(1), a_record(2), a_record(3, "other")]
    assert same(store.list_run_records(), expected)
    assert same(config.files.connect().list_run_records(), expected)
    with config.connect() as again:
        assert same(again.list_run_records("exp:1"), expected[:3])
        assert again.list_experiments() == ["exp:1", "other"]
        assert len(again.check()) == 0
    found = rows(store, "SELECT id_experiment, id_run, status FROM mltraq_runs ORDER BY id_run")
    assert found == [[one.experiment_id, one.run_id, str(one.status)] for one in expected]


def test_filter(store):
    """The database filters, and gives exactly what matches: by status, tag and metric, NaN and odd names too."""
    find = lambda **wanted: [one.run_id for one in by_id(store.find_run_records(RunFilter(**wanted), "exp:1"))]  # noqa: E731
    assert find(status="failed") == ["run-0"]
    assert find(metrics={"depth": 2}) == find(metrics={"loss": 1}) == ["run-2"]
    assert (
        find(metrics={"odd name": "x"}, tags="a") == find(metrics={"bad": float("nan")}) == ["run-0", "run-1", "run-2"]
    )
    assert find(tags=("a", "b")) == find(metrics={"none": 1}) == find(metrics={"depth": "2"}) == []
    with pytest.raises(UsageError, match="status 'done'"):
        RunFilter(status="done")


def test_replace_and_delete(store):
    """A record that is put again or deleted is so in the index; derived metrics and manifests are there and go."""
    scoped = store.scoped("exp:1")
    scoped.put_run_record(a_record(1, notes="again"))
    scoped.put_derived("run-1", {"ratio": 2.5})
    scoped.put_derived("run-2", {"ratio": 3.5})
    scoped.put_experiment_manifest("exp:1", {"grid": [1, 2]})
    assert rows(store, "SELECT kind, name, body ->> '$.ratio' FROM mltraq_documents WHERE kind = 'derived'") == [
        ["derived", "run-1", 2.5],
        ["derived", "run-2", 3.5],
    ]
    scoped.delete_run("run-2")
    assert [one.notes for one in by_id(scoped.list_run_records())] == [None, "again"]
    assert rows(store, "SELECT kind, name FROM mltraq_documents WHERE kind = 'derived'") == [["derived", "run-1"]]
    assert rows(store, "SELECT body ->> '$.grid' FROM mltraq_documents WHERE kind = 'manifest'") == [["[1,2]"]]
    assert len(store.check()) == 0


def test_one_index_for_both_doors(store, config, tmp_path):
    """A session lists and loads what was put alone, and a record put over its runs is in both; nothing is twice."""
    with create_session(f"sqlite:///{tmp_path}/index.db", config.file_root) as session:
        assert dict(zip(session.ls().id_experiment, session.ls().runs, strict=True)) == {"exp:1": 3, "other": 1}
        experiment = session.load_experiment(id_experiment="exp:1")
        experiment.runs["run-0"].fields.weights = [1.5]
        experiment.persist(if_exists="update")
        scoped = store.scoped("exp:1")
        scoped.put_run_record(a_record(9))
        scoped.put_run_record(a_record(0, notes="over"))
        assert session.ls().runs.tolist().count(4) == 1
        assert session.load_experiment(id_experiment="exp:1").runs["run-0"].fields.weights == [1.5]
        found = rows(store, "SELECT id_run FROM mltraq_runs WHERE id_experiment = 'exp:1' ORDER BY id_run")
        assert found == [["run-0"], ["run-1"], ["run-2"], ["run-9"]]
        assert [one.notes for one in by_id(scoped.list_run_records())] == ["over", None, None, None]
        assert len(session.check()) == len(store.check()) == 0
        before = rows(store, "SELECT id_run, status, params, fields FROM mltraq_runs ORDER BY id_experiment, id_run")
        session.rebuild_index()
        assert (
            rows(store, "SELECT id_run, status, params, fields FROM mltraq_runs ORDER BY id_experiment, id_run")
            == before
        )
        assert len(session.check()) == 0


def test_rebuild(store, config, tmp_path):
    """A wiped index has everything back, documents too; a scoped rebuild leaves other experiments alone."""
    scoped = store.scoped("exp:1")
    scoped.put_derived("run-1", {"ratio": 2.5})
    scoped.put_experiment_manifest("exp:1", {"a": 1})
    scoped.delete_run("run-2")
    tables = ("runs", "records", "documents", "experiments")
    counts = [rows(store, f"SELECT count(*) FROM mltraq_{table}")[0][0] for table in tables]
    assert counts == [3, 4, 2, 2]
    assert scoped.rebuild_index() == 2
    assert [rows(store, f"SELECT count(*) FROM mltraq_{table}")[0][0] for table in tables] == counts
    store.close()
    os.remove(tmp_path / "index.db")
    seen = []
    assert store.rebuild_index(lambda *at: seen.append(at)) == 3
    assert seen == [("experiments", 1, 2), ("experiments", 2, 2)]
    assert [rows(store, f"SELECT count(*) FROM mltraq_{table}")[0][0] for table in tables] == counts
    assert len(store.check()) == 0
    during = []
    store.rebuild_index(lambda *at: during.append(rows(store, "SELECT count(*) FROM mltraq_runs")))
    assert during == [[[3]], [[3]]]  # nobody sees it half built
    assert store.scoped("other").rebuild_index() == 1
    assert len(store.check()) == 0


def test_a_second_life(store, config, tmp_path):
    """A deleted experiment is gone with its single records; one of its id that is put afterwards is found again."""
    with create_session(f"sqlite:///{tmp_path}/index.db", config.file_root) as session:
        session.load_experiment(id_experiment="exp:1").persist(if_exists="update")
        session.delete_experiment(id_experiment="exp:1")
        assert [one.experiment_id for one in store.list_run_records()] == ["other"]
        assert rows(store, "SELECT DISTINCT id_experiment FROM mltraq_runs") == [["other"]]
        store.put_run_record(a_record(5))
        assert sorted(one.run_id for one in store.list_run_records()) == ["run-3", "run-5"]
        assert sorted(session.ls().id_experiment) == ["exp:1", "other"]
        assert len(session.check()) == len(store.check()) == 0
        assert store.rebuild_index() == 2
        assert len(store.check()) == 0


def test_stale_rows_are_never_served(local):
    """On a disk, what others have changed or removed is not served from its row, and check tells of it."""
    with local.connect() as store:
        for i in range(4):
            store.put_run_record(a_record(i))
        local.files.connect().put_run_record(a_record(1, notes="by another door"))
        os.remove(store.scoped("exp:1").get_working_directory() / "runs" / "run-2.json")
        assert [(one.run_id, one.notes) for one in by_id(store.list_run_records())] == [
            ("run-0", None),
            ("run-1", "by another door"),
            ("run-3", None),
        ]
        changed, lost = store.check()
        assert {(one.kind, one.experiment) for one in (lost, changed)} == {("index drift", "exp:1")}
        assert lost.key.endswith("/runs/run-2.json")
        assert changed.key.endswith("/runs/run-1.json")
        path = store.scoped("exp:1").get_working_directory() / "runs" / "run-3.json"
        path.write_bytes(path.read_bytes().replace(b"failed", b"cancel"))
        with pytest.raises(CorruptRecordError, match=r"run-3\.json"):
            store.list_run_records()
        os.remove(path)
        assert store.rebuild_index() == 2
        assert len(store.check()) == 0


def test_what_was_lost_is_named(local):
    """A file that is gone is named by check, whatever the index knows of: a record, derived metrics, a manifest."""
    with local.connect() as store:
        for i in range(3):
            store.put_run_record(a_record(i))
            store.scoped("exp:1").put_derived(f"run-{i}", {"ratio": i})
        store.scoped("exp:1").put_experiment_manifest("exp:1", {"grid": [1, 2]})
        root = Path(local.file_root)
        files = [path for part in ("runs", "derived", "experiments") for path in root.rglob(f"{part}/*.json")]
        assert len(files) == 7
        for path in files:
            data = path.read_bytes()
            path.unlink()
            (lost,) = store.check()
            assert (lost.kind, lost.key) == ("index drift", path.relative_to(root).as_posix())
            path.write_bytes(data)
            os.utime(path, (1, 1))
            (changed,) = store.check()
            assert changed.key == lost.key
            store.rebuild_index()
        for path in files:
            path.write_bytes(path.read_bytes())
        (changed,) = store.check()
        assert "6 others" in changed.detail


def test_an_unknown_store_is_read_from_its_files(local):
    """Before the index has read a store, lists come from the files; a new store needs no rebuild."""
    local.files.connect().put_run_record(a_record(1))
    with local.connect() as store:
        assert [one.run_id for one in store.list_run_records()] == ["run-1"]
        store.put_run_record(a_record(2))
        assert len(store.list_run_records()) == 2
        assert store.check().kinds() == {}
        assert store.rebuild_index() == 2
        assert rows(store, "SELECT count(*) FROM mltraq_runs") == [[2]]


def test_field_catalogue(store, config):
    """The catalogue says which fields there are, with type, count and range; by the index as by the files."""
    found = {(one.part, one.name): one for one in store.field_catalogue()}
    depth = found["metrics", "depth"]
    assert (depth.type, depth.count, depth.minimum, depth.maximum) == ("int", 4, 0, 3)
    assert found["metrics", "bad"].type == "float"
    assert found["metrics", "bad"].minimum is None
    assert store.scoped("other").field_catalogue()[0].count == 1


def test_refused_before_anything_is_written(local):
    """What some database could not hold is refused by the store, whichever database it has."""
    with local.connect() as store:
        with pytest.raises(UsageError, match="NUL"):
            store.put_run_record(a_record(1, error={"message": "a\0b"}))
        assert store.list_experiments() == []


def test_the_index_is_down(local, tmp_path):
    """Puts go on in the files, one warning says so, nothing is waited for again, and the next connection catches up."""
    with local.connect() as store:
        store.put_run_record(a_record(0))
    blocker = sqlite3.connect(tmp_path / "index.db")
    blocker.execute("BEGIN IMMEDIATE")
    try:
        with replace(local, connect_timeout_s=0.2).connect() as store:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for i in range(1, 13):
                    store.put_run_record(a_record(i))
                store.scoped("exp:1").put_derived("run-1", {"x": 1})
                store.scoped("exp:1").delete_run("run-2")
            assert [one.category for one in caught] == [IndexBehindWarning] * 2
            assert "lags by 1 put" in str(caught[0].message)
            assert "lags by 10 puts" in str(caught[1].message)
            assert store.link.lag == 14
            assert len(store.list_run_records()) == 12
            with pytest.raises(DatabaseUnavailableError):
                store.rebuild_index()
    finally:
        blocker.close()
    with local.connect() as store:
        assert rows(pickle.loads(pickle.dumps(store)), "SELECT count(*) FROM mltraq_runs") == [[1]]
        assert len(store.list_run_records()) == 12
        assert rows(store, "SELECT count(*) FROM mltraq_runs") == [[12]]
        assert rows(store, "SELECT count(*) FROM mltraq_documents") == [[1]]
        assert len(store.check()) == 0
        assert os.listdir(tmp_path / "files" / "_pending") == []


def test_check_tells_of_a_lag(local, tmp_path):
    """As long as nobody has caught up, check says that the index is behind; a session catches up as well."""
    with local.connect() as store:
        store.put_run_record(a_record(0))
        store.link._failure = OSError("gone")
        with pytest.warns(IndexBehindWarning, match="gone"):
            store.put_run_record(a_record(1))
    with create_session(local.connection_string, local.file_root) as session:
        kinds = [(one.kind, one.key.partition("/")[0]) for one in session.check()]
        assert kinds == [("index drift", "_pending"), ("index drift", "exp=3a1")]
        assert session.ls().runs.tolist() == [2]
        assert len(session.check()) == 0


def test_a_copy_is_refused(local, tmp_path):
    """A store that was copied with its id is not written to by way of the same database."""
    with local.connect() as store:
        store.put_run_record(a_record(0))
    shutil.copytree(tmp_path / "files", tmp_path / "copy")
    other = SqliteStoreConfig(connection_string=local.connection_string, file_root=tmp_path / "copy")
    with other.connect() as store:
        with pytest.raises(ConflictError, match="is a copy"):
            store.put_run_record(a_record(1))
        assert len(other.files.connect().list_run_records()) == 1


def test_from_filestore_without_rebuild(tmp_path):
    """Without a rebuild an existing store is listed from its files; a scoped one indexes only its experiment."""
    files = FileStoreConfig(root=tmp_path / "files").connect()
    for experiment in ("a", "b"):
        files.put_run_record(a_record(1, experiment))
    url = f"sqlite:///{tmp_path}/index.db"
    with IndexedStore.from_filestore(url, files, rebuild=False) as store:
        assert len(store.list_run_records()) == 2
        assert rows(store, "SELECT count(*) FROM mltraq_runs") == [[0]]
    with IndexedStore.from_filestore(url, files.scoped("a")) as store:
        assert rows(store, "SELECT id_experiment FROM mltraq_runs") == [["a"]]
        assert [one.experiment_id for one in store.list_run_records()] == ["a"]
        assert type(store.to_filestore()) is type(files)
