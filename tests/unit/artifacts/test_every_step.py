"""Every single operation of the storage and every SQL statement fails once, in every way, while an artifact is saved or
deleted.  What is left is looked at as the next process would, so the writer's process counts as ended.
"""

import errno
import itertools
import os
import shutil
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import sqlalchemy as sa

from mltraq_ds import DataStore, artifact_store, create_session, delete, get, options, save
from mltraq_ds.artifacts import registry
from mltraq_ds.errors import ArtifactNotFoundError, MltraqDSError, MltraqDSWarning, UnknownOutcomeError
from mltraq_ds.storage import LocalStorage
from mltraq_ds.store import intents, slots
from mltraq_ds.testing import Fail, Fault, FaultStorage, Kill
from tests.faults import FAULTS

NAME = "subject"
#: What takes the same way through the code as others; it runs in the soak.
SOAK = pytest.mark.soak


def value(number):
    """Return what version `number` holds: a blob of its own for what is inside, and one around it."""
    return DataStore(weights=np.full(3000, number), inner=DataStore(number=number))


def number_of(artifact):
    """Return which version a value wholly is."""
    found = artifact.get_value()
    number = found.inner.number
    assert found.weights.tobytes() == np.full(3000, number).tobytes()
    return number


def save_first():
    save(value(1), NAME)


def save_next():
    save(value(3), NAME)


def delete_latest():
    delete(NAME, "latest")


#: What is done to which versions, and which there may be afterwards.
ACTIONS = {
    "first": (save_first, [], [1]),
    "next": (save_next, [1, 2], [1, 2, 3]),
    "delete": (delete_latest, [1, 2], [1]),
}


class Scene:
    """A store and a database in a folder that is copied for each attempt."""

    def __init__(self, root, monkeypatch):
        self.root, self.monkeypatch = root, monkeypatch

    def enter(self, storage=None):
        """Be the process whose default session has this store, behind `storage`."""
        with options.ctx({"datastore.durability": "relaxed", "tqdm.disable": True}):
            session = create_session(f"sqlite:///{self.root}/index.db", storage or self.root / "store")
        self.monkeypatch.setattr(registry, "default_session", lambda: session)
        return session

    def local(self):
        return LocalStorage(self.root / "store", durability="relaxed")

    def copy(self, root):
        shutil.copytree(self.root, root)
        copy = Scene(root, self.monkeypatch)
        session = copy.enter()
        with session.database.write() as connection:  # for the library it has always been here
            connection.exec_driver_sql("UPDATE mltraq_stores SET url = ?", ((root / "store").as_uri(),))
        session.close()
        return copy


def build(tmp_path, monkeypatch, name):
    scene = Scene(tmp_path / "template", monkeypatch)
    (scene.root / "store").mkdir(parents=True)
    session = scene.enter()
    session.create_experiment("bystander").persist()
    save(value(7), "bystander")
    for number in ACTIONS[name][1]:
        save(value(number), NAME)
    session.close()
    return scene


def attempt(action):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MltraqDSWarning)
        try:
            action()
        except (MltraqDSError, KeyboardInterrupt, sa.exc.SQLAlchemyError) as error:
            return error
    return None


_ends = itertools.count()


@pytest.fixture(autouse=True)
def _no_bars():
    options.set("tqdm.disable", True)


def as_of_an_ended_process(monkeypatch):
    """Let the next session find the writer's process ended, without ending this one."""
    stamp = f"{os.getpid()}/ended-{next(_ends)}"
    monkeypatch.setattr(intents, "_process", lambda pid: stamp if pid == os.getpid() else str(pid))


def check_promise(scene, before, after, *, goes_on):
    """Look as the next process: old or new, whole, in files and rows; garbage is found; work goes on."""
    session = scene.enter()
    try:
        latest = number_of(get(NAME))
    except ArtifactNotFoundError:
        latest = None
    there = [one.version for one in artifact_store() if one.name == NAME]
    assert there in (before, after)
    assert latest == (there[-1] if there else None)
    assert [number_of(get(NAME, number)) for number in there] == there
    assert number_of(get("bystander")) == 7
    assert list((scene.root / "store" / "_pending").glob("*.json")) == []
    if goes_on:
        go_on(session, before, there)
    session.close()
    return there


