"""Every single operation of the storage and every SQL statement fails once, in every way, for every kind of write.

The n-th operation fails, for n = 1, 2, … until a run passes untouched.  What is left is looked at as the next process
would, so the writer's process counts as ended.
"""

from __future__ import annotations

import functools
import itertools
import os
import sqlite3
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent))

import children
from scene import ACTIONS, BYSTANDER, Scene, build, check_promise, fill, find, go_on, same, swept

from mltraq_ds import DataStoreIO
from mltraq_ds.errors import LeftoversWarning, MltraqDSError, MltraqDSWarning
from mltraq_ds.store import intents, survey
from mltraq_ds.testing import Call, Fail, FaultStorage, Kill
from tests.faults import FAULTS, Interrupt

NAMES = list(ACTIONS)
#: Kinds of failure that take another way through the code; the others run in the soak.
SOAK = pytest.mark.soak


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return build(tmp_path_factory.mktemp("template") / "scene")


def attempt(action, session) -> BaseException | None:
    """Do it; return the error. Only typed ones, an interrupt or nothing may come out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MltraqDSWarning)
        try:
            action.run(session)
        except (MltraqDSError, KeyboardInterrupt) as error:
            return error
    return None


def as_of_an_ended_process(monkeypatch) -> None:
    """Let the next session find the writer's process ended, without ending this one."""
    stamp = f"{os.getpid()}/ended-{next(_ends)}"
    monkeypatch.setattr(intents, "_process", lambda pid: stamp if pid == os.getpid() else str(pid))


_ends = itertools.count()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_nth_operation_of_the_storage(template, tmp_path, monkeypatch, name, fault):
    """Whichever operation fails, the old or the new version is complete, errors are typed, and work goes on."""
    action = ACTIONS[name]
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        storage = FaultStorage(scene.local(), {n: FAULTS[fault]})
        error = attempt(action, scene.session(storage))
        as_of_an_ended_process(monkeypatch)
        try:
            found = check_promise(scene, action, goes_on=n % 3 == 0)
        except BaseException as failure:
            failure.add_note(f"{name} {fault}, operation {n}: {storage.fired}, the writer got {error!r}")
            raise
        if error is None:
            assert found == action.after, storage.fired
        if not storage.fired:
            assert error is None
            break
    assert n > 15


@pytest.mark.parametrize(
    "fault",
    [name if name in ("loses-response", "interrupted-after") else pytest.param(name, marks=SOAK) for name in FAULTS],
)
@pytest.mark.parametrize("name", NAMES)
def test_the_nth_operation_and_the_same_process_goes_on(template, tmp_path, name, fault):
    """After a failed operation the same session can persist under the name at once: nothing waits for itself."""
    action = ACTIONS[name]
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        storage = FaultStorage(scene.local(), {n: FAULTS[fault]})
        session = scene.session(storage)
        error = attempt(action, session)
        storage.plan = {}
        try:
            fill(session.create_experiment(action.name), 5).persist(if_exists="replace")
            assert find(scene.session(), action.name) == 5
            state = scene.state()
            assert state.rows == state.live
        except BaseException as failure:
            failure.add_note(f"{name} {fault}, operation {n}: {storage.fired}, the writer got {error!r}")
            raise
        if not storage.fired:
            break


@pytest.mark.parametrize("name", NAMES)
def test_an_outage_that_begins_at_the_nth_operation(template, tmp_path, name):
    """A storage that stops answering for good, also for the clean-up, and comes back later has lost nothing."""
    action = ACTIONS[name]
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        outage = [True]
        storage = FaultStorage(
            scene.local(), lambda call, n=n, outage=outage: Fail() if outage[0] and call.number >= n else None
        )
        session = scene.session(storage)
        error = attempt(action, session)
        outage[0] = False
        try:
            fill(session.create_experiment(action.name), 5).persist(if_exists="replace")
            assert find(scene.session(), action.name) == 5
            check_promise(scene, action.__class__(action.run, action.name, 5, 5), goes_on=False)
        except BaseException as failure:
            failure.add_note(f"{name}, outage from operation {n}, the writer got {error!r}")
            raise
        if not storage.fired:
            break


