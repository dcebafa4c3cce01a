"""Bytes decay: every file of a small store is damaged in every way; what is read is right or a typed error.

Two kinds of files are not what the truth rests on.  An *old generation* is history, which sweep removes anyway: its
loss is no finding, a damaged one is.  `_meta.json` is a copy for people and listings that no reader needs: its loss or
damage is a finding, and persisting again makes a new one.  Files written with `DataStoreIO` are the user's: `check`
tells their size, and reading them verifies.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scene import BYSTANDER, SUBJECT, Scene, same

from mltraq_ds import DataStore, options
from mltraq_ds.errors import MltraqDSError, MltraqDSWarning

WEIGHTS = {SUBJECT: np.arange(130.0), BYSTANDER: -np.arange(130.0)}
MINE = np.arange(500)


class Store:
    """A small store: two experiments of one blob each, the first in its second version, and a file of the user's."""

    def __init__(self, root: Path) -> None:
        self.scene, self.n_damages = Scene(root), 0
        root.mkdir()
        session = self.scene.session()
        self.ids = {}
        for name, weights in WEIGHTS.items():
            experiment = session.create_experiment(name, note=name)
            with experiment.run() as run:
                run.fields.loss = 0.5
                run.fields.ds = DataStore(weights=weights, inner=DataStore(label=name))
            experiment.persist()
            self.ids[name] = experiment.id_experiment
        experiment = session.load_experiment(SUBJECT)
        experiment.fields.note = f"{SUBJECT} again"
        experiment.persist(if_exists="update")
        self.mine = session.io.serialize_write(MINE, "mine").key
        paths = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        self.files = {str(path.relative_to(self.path)): path.read_bytes() for path in paths}
        for path in paths:
            path.chmod(0o644)

    @property
    def path(self) -> Path:
        return self.scene.store

    def keys(self, role: str) -> list[str]:
        return [key for key in self.files if self.role(key) == role]

    def role(self, key: str) -> str:
        """Return what a file is in the store."""
        if key.endswith("generations/1.json") and key.startswith(self.ids[SUBJECT]):
            return "old generation"
        for part, role in {"generations/": "generation", "runs/": "record", "_": "descriptor", "mine/": "mine"}.items():
            if part in (key if part.endswith("/") else key.rpartition("/")[2]):
                return role
        return "blob"

    @contextmanager
    def damaged(self, damage: dict[str, bytes | None]) -> Iterator[None]:
        """Put other bytes, or nothing, in the place of files."""
        for key, data in damage.items():
            self._put(key, data)
        try:
            yield
        finally:
            for key in damage:
                self._put(key, self.files[key])

    def _put(self, key: str, data: bytes | None) -> None:
        path = self.path / key
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    def touches(self, name: str, keys: dict[str, bytes | None]) -> bool:
        """Tell whether files of an experiment, or of the whole store, are among those damaged."""
        return any(key.startswith(self.ids[name]) or "/" not in key for key in keys)

    def check(self, damage: dict[str, bytes | None]) -> None:
        """Damage files; read everything as a new process would, then have `check` find it."""
        self.n_damages += 1
        with self.damaged(damage), options.ctx({"tqdm.disable": True}), warnings.catch_warnings():
            warnings.simplefilter("ignore", MltraqDSWarning)
            session = self.scene.session()
            for name, id_experiment in self.ids.items():
                for how in ({"name": name}, {"id_experiment": id_experiment}):
                    told = outcome(lambda how=how: session.load_experiment(**how), lambda e, n=name: is_right(e, n))
                    assert told is None or self.touches(name, damage), told
            told = outcome(lambda: session.ls(), lambda table: set(table.name) == set(self.ids))
            assert told is None or any("/" not in key for key in damage), told
            mine = session.io(f"file:///{self.mine}")
            told = outcome(mine.read_deserialize, lambda value: same(value, MINE) is None)
            assert told is None or self.mine in damage, told
            found = {one.key for one in session.check(deep=True)}
            session.database.close()
        for key, data in damage.items():
            assert self._is_silent(key, data) or self._shown_at(key, data) & found, (key, found)

    def _is_silent(self, key: str, data: bytes | None) -> bool:
        """Tell whether `check` need not say anything; the reasons are in the text at the top."""
        role = self.role(key)
        is_same = role in ("descriptor", "generation", "old generation") and data == self.files[key].rstrip()
        return role == "mine" or (role == "old generation" and not data) or is_same

    def _shown_at(self, key: str, data: bytes | None) -> set[str]:
        """Return where damage may show: at the file itself, or at the version that says what belongs to it."""
        folder = key.partition("/")[0]
        current = f"{folder}/generations/{2 if folder == self.ids[SUBJECT] else 1}.json"
        if key == current and not data:  # what the version before refers to is gone, or there is none
            return {f"{folder}/generations", *(other for other in self.files if other.startswith(folder))}
        return {key, current, f"{folder}/generations"}