def go_on(session, before, there):
    """Garbage is found and removed, a new version gets a new number, and a rebuild finds the same."""
    left = session.check(deep=True).kinds()
    assert set(left) <= {"orphan", "unfinished write"}
    session.sweep(dry_run=False, grace_s=0)
    assert session.check(deep=True).kinds() == {}
    used = max([*before, *there], default=0)  # a deleted one too
    again = save(value(9), NAME)
    assert again.version > used
    assert number_of(get(NAME)) == 9
    session.rebuild_index()
    assert [one.version for one in artifact_store() if one.name == NAME] == [*there, again.version]


@pytest.mark.parametrize(
    "fault",
    [name if name in ("loses-response", "interrupted-after") else pytest.param(name, marks=SOAK) for name in FAULTS],
)
@pytest.mark.parametrize("name", ACTIONS)
def test_the_nth_operation_of_the_storage(tmp_path, monkeypatch, name, fault):
    """Whichever operation fails, every version is whole or not there, errors are typed, and work goes on."""
    action, before, after = ACTIONS[name]
    template = build(tmp_path, monkeypatch, name)
    for n in itertools.count(1):
        scene = template.copy(tmp_path / f"{n}")
        storage = FaultStorage(scene.local(), {n: FAULTS[fault]})
        session = scene.enter(storage)
        error = attempt(action)
        session.close()
        with monkeypatch.context() as patch:
            as_of_an_ended_process(patch)
            try:
                found = check_promise(scene, before, after, goes_on=n % 3 == 0)
                assert error is not None or found == after
            except BaseException as failure:
                failure.add_note(f"{name} {fault}, operation {n}: {storage.fired}, the writer got {error!r}")
                raise
        if not storage.fired:
            assert error is None
            break
    assert n > 8


@pytest.mark.parametrize("when", ["during", pytest.param("before", marks=SOAK), pytest.param("after", marks=SOAK)])
@pytest.mark.parametrize("name", ACTIONS)
def test_killed_at_the_nth_operation(tmp_path, monkeypatch, name, when):
    """A process that is killed at any operation leaves every version whole or not there."""
    action, before, after = ACTIONS[name]
    template = build(tmp_path, monkeypatch, name)
    for n in itertools.count(1):
        scene = template.copy(tmp_path / f"{n}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: ours hold nothing
            pid = os.fork()
        if pid == 0:
            try:
                storage = FaultStorage(scene.local(), {n: Kill(when)})
                scene.enter(storage)
                action()
                os._exit(2 if storage.fired else 0)  # the operation failed by itself before the kill
            except BaseException:  # noqa: BLE001 - a child must not come back into the tests
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        is_over = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        assert is_over or os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 2
        try:
            found = check_promise(scene, before, after, goes_on=n % 3 == 0)
        except BaseException as failure:
            failure.add_note(f"{name}, killed {when} operation {n}")
            raise
        if is_over:
            assert found == after
            break
    assert n > 8


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["next", "delete"])
def test_the_nth_statement_of_the_database(tmp_path, monkeypatch, name, when):
    """Whichever statement or commit of the database fails, files and rows agree when the next session is opened."""
    action, before, after = ACTIONS[name]
    template = build(tmp_path, monkeypatch, name)
    for n in itertools.count(1):
        scene = template.copy(tmp_path / f"{n}")
        session = scene.enter()
        session.database.ping()
        counter = itertools.count(1)
        fired = []

        def strike(*_, n=n, counter=counter, fired=fired):
            if next(counter) == n:
                fired.append(n)
                raise sa.exc.OperationalError("struck", None, Exception("disk I/O error"))

        engine = session.database._opened.reader
        for event in ("before_cursor_execute",) if when == "before" else ("after_cursor_execute", "commit"):
            sa.event.listen(engine, event, strike)
        error = attempt(action)
        session.close()
        with monkeypatch.context() as patch:
            as_of_an_ended_process(patch)
            found = check_promise(scene, before, after, goes_on=n % 3 == 0)
        if not fired:
            assert error is None
            assert found == after
            break
    assert n > 3


