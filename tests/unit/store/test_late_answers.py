"""What was looked at and has changed by the time of the commit; found by `tests/concurrency/test_schedules.py`."""

import itertools

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import ConcurrentPersistError, StaleReferenceError
from mltraq_ds.orm.index import Index
from mltraq_ds.storage import LocalStorage, open_storage
from mltraq_ds.store import commit, generations, layout, retire, slots
from mltraq_ds.testing import Callback, FaultStorage, LoseResponse
from tests.unit.orm.index_suite import an_experiment


def open_session(tmp_path, plan=None):
    storage = LocalStorage(tmp_path / "store", durability="relaxed")
    return create_session(f"sqlite:///{tmp_path}/index.db", FaultStorage(storage, plan) if plan else storage)


def make(session, name="e", number=1):
    experiment = session.create_experiment(name)
    with experiment.run() as run:
        run.fields.kept = DataStore(a=np.arange(1000))
        run.fields.ds = DataStore(a=number)
    return experiment


def numbers_of(session, name="e"):
    return session.load_experiment(name).runs.first().fields.ds.a


def test_an_answer_that_was_lost_is_not_taken_for_somebody_elses_commit(tmp_path, monkeypatch):
    """On an object store the repeated request meets its own generation: persisted, and nothing of it is removed."""
    monkeypatch.setattr(slots, "_FIRST_PAUSE_S", 0.0)
    lost = []

    def plan(call):
        if call.verb == "put" and "/generations/" in call.key and not lost:
            return lost.append(call) or LoseResponse()
        return None

    session = create_session(f"sqlite:///{tmp_path}/index.db", FaultStorage(open_storage("memory://late"), plan))
    experiment = make(session).persist()
    assert lost
    assert numbers_of(create_session(f"sqlite:///{tmp_path}/index.db", "memory://late")) == 1
    assert len(session.check()) == 0
    experiment.delete()


def test_an_end_never_skips_a_version_that_it_has_not_seen(tmp_path):
    """A version committed while an end is prepared, at whichever operation, is not ended unseen."""
    session = open_session(tmp_path)
    experiment = make(session).persist()
    folder = layout.folder_of(experiment.id_experiment)
    rivals = []

    def go_first(call):
        if rivals and len(storage.log) > before:
            rival = rivals.pop()
            rival.runs.first().fields.ds = DataStore(a=2)
            rival.persist("update")

    for before in itertools.count():  # noqa: B007 - `go_first` looks at it
        rivals.append(session.load_experiment("e"))
        seen = generations.current(session.storage, folder)
        storage = FaultStorage(session.storage, lambda call: Callback(go_first) if call.verb != "now" else None)
        end = retire.end_experiment(storage, experiment.id_experiment, "writer", only=seen.ident)
        if rivals:
            break
        assert end is None
        assert numbers_of(session) == 2
    assert before >= 3


def test_what_a_slower_writer_has_replaced_leaves_the_index(tmp_path):
    """A writer whose version was replaced before it told the index still tells it whose place it has taken."""
    session = open_session(tmp_path)
    target, experiment = make(session, "taken").persist(), make(session, "e").persist()
    index = Index(session.database, layout.read_store_id(session.storage))

    def on_seam(name):
        if name == "index":  # committed and the other one ended; now somebody is faster
            rival = open_session(tmp_path).load_experiment(id_experiment=experiment.id_experiment)
            rival.name = "elsewhere"
            rival.persist("update")

    experiment.name = "taken"
    persist = commit.Persist(
        session.objects(), index, experiment.to_content(), experiment.base, "replace", on_seam=on_seam
    )
    persist.run()
    assert set(session.ls().name) == {"elsewhere"}
    assert target.id_experiment not in index.all_generations()
    assert len(session.check().findings) == sum(found.kind == "orphan" for found in session.check().findings)


def test_a_name_goes_to_who_has_taken_it_although_its_row_was_there(tmp_path):
    """Whoever wrote the row first may not have known whose name that version takes; the one who knows gives it."""
    index = Index(create_session(f"sqlite:///{tmp_path}/index.db").database, "s")
    index.write(an_experiment("old", "n"))
    index.write(an_experiment("new", "n"))
    assert index.owner("n").id_experiment == "old"
    end = generations.Generation(id_experiment="old", name="n", number=2, writer="w", deleted=True)
    assert not index.write(an_experiment("new", "n"), replaces=[end])
    assert index.owner("n").id_experiment == "new"
    assert index.all_generations() == {"new": 1}


def test_a_version_of_an_earlier_life_is_stale(tmp_path):
    """A reader of version 1 whose experiment was deleted and made anew, as version 1 again, is told to reload."""
    session = open_session(tmp_path)
    experiment = make(session).persist()
    reader = session.load_experiment("e")
    experiment.delete()
    again = make(session, number=2)
    again.id_experiment = experiment.id_experiment
    assert again.persist().generation == reader.generation
    with pytest.raises(StaleReferenceError, match="reload"):
        _ = reader.runs.first().fields.ds.a
    assert numbers_of(session) == 2


def test_a_kept_blob_that_a_rival_has_removed_is_no_damage(tmp_path):
    """A blob that went with a version committed meanwhile is told as that, not as damage."""
    session = open_session(tmp_path)
    make(session).persist()
    rivals = [session.load_experiment("e")]

    def plan(call):
        return Callback(go_first) if call.verb == "put" and "/runs/" in call.key else None

    def go_first(call):
        for rival in rivals:
            rival.name = "other"  # the name is claimed
            rival.runs.first().fields.kept = DataStore(a=1)
            rival.persist("update")
        rivals.clear()

    slow = open_session(tmp_path, plan).load_experiment("e")
    slow.runs.first().fields.ds = DataStore(a=5)
    with pytest.raises(ConcurrentPersistError, match="reload"):
        slow.persist("update")
    assert numbers_of(session, "other") == 1
    assert len(session.check()) == 0


def test_a_blob_removed_between_two_reads_is_stale(tmp_path):
    """Where each read is a request, a version may be replaced after its blob was opened: at whichever, it is stale."""
    database, url = f"sqlite:///{tmp_path}/index.db", "memory://between"
    session = create_session(database, url)
    experiment = make(session).persist()
    rivals, reads = [], []

    def go_first(call):
        reads.append(call)
        if len(reads) == position:
            for rival in rivals:
                rival.runs.first().fields.kept = DataStore(a=np.full(300_000, position))
                rival.persist("update")
            rivals.clear()

    def plan(call):
        return Callback(go_first) if call.verb in ("open", "read_range") else None

    for position in itertools.count(1):  # noqa: B007 - `go_first` looks at it
        reads.clear()
        rivals.append(session.load_experiment("e"))
        kept = (
            create_session(database, FaultStorage(open_storage(url), plan))
            .load_experiment("e")
            .runs.first()
            .fields.kept
        )
        try:
            assert kept.a.size in (1000, 300_000)
        except StaleReferenceError:
            assert not rivals
        if rivals:
            break
    assert position > 2
    experiment.reload().delete()
