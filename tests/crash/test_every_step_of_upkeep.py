"""Every operation of sweep, rebuild, copy and of files beside the experiments fails once, in every way.

As in `test_every_step`: the n-th operation fails, for n = 1, 2, … until a run passes untouched.  Afterwards every
experiment is complete, `check` finds no dangling reference, sweep without grace removes what nothing refers to and
nothing else, and the next persist works.
"""

from __future__ import annotations

import itertools
import sqlite3
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent))

import children
from scene import ACTIONS, BYSTANDER, SUBJECT, Action, Scene, build, check_promise, fill, find, swept
from test_every_step import SOAK, as_of_an_ended_process, attempt

from mltraq_ds import DataStoreIO, options
from mltraq_ds.errors import MltraqDSError
from mltraq_ds.store import lease, survey
from mltraq_ds.testing import Callback, FaultStorage, Kill
from mltraq_ds.tracking import Session
from tests.faults import FAULTS

COPY = Action(lambda session: session.load_experiment(SUBJECT).copy_to(name="copy"), "copy", None, 1)


@dataclass(frozen=True)
class Chore:
    """Work on a store that leaves experiments as they are.

    Parameters
    ----------
    prepare : callable
        Makes a scene that needs it.
    run : callable
        Does it with a session.
    look : callable
        Fails if what is left after a failure is not whole.
    """

    prepare: Callable[[Scene], None]
    run: Callable[[Session], object]
    look: Callable[[Scene], None]


def litter(scene: Scene) -> None:
    """Leave behind what killed writers do, in every place; the user's files are no litter."""
    session = scene.session()
    fill(session.load_experiment(SUBJECT), 1).persist(if_exists="update")  # an old generation
    DataStoreIO.write(b"of the user", "self_managed/x", store=session)
    session.database.close()
    folders = {folder.current["name"]: scene.store / name for name, folder in scene.state().folders.items()}
    for folder in folders.values():
        (folder / uuid.uuid4().hex).write_bytes(b"an orphan")
        (folder / f".tmp-{uuid.uuid4().hex}").write_bytes(b"half")
    (folders[SUBJECT] / f"runs/{uuid.uuid4().hex}.jsonl").write_bytes(b"an orphan")
    (scene.store / "_pending/gone.fenced").touch()
    (scene.store / f"{uuid.uuid4()}/generations").mkdir(parents=True)
    connection = sqlite3.connect(scene.root / "index.db")
    with connection:
        connection.execute(
            "INSERT INTO mltraq_names (name_key, name, store_id, claim_intent, claimed_by)"
            " SELECT 'k', 'claimed', store_id, '_pending/gone.json', 'x' FROM mltraq_stores"
        )
    connection.close()


def lose_rows(scene: Scene) -> None:
    """Take the rows of one experiment away, and change those of the other."""
    connection = sqlite3.connect(scene.root / "index.db")
    connection.execute("PRAGMA foreign_keys = ON")
    with connection:
        connection.execute("DELETE FROM mltraq_experiments WHERE name = ?", [SUBJECT])
        connection.execute("UPDATE mltraq_experiments SET n_runs = 9")
    connection.close()


def look_at_rows(scene: Scene) -> None:
    """The rows are those before the rebuild or those after it, and no others."""
    connection = sqlite3.connect(scene.root / "index.db")
    found = set(connection.execute("SELECT name, n_runs FROM mltraq_experiments").fetchall())
    connection.close()
    assert found in ({(BYSTANDER, 9)}, {(BYSTANDER, 2), (SUBJECT, 2)})


CHORES = {
    "sweep": Chore(litter, lambda session: session.sweep(dry_run=False, grace_s=0), lambda scene: None),
    "rebuild": Chore(lose_rows, lambda session: session.rebuild_index(), look_at_rows),
}


