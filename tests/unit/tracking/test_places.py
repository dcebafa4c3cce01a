"""Which store is meant where none is named: never another one than that of the run, and never silently."""

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mltraq_ds import DataStore, DataStoreIO, create_session, options, save
from mltraq_ds.errors import UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with options.ctx({"tqdm.disable": True}):
        yield tmp_path


def session_at(folder, name):
    return create_session(url=f"sqlite:///{folder}/{name}.db", store=folder / name)


def in_thread(call, *args):
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call, *args).result()


def write():
    return DataStoreIO.write(b"1", "mine")


@pytest.mark.parametrize("call", [
    write,
    lambda: DataStoreIO.serialize_write([1], "mine"),
    lambda: DataStoreIO.list("mine"),
    lambda: DataStoreIO("file:///mine/x").exists(),
    lambda: DataStore.from_url("file:///mine/x"),
    lambda: save(1, "artifact"),
])  # fmt: skip
def test_a_thread_that_a_step_starts_does_not_mean_the_default_store(folder, call):
    """Without a store, a thread beside a run of another store is refused with both stores; nothing is written."""
    experiment = session_at(folder, "ours").create_experiment("e")
    with experiment.run():
        with pytest.raises(UsageError, match=r"ours executes.*mltraq\.datastore.*store=….*copy_context") as caught:
            in_thread(call)
    assert "\n" not in str(caught.value)
    assert not (folder / "mltraq.datastore").exists()


def test_both_remedies_of_the_refusal_work(folder):
    """A store that is named, or the context of the step, leads to the store of the run."""
    session = session_at(folder, "ours")

    def step(run):
        run.fields.named = in_thread(lambda: DataStoreIO.write(b"named", "mine", store=session)).url
        run.fields.context = in_thread(contextvars.copy_context().run, write).url

    run = session.create_experiment("e").add_run().execute(step).runs.first()
    assert session.io(run.fields.named).read() == b"named"
    assert session.io(run.fields.context).read() == b"1"
    assert not (folder / "mltraq.datastore").exists()


def test_a_thread_beside_a_run_of_the_default_store_needs_nothing(folder):
    """Where the run's store is the default session's, there is nothing to mix up; nor is there after a run."""
    with create_session().create_experiment("e").run():
        in_thread(write)
    with session_at(folder, "ours").create_experiment("e").run():
        pass
    in_thread(write)
    assert len(DataStoreIO.list("mine")) == 2


def test_runs_of_two_sessions_in_two_threads_keep_to_their_stores(folder):
    """Each thread has a run of its own, at the same time, and writes into the store of that run."""
    together = threading.Barrier(2, timeout=60)

    def work(name):
        session = session_at(folder, name)

        def step(run):
            together.wait()
            for _ in range(20):
                DataStoreIO.write(name.encode(), "mine")
            together.wait()

        experiment = session.create_experiment("e").add_run().execute(step)
        assert experiment.runs.first().exception is None
        return {file.read() for file in session.io.list("mine")}, len(session.io.list("mine"))

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, ["one", "two"])) == [({b"one"}, 20), ({b"two"}, 20)]
    assert not (folder / "mltraq.datastore").exists()


def test_workers_that_are_threads_write_into_the_store_of_the_run(folder):
    """Threads of joblib execute steps of their own and know their store."""
    session = session_at(folder, "ours")
    experiment = session.create_experiment("e").add_runs(x=range(8))
    experiment.execute(lambda run: write(), n_jobs=2, backend="threading")
    assert len(session.io.list("mine")) == 8
