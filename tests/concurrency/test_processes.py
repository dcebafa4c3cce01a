"""Many processes and threads at one database file and one store, without a schedule: whatever the machine does."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

import children
from scene import BYSTANDER, SUBJECT, Scene, build, fill, find, version_of

from mltraq_ds import DataStore, options
from mltraq_ds.errors import (
    ConcurrentPersistError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    StaleReferenceError,
)
from mltraq_ds.tracking import Session

LOST_RACES = (ConcurrentPersistError, ExperimentExistsError)


FULL = pytest.param(50, marks=pytest.mark.soak)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def scene(request, tmp_path):
    """Return an empty store with its rows in one SQLite file, or on a PostgreSQL server."""
    root = tmp_path / "scene"
    root.mkdir()
    return Scene(root) if request.param == "sqlite" else Scene(root, request.getfixturevalue("postgresql_url"))


def show(kids) -> str:
    return "\n".join(f"--- {child.output.name}: {child.process.exitcode}\n{child.said()}" for child in kids)


def finish(kids, timeout_s: float = 240) -> None:
    """Wait for all; show what all of them printed if one failed."""
    codes = []
    for child in kids:
        try:
            codes.append(child.wait(timeout_s))
        except AssertionError:
            codes.append(-1)
    assert codes == [0] * len(kids), show(kids)


def persist_many(scene: Scene, who: int, count: int) -> None:
    work(scene.session(), who, count)


def work(session: Session, who: int, count: int) -> None:
    """Persist and update experiments, and delete every fifth."""
    for number in range(count):
        experiment = fill(session.create_experiment(f"{who}-{number}"), 1)
        experiment.persist()
        fill(experiment, 2).persist(if_exists="update")
        if number % 5 == 4:
            experiment.delete()


def check_many(scene: Scene, writers: int, count: int) -> None:
    session = scene.session()
    wanted = {f"{who}-{number}" for who in range(writers) for number in range(count) if number % 5 != 4}
    assert set(session.ls().name) == wanted
    assert all(find(session, name) == 2 for name in wanted)
    state = scene.state()
    assert state.leftovers == set()
    assert state.rows == state.live
    assert {name: claim for name, (_, claim) in state.names.items()} == dict.fromkeys(wanted)
    session.database.close()


@pytest.mark.parametrize("count", [10, FULL])
def test_eight_processes_and_one_database(scene, tmp_path, count):
    """Eight processes that begin with nothing persist, update and delete in one database without an error."""
    kids = [children.start(tmp_path / "said", persist_many, scene, who, count) for who in range(8)]
    finish(kids)
    check_many(scene, 8, count)


@pytest.mark.parametrize("count", [3, FULL])
@pytest.mark.parametrize("is_shared", [True, False], ids=["one-session", "own-sessions"])
def test_sixteen_threads(scene, count, is_shared):
    """Sixteen threads do the same, with one session for all or one for each."""
    shared = scene.session()
    errors = []

    def body(who):
        session = shared if is_shared else scene.session()
        try:
            work(session, who, count)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=body, args=(who,)) for who in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    check_many(scene, 16, count)


def until(scene: Scene, wanted: str, turn: Callable[[int], object], allowed: tuple[type[Exception], ...] = ()) -> None:
    """Take turns until time is up, and on until one has succeeded; what is not allowed to be raised ends it."""
    warnings.simplefilter("error")  # also LeftoversWarning: nothing here is left for others to do
    told: Counter[str] = Counter()
    children.tell("ready")
    while not (scene.root / "deadline").exists():
        time.sleep(0.01)
    deadline = float((scene.root / "deadline").read_text())
    for number in itertools.count():
        if time.time() > deadline and told[wanted]:
            break
        try:
            turn(number)
            told[wanted] += 1
        except allowed as error:
            told[type(error).__name__] += 1
    children.tell("counted", json.dumps(told))


def begin(scene: Scene, kids, seconds: float) -> None:
    """Let all begin at one moment, when each of them is ready."""
    while not all("ready" in child.said() or child.process.exitcode is not None for child in kids):
        time.sleep(0.01)
    (scene.root / "going").write_text(str(time.time() + seconds))
    (scene.root / "going").rename(scene.root / "deadline")


def replace_until(scene: Scene, first: int, mode: str) -> None:
    """Replace the experiment until time is up; losing a race is an answer, anything else is not."""
    session = scene.session()

    def turn(number):
        version = first + 2 * number
        if mode == "replace":
            fill(session.create_experiment(SUBJECT), version).persist(if_exists="replace")
        else:
            fill(session.load_experiment(SUBJECT), version).persist(if_exists="update")
        children.tell("version", version)

    until(scene, "persisted", turn, (*LOST_RACES, ExperimentNotFoundError, StaleReferenceError))


def read_until(scene: Scene) -> None:
    """Read every value until time is up: each version is whole, or has been replaced meanwhile."""
    session = scene.session()

    def turn(number):
        version_of(session.load_experiment(SUBJECT))

    until(scene, "read", turn, (StaleReferenceError, ExperimentNotFoundError))


def sweep_until(scene: Scene) -> None:
    """Sweep without any grace until time is up: only the intents keep what is being written."""
    session = scene.session()
    until(scene, "swept", lambda number: session.sweep(dry_run=False, grace_s=0))


def check_until(scene: Scene) -> None:
    """Check the store until time is up: there is never anything to find, also while others are at work."""
    session = scene.session()
    options.set("tqdm.disable", True)

    def turn(number):
        report = session.check(deep=number % 2 == 0)
        assert not report, report.to_json()

    until(scene, "checked", turn)


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", ["replace", "update"])
def test_two_replace_while_others_read_sweep_and_check(scene, tmp_path, mode, seconds):
    """Two replace one experiment while others read, sweep and check: typed errors only, and nothing is lost."""
    build(scene)
    kids = [
        children.start(tmp_path / "said", replace_until, scene, 2, mode),
        children.start(tmp_path / "said", replace_until, scene, 3, mode),
        children.start(tmp_path / "said", read_until, scene),
        children.start(tmp_path / "said", sweep_until, scene),
        children.start(tmp_path / "said", check_until, scene),
    ]
    begin(scene, kids, seconds)
    finish(kids)
    told = {int(line.split()[1]) for child in kids for line in child.said().splitlines() if line.startswith("version")}
    session = scene.session()
    assert find(session, SUBJECT) in told, show(kids)
    assert find(session, BYSTANDER) == 1
    state = scene.state()
    assert state.leftovers == set(), show(kids)
    assert state.rows == state.live
    assert len(session.check(deep=True)) == 0
    session.database.close()
    print(*(line for child in kids for line in child.said().splitlines() if line.startswith("counted")), sep="\n")


@dataclass(frozen=True)
class Beside(Scene):
    """The same store with a database that knows only what is done by its own users."""

    @property
    def database(self) -> Path:
        return self.root / "other.db"


def update_and_add_until(scene: Scene, who: str, first: int, identity: str) -> None:
    """Update one experiment of all, and persist and delete own ones, until time is up."""
    session = scene.session()

    def turn(number):
        own = fill(session.create_experiment(f"{who}-{number}"), 2)
        own.persist()
        if number % 3 == 2:
            own.delete()
        else:
            children.tell("own", own.name)
        version = first + 2 * number
        fill(session.load_experiment(id_experiment=identity), version).persist(if_exists="update")
        children.tell("version", version)

    until(scene, "persisted", turn, (ConcurrentPersistError, StaleReferenceError))


def check_but_rows_until(scene: Scene) -> None:
    """Check the store until time is up: all there is to find is that a database does not know what others did."""
    session = scene.session()
    options.set("tqdm.disable", True)

    def turn(number):
        report = session.check(deep=number % 2 == 0)
        assert set(report.kinds()) <= {"index drift"}, report.to_json()

    until(scene, "checked", turn)


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_two_databases_over_one_store(tmp_path, seconds):
    """Writers who share the files and no database lose nothing of each other; each index is made up by a rebuild."""
    scene = build(tmp_path / "scene")
    other = Beside(scene.root)
    identity = scene.session().load_experiment(SUBJECT).id_experiment
    other.session().rebuild_index()
    kids = [
        children.start(tmp_path / "said", update_and_add_until, scene, "a", 2, identity),
        children.start(tmp_path / "said", update_and_add_until, other, "b", 3, identity),
        children.start(tmp_path / "said", read_until, scene),
        children.start(tmp_path / "said", sweep_until, other),
        children.start(tmp_path / "said", check_but_rows_until, scene),
    ]
    begin(scene, kids, seconds)
    finish(kids)
    lines = [line.split() for child in kids for line in child.said().splitlines()]
    told = [int(line[1]) for line in lines if line[0] == "version"]
    wanted = {line[1] for line in lines if line[0] == "own"} | {SUBJECT, BYSTANDER}
    for side in (scene, other):
        session = side.session()
        assert len(session.rebuild_index()) == 0
        assert find(session, SUBJECT) in told, show(kids)
        # Every update that was told stands on the one before it.
        assert session.load_experiment(SUBJECT).generation == 1 + len(told), show(kids)
        assert set(session.ls().name) == wanted, show(kids)
        assert all(find(session, name) == 2 for name in wanted - {SUBJECT, BYSTANDER})
        session.sweep(dry_run=False, grace_s=0)
        state = side.state()
        assert state.leftovers == set(), show(kids)
        assert state.rows == state.live
        assert len(session.check(deep=True)) == 0
        session.database.close()
    print(*(" ".join(line) for line in lines if line[0] == "counted"), sep="\n")


def die_at_once(scene: Scene, who: int) -> None:
    """Persist until killed."""
    session = scene.session()
    for number in itertools.count():
        experiment = session.create_experiment(f"{who}-{number}")
        with experiment.run() as run:
            run.fields.ds = DataStore(array=np.full(5000, number))
        experiment.persist()
        children.tell("told", experiment.name, number)


def test_processes_that_are_killed_beside_one_that_works(scene, tmp_path):
    """Writers that die do not hold up or harm one that lives: what was told is there, whoever recovers it."""
    build(scene)
    kids = [children.start(tmp_path / "said", die_at_once, scene, who) for who in range(4)]
    living = scene.session()
    for version in range(2, 12):
        fill(living.load_experiment(SUBJECT), version).persist(if_exists="update")
        if version % 3 == 0:
            kids[version // 3 - 1].kill()
        time.sleep(0.1)
    kids[3].kill()
    session = scene.session()
    told = [line.split()[1:] for child in kids for line in child.said().splitlines() if line.startswith("told")]
    for name, number in told:
        assert (session.load_experiment(name).runs.first().fields.ds.array == int(number)).all(), show(kids)
    assert find(session, SUBJECT) == 11
    state = scene.state()
    assert state.rows == state.live
    assert state.pending == []
