"""Values that another thread changes while they are persisted."""

from __future__ import annotations

import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scene import BYSTANDER, build, find

from mltraq_ds import DataStore
from mltraq_ds.errors import ExperimentNotFoundError, ValueChangedError

MIB = 2**20


def race(scene, session, array, change) -> bool:
    """Persist while `change` goes on in another thread; tell whether it was committed."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [change(array) for _ in iter(stop.is_set, True)])
    experiment = session.create_experiment("racing")
    with experiment.run() as run:
        run.fields.ds = DataStore(array=array)
    before = scene.state()
    thread.start()
    try:
        experiment.persist()
    except ValueChangedError:
        after = scene.state()
        assert (after.live, after.leftovers) == (before.live, set())
        return False
    finally:
        stop.set()
        thread.join()
    loaded = scene.session().load_experiment("racing").runs.first().fields.ds.array
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)  # its CRC fits: it was read
    scene.state()
    experiment.delete()
    return True


@pytest.mark.parametrize("size", [MIB // 64, 8 * MIB])
def test_an_array_that_changes(tmp_path, size):
    """A value that changes meanwhile is refused and nothing is committed, or a blob that verifies is."""
    scene = build(tmp_path / "scene")
    session = scene.session()
    array = np.zeros(size // 8)

    def change(values):
        values[np.random.randint(len(values))] += 1

    outcomes = [race(scene, session, array, change) for _ in range(10)]
    assert len(outcomes) == 10
    if size == 8 * MIB:
        assert False in outcomes  # large enough to be caught
    assert find(scene.session(), BYSTANDER) == 1


def test_a_mapping_that_changes(tmp_path):
    """A dictionary that another thread fills while it is persisted is stored as it was at one moment, or refused."""
    scene = build(tmp_path / "scene")
    session = scene.session()
    values: dict[str, int] = {}
    stop = threading.Event()

    def fill():
        while not stop.is_set():
            values[str(len(values) % 1000)] = len(values)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        for _ in range(10):
            experiment = session.create_experiment("racing")
            with experiment.run() as run:
                run.fields.ds = DataStore(values=values)
            try:
                experiment.persist()
            except (ValueChangedError, RuntimeError):
                with pytest.raises(ExperimentNotFoundError):
                    scene.session().load_experiment("racing")
                continue
            loaded = scene.session().load_experiment("racing").runs.first().fields.ds["values"]
            assert set(loaded) <= {str(number) for number in range(1000)}
            experiment.delete()
    finally:
        stop.set()
        thread.join()
    assert scene.state().leftovers == set()


def test_a_file_that_grows(tmp_path):
    """A file that changes size while it is streamed in is refused, and nothing is left of it."""
    from mltraq_ds import File

    scene = build(tmp_path / "scene")
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(4 * MIB))
    stop = threading.Event()

    def grow():
        with open(path, "ab") as file:
            while not stop.is_set():
                file.write(bytes(4096))
                file.flush()

    thread = threading.Thread(target=grow)
    experiment = scene.session().create_experiment("racing")
    with experiment.run() as run:
        run.fields.ds = DataStore(model=File(path))
    thread.start()
    try:
        with warnings.catch_warnings(), pytest.raises(ValueChangedError):
            experiment.persist()
    finally:
        stop.set()
        thread.join()
    assert scene.state().leftovers == set()
