"""Records put alone while sessions load, persist and sweep the same experiment: none is lost, none comes back."""

import threading

import pytest

from mltraq_ds import create_session, options
from mltraq_ds.errors import ConflictError, ExperimentNotFoundError
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.store import maintenance
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing.store_hooks import full_record

ID = "busy"
PUTTERS, PUTS = 3, 40


@pytest.fixture
def place(tmp_path):
    """Return a folder, flushed by nobody: nothing loses power here."""
    options.set("datastore.durability", "relaxed")
    options.set("tqdm.disable", True)
    return tmp_path


def in_threads(*works):
    """Run all at once; return what each raised."""
    raised = []

    def run(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_no_record_is_lost(place):
    """Every record that was put is there at the end, as put or as a session that had read it has persisted it."""
    storage = LocalStorage(place / "store", durability="relaxed")
    is_done = threading.Event()
    FileStore(storage).scoped(ID).put_run_record(full_record("0-again", ID, metrics={"v": 0}))
    with create_session(f"sqlite:///{place}/index.db", storage) as session:
        session.rebuild_index()  # before that no session persists into a store that it has not made

    def put(number):
        store = FileStore(storage).scoped(ID)
        for i in range(PUTS):
            store.put_run_record(full_record(f"{number}-{i}", ID, metrics={"v": i}))
            store.put_run_record(full_record(f"{number}-again", ID, metrics={"v": i}))
            store.put_log(f"{number}-{i}", "out", str(i))

    def persist():
        while not is_done.is_set():
            try:
                with create_session(f"sqlite:///{place}/index.db", storage) as session:
                    experiment = session.load_experiment(id_experiment=ID)
                    for run in experiment.runs.values():
                        run.fields.seen = run.fields.v
                    experiment.persist(if_exists="update" if experiment.generation else "fail")
                    session.sweep(dry_run=False, grace_s=0)
            except (ConflictError, ExperimentNotFoundError):
                continue

    def put_all():
        raised = in_threads(*(lambda number=number: put(number) for number in range(PUTTERS)))
        is_done.set()
        assert raised == []

    assert in_threads(put_all, persist, persist) == []
    store = FileStore(storage).scoped(ID)
    found = {one.run_id: one.metrics for one in store.list_run_records()}
    for number in range(PUTTERS):
        assert found.pop(f"{number}-again")["v"] == PUTS - 1
        assert {i: found.pop(f"{number}-{i}")["v"] for i in range(PUTS)} == {i: i for i in range(PUTS)}
        assert [store.get_log(f"{number}-{i}", "out") for i in range(PUTS)] == [str(i) for i in range(PUTS)]
    assert found == {}
    with create_session(f"sqlite:///{place}/index.db", storage) as session:
        loaded = session.load_experiment(id_experiment=ID)
        assert all(run.fields.get("seen", run.fields.v) == run.fields.v for run in loaded.runs.values())
        session.rebuild_index()
    assert maintenance.check(storage, deep=True).kinds() == {}


def test_puts_beside_deletions(place):
    """What is put while the experiment is deleted again and again is whole: gone, or there with all that came after."""
    storage = LocalStorage(place / "store", durability="relaxed")
    is_done = threading.Event()

    def put():
        store = FileStore(storage).scoped(ID)
        for i in range(100):
            store.put_run_record(full_record(f"r{i}", ID))
            store.put_log(f"r{i}", "out", str(i))
        is_done.set()

    def delete():
        while not is_done.is_set():
            try:
                with create_session(f"sqlite:///{place}/index.db", storage) as session:
                    session.delete_experiment(id_experiment=ID)
            except ExperimentNotFoundError:
                continue

    assert in_threads(put, delete) == []
    store = FileStore(storage).scoped(ID)
    records = store.list_run_records()
    assert records == [full_record(one.run_id, ID) for one in records]
    left = [int(one.run_id[1:]) for one in records]
    assert left == [] or sorted(left) == list(range(min(left), 100))
    assert all(store.get_log(f"r{i}", "out") == str(i) for i in left)
    create_session(f"sqlite:///{place}/index.db", storage).rebuild_index()
    assert maintenance.check(storage, deep=True).kinds().keys() <= {"orphan"}
