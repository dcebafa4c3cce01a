"""Many processes and threads at one database file and one store, without a schedule: whatever the machine does."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

import children
from scene import SUBJECT, Scene, build, fill, find, version_of

from mltraq_ds import DataStore
from mltraq_ds.errors import (
    ConcurrentPersistError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    MltraqDSWarning,
    StaleReferenceError,
)

LOST_RACES = (ConcurrentPersistError, ExperimentExistsError)


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


def persist_many(root: Path, who: int, count: int) -> None:
    session = Scene(root).session()
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


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_eight_processes_and_one_database_file(tmp_path, count):
    """Eight processes that begin with nothing persist, update and delete in one SQLite file without an error."""
    kids = [children.start(tmp_path / "said", persist_many, tmp_path, who, count) for who in range(8)]
    finish(kids)
    check_many(Scene(tmp_path), 8, count)


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.soak)])
@pytest.mark.parametrize("is_shared", [True, False], ids=["one-session", "own-sessions"])
def test_sixteen_threads(tmp_path, count, is_shared):
    """Sixteen threads do the same, with one session for all or one for each."""
    scene = Scene(tmp_path)
    shared = scene.session()
    errors = []

    def work(who):
        session = shared if is_shared else scene.session()
        try:
            for number in range(count):
                experiment = fill(session.create_experiment(f"{who}-{number}"), 1)
                experiment.persist()
                fill(experiment, 2).persist(if_exists="update")
                if number % 5 == 4:
                    experiment.delete()
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    check_many(scene, 16, count)


def replace_until(root: Path, deadline: float, first: int, mode: str) -> None:
    """Replace the experiment until the deadline; losing a race is an answer, anything else is not."""
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", MltraqDSWarning)
    session = Scene(root).session()
    told = Counter()
    for version in itertools.count(first, 2):
        if time.time() > deadline:
            break
        try:
            if mode == "replace":
                fill(session.create_experiment(SUBJECT), version).persist(if_exists="replace")
            else:
                fill(session.load_experiment(SUBJECT), version).persist(if_exists="update")
            told["persisted"] += 1
            children.tell("version", version)
        except (*LOST_RACES, ExperimentNotFoundError, StaleReferenceError) as error:
            told[type(error).__name__] += 1
    children.tell(dict(told))
    assert told["persisted"]


def read_until(root: Path, deadline: float) -> None:
    """Read every value until the deadline: each version is whole, or has been replaced meanwhile."""
    session = Scene(root).session()
    told = Counter()
    while time.time() < deadline:
        try:
            version_of(session.load_experiment(SUBJECT))
            told["read"] += 1
        except (StaleReferenceError, ExperimentNotFoundError) as error:
            told[type(error).__name__] += 1
    children.tell(dict(told))
    assert told["read"]


@pytest.mark.parametrize("seconds", [3, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", ["replace", "update"])
def test_two_replace_while_one_reads(tmp_path, mode, seconds):
    """Two processes that replace one experiment and one that reads it meet typed errors only, and nothing is lost."""
    scene = build(tmp_path / "scene")
    deadline = time.time() + seconds + 1
    kids = [
        children.start(tmp_path / "said", replace_until, scene.root, deadline, 2, mode),
        children.start(tmp_path / "said", replace_until, scene.root, deadline, 3, mode),
        children.start(tmp_path / "said", read_until, scene.root, deadline),
    ]
    finish(kids)
    told = {int(line.split()[1]) for child in kids for line in child.said().splitlines() if line.startswith("version")}
    session = scene.session()
    assert find(session, SUBJECT) in told, show(kids)
    state = scene.state()
    assert state.leftovers == set(), show(kids)
    assert state.rows == state.live
    print(show(kids))


def die_at_once(root: Path, who: int) -> None:
    """Persist until killed."""
    session = Scene(root).session()
    for number in itertools.count():
        experiment = session.create_experiment(f"{who}-{number}")
        with experiment.run() as run:
            run.fields.ds = DataStore(array=np.full(5000, number))
        experiment.persist()
        children.tell("told", experiment.name, number)


def test_processes_that_are_killed_beside_one_that_works(tmp_path):
    """Writers that die do not hold up or harm one that lives: what was told is there, whoever recovers it."""
    scene = build(tmp_path / "scene")
    kids = [children.start(tmp_path / "said", die_at_once, scene.root, who) for who in range(4)]
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