def test_a_writer_taken_for_dead_gives_up(tmp_path, monkeypatch):
    """A writer that slept until others gave it up commits nothing, before its commit and after."""
    template = build(tmp_path, monkeypatch, "next")
    for when in ("before", "after"):
        scene = template.copy(tmp_path / when)

        def strike(call, when=when, scene=scene):
            is_commit = call.verb == "put" and "/versions/" in call.key
            return GivenUp(when, scene.local()) if is_commit else None

        scene.enter(FaultStorage(scene.local(), strike))
        error = attempt(save_next)
        assert "taken for dead" in str(error)
        scene.enter()
        assert [one.version for one in artifact_store() if one.name == NAME] == [1, 2]
        assert scene.enter().check(deep=True).kinds().keys() <= {"orphan"}
        assert save(value(9), NAME).version == (3 if when == "before" else 4)


@dataclass(frozen=True)
class GivenUp(Fault):
    """Somebody else takes the writer for dead, just before or after its commit."""

    when: str
    local: LocalStorage

    def before(self, call, storage):
        if self.when == "before":
            self._give_up()

    def after(self, call, storage):
        if self.when == "after":
            self._give_up()

    def _give_up(self):
        for intent in intents.list_intents(self.local):
            self.local.delete(intent.key)


def test_a_delete_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """Killed after its tombstone a delete is finished by the next session: no byte of the value is left."""
    scene = build(tmp_path, monkeypatch, "delete")

    def strike(call):
        return Fail(errno.EIO) if call.verb == "delete_many" else None

    scene.enter(FaultStorage(scene.local(), strike))
    attempt(delete_latest)
    folder = scene.root / "store" / "artifacts" / NAME
    assert len([path for path in folder.iterdir() if len(path.name) == 32]) == 4
    as_of_an_ended_process(monkeypatch)
    session = scene.enter()
    session.ls()
    assert len([path for path in folder.iterdir() if len(path.name) == 32]) == 2
    assert len(session.check(deep=True)) == 0


class Remote(FaultStorage):
    """A storage whose answers may be lost while the request is on its way."""

    @property
    def is_local(self):
        return False


def _is_commit(call):
    return call.verb == "put" and "/versions/" in call.key


@pytest.mark.parametrize("n_lost", [1, 3, 4])
@pytest.mark.parametrize("fault", ["fails", "loses-response"])
def test_an_answer_that_was_lost_is_asked_for_again(tmp_path, monkeypatch, fault, n_lost):
    """A commit whose answer is lost is repeated until it is known; if it never is, nothing is undone or lost."""
    template = build(tmp_path, monkeypatch, "next")
    monkeypatch.setattr(slots.time, "sleep", lambda s: None)
    lost = itertools.count(1)
    plan = lambda call: FAULTS[fault] if _is_commit(call) and next(lost) <= n_lost else None  # noqa: E731
    session = template.enter(Remote(template.local(), plan))
    error = attempt(save_next)
    session.close()
    is_unknown = n_lost == 4 and fault == "fails"
    assert isinstance(error, UnknownOutcomeError) == is_unknown
    with monkeypatch.context() as patch:
        as_of_an_ended_process(patch)
        there = check_promise(template, [1, 2], [1, 2, 3], goes_on=True)
    assert there == ([1, 2] if is_unknown else [1, 2, 3])


def test_in_memory(tmp_path, monkeypatch):
    """Where there are no folders versions are saved, listed and deleted in the same way."""
    with options.ctx({"tqdm.disable": True}):
        session = create_session(f"sqlite:///{tmp_path}/index.db", f"memory://{tmp_path.name}")
    monkeypatch.setattr(registry, "default_session", lambda: session)
    assert [save(value(number), NAME).version for number in (1, 2)] == [1, 2]
    delete(NAME, 2)
    assert number_of(get(NAME)) == 1
    assert save(value(3), NAME).version == 3
    assert session.check(deep=True).kinds() == {}
    assert len(session.sweep(dry_run=False, grace_s=0)) == 0
    session.close()