def act_and_die(root: Path, name: str, n: int, when: str) -> None:
    """Do it in this process, which dies at the n-th operation, or says that there was none."""
    scene = Scene(root)
    storage = FaultStorage(scene.local(), {n: Kill(when)})
    ACTIONS[name].run(scene.session(storage))
    print("struck, and lived" if storage.fired else "untouched")


def kill_each(template, tmp_path, monkeypatch, name, step, strike) -> int:
    """Have a child die at every `step`-th moment until one is not struck; look, sweep and go on; return its number."""
    monkeypatch.setattr(survey, "_MOMENT_S", 0.0)  # half an intent that is younger might become one
    action = ACTIONS[name]
    for n in itertools.count(1 + len(name) % step, step):
        scene = template.copy_to(tmp_path / f"{n}")
        child = children.run(tmp_path, strike, scene.root, name, n)
        try:
            found = check_promise(scene, action, goes_on=False)
            swept(scene)
            if n % 3 == 0:
                go_on(scene, action, found)
        except BaseException as failure:
            failure.add_note(f"{name} killed at {n}; the child said {child.said()}")
            raise
        if "untouched" in child.said():
            assert found == action.after
            break
        # An operation that fails by itself (no such key) is not done, so nobody dies after it.
        assert child.wait() == children.KILLED or "lived" in child.said(), child.said()
    print(f"{name}: {(n - 1) // step} kills")
    return n


@pytest.mark.parametrize(
    ("when", "step"),
    [("during", 2), *(pytest.param(when, 1, marks=SOAK) for when in ("before", "during", "after"))],
)
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_the_nth_operation(template, tmp_path, monkeypatch, name, when, step):
    """SIGKILL at any operation leaves the old or new version; sweep removes every orphan of it, and work goes on."""
    assert kill_each(template, tmp_path, monkeypatch, name, step, functools.partial(act_and_die, when=when)) > 15


def act_and_die_in_sql(root: Path, name: str, n: int, event: str) -> None:
    """Do it in this process, which dies at the n-th SQL statement, or says that there was none."""
    children.die_at_statement(n, event)
    ACTIONS[name].run(Scene(root).session())
    print("untouched")


@pytest.mark.parametrize(
    ("event", "step"),
    [("before_cursor_execute", 5), *(pytest.param(event, 1, marks=SOAK) for event in children.STATEMENTS)],
)
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_the_nth_statement(template, tmp_path, monkeypatch, name, event, step):
    """SIGKILL before or after any SQL statement, or before a commit, is no worse than one at the storage."""
    strike = functools.partial(act_and_die_in_sql, event=event)
    assert kill_each(template, tmp_path, monkeypatch, name, step, strike) > (1 if event == "commit" else 5)


@pytest.mark.parametrize("name", NAMES)
def test_the_nth_statement(template, tmp_path, monkeypatch, name):
    """Whichever SQL statement fails, the old or the new version is complete and the next session catches up."""
    _fail_statements(template, tmp_path, monkeypatch, ACTIONS[name], "before_cursor_execute")


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_to_the_nth_statement_is_lost(template, tmp_path, monkeypatch, name):
    """A statement that was carried out and whose answer is lost does no harm either."""
    _fail_statements(template, tmp_path, monkeypatch, ACTIONS[name], "after_cursor_execute")


def _fail_statements(template, tmp_path, monkeypatch, action, event):
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        session = scene.session()
        met = []

        def strike(connection, cursor, statement, *_, n=n, met=met):
            met.append(statement)
            if len(met) == n:
                raise sa.exc.OperationalError(statement, {}, sqlite3.OperationalError("disk I/O error"))

        sa.event.listen(sa.engine.Engine, event, strike)
        try:
            error = attempt(action, session)
        finally:
            sa.event.remove(sa.engine.Engine, event, strike)
        session.database.close()
        as_of_an_ended_process(monkeypatch)
        try:
            found = check_promise(scene, action)
        except BaseException as failure:
            failure.add_note(f"statement {n}: {met[-1]!r}, the writer got {error!r}")
            raise
        if error is None:
            assert found == action.after
        if len(met) < n:
            break
    assert n > 5