def tree(scene: Scene) -> dict[str, bytes]:
    """Return every file of the store but leases, which end by themselves."""
    paths = (path for path in scene.store.rglob("*") if path.is_file() and path.suffix != ".lease")
    return {str(path.relative_to(scene.store)): path.read_bytes() for path in paths}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Let leases end at once and no moment be too short for sweep, and draw no bars."""
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    monkeypatch.setattr(survey, "_MOMENT_S", 0.0)  # half an intent that is younger might become one
    with options.ctx({"tqdm.disable": True}):
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return build(tmp_path_factory.mktemp("template") / "scene")


@pytest.fixture(scope="module", params=CHORES)
def prepared(request, template, tmp_path_factory):
    """Return a chore, a scene that needs it, and the files that are there when it was done."""
    chore, root = CHORES[request.param], tmp_path_factory.mktemp("prepared")
    scene = template.copy_to(root / "scene")
    chore.prepare(scene)
    with options.ctx({"tqdm.disable": True}):
        done = scene.copy_to(root / "done")
        chore.run(done.session())
        assert len(done.session().check(deep=True)) == 0
    return chore, scene, tree(done)


def look_after(scene: Scene, chore: Chore, done: dict[str, bytes]) -> None:
    """Look at what a chore that failed has left, have it done again, and look whether all is as it should be."""
    chore.look(scene)
    session = scene.session()
    assert find(session, BYSTANDER) == 1
    assert "dangling reference" not in session.check().kinds()
    chore.run(session)
    assert tree(scene) == done
    assert len(session.check(deep=True)) == 0
    assert find(session, SUBJECT) == 1
    fill(session.load_experiment(SUBJECT), 3).persist(if_exists="update")
    assert find(scene.session(), SUBJECT) == 3
    session.database.close()


def strike_each(make, act, fault, look, monkeypatch, step: int = 1) -> None:
    """Have every `step`-th operation of the storage fail until a run passes untouched."""
    for n in itertools.count(1, step):
        scene = make(n)
        storage = FaultStorage(scene.local(), {n: fault})
        error = attempt(act, scene.session(storage))
        as_of_an_ended_process(monkeypatch)
        try:
            assert error is None or storage.fired
            look(scene, error)
        except BaseException as failure:
            failure.add_note(f"operation {n}: {storage.fired}, the caller got {error!r}")
            raise
        if not storage.fired:
            break
    assert n > 5
    print(f"{(n - 1) // step} operations were struck")


def ways(usual: str) -> list:
    """Return all faults, those but the usual one for the soak."""
    return [name if name == usual else pytest.param(name, marks=SOAK) for name in FAULTS]


@pytest.mark.parametrize("fault", ways("fails"))
def test_the_nth_operation_of_a_chore(prepared, tmp_path, monkeypatch, fault):
    """Whichever operation fails, no experiment is touched, and doing it again does all of it and no more."""
    chore, scene, done = prepared
    strike_each(
        lambda n: scene.copy_to(tmp_path / f"{n}"),
        chore,
        FAULTS[fault],
        lambda found, error: look_after(found, chore, done),
        monkeypatch,
    )


@pytest.mark.parametrize("fault", ways("interrupted-after"))
def test_the_nth_operation_of_a_copy(template, tmp_path, monkeypatch, fault):
    """Whichever operation fails, the copy is complete or not there; what was written of it is removed by sweep."""

    def look(scene, error):
        found = check_promise(scene, COPY, goes_on=False)
        assert error is not None or found == COPY.after
        swept(scene)

    strike_each(lambda n: template.copy_to(tmp_path / f"{n}"), COPY, FAULTS[fault], look, monkeypatch)


@pytest.mark.parametrize(("fault", "step"), [("short-write", 3), *(pytest.param(way, 1, marks=SOAK) for way in FAULTS)])
@pytest.mark.parametrize("name", list(ACTIONS))
def test_what_a_failed_write_leaves_is_swept(template, tmp_path, monkeypatch, name, fault, step):
    """After any failure of a persist or delete, sweep without grace removes every orphan and nothing else."""
    action = ACTIONS[name]

    def look(scene, error):
        check_promise(scene, action, goes_on=False)
        swept(scene)

    strike_each(lambda n: template.copy_to(tmp_path / f"{n}"), action, FAULTS[fault], look, monkeypatch, step)


def act_and_die(root: Path, name: str, n: int, when: str) -> None:
    """Do it in this process, which dies at the n-th operation or statement, or says that there was none."""
    options.set("tqdm.disable", True)
    lease.LEASE_S = 0.0
    act = {**CHORES, "copy": COPY, "write": WRITE, "remove": REMOVE}[name]
    if when in children.STATEMENTS:
        children.die_at_statement(n, when)
        act.run(Scene(root).session())
        print("untouched")
        return
    storage = FaultStorage(Scene(root).local(), {n: Kill(when)})
    act.run(Scene(root).session(storage))
    print("struck, and lived" if storage.fired else "untouched")


def kill_each(make, tmp_path, name, when, step, look) -> None:
    for n in itertools.count(1 + len(name) % step, step):
        scene = make(n)
        child = children.run(tmp_path, act_and_die, scene.root, name, n, when)
        is_over = "untouched" in child.said()
        assert is_over or child.wait() == children.KILLED or "lived" in child.said(), child.said()
        try:
            look(scene)
        except BaseException as failure:
            failure.add_note(f"{name} killed {when} operation {n}; the child said {child.said()}")
            raise
        if is_over:
            print(f"{(n - 1) // step} kills")
            break


KILLS = [
    *(("during", 6), ("before_cursor_execute", 8)),
    *(pytest.param(when, 1, marks=SOAK) for when in ("before", "during", "after", *children.STATEMENTS)),
]


@pytest.mark.parametrize(("when", "step"), KILLS)
def test_a_chore_killed_at_the_nth_operation(prepared, tmp_path, when, step):
    """SIGKILL at any operation or SQL statement: no experiment is touched, and doing it again does all of it."""
    chore, scene, done = prepared
    (name,) = (name for name, one in CHORES.items() if one is chore)
    kill_each(
        lambda n: scene.copy_to(tmp_path / f"{n}"),
        tmp_path,
        name,
        when,
        step,
        lambda found: look_after(found, chore, done),
    )


@pytest.mark.parametrize(("when", "step"), [("during", 4), *KILLS[1:]])
def test_a_copy_killed_at_the_nth_operation(template, tmp_path, when, step):
    """SIGKILL at any operation or statement of a copy: it is complete or not there, and sweep leaves nothing of it."""

    def look(scene):
        check_promise(scene, COPY, goes_on=False)
        swept(scene)

    kill_each(lambda n: template.copy_to(tmp_path / f"{n}"), tmp_path, "copy", when, step, look)


@pytest.mark.parametrize("event", ["before_cursor_execute", pytest.param("after_cursor_execute", marks=SOAK)])
@pytest.mark.parametrize("name", [*CHORES, "copy"])
def test_the_nth_statement_of_a_chore(template, tmp_path, monkeypatch, name, event):
    """Whichever SQL statement fails, before or after it was carried out, doing it again does all of it."""
    chore = CHORES.get(name)
    if chore:
        chore.prepare(template := template.copy_to(tmp_path / "prepared"))
        chore.run((done := template.copy_to(tmp_path / "done")).session())
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        met: list[str] = []
        session = scene.session()

        def fail(connection, cursor, statement, *_, n=n, met=met):
            met.append(statement)
            if len(met) == n:
                raise sa.exc.OperationalError(statement, {}, sqlite3.OperationalError("disk I/O error"))

        sa.event.listen(sa.engine.Engine, event, fail)
        try:
            with suppress(sa.exc.OperationalError):
                attempt(chore or COPY, session)
        finally:
            sa.event.remove(sa.engine.Engine, event, fail)
        session.database.close()
        as_of_an_ended_process(monkeypatch)
        try:
            if chore:
                look_after(scene, chore, tree(done))
            else:
                check_promise(scene, COPY, goes_on=False)
                swept(scene)
        except BaseException as failure:
            failure.add_note(f"{name}, statement {n}: {met[n - 1 :][:1]}")
            raise
        if len(met) < n:
            break
    assert n > 5


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=SOAK)])
@pytest.mark.parametrize("name", [*CHORES, "copy"])
def test_somebody_persists_at_the_nth_operation(template, tmp_path, name, step):
    """Whatever is delayed while somebody else persists, what was persisted stands and nothing is mixed."""
    chore = CHORES.get(name)
    if chore:
        chore.prepare(template := template.copy_to(tmp_path / "prepared"))
    for n in itertools.count(1, step):
        scene = template.copy_to(tmp_path / f"{n}")
        other = scene.session()
        loaded = other.load_experiment(id_experiment=_id_of(scene, SUBJECT))
        storage = FaultStorage(
            scene.local(), {n: Callback(lambda call, loaded=loaded: fill(loaded, 2).persist(if_exists="update"))}
        )
        error = attempt(chore or COPY, scene.session(storage))
        try:
            assert chore is None or error is None
            if chore:
                chore.run(scene.session())
            session = scene.session()
            assert find(session, SUBJECT) == (2 if storage.fired else 1)
            assert find(session, BYSTANDER) == 1
            copied = find(session, "copy")
            assert copied in ((1, 2) if name == "copy" and error is None else (None,))
            swept(scene)
        except BaseException as failure:
            failure.add_note(f"{name}, somebody persisted at operation {n}: {storage.fired}, the caller got {error!r}")
            raise
        if not storage.fired:
            break


def _id_of(scene: Scene, name: str) -> str:
    return next(f.id_experiment for f in scene.state().folders.values() if f.current and f.current["name"] == name)


def _write(session: Session) -> None:
    DataStoreIO.write(b"of the user" * 1000, "self_managed/x", store=session)
    DataStoreIO.serialize_write(list(range(5000)), "self_managed/x", store=session)


WRITE = Chore(lambda scene: None, _write, lambda scene: None)
REMOVE = Chore(
    lambda scene: _write(scene.session()),
    lambda session: DataStoreIO.delete("self_managed/x", store=session),
    lambda scene: None,
)


def look_at_own(scene: Scene, most: int) -> None:
    """What is there of the user's is whole; what is not are temporary files, which sweep removes."""
    session = scene.session()
    left = DataStoreIO.list("self_managed", store=session)
    assert len(left) <= most
    for found in left:
        if found.read()[:2] == b"of":
            assert found.read() == b"of the user" * 1000
        else:
            assert found.read_deserialize() == list(range(5000))
    swept(scene)
    assert DataStoreIO.list("self_managed", store=session) == left
    DataStoreIO.delete("self_managed/x", store=session)
    assert DataStoreIO.list("self_managed", store=session) == []
    _write(session)
    assert len(DataStoreIO.list("self_managed", store=session)) == 2
    assert find(session, SUBJECT) == 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("chore", [WRITE, REMOVE], ids=["write", "remove"])
