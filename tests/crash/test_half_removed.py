"""An experiment whose bytes are being removed never comes back, whatever a kill or another process leaves of them."""

from __future__ import annotations

import itertools
import shutil
import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scene import BYSTANDER, SUBJECT, build, find

from mltraq_ds.errors import MltraqDSWarning
from mltraq_ds.store import generations, intents, retire
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.testing import Fail, FaultStorage


@pytest.fixture
def scene(tmp_path):
    return build(tmp_path / "scene")


def test_killed_while_the_folder_is_removed(scene, monkeypatch):
    """A folder that was renamed away and half removed is removed wholly by the next session, never put back."""
    removed = []

    def half(self, key):
        removed.append(key)
        last = max((scene.store / key / "generations").glob("*.json"))
        last.unlink()  # the worst order: the end first
        raise KeyboardInterrupt

    monkeypatch.setattr("mltraq_ds.storage.local.LocalStorage.delete_folder", half)
    with pytest.raises(KeyboardInterrupt):
        scene.session().delete_experiment(SUBJECT)
    monkeypatch.undo()
    assert removed
    session = scene.session()
    assert find(session, SUBJECT) is None
    assert find(session, BYSTANDER) == 1
    assert scene.state().leftovers == set()


def test_two_processes_remove_one_folder(scene, monkeypatch):
    """A look at a folder that somebody else is removing at this moment takes it for ended."""
    session = scene.session()
    storage = scene.local()
    folder = session.load_experiment(SUBJECT).id_experiment
    retire.end_experiment(storage, folder, "writer")
    storage.move_folder(folder, "_pending/deleted-x")
    read = type(storage).read

    def removed_meanwhile(self, key, **options):
        shutil.rmtree(scene.store / "_pending/deleted-x", ignore_errors=True)
        return read(self, key, **options)

    monkeypatch.setattr(type(storage), "read", removed_meanwhile)
    assert generations.last_in(storage, "_pending/deleted-x") is None


def test_a_deleter_that_was_overtaken_and_killed(scene, monkeypatch):
    """A delete whose number changed, because somebody persisted in between, is finished after a kill as well."""
    session = scene.session()
    experiment = session.load_experiment(SUBJECT)
    ended = retire.end_experiment(scene.local(), experiment.id_experiment, "deleter")
    assert ended.number == 2
    storage = scene.local()
    intent = intents.Intent(
        writer="deleter", action="delete", id_experiment=experiment.id_experiment, name=SUBJECT, parent=0, number=1
    )
    with Keeper(storage, intent):
        pass
    session = scene.session()
    assert find(session, SUBJECT) is None
    state = scene.state()
    assert state.leftovers == set()
    assert state.rows == state.live


def test_a_delete_that_cannot_remove_is_finished_later(scene):
    """Whichever removal fails, the next session removes what is left and nothing comes back."""
    for n in itertools.count(1):
        copy = scene.copy_to(scene.root.parent / f"{n}")
        count = itertools.count(1)
        strike = FaultStorage(
            copy.local(),
            lambda call, n=n, count=count: (
                Fail() if call.verb.startswith(("delete", "move")) and next(count) == n else None
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MltraqDSWarning)
            copy.session(strike).delete_experiment(SUBJECT)
        assert find(copy.session(), SUBJECT) is None
        assert copy.state().leftovers == set()
        if not strike.fired:
            break
    assert n > 3
