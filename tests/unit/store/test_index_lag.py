"""An index that was not told of everything catches up, whoever connects; until then the files are listed."""

import itertools
import os
import pathlib
import platform
import warnings
from dataclasses import replace

import pytest

from mltraq_ds import Experiment, create_session, load_results
from mltraq_ds.errors import CorruptRecordError, IndexBehindWarning
from mltraq_ds.orm.database import Database
from mltraq_ds.storage import open_storage
from mltraq_ds.store import RunRecord, SqliteStoreConfig
from mltraq_ds.store.index_marks import is_own, marks_of, note_seen, put_mark
from mltraq_ds.store.run_filter import RunFilter


@pytest.fixture
def local(tmp_path):
    """Return the configuration of a store with an index in a folder."""
    return SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/index.db", file_root=tmp_path / "files")


@pytest.fixture
def remote(tmp_path):
    """Return the configuration of a store with an index and files where looking at each costs a request."""
    url = f"memory://{tmp_path.name}-{os.getpid()}"
    return SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/index.db", file_root=url)


def lag(config, *records):
    """Put records while the index does not answer."""
    with config.connect() as store:
        store.link._failure = OSError("gone")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IndexBehindWarning)
            for record in records:
                store.put_run_record(record)


def put(config, *ids, runs="12"):
    with config.connect() as store:
        for experiment, run in itertools.product(ids, runs):
            store.put_run_record(RunRecord.success(run, experiment))


def listed(config, experiment=None):
    with config.connect() as store:
        return [(one.experiment_id, one.run_id) for one in store.list_run_records(experiment)]


def damage(config, experiment, run="1"):
    storage = open_storage(config.file_root)
    key = f"{experiment}/runs/{run}.json"
    storage.put(key, [data := storage.read(key)[:-9]], size=len(data), replace=True)


def restore(config, experiment, run="1"):
    config.files.scoped(experiment).connect().put_run_record(RunRecord.success(run, experiment))


def test_a_mark_is_that_of_a_schema(tmp_path):
    """Two schemas of one database see each other's marks, but each removes only its own."""
    storage = open_storage(tmp_path)
    a, b = (Database("postgresql://db/lab", schema=schema) for schema in ("A", "B"))
    key = put_mark(storage, a)
    assert (is_own(key, a), is_own(key, b)) == (True, False)
    assert marks_of(storage, a) == marks_of(storage, b) == [key]
    note_seen(storage, b, [key])
    assert (marks_of(storage, a), marks_of(storage, b)) == ([key], [])
    fresh = put_mark(storage, a)
    assert marks_of(storage, b) == [fresh]
    storage.delete_many([key, fresh])
    note_seen(storage, b, [])
    assert list(storage.list("_pending")) == []


def test_sweep_forgets_what_old_indexes_have_met(tmp_path, monkeypatch):
    """Each container leaves a note of what its index has met; old ones go, what they have met stays for its owner."""

    def session(host):
        monkeypatch.setattr(platform, "node", lambda: host)
        return create_session(f"sqlite:///{tmp_path}/index.db", tmp_path / "files")

    owner = session("owner")
    owner.create_experiment("x").persist()
    mark = put_mark(owner.storage, owner.database)
    for number in range(3):
        session(f"container {number}").ls()
    there = [stat.key for stat in owner.storage.list("_pending")]
    assert sorted(key.rpartition(".")[2] for key in there) == ["behind", "seen", "seen", "seen"]
    last = session("container 2")
    assert len(last.sweep(dry_run=False)) == 0  # they are young
    assert last.sweep(grace_s=0).kinds() == last.sweep(dry_run=False, grace_s=0).kinds() == {"leftover": 3}
    assert marks_of(last.storage, last.database) == [mark]
    assert len(last.ls()) == len(session("container 2").ls()) == 1
    assert marks_of(last.storage, last.database) == []  # it has caught up once more
    owner = session("owner")
    assert marks_of(owner.storage, owner.database) == [mark]


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_lag_under_another_url(request, where):
    """The same database by another URL catches up too, once for each further put; who put the mark still does."""
    config = request.getfixturevalue(where)
    other = replace(config, connection_string=f"{config.connection_string}?timeout=3")
    put(config, "a", runs="1")
    with config.connect() as lagging:
        lagging.link._failure = OSError("gone")
        with pytest.warns(IndexBehindWarning):
            lagging.put_run_record(RunRecord.success("2", "a"))
        assert listed(other) == [("a", "1"), ("a", "2")]
        storage = open_storage(config.file_root)
        mark, seen = sorted((stat.key for stat in storage.list("_pending")), key=lambda key: key.rpartition(".")[2])
        assert (mark.rpartition(".")[2], seen.rpartition(".")[2]) == ("behind", "seen")
        lagging.put_run_record(RunRecord.success("3", "a"))
        assert listed(other) == [("a", "1"), ("a", "2"), ("a", "3")]
        with other.connect() as store:
            assert store.check().kinds() == {}
    assert listed(config) == [("a", "1"), ("a", "2"), ("a", "3")]
    assert [stat.key for stat in storage.list("_pending")] == [seen]
    listed(other)
    lag(config, RunRecord.success("4", "a"))
    assert len(listed(config)) == 4