def is_right(experiment, name: str) -> bool:
    note = f"{SUBJECT} again" if name == SUBJECT else name
    assert experiment.fields.note == note
    (run,) = experiment.runs.values()
    assert run.fields.loss == 0.5
    same(run.fields.ds.weights, WEIGHTS[name])
    assert run.fields.ds.inner.label == name
    return True


def outcome(read: Callable, right: Callable) -> MltraqDSError | None:
    """Read; return the typed error, or None if the value is right. Anything else fails the test."""
    try:
        assert right(read())
    except MltraqDSError as error:
        return error
    return None


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    options.set("tqdm.disable", True)
    store = Store(tmp_path_factory.mktemp("rot") / "scene")
    roles = [store.role(key) for key in store.files]
    assert {role: roles.count(role) for role in set(roles)} == {
        "old generation": 1,
        "generation": 2,
        "record": 2,
        "descriptor": 3,
        "blob": 4,
        "mine": 1,
    }
    yield store
    print(f"{store.n_damages} damages")
    assert len(store.scene.session().check(deep=True)) == 0  # the damage was undone: nothing else changed


def test_every_file_is_lost(store):
    """Without any one file, and without all of one kind, every read is right or a typed error, and check tells."""
    for key in store.files:
        store.check({key: None})
    for role in ("generation", "record", "blob", "descriptor"):
        store.check(dict.fromkeys(store.keys(role)))


def test_every_file_is_garbled(store):
    """Emptied, cut, grown, zeroed, reversed or of another kind: every read is right or a typed error, check tells."""
    for key, data in store.files.items():
        half = data[: len(data) // 2]
        ways = [b"", half, data[:-1], data + b"\0", bytes(len(data)), data[::-1], half + bytes(len(data) - len(half))]
        for garbled in [*ways, b"{}", b"PK\5\6" + bytes(18)]:
            store.check({key: garbled})


def test_every_two_files_are_swapped(store):
    """Any two files in each other's place, blobs and records of equal size among them, are found out."""
    ours = [key for key in store.files if key != store.mine]  # a URL of DataStoreIO names a place, not what is there
    for one, two in itertools.combinations(ours, 2):
        store.check({one: store.files[two], two: store.files[one]})


def _slices(store: Store, role: str, step: int) -> Iterator[tuple[str, int]]:
    for key in store.keys(role):
        if key.startswith(store.ids[SUBJECT]) or "/" not in key:
            yield from ((key, at) for at in range(len(key) % step, len(store.files[key]), step))


@pytest.mark.parametrize("role", ["blob", "generation", "record", "descriptor", "old generation"])
@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.soak)])
def test_every_byte_is_flipped(store, role, step):
    """A flipped byte anywhere is a typed error where it matters, and found by check."""
    for n, (key, at) in enumerate(_slices(store, role, step)):
        data = bytearray(store.files[key])
        data[at] ^= (0xFF, 0x01, 0x20)[n % 3]
        store.check({key: bytes(data)})


@pytest.mark.parametrize("role", ["blob", "generation", "record", "descriptor", "old generation"])
@pytest.mark.parametrize("step", [31, pytest.param(1, marks=pytest.mark.soak)])
def test_cut_at_every_length(store, role, step):
    """A file cut at any length is a typed error where it matters, and found by check."""
    for key, at in _slices(store, role, step):
        store.check({key: store.files[key][:at]})
