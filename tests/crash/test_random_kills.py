"""SIGKILL at random moments of a process that replaces a large experiment again and again."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import children
from scene import Scene

from mltraq_ds import DataStore

MIB = 2**20


def replace_for_ever(root: Path, version: int, n_bytes: int, mode: str) -> None:
    """Replace the experiment; the array of a version holds that version only."""
    session = Scene(root).session(durability="full")
    while True:
        version += 1
        begun = time.monotonic()
        array = np.full(n_bytes // 8, version, np.int64)
        if mode == "replace":
            experiment = session.create_experiment("large")
            with experiment.run() as run:
                run.fields.ds = DataStore(array=array)
        else:
            experiment = session.load_experiment("large")
            experiment.runs.first().fields.ds.array = array
        experiment.fields.version = version
        experiment.persist(if_exists=mode)
        children.tell("done", version, time.monotonic() - begun)


def kills(tmp_path: Path, count: int, n_bytes: int, mode: str) -> None:
    seed = int.from_bytes(os.urandom(4))
    dice = random.Random(seed)
    scene = Scene(tmp_path)
    session = scene.session()
    first = session.create_experiment("large", version=0)
    with first.run() as run:
        run.fields.ds = DataStore(array=np.zeros(n_bytes // 8, np.int64))
    first.persist()
    version = 0
    for number in range(count):
        child = children.start(tmp_path / "said", replace_for_ever, tmp_path, version, n_bytes, mode)
        deadline = time.monotonic() + 60
        while not persisted(child) and time.monotonic() < deadline and child.process.exitcode is None:
            time.sleep(0.01)
        # A persist lasts as long as the disk wants, so any moment of the next one, or of the one after it.
        time.sleep(dice.uniform(0, 1.5 * next(iter(persisted(child).values()), 0.0)))
        child.kill()
        said = child.said()
        assert child.process.exitcode == children.KILLED, said
        told = max(persisted(child), default=version)
        found = scene.session().load_experiment("large")
        version = found.fields.version
        where = f"kill {number} of seed {seed}: told {told}, found {version}"
        assert version in (told, told + 1), where
        array = found.runs.first().fields.ds.array
        assert array.shape == (n_bytes // 8,), where
        assert (array == version).all(), where
        assert [f.current["name"] for f in scene.state().folders.values() if f.is_live] == ["large"], where
        _sweep(scene)


def persisted(child: children.Child) -> dict[int, float]:
    """Return the versions that a child has told, each with the seconds that it took."""
    lines = [line.split() for line in child.said().splitlines() if line.startswith("done")]
    return {int(version): float(seconds) for _, version, seconds in lines}


def _sweep(scene: Scene) -> None:
    # What was cut off before its commit is an orphan; without this, 200 kills would fill the disk.
    state = scene.state()
    for folder in state.folders.values():
        for key in (folder.files | folder.temporary) - folder.keys:
            (scene.store / key).unlink()


@pytest.mark.parametrize(("mode", "count"), [("replace", 20), ("update", 4)])
def test_random_kills(tmp_path, mode, count):
    """Killed at any moment, the version that was told last is there, or the one after it, and every byte is right."""
    kills(tmp_path, count, 64 * MIB, mode)


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["replace", "update"])
def test_two_hundred_random_kills(tmp_path, mode):
    """As above, 200 times for each way of replacing."""
    kills(tmp_path, 200, 64 * MIB, mode)


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["replace", "update"])
def test_random_kills_of_small_persists(tmp_path, mode):
    """With small values the kills strike between the steps rather than inside the bytes."""
    kills(tmp_path, 100, MIB // 16, mode)


def delete_all(root: Path) -> None:
    session = Scene(root).session()
    for number in itertools.count():
        session.delete_experiment(f"many-{number}")
        children.tell("done", number)


def test_random_kills_of_deletes(tmp_path):
    """Killed at any moment of a delete, an experiment is wholly there or wholly gone, and a deleted one stays so."""
    scene = Scene(tmp_path)
    session = scene.session()
    for number in range(40):
        experiment = session.create_experiment(f"many-{number}")
        with experiment.run() as run:
            for key in range(10):
                run.fields[f"f{key}"] = np.full(600, number)
        experiment.persist()
    child = children.start(tmp_path / "said", delete_all, tmp_path)
    while "done 2" not in child.said() and child.process.exitcode is None:
        time.sleep(0.001)
    child.kill()
    told = [int(line.split()[1]) for line in child.said().splitlines() if line.startswith("done")]
    session = scene.session()
    names = set(session.ls().name)
    assert not names & {f"many-{number}" for number in told}
    assert len(names) in (40 - len(told), 39 - len(told))
    for name in names:
        fields = session.load_experiment(name).runs.first().fields
        assert all((fields[f"f{key}"] == int(name.rpartition("-")[2])).all() for key in range(10))
    state = scene.state()
    assert state.leftovers == set()
    assert state.rows == state.live