@pytest.mark.parametrize("fault", [*FAULTS, "killed"])
def test_the_nth_operation_of_a_first_persist_in_a_new_store(tmp_path, monkeypatch, fault):
    """Whatever fails while a store is made, the next session can persist, list and load."""
    for n in itertools.count(1, 2 if fault == "killed" else 1):
        scene = Scene(tmp_path / f"{n}")
        scene.root.mkdir()
        if fault == "killed":
            child = children.run(tmp_path, act_and_die, scene.root, "new", n, "after")
            is_over, error = "untouched" in child.said(), child.said()
        else:
            storage = FaultStorage(scene.local(), {n: FAULTS[fault]})
            error = attempt(ACTIONS["new"], scene.session(storage))
            is_over = not storage.fired
            as_of_an_ended_process(monkeypatch)
        try:
            session = scene.session()
            fill(session.create_experiment(BYSTANDER), 1).persist()
            assert BYSTANDER in set(session.ls().name)
            check_promise(scene, ACTIONS["new"])
        except BaseException as failure:
            failure.add_note(f"{fault} at operation {n}, the writer got {error!r}")
            raise
        if is_over:
            break


def put_value(session) -> DataStoreIO:
    return DataStoreIO.serialize_write(np.arange(4096.0), "self_managed/x", store=session)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_nth_operation_of_a_write_beside_the_experiments(template, tmp_path, fault):
    """A `DataStoreIO` write that fails leaves a whole file or none, and touches nothing else."""
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        storage = FaultStorage(scene.local(), {n: FAULTS[fault]})
        with suppress(MltraqDSError, KeyboardInterrupt):
            put_value(scene.session(storage))
        left = DataStoreIO.list("self_managed", store=scene.session())
        assert len(left) <= 1
        for found in left:
            same(found.read_deserialize(np.ndarray), np.arange(4096.0))
        same(put_value(scene.session()).read_deserialize(np.ndarray), np.arange(4096.0))
        check_promise(scene, ACTIONS["update"], must_be=1)
        if not storage.fired:
            assert len(left) == 1
            break


@pytest.mark.parametrize(
    ("name", "verb"), [("update", "delete"), ("replace", "delete"), ("new", "delete"), ("delete", "delete")]
)
def test_a_failure_after_the_commit_is_a_warning(template, tmp_path, name, verb):
    """What cannot be tidied up after the commit is told by a warning: the persist has happened, and is no error."""
    action = ACTIONS[name]
    scene = template.copy_to(tmp_path / "scene")
    strike = FaultStorage(
        scene.local(), lambda call: Fail() if call.verb == verb and call.key.startswith("_pending/") else None
    )
    with pytest.warns(LeftoversWarning):
        action.run(scene.session(strike))
    assert strike.fired
    check_promise(scene, action, must_be=action.after)


def test_an_interrupted_persist_can_be_repeated_by_its_owner(template, tmp_path):
    """After Ctrl-C at any operation `reload`, change and persist again works in the same session."""
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        storage = FaultStorage(scene.local(), {n: Interrupt(is_late=True)})
        session = scene.session(storage)
        error = attempt(ACTIONS["update"], session)
        storage.plan = {}
        try:
            experiment = fill(session.load_experiment(id_experiment=_subject(scene)), 6)
            experiment.persist(if_exists="update")
            assert find(scene.session(), "subject") == 6
        except BaseException as failure:
            failure.add_note(f"interrupted after operation {n}: {storage.fired}, the writer got {error!r}")
            raise
        if not storage.fired:
            break


def _subject(scene: Scene) -> str:
    return next(f.id_experiment for f in scene.state().folders.values() if f.current and f.current["name"] == "subject")


def test_the_log_is_what_is_documented(template, tmp_path):
    """A persist of one experiment does each kind of operation that the loops above are meant to strike."""
    scene = template.copy_to(tmp_path / "scene")
    storage = FaultStorage(scene.local())
    ACTIONS["replace"].run(scene.session(storage))
    ACTIONS["update"].run(scene.session(storage))
    ACTIONS["delete"].run(scene.session(storage))
    verbs = {call.verb for call in storage.log}
    assert {"put", "read", "list", "exists", "flush", "make_folder", "move_folder", "delete", "delete_many"} <= verbs
    assert isinstance(storage.log[0], Call)
