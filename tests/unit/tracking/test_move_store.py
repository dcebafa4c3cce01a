"""A store that moves: whole, verified, the same store afterwards, whatever happens on the way."""

import errno
import itertools
import json
import uuid
from pathlib import Path

import numpy as np
import pytest

from mltraq_ds import DataStore, DataStoreIO, artifacts, create_session, options
from mltraq_ds.errors import ConflictError, MltraqDSError, UsageError
from mltraq_ds.orm.index import Index
from mltraq_ds.storage import LocalStorage
from mltraq_ds.store import commit, deletion, layout, moving, saving, version_deletion
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.intents import Intent, list_intents, remove_intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.store.moving import move
from mltraq_ds.store.types import RunRecord
from mltraq_ds.testing import Fail, FaultStorage
from mltraq_ds.testing.faults import Callback


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options.set("datastore.durability", "relaxed")
    options.set("tqdm.disable", True)


@pytest.fixture
def session():
    """Return a session with two experiments, one of them in its second version, and a file of the user's own."""
    session = create_session("sqlite:///index.db", "old")
    for name in ("first", "second"):
        experiment = session.create_experiment(name).add_runs(x=[1, 2])
        for number, run in enumerate(experiment.runs.values()):
            run.fields.ds = DataStore(weights=np.arange(1000) + number)
        experiment.persist()
    experiment.fields.note = "again"
    experiment.persist("update")
    session.io.write(b"of the user", "mine/x")
    return session


def values(session):
    """Return everything that a session finds by name."""
    loaded = {name: session.load_experiment(name) for name in session.ls().name}
    return {
        name: [run.fields.ds.weights.tolist() for run in experiment.runs.values()]
        for name, experiment in loaded.items()
    }


def files(folder):
    """Return the bytes of a store, without what says which place it is, and what is pending."""
    found = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("_")}


def test_the_whole_way(session, tmp_path):
    """Every byte is at the new place, the id is kept, the database finds it, and both sides know."""
    before, store_id = values(session), layout.read_store_id(session.storage)
    counts = session.move_store("new")
    assert counts["files"] == len(files("new")) > 8
    assert files("new") == files("old")
    assert session.storage.url.endswith("/new")
    assert layout.read_store_id(session.storage) == store_id
    assert not [name for name in Path("new").iterdir() if name.name == "_moving.json"]
    again = create_session("sqlite:///index.db", "new")
    assert values(session) == values(again) == before
    assert len(again.check(deep=True)) == 0
    session.create_experiment("third").persist()
    assert again.ls().name.tolist() == ["first", "second", "third"]
    for use in (
        lambda: create_session("sqlite:///index.db", "old").ls(),
        lambda: create_session("sqlite:///other.db", "old").create_experiment("x").persist(),
    ):
        with pytest.raises(ConflictError, match=f"moved to file://{tmp_path}/new"):
            use()


def test_open_sessions_are_refused(session):
    """A session that was open at the former place cannot persist there any more; its work is kept in memory."""
    other = create_session("sqlite:///index.db", "old")
    experiment = other.create_experiment("late", note=1)
    other.load_experiment("first").persist("update")
    session.move_store("new")
    before = files("old")
    with pytest.raises(ConflictError, match="moved to"):
        experiment.persist()
    assert files("old") == before
    session.persist_experiment(experiment)
    assert session.load_experiment("late").fields.note == 1


def test_to_other_storages_and_back(session):
    """From a disk to a storage of fsspec and back the files are the same."""
    before, start = values(session), files("old")
    session.move_store("memory://moved/store")
    assert values(session) == before
    assert values(create_session("sqlite:///index.db", "memory://moved/store")) == before
    session.move_store("back")
    assert values(session) == before
    assert {name: data for name, data in files("back").items() if "_meta" not in name} == {
        name: data for name, data in start.items() if "_meta" not in name
    }


def remove_leases():
    """Spare the wait until that of a killed move is over."""
    for lease in Path("old/_pending").glob("*.lease"):
        lease.unlink()


