"""What a dead writer leaves is finished by others: claims, intents, fences, slots, ends."""

import errno
import json
import os
import threading
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import (
    ConcurrentPersistError,
    CorruptRecordError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    KeyMissingError,
    LeftoversWarning,
    StorageError,
    UnknownOutcomeError,
)
from mltraq_ds.orm.rows import NameClaim
from mltraq_ds.storage import open_storage
from mltraq_ds.store import claims, deletion, follow_up, generations, intents, layout, recovery, retire, slots, survey
from mltraq_ds.store.commit import Persist
from mltraq_ds.store.generations import Generation, Replaced
from mltraq_ds.store.intents import DONE, LEASE_S, Intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.testing import Fail, FaultStorage, LoseResponse


@pytest.fixture
def session(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")


def make(session, name="e", **values):
    experiment = session.create_experiment(name)
    with experiment.run() as run:
        run.fields.ds = DataStore(a=1, **values)
    return experiment


def elsewhere(**changes):
    """Return an intent of a writer on another machine."""
    parts = {
        "writer": "w-elsewhere",
        "action": "persist",
        "id_experiment": "e",
        "name": "n",
        "parent": 0,
        "number": 1,
        "machine": "another",
        "process": "77/1",
    }
    return Intent(**{**parts, **changes})


@pytest.fixture
def old_clock(monkeypatch):
    """Let the storage's clock run ahead, since ctime cannot be set."""

    def ahead(storage, by_s=LEASE_S + 1):
        real = storage.now
        monkeypatch.setattr(type(storage), "now", lambda self: real() + by_s)

    return ahead


class Stopped(BaseException):
    """Stands for the end of a process: nothing of ours catches it on purpose."""


def persist_until(session, experiment, seam, if_exists="fail"):
    """Persist and die at a seam: no clean-up happens, as after a kill; returns the intent that is left."""

    def die(name):
        if name == seam:
            raise Stopped

    index = session._make_index()
    persist = Persist(
        objects=session.objects(),
        index=index,
        content=experiment.to_content(),
        base=experiment.base,
        if_exists=if_exists,
        on_seam=die,
    )
    persist._undo = lambda intent, cause: True  # a killed process undoes nothing
    with pytest.raises(Stopped):
        persist.run()
    (left,) = intents.list_intents(session.storage)
    return left


def as_dead(session, intent):
    """Rewrite an intent as that of a process of this machine that has ended."""
    gone = replace(intent, process="999999999/1")
    with Keeper(session.storage, gone):
        pass
    return gone


@pytest.mark.parametrize("seam", ["claim", "folder", "blobs", "records", "commit"])
def test_a_writer_that_died_before_the_commit_frees_the_name(session, tmp_path, seam):
    """Before the commit nothing is visible; the name can be taken at once, and the intent goes."""
    dead = as_dead(session, persist_until(session, make(session), seam))
    assert intents.is_surely_dead(dead)
    other = make(session, more=2).persist()
    assert session.load_experiment("e").id_experiment == other.id_experiment
    fresh = create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")
    assert fresh.ls().name.tolist() == ["e"]
    assert intents.list_intents(session.storage) == []


@pytest.mark.parametrize("has_blobs", [True, False])
def test_a_first_persist_whose_mark_was_lost_is_swept(session, tmp_path, has_blobs, monkeypatch):
    """A power cut may keep blobs and lose the mark of their folder: recovery puts it back, so that sweep knows them."""
    monkeypatch.setattr(survey, "_MOMENT_S", 0.0)
    dead = as_dead(session, persist_until(session, make(session), "commit"))
    folder = tmp_path / "store" / layout.folder_of(dead.id_experiment)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.name == layout.META or not has_blobs:
            path.unlink()
    fresh = create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")
    assert len(fresh.ls()) == 0
    assert (folder / layout.META).exists() == has_blobs
    fresh.sweep(dry_run=False, grace_s=0)
    assert not folder.exists()
    assert len(fresh.check(deep=True)) == 0


@pytest.mark.parametrize("seam", ["end_replaced", "index", "retire"])
def test_a_writer_that_died_after_the_commit_is_finished(session, tmp_path, seam):
    """After the commit the new version is what everybody gets, index included, and what it replaced is gone."""
    old = make(session).persist()
    new = make(session, more=2)
    as_dead(session, persist_until(session, new, seam, "replace"))
    fresh = create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")
    found = fresh.load_experiment("e")
    assert found.id_experiment == new.id_experiment
    assert found.runs.first().fields.ds == {"a": 1, "more": 2}
    assert len(fresh.ls()) == 1
    assert not (tmp_path / "store" / old.id_experiment).exists()
    assert intents.list_intents(session.storage) == []


def test_an_update_that_died_before_retiring_leaves_no_old_blob(session, tmp_path):
    """Recovery removes what the commit replaced, by the names in the parent."""
    experiment = make(session).persist()
    old = experiment.runs.first().fields.ds.origin.reference.key
    experiment.runs.first().fields.ds.a = 2
    as_dead(session, persist_until(session, experiment, "retire", "update"))
    assert (tmp_path / "store" / old).exists()
    fresh = create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store")
    assert fresh.load_experiment("e").runs.first().fields.ds.a == 2
    assert not (tmp_path / "store" / old).exists()


def test_a_dead_claimant_with_a_commit_keeps_the_name(session):
    """A name whose claimant died after its commit is not given away: its work is finished, then the name is taken."""
    dead = as_dead(session, persist_until(session, make(session), "index"))
    with pytest.raises(ExperimentExistsError, match=dead.id_experiment):
        make(session).persist()
    assert session.load_experiment("e").id_experiment == dead.id_experiment


def test_a_living_claimant_is_waited_for(session):
    """While another writer is at work on a name, a second one is refused with a typed error."""
    with Keeper(session.storage, elsewhere(name="e", id_experiment="other")) as keeper:
        session._make_index().claim("e", "other", keeper.intent.key, is_alive=lambda claim: True)
        with pytest.raises(ConcurrentPersistError):
            make(session).persist()
    assert len(session.ls()) == 0


def test_a_writer_elsewhere_lives_while_it_renews(session, old_clock):
    """The lease counts on the storage's clock; a writer that has gone on is dead at once."""
    with Keeper(session.storage, elsewhere()) as keeper:
        assert intents.is_alive(session.storage, keeper.intent)
        assert not intents.is_surely_dead(keeper.intent)
        assert not intents.is_alive(session.storage, elsewhere(writer="never-written"))
        old_clock(session.storage)
        assert not intents.is_alive(session.storage, keeper.intent)
        assert intents.is_surely_dead(replace(keeper.intent, process=DONE))
    assert not intents.is_surely_dead(elsewhere(machine=intents.this_machine(), process="no number"))


def wait_for_renewal(storage, key, before):
    for _ in range(300):
        if storage.stat(key).modified > before:
            return
        time.sleep(0.01)
    raise AssertionError("not renewed")


def test_the_intent_is_renewed(session, monkeypatch):
    """A long persist renews its intent; afterwards nothing writes it any more."""
    monkeypatch.setattr("mltraq_ds.store.keeper.RENEW_S", 0.02)
    with Keeper(session.storage, elsewhere()) as keeper:
        before = session.storage.stat(keeper.intent.key).modified
        wait_for_renewal(session.storage, keeper.intent.key, before)
    intents.remove_intent(session.storage, keeper.intent)
    time.sleep(0.06)
    assert not session.storage.exists(keeper.intent.key)


def test_a_sleeping_writer_is_fenced(session, old_clock):
    """A writer elsewhere that slept past its lease loses its number: when it wakes, it cannot commit."""
    experiment = make(session).persist()
    sleeper = experiment.reload()
    sleeper.runs.first().fields.ds.a = 2
    woken = []

    def sleep(name):
        if name == "commit":
            (intent,) = intents.list_intents(session.storage)
            far = replace(intent, machine="another", process="77/1")
            with Keeper(session.storage, far):
                pass
            old_clock(session.storage)
            recovery.recover(session.objects(), session._index)
            woken.append(far)

    persist = Persist(
        objects=session.objects(),
        index=session._index,
        content=sleeper.to_content(),
        base=sleeper.base,
        if_exists="update",
        on_seam=sleep,
    )
    with pytest.raises(ConcurrentPersistError, match="committed by another writer|taken for dead"):
        persist.run()
    fence = generations.current(session.storage, layout.folder_of(experiment.id_experiment))
    assert (fence.number, fence.fences) == (2, woken[0].writer)
    assert fence.keys == generations.read(session.storage, layout.folder_of(experiment.id_experiment), 1).keys
    assert experiment.reload().runs.first().fields.ds.a == 1
    experiment.runs.first().fields.ds.a = 3
    experiment.persist("update")  # the fence changed nothing, so the base still holds
    assert experiment.reload().runs.first().fields.ds.a == 3


def test_a_new_experiment_of_a_sleeping_writer_is_fenced(session, old_clock):
    """Where there is no parent the fence is an end; the name is free for others."""
    session._make_index()
    intent = elsewhere(name="e")
    with Keeper(session.storage, intent):
        pass
    session._index.claim("e", "e", intent.key, is_alive=lambda claim: False)
    old_clock(session.storage)
    make(session).persist()
    assert generations.current(session.storage, "e").deleted
    assert session.ls().name.tolist() == ["e"]
    assert intents.list_intents(session.storage) == []


def test_a_fence_that_comes_too_late_rolls_forward(session, old_clock):
    """If the sleeping writer has committed after all, its persist is finished instead."""
    experiment = make(session)
    intent = persist_until(session, experiment, "index")
    far = replace(intent, machine="another", process="77/1")
    with Keeper(session.storage, far):
        pass
    old_clock(session.storage)
    assert [done.writer for done in recovery.recover(session.objects(), session._index)] == [intent.writer]
    assert session.load_experiment("e").id_experiment == experiment.id_experiment


def test_claims_of_other_stores_hold_for_a_day(session):
    """An intent in another store cannot be asked; its claim is honoured for a day."""
    index = session._make_index()
    now = datetime.now(UTC)
    for age, expected in ((timedelta(hours=1), True), (timedelta(days=2), False)):
        claim = NameClaim("n", "another-store", None, "x", "_pending/x.json", now - age)
        assert claims.is_alive(session.objects(), index, claim) is expected
    assert not claims.is_alive(session.objects(), index, NameClaim("n", index.store_id, "x", None, None, None))
    gone = NameClaim("n", index.store_id, None, "x", "_pending/x.json", now)
    assert not claims.is_alive(session.objects(), index, gone)


def test_a_damaged_intent_is_reported(session):
    """An intent that cannot be read stops recovery with its name: nobody knows what it protects."""
    session._make_index()
    for body in (b"{}", json.dumps({"format": "mltraq_ds/intent", "version": 1}).encode()):
        session.storage.put("_pending/bad.json", [body], size=len(body), parents=True, replace=True)
        with pytest.raises(CorruptRecordError, match=r"_pending/bad\.json"):
            intents.list_intents(session.storage)


def generation(number=1, **changes):
    return Generation(**{"id_experiment": "e", "name": "n", "number": number, "writer": "mine", **changes})


def remote(session, plan):
    """Return a storage whose answers may be lost, as over a network."""

    class Remote(FaultStorage):
        @property
        def is_local(self):
            return False

    return Remote(session.storage, plan, verbs=["put"])


def test_a_lost_answer_is_asked_for_again(session, monkeypatch):
    """A commit whose response was lost is found to be ours by repeating it; silence leaves the outcome open."""
    monkeypatch.setattr(slots, "_FIRST_PAUSE_S", 0)
    session.storage.put("e/generations/x", [b""], size=0, parents=True)
    slots.create(remote(session, {1: LoseResponse()}), generation())
    assert generations.read(session.storage, "e", 1).writer == "mine"
    with pytest.raises(UnknownOutcomeError, match="not known whether generation 2"):
        slots.create(remote(session, lambda call: Fail(errno.ENETUNREACH)), generation(2))
    with pytest.raises(slots.SlotTaken) as caught:
        slots.create(session.storage, generation(1, writer="other"))
    assert caught.value.there.writer == "mine"
    with pytest.raises(KeyMissingError):
        slots.create(session.storage, generation(1, id_experiment="nowhere"))


def test_whether_it_may_be_committed(session):
    """Only certainty that nothing was committed allows undoing."""
    assert not slots.is_committed(session.storage, generation())
    assert slots.is_committed(remote(session, {}), generation())
    session.storage.put("e/generations/1.json", [b""], size=0, parents=True)
    assert slots.is_committed(session.storage, generation())
    with pytest.raises(slots.SlotTaken):
        slots.create(session.storage, generation())


def test_an_end_is_pinned(session):
    """Replacing ends only the version that was seen; somebody's later persist lives on, with a warning."""
    experiment = make(session).persist()
    seen = generations.current(session.storage, experiment.id_experiment)
    experiment.persist("update")
    replacer = generation(1, replaces=(Replaced(experiment.id_experiment, *seen.ident),))
    with pytest.warns(LeftoversWarning, match="Both are kept"):
        assert follow_up.end_replaced(session.storage, replacer) == []
    assert experiment.reload().generation == 2
    gone = generation(1, replaces=(Replaced("never-was", 1, "w"),))
    assert follow_up.end_replaced(session.storage, gone) == []


def test_an_end_whose_unfinished_file_was_taken(session, monkeypatch):
    """If somebody removes the file of an end before it has its name, the end is written again, not given up."""
    experiment = make(session).persist()
    real, failures = slots.create, [KeyMissingError("its temporary file is gone")]

    def create(storage, generation, verify=None):
        if failures:
            raise failures.pop()
        real(storage, generation, verify)

    monkeypatch.setattr(slots, "create", create)
    end = retire.end_experiment(session.storage, experiment.id_experiment, "w")
    assert (end.deleted, failures) == (True, [])
    assert generations.current(session.storage, experiment.id_experiment) == end


def test_a_version_that_was_replaced_before_it_was_tidied_up(session, recwarn):
    """A writer whose experiment is replaced as soon as the index knows it leaves nothing behind, and no warning."""
    experiment = make(session)
    persist = Persist(
        objects=session.objects(),
        index=session._make_index(),
        content=experiment.to_content(),
        on_seam=lambda name: make(session, more=2).persist("replace") if name == "retire" else None,
    )
    committed = persist.run().generation
    assert session.load_experiment("e").id_experiment != committed.id_experiment
    assert intents.list_intents(session.storage) == []
    assert list(recwarn) == []
    assert len(session.check()) == 0


def test_ends_are_final_and_repeatable(session, tmp_path):
    """Ending twice gives the same end; without folders to rename, files go by name and the end stays."""
    memory = create_session(url=f"sqlite:///{tmp_path}/m.db", store=open_storage("memory://ends"))
    experiment = make(memory).persist()
    end = retire.end_experiment(memory.storage, experiment.id_experiment, "w")
    assert retire.end_experiment(memory.storage, experiment.id_experiment, "other") == end
    assert set(end.retires) == {key for key in end.retires if memory.storage.exists(key)}
    retire.remove_files(memory.storage, end)
    retire.remove_files(memory.storage, end)
    left = sorted(stat.key.partition("/")[2] for stat in memory.storage.list(experiment.id_experiment))
    assert left == ["_meta.json", "generations/1.json", "generations/2.json"]
    assert retire.end_experiment(session.storage, "nowhere", "w") is None


def test_a_folder_that_lives_is_put_back(session, tmp_path):
    """If an experiment was made anew just before its folder was renamed away, nothing of it is removed."""
    experiment = make(session).persist()
    session.storage.move_folder(experiment.id_experiment, "_pending/deleted-x")
    recovery.recover(session.objects(), session._index)
    assert experiment.reload().runs.first().fields.ds.a == 1
    session.storage.put("_pending/deleted-y/junk", [b"x"], size=1, parents=True)
    recovery.recover(session.objects(), session._index)
    assert not (tmp_path / "store/_pending/deleted-y").exists()


def test_a_second_deleter_is_told(session, monkeypatch):
    """Of two deletions at once one succeeds, the other is told that it is gone."""
    experiment = make(session).persist()
    real = deletion.end_experiment

    def other_first(storage, id_experiment, writer, only=None):
        real(storage, id_experiment, "another-writer")
        return real(storage, id_experiment, writer)

    monkeypatch.setattr(deletion, "end_experiment", other_first)
    with pytest.raises(ExperimentNotFoundError, match="deleted by another process"):
        experiment.delete()
    assert intents.list_intents(session.storage) == []


def test_a_renewal_that_fails_is_tried_again(session, monkeypatch, caplog):
    """A storage that does not answer for a while is named in the log, and the intent is renewed when it does again."""
    monkeypatch.setattr("mltraq_ds.store.keeper.RENEW_S", 0.02)
    put, failures = session.storage.put, []

    def fail_twice(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread() and len(failures) < 2:
            failures.append(args)
            raise StorageError("It is raining.")
        return put(*args, **kwargs)

    with Keeper(session.storage, elsewhere()) as keeper:
        before = session.storage.stat(keeper.intent.key).modified
        monkeypatch.setattr(session.storage, "put", fail_twice)
        wait_for_renewal(session.storage, keeper.intent.key, before)
    told = [record.getMessage() for record in caplog.records if keeper.intent.key in record.getMessage()]
    assert len(told) == len(failures) == 2
    assert all("It is raining." in text for text in told)


def test_a_forked_child_is_another_process():
    """A child does not take its parent's name for its own."""
    read_end, write_end = os.pipe()
    own = intents._process(os.getpid())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child only writes and ends
        child = os.fork()
    if child == 0:
        os.write(write_end, intents._process(os.getpid()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with open(read_end, "rb") as told:
        assert told.read().decode().partition("/")[0] == str(child)
    assert intents._process(os.getpid()) == own != intents._process(os.getppid())


def test_no_thread_to_renew_with(session, monkeypatch, caplog):
    """Where no thread can be started, as when Python ends, what is short is persisted all the same."""

    def refuse(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    make(session).persist()
    assert session.load_experiment("e").runs.first().fields.ds.a == 1
    assert "is not renewed" in caplog.text
    assert not list(session.storage.list(layout.PENDING))


def test_an_interrupted_keeper_ends(session, monkeypatch):
    """An intent whose writer was interrupted while it began comes back never again."""
    monkeypatch.setattr("mltraq_ds.store.keeper.RENEW_S", 0.02)
    start = Keeper._start

    def interrupted(self):
        start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "_start", interrupted)
    intent = elsewhere()
    with pytest.raises(KeyboardInterrupt), Keeper(session.storage, intent):
        pytest.fail("entered")
    intents.remove_intent(session.storage, intent)
    time.sleep(0.1)
    assert not session.storage.exists(intent.key)
    assert intent.writer not in intents.at_work