@pytest.mark.parametrize("where", ["local", "remote"])
def test_one_damaged_file_does_not_keep_the_others(request, where):
    """Catching up goes on beside a damaged file; only its experiment is read from the files, which say so."""
    config = request.getfixturevalue(where)
    put(config, *"abc", runs="1")
    lag(config, *(RunRecord.success("2", experiment) for experiment in "abc"))
    damage(config, "a")
    for _ in range(2):  # the next connection tries again
        with config.connect() as store:
            with pytest.warns(IndexBehindWarning, match=r"a/runs/1\.json"):
                assert [one.run_id for one in store.list_run_records("b")] == ["1", "2"]
            assert store.link.behind == {"a"}
            assert store.link.ask() is not None
            with pytest.raises(CorruptRecordError, match=r"a/runs/1\.json"):
                store.list_run_records()
            with pytest.raises(CorruptRecordError):
                load_results(store, "a").filter(status="failed").records  # noqa: B018
            assert [one.run_id for one in store.iter_run_records("a", on_corrupt=lambda error: None)] == ["2"]
            rows = store.link.database.query("SELECT id_experiment, id_run FROM mltraq_runs WHERE id_run = '2'")
            assert sorted(rows.id_experiment) == ["a", "b", "c"]
    restore(config, "a")
    assert len(listed(config)) == 6
    assert list(open_storage(config.file_root).list("_pending")) == []


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_rebuild_beside_damage(request, where):
    """What a rebuild could not read is raised when it is listed, in new objects too; never left out in silence."""
    config = request.getfixturevalue(where)
    put(config, "a", "b")
    damage(config, "b")
    with config.connect() as store:
        with pytest.warns(IndexBehindWarning, match=r"b/runs/1\.json"):
            assert store.rebuild_index() == 3
        with pytest.raises(CorruptRecordError):
            store.list_run_records()
    with config.connect() as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", IndexBehindWarning)
        assert len(store.list_run_records("a")) == 2
        with pytest.raises(CorruptRecordError, match=r"b/runs/1\.json"):
            store.list_run_records()
        with pytest.raises(CorruptRecordError, match=r"b/runs/1\.json"):
            list(store.find_run_records(RunFilter("failed")))
    restore(config, "b")
    with config.connect() as store:
        assert store.rebuild_index() == 4
        assert len(store.list_run_records()) == 4
        assert len(store.check()) == 0


def test_a_damaged_generation_keeps_no_other_experiment(local):
    """An experiment whose generation is damaged keeps its rows, and the others catch up."""
    with create_session(local.connection_string, local.file_root) as session:
        Experiment(session, "p", "p").add_runs(x=[1]).persist()
    put(local, "a", runs="1")
    lag(local, RunRecord.success("2", "a"))
    path = pathlib.Path(local.file_root) / "p" / "generations" / "1.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-9])
    with local.connect() as store:
        with pytest.warns(IndexBehindWarning, match=r"p/generations/1\.json"):
            assert len(store.list_run_records("a")) == 2
        assert store.link.behind == {"p"}
        assert store.link.database.query("SELECT count(*) AS n FROM mltraq_runs").n.tolist() == [3]


def test_what_no_database_could_hold_keeps_nothing_else(local):
    """A text that databases refuse, put by way of the files, is read from them; the other rows are there."""
    put(local, "a", "b", runs="1")
    lag(local, RunRecord.success("2", "b"))
    nul = RunRecord.failed("2", "a", error={"message": "a\0b"})
    local.files.connect().put_run_record(nul)
    with local.connect() as store:
        with pytest.warns(IndexBehindWarning, match="NUL"):
            assert len(store.list_run_records("b")) == 2
        assert store.scoped("a").list_run_records()[1].error == nul.error