@pytest.mark.parametrize("side", ["source", "target"])
def test_every_failure(side, session, tmp_path):
    """Whichever operation fails, exactly one place is the store and has everything; the same call goes on."""
    before = values(session)
    session.close()
    index = Index(session.database, layout.read_store_id(session.storage))
    descriptor = Path("old/_store.json").read_bytes()
    for n in itertools.count(1, 2):
        remove_leases()
        new = f"new{n}"
        failing = FaultStorage(LocalStorage("old" if side == "source" else new), {n: Fail(errno.EIO)})
        places = (failing, LocalStorage(new)) if side == "source" else (LocalStorage("old"), failing)
        try:
            move(*places, index)
        except (MltraqDSError, OSError):
            assert failing.fired
        if not failing.fired:
            break
        if "moved_to" not in json.loads(Path("old/_store.json").read_bytes()):
            options.set("database.url", "sqlite:///index.db")
            assert values(create_session(store="old")) == before
            remove_leases()
            create_session(store="old").move_store(new)
        assert values(create_session("sqlite:///index.db", new)) == before
        assert len(create_session("sqlite:///index.db", new).check()) == 0
        Path("old/_store.json").write_bytes(descriptor)
        Path(new).rename(tmp_path.parent / f"{tmp_path.name}-{new}")
        index.register_store(LocalStorage("old").url)
    assert n > 40


def test_persisted_meanwhile(session):
    """What somebody commits while the files are copied is copied too."""
    other = create_session("sqlite:///index.db", "old")
    done = []

    def persist(call):
        if call.verb == "open" and not done:
            done.append(True)
            other.create_experiment("meanwhile", ds=DataStore(a=np.arange(500))).persist()

    source = FaultStorage(LocalStorage("old"), lambda call: Callback(persist))
    index = Index(session.database, layout.read_store_id(session.storage))
    move(source, LocalStorage("new"), index)
    found = create_session("sqlite:///index.db", "new").load_experiment("meanwhile")
    assert found.fields.ds.a.sum() == np.arange(500).sum()


def test_writers_at_work(session):
    """While somebody writes nothing is switched; what was copied is kept for the next call."""
    intent = Intent(writer=str(uuid.uuid4()), action="persist", id_experiment="e", name="e", parent=0, number=1)
    with Keeper(session.storage, intent):
        with pytest.raises(ConflictError, match="1 writers are at work"):
            session.move_store("new")
        assert len(list_intents(session.storage)) == 1
    assert session.storage.url.endswith("/old")
    remove_intent(session.storage, intent)
    assert session.move_store("new")["files"] == 0
    assert len(values(session)) == 2


def test_refusals(session, tmp_path):
    """A place with other files, inside the store, around it, or the same, and a store that is none, are refused."""
    Path("taken").mkdir()
    Path("taken/file").write_text("theirs")
    before = files("old")
    for place in ("taken", "old/inside", ".", "old"):
        with pytest.raises(UsageError, match="cannot be moved"):
            session.move_store(place)
    with pytest.raises(UsageError, match="no store at"):
        create_session("sqlite:///index.db", "nothing").move_store("new")
    assert files("old") == before
    assert Path("taken/file").read_text() == "theirs"
    assert not Path("new").exists()
    assert len(values(session)) == 2


def moved_inside(monkeypatch, module):
    """Have the store moved by somebody else just before a writer puts its intent."""
    keeper, done = module.Keeper, []

    def make(*args):
        if not done:
            done.append(True)
            create_session("sqlite:///index.db", "old").move_store("new")
        return keeper(*args)

    monkeypatch.setattr(module, "Keeper", make)


def test_a_writer_that_looked_before(session, monkeypatch):
    """Whoever found the store in place, and writes when it has moved, is told; nothing stays behind."""
    experiment = session.load_experiment("first")
    experiment.fields.late = 1
    with monkeypatch.context() as patch:
        moved_inside(patch, commit)
        with pytest.raises(ConflictError, match="has moved to"):
            experiment.persist("update")
    assert files("old") == files("new")
    assert list_intents(LocalStorage("old")) == []
    session._use_storage(LocalStorage("new"))
    session.persist_experiment(experiment, if_exists="update")
    assert session.load_experiment("first").fields.late == 1