def test_the_nth_operation_beside_the_experiments(template, tmp_path, fault, chore):
    """A file of the user's own is whole or not there, sweep spares it, and experiments are not touched."""
    chore.prepare(template := template.copy_to(tmp_path / "prepared"))
    for n in itertools.count(1):
        scene = template.copy_to(tmp_path / f"{n}")
        storage = FaultStorage(scene.local(), {n: FAULTS[fault]})
        with suppress(MltraqDSError, KeyboardInterrupt):
            chore.run(scene.session(storage))
        look_at_own(scene, 2)
        if not storage.fired:
            break


@pytest.mark.parametrize("name", ["write", "remove"])
@pytest.mark.parametrize(
    ("when", "step"), [("during", 1), *(pytest.param(w, 1, marks=SOAK) for w in ("before", "after"))]
)
def test_killed_beside_the_experiments(template, tmp_path, name, when, step):
    """SIGKILL at any operation on a file of the user's own leaves it whole or not there."""
    chore = {"write": WRITE, "remove": REMOVE}[name]
    chore.prepare(template := template.copy_to(tmp_path / "prepared"))
    kill_each(
        lambda n: template.copy_to(tmp_path / f"{n}"), tmp_path, name, when, step, lambda scene: look_at_own(scene, 2)
    )