def test_filters_see_what_the_files_say(local):
    """What was put by way of the files alone is found by a filter on a disk, whatever the rows say."""
    with local.connect() as store:
        for run in "12":
            store.put_run_record(RunRecord.running(run, "a", metrics={"loss": 1}))
    files = local.files.scoped("a").connect()
    files.put_run_record(RunRecord.success("1", "a", metrics={"loss": 2}))
    files.put_run_record(RunRecord.success("3", "a", metrics={"loss": 2}))
    found = lambda **wanted: sorted(run.run_id for run in load_results(local, "a").filter(**wanted))  # noqa: E731
    assert found() == ["1", "2", "3"]
    assert found(status="success") == found(loss=2) == ["1", "3"]
    assert found(status="running") == found(loss=1) == ["2"]
    files.delete_run("2")
    assert found(status="running") == []
    with local.connect() as store:
        assert [(one.name, one.count, one.minimum) for one in store.field_catalogue()] == [("loss", 2, 2)]


def test_filters_see_a_run_whose_record_alone_is_gone(local):
    """A run of a generation that is visible again, since the record over it was removed, is found."""
    with create_session(local.connection_string, local.file_root) as session:
        experiment = Experiment(session, "p", "p").add_runs(x=[1, 2]).execute(lambda run: None)
        experiment.persist()
        run = next(iter(experiment.runs))
    with local.connect() as store:
        store.put_run_record(RunRecord.failed(run, "p"))
        (path,) = (store.scoped("p").get_working_directory() / "runs").glob("*.json")
        assert len(load_results(store, "p").filter(status="success")) == 1
        path.unlink()
        assert len(load_results(store, "p").filter(status="success")) == 2


def test_what_a_persist_has_taken_in_is_read_once(local, monkeypatch):
    """Files that a generation has folded are known after the first look, so that later ones cost no reading."""
    put(local, "a", runs="123")
    with create_session(local.connection_string, local.file_root) as session:
        session.load_experiment(id_experiment="a").persist(if_exists="update")
    with local.connect() as store:
        assert len(store.list_run_records()) == 3
        assert len(store.link.folded) == 3
        storage_type = type(store.storage)
        read = storage_type.read
        keys = []
        monkeypatch.setattr(
            storage_type, "read", lambda self, key, **more: (keys.append(key), read(self, key, **more))[1]
        )
        assert list(store.find_run_records(RunFilter("failed"))) == []
        assert [key for key in keys if key.endswith("1.json") and "/runs/" in key] == []


@pytest.mark.parametrize("runs", [3, 300])
def test_persisted_runs_cost_no_request_each(remote, runs, monkeypatch):
    """Listing persisted runs by the index reads the generation once, however many there are."""
    with create_session(remote.connection_string, remote.file_root) as session:
        Experiment(session, "p", "p").add_runs(x=list(range(runs))).execute(lambda run: None).persist()
    with remote.connect() as store:
        store.link.ask()
        requests = []
        for verb in ("read", "stat", "exists", "list", "open"):
            inner = getattr(type(store.storage), verb)
            monkeypatch.setattr(
                type(store.storage),
                verb,
                lambda *args, _inner=inner, _verb=verb, **more: (requests.append(_verb), _inner(*args, **more))[1],
            )
        found = list(store.scoped("p").find_run_records(RunFilter("success")))
        assert len(found) == runs
        assert len(requests) <= 6
    assert sorted(map(repr, found)) == sorted(map(repr, remote.files.scoped("p").connect().list_run_records()))


def test_check_of_an_index_that_is_down(local):
    """A database that does not answer is a finding, with the marks; one that answers again is asked again."""
    put(local, "a", runs="1")
    with local.connect() as store:
        store.link._failure = OSError("gone")
        with pytest.warns(IndexBehindWarning):
            store.put_run_record(RunRecord.success("2", "a"))
        assert store.check().kinds() == {"index drift": 2}  # the mark, and the row; nothing was changed
    down = replace(local, connection_string=f"sqlite:///{local.file_root}/no/folder/index.db")
    with down.connect() as store:
        with pytest.warns(IndexBehindWarning):
            store.put_run_record(RunRecord.success("3", "a"))
        assert store.check().kinds() == {"index drift": 2, "unreachable database": 1}
