"""An id that is deleted and made anew begins at number 1: what was looked up in its former life ends nothing in it."""

import itertools

import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import ConcurrentPersistError
from mltraq_ds.storage import LocalStorage
from mltraq_ds.store import deletion, generations, intents, layout, maintenance, recovery, retire
from mltraq_ds.store.commit import Persist
from mltraq_ds.store.intents import LEASE_S, Intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.testing import FaultStorage

ID = "00000000-0000-4000-8000-000000000079"
FOLDER = layout.folder_of(ID)


def open_session(tmp_path, plan=None):
    storage = LocalStorage(tmp_path / "store", durability="relaxed")
    return create_session(f"sqlite:///{tmp_path}/index.db", FaultStorage(storage, plan) if plan else storage)


def make(session, value=1, name="e"):
    experiment = session.create_experiment(name)
    experiment.id_experiment = ID
    with experiment.run() as run:
        run.fields.ds = DataStore(a=value)
    return experiment


def make_anew(session, value=2):
    """Delete the experiment, if it is there, and persist another of its id; return its first version."""
    if (current := generations.current(session.storage, FOLDER)) and not current.deleted:
        deletion.delete(session.objects(), session._make_index(), ID)
    make(session, value).persist()
    return generations.current(session.storage, FOLDER)


def value_of(tmp_path):
    return open_session(tmp_path).load_experiment(id_experiment=ID).runs.first().fields.ds.a


@pytest.fixture
def announce(monkeypatch):
    """Return a function that leaves the intent of a writer elsewhere whose lease has run out."""

    def announce(session, number):
        parts = {"writer": "w-elsewhere", "action": "persist", "id_experiment": ID, "name": "f"}
        intent = Intent(**parts, parent=number - 1, number=number, machine="another", process="77/1")
        with Keeper(session.storage, intent):
            pass
        real = LocalStorage.now
        monkeypatch.setattr(LocalStorage, "now", lambda self: real(self) + LEASE_S + 1)
        return intent

    return announce


@pytest.mark.parametrize("number", [2, 3])
def test_a_writer_of_a_former_life_is_not_fenced_in_this_one(tmp_path, announce, number):
    """A fence at the number that it announced would repeat what is there, or end it, above what others take below."""
    session = open_session(tmp_path)
    make(session).persist()
    for _ in range(number - 2):
        session.load_experiment(id_experiment=ID).persist("update")
    deletion.delete(session.objects(), session._make_index(), ID)
    if number == 3:
        make_anew(session)
    announce(session, number)
    assert [intent.writer for intent in recovery.recover(session.objects(), session._make_index())] == ["w-elsewhere"]
    assert generations.numbers(session.storage, FOLDER) == ([1] if number == 3 else [])
    assert intents.list_intents(session.storage) == []
    make_anew(session, 3)
    assert value_of(tmp_path) == 3
    assert len(session.check()) == 0


def make_anew_beside(session):
    """Make the id anew without first finishing the work of others, as somebody who had looked before they died."""
    objects, index = session.objects(), session._make_index()
    if (current := generations.current(session.storage, FOLDER)) and not current.deleted:
        deletion.delete(objects, index, ID)
    Persist(objects, index, make(session, 2).to_content()).run()
    return generations.current(session.storage, FOLDER)


def at_every_step(tmp_path, prepare, act):
    """Act again and again, and have somebody make the id anew before the first, the second, … operation of it.

    Yields the folder, its session, the version that was made, and what `act` gave.
    """
    for step in itertools.count(1):
        place = tmp_path / str(step)
        place.mkdir()
        calm, calls, made = open_session(place), [], []
        prepared = prepare(calm)

        def go_first(call, calm=calm, calls=calls, made=made, step=step):
            if "/generations" in call.key or "/runs/" in call.key:
                calls.append(call)
            if len(calls) == step and not made:
                made.append(make_anew_beside(calm))

        given = act(open_session(place, go_first).objects(), calm._make_index(), prepared)
        if not made:
            assert step > 5
            return
        yield place, calm, made[0], given


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_fence_that_was_looked_up_in_a_former_life_does_not_end_this_one(tmp_path, announce, is_deleted):
    """Somebody makes the id anew while a dead writer's number is taken: its first version stays current."""

    def prepare(session):
        make(session).persist()
        if is_deleted:
            deletion.delete(session.objects(), session._make_index(), ID)
        return announce(session, 2)

    for place, session, made, _ in at_every_step(tmp_path, prepare, recovery.finish):
        current = generations.current(session.storage, FOLDER)
        assert not current.deleted
        assert current.stands_on(made.ident)
        assert value_of(place) == 2


def test_an_end_that_was_pinned_to_a_former_life_does_not_end_this_one(tmp_path):
    """Somebody makes the id anew while a replaced version is ended: the new one is not what was meant."""

    def prepare(session):
        make(session).persist()
        return generations.current(session.storage, FOLDER)

    def act(objects, index, seen):
        return retire.end_experiment(objects.storage, ID, "w", only=seen.ident)

    for place, session, made, end in at_every_step(tmp_path, prepare, act):
        assert end is None
        assert generations.current(session.storage, FOLDER) == made
        assert value_of(place) == 2


def test_a_sweep_of_a_former_life_takes_nothing_of_this_one(tmp_path):
    """Somebody makes the id anew while old versions are removed: the first version has the name of one of them."""

    def prepare(session):
        make(session).persist().persist("update")

    def act(objects, index, _):
        return maintenance.sweep(objects, index, dry_run=False, grace_s=0)

    for place, session, made, _ in at_every_step(tmp_path, prepare, act):
        assert generations.current(session.storage, FOLDER) == made
        assert value_of(place) == 2


def test_a_first_persist_does_not_take_a_number_of_another_life(tmp_path):
    """Its number was looked up while the id had a version; that was deleted, so the number is above a free one."""
    session = open_session(tmp_path)

    def others(seam):
        if seam == "intent":
            make(session).persist()
        if seam == "claim":
            deletion.delete(session.objects(), session._make_index(), ID)

    late = Persist(session.objects(), session._make_index(), make(session, 2, "late").to_content(), on_seam=others)
    with pytest.raises(ConcurrentPersistError, match="deleted meanwhile"):
        late.run()
    assert late.attempted is None
    assert not session.storage.exists(layout.meta_key(FOLDER))
    assert generations.numbers(session.storage, FOLDER) == []
    make(session, 3, "late").persist()
    assert value_of(tmp_path) == 3