@pytest.mark.parametrize(("module", "verb"), [(saving, "save"), (version_deletion, "delete"), (deletion, "end")])
def test_other_writers_that_looked_before(module, verb, session, monkeypatch):
    """Saving and deleting a version, and deleting an experiment, are refused in a store that has moved meanwhile."""
    options.set("database.url", "sqlite:///index.db")
    options.set("datastore.url", "old")
    artifacts.save(np.arange(3000), "kept")
    moved_inside(monkeypatch, module)
    calls = {
        "save": lambda: artifacts.save(np.arange(4000), "kept"),
        "delete": lambda: artifacts.delete("kept", 1),
        "end": lambda: session.delete_experiment("first"),
    }
    with pytest.raises(ConflictError, match="has moved to"):
        calls[verb]()
    assert files("old") == files("new")
    assert list_intents(LocalStorage("old")) == []


def test_a_single_put_that_looked_before(session, monkeypatch):
    """A record, and a file of the user's, that a move has not seen are not said to be put."""
    FileStore(LocalStorage("old")).put_run_record(RunRecord.success("r0", "alone"))
    for number, put in enumerate(
        (
            lambda storage: FileStore(storage).put_run_record(RunRecord.success("r1", "alone")),
            lambda storage: DataStoreIO.write(b"late", "mine/x", store=storage),
        )
    ):
        descriptor, new, done = Path("old/_store.json").read_bytes(), f"new{number}", []

        def moving(call, new=new, done=done):
            if call.verb == "put" and not done:
                done.append(True)
                create_session("sqlite:///index.db", "old").move_store(new)

        with pytest.raises(ConflictError, match="has moved to"):
            put(FaultStorage(LocalStorage("old"), lambda call, moving=moving: Callback(moving)))
        assert done
        Path("old/_store.json").write_bytes(descriptor)
        Index(session.database, layout.read_store_id(LocalStorage("old"))).register_store(LocalStorage("old").url)


def test_a_moved_store_takes_no_files(session):
    """The user's own files are neither written to nor removed from a store that has moved."""
    other = create_session("sqlite:///index.db", "old")
    session.move_store("new")
    before = files("old")
    for use in (lambda: other.io.write(b"late", "mine/x"), lambda: other.io.delete("mine/x")):
        with pytest.raises(ConflictError, match="has moved to"):
            use()
    assert files("old") == before


@pytest.mark.parametrize("last", ["moving_to", "store_id", "moved_to"])
def test_killed_at_the_end(last, session, monkeypatch):
    """Killed after each descriptor that is put, one place can be read, none loses anything, the same call goes on."""
    before, store_id = values(session), layout.read_store_id(session.storage)
    put = moving._put

    class Killed(BaseException):
        pass

    def kill(storage, body):
        if is_over:
            raise OSError("gone")
        put(storage, body)
        if last in body and (last != "store_id" or "moving_to" not in body):
            is_over.append(True)
            raise Killed

    is_over = []
    with monkeypatch.context() as patch:
        patch.setattr(moving, "_put", kill)
        patch.setattr(LocalStorage, "delete", lambda *args: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises((Killed, OSError)):
            session.move_store("new")
    with pytest.raises(ConflictError, match="moved to"):
        FileStore(LocalStorage("old")).put_run_record(RunRecord.success("r1", "late"))
    remove_leases()
    with pytest.raises(ConflictError, match="Call move_store"):
        create_session("sqlite:///index.db", "old").move_store("elsewhere")
    remove_leases()
    again = create_session("sqlite:///index.db", "old")
    again.move_store("new")
    assert again.storage.url.endswith("/new")
    assert layout.read_store_id(again.storage) == store_id
    assert values(again) == values(create_session("sqlite:///index.db", "new")) == before
    assert len(again.check()) == 0


def test_deleted_meanwhile(session, monkeypatch):
    """An experiment that is deleted just before the store is marked does not come back at the new place."""
    put, done = moving._put, []

    def delete(storage, body):
        if not done:
            done.append(True)
            create_session("sqlite:///index.db", "old").delete_experiment("first")
        put(storage, body)

    monkeypatch.setattr(moving, "_put", delete)
    session.move_store("new")
    assert files("new") == files("old")
    session.rebuild_index()
    assert session.ls().name.tolist() == ["second"]


def test_check_of_the_former_place(session):
    """What is left of a moved store is said to be that; nobody is told to restore it."""
    other = create_session("sqlite:///index.db", "old")
    session.move_store("new")
    found = next(one for one in other.check() if one.kind == "moved store")
    assert "/new" in found.detail
    assert "Restore" not in found.remedy
    assert "remove what is left" in found.remedy
