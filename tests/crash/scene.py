"""A store with a database, what is put into them, and a look at both around the code under test.

`Scene.state` reads generations, records, blobs and rows with `json`, `zipfile` and `sqlite3` only: an error that the
library made twice would otherwise cancel out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mltraq_ds import DataStore, create_session, options
from mltraq_ds.errors import ExperimentNotFoundError
from mltraq_ds.storage import LocalStorage
from mltraq_ds.tracking import Session

SUBJECT, BYSTANDER, FRESH = "subject", "bystander", "fresh"
ROWS = 16
_CURRENT = "SELECT id_experiment, generation FROM mltraq_experiments WHERE state = 'current'"
_NAMES = "SELECT name, id_experiment, claim_intent FROM mltraq_names"


def weights(version: int, run: int) -> np.ndarray:
    """Return the large value of a run: 8 KiB that tell version and run in every element."""
    return np.full((ROWS, 64), version + run / 8)


def fill(experiment: Any, version: int) -> Any:
    """Make an experiment what it is at a version: two runs, each with blobs that change and one that does not."""
    while len(experiment.runs) < 2:
        experiment.add_run(lr=0.5)
    experiment.fields.version = version
    for number, run in enumerate(experiment.runs.values()):
        run.fields.version = version
        run.fields.value = weights(version, number)
        if "kept" not in run.fields:
            run.fields.kept = DataStore(constant=weights(0, number))
        run.fields.ds = DataStore(weights=weights(version, number), labels=[version, "label", None])
    return experiment


def version_of(experiment: Any) -> int:
    """Return the version that an experiment wholly is, every value compared bit by bit."""
    version = experiment.fields.version
    assert len(experiment.runs) == 2
    for number, run in enumerate(experiment.runs.values()):
        assert run.fields.version == version
        same(run.fields.value, weights(version, number))
        same(run.fields.ds.weights, weights(version, number))
        assert run.fields.ds.labels == [version, "label", None]
        same(run.fields.kept.constant, weights(0, number))
    return version


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare type, shape and every bit."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@dataclass
class Folder:
    """One experiment as its files say, read without the library."""

    path: str
    id_experiment: str
    current: dict[str, Any] | None
    files: set[str]
    temporary: set[str]

    @property
    def is_live(self) -> bool:
        return self.current is not None and not self.current["deleted"]

    @property
    def keys(self) -> set[str]:
        """Keys that the current generation refers to."""
        live = self.current if self.is_live else None
        return {parts[0] for parts in (*live["records"], *live["blobs"])} if live else set()


@dataclass
class State:
    """What is on disk and in the database at one moment."""

    folders: dict[str, Folder]
    pending: list[str]
    rows: dict[str, int]
    names: dict[str, tuple[str | None, str | None]]
    mine: list[str] = field(default_factory=list)

    @property
    def live(self) -> dict[str, int]:
        return {f.id_experiment: f.current["generation"] for f in self.folders.values() if f.is_live and f.current}

    @property
    def orphans(self) -> set[str]:
        """Blobs and record files that no current generation refers to."""
        return set().union(*(folder.files - folder.keys for folder in self.folders.values()))

    @property
    def leftovers(self) -> set[str]:
        """Whatever an undisturbed store does not have."""
        temporary = set().union(*(folder.temporary for folder in self.folders.values()))
        dead = {name for name, folder in self.folders.items() if not folder.is_live}
        return self.orphans | temporary | dead | set(self.pending)


@dataclass(frozen=True)
class Scene:
    """A store and its database below one folder; the database may be on a server instead, given by its URL."""

    root: Path
    server_url: str = ""

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def database(self) -> Path:
        return self.root / "index.db"

    @property
    def database_url(self) -> str:
        return self.server_url or f"sqlite:///{self.database}"

    def session(self, storage: Any = None, durability: str = "relaxed") -> Session:
        """Return a new session, as a new process would make it; what is not flushed is not lost without a power cut."""
        with options.ctx({"datastore.durability": durability}):
            return create_session(self.database_url, self.store if storage is None else storage)

    def local(self) -> LocalStorage:
        return LocalStorage(self.store, durability="relaxed")

    def copy_to(self, root: Path) -> Scene:
        shutil.copytree(self.root, root)
        connection = _connect(root / "index.db")  # for the library it has always been here
        with connection:
            connection.execute("UPDATE mltraq_stores SET url = ?", [(root / "store").as_uri()])
        connection.close()
        return Scene(root)

    def state(self) -> State:
        """Look at everything, and fail if a live experiment misses a file, or has one that differs from its digest."""
        folders = {path.name: _folder(self.store, path) for path in sorted(self.store.iterdir()) if _is_folder(path)}
        for folder in folders.values():
            if folder.is_live and folder.current:
                assert (self.store / folder.path / "_meta.json").exists()
                _check_files(self.store, folder.current)
        found = (self.store / "_pending").glob("*")
        pending = sorted(path.name for path in found if not path.name.startswith(".tmp-"))  # those are for sweep
        rows, names = _server_rows(self.server_url) if self.server_url else _rows(self.database)
        return State(folders, pending, rows, names)


def build(root: Path | Scene) -> Scene:
    """Return a scene with two experiments at version 1."""
    scene = root if isinstance(root, Scene) else Scene(root)
    scene.root.mkdir(parents=True, exist_ok=True)
    session = scene.session()
    for name in (SUBJECT, BYSTANDER):
        fill(session.create_experiment(name), 1).persist()
    session.database.close()
    return scene


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(("_", "self_managed"))


def _folder(store: Path, path: Path) -> Folder:
    numbers = sorted(int(p.stem) for p in path.glob("generations/*.json") if re.fullmatch(r"\d+", p.stem))
    current = None
    for number in numbers:
        text = (path / f"generations/{number}.json").read_bytes()
        current = json.loads(text) if text else current
    if current is not None:
        claimed = current.pop("checksum")
        canonical = json.dumps(current, sort_keys=True, separators=(",", ":"))
        assert claimed == f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
    files, temporary = set(), set()
    for found in (p for p in path.rglob("*") if p.is_file()):
        key = str(found.relative_to(store))
        if found.name.startswith(".tmp-"):
            temporary.add(key)
        elif found.name != "_meta.json" and found.parent.name != "generations":
            files.add(key)
    return Folder(path.name, current["id_experiment"] if current else path.name, current, files, temporary)


def _check_files(store: Path, current: dict[str, Any]) -> None:
    for key, size, digest in (parts[:3] for parts in current["records"]):
        data = (store / key).read_bytes()
        assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (size, digest), key
    for key, size, digest in (parts[:3] for parts in current["blobs"]):
        assert (store / key).stat().st_size == size, key
        with zipfile.ZipFile(store / key) as archive:
            assert archive.testzip() is None, key
            assert f"sha256:{hashlib.sha256(archive.read('index.msgpack')).hexdigest()}" == digest, key


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")  # whoever closes last writes the WAL back
    return connection


def _rows(path: Path) -> tuple[dict[str, int], dict[str, tuple[str | None, str | None]]]:
    if not path.exists():
        return {}, {}
    connection = _connect(path)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'mltraq_names'").fetchall():
            return {}, {}
        found = connection.execute(_CURRENT).fetchall()
        names = connection.execute(_NAMES).fetchall()
    finally:
        connection.close()
    return dict(found), {name: (owner, claim) for name, owner, claim in names}


def _server_rows(url: str) -> tuple[dict[str, int], dict[str, tuple[str | None, str | None]]]:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = connection.execute(_CURRENT).fetchall()
        names = connection.execute(_NAMES).fetchall()
    return dict(found), {name: (owner, claim) for name, owner, claim in names}


@dataclass(frozen=True)
class Action:
    """Something that changes a scene, and what may be found afterwards.

    Parameters
    ----------
    run : callable
        Does it with a session.
    name : str
        Of the experiment that it is about.
    before, after : int or None
        Versions of it before and after; None if there is none.
    """

    run: Callable[[Session], object]
    name: str = SUBJECT
    before: int | None = 1
    after: int | None = 2


def _new(session: Session) -> None:
    fill(session.create_experiment(FRESH), 2).persist()


def _update(session: Session) -> None:
    fill(session.load_experiment(SUBJECT), 2).persist(if_exists="update")


def _replace(session: Session) -> None:
    fill(session.create_experiment(SUBJECT), 2).persist(if_exists="replace")


def _delete(session: Session) -> None:
    session.delete_experiment(SUBJECT)


ACTIONS = {
    "new": Action(_new, FRESH, None, 2),
    "update": Action(_update),
    "replace": Action(_replace),
    "delete": Action(_delete, SUBJECT, 1, None),
}


def find(session: Session, name: str) -> int | None:
    """Return the version by name, None if there is none."""
    try:
        return version_of(session.load_experiment(name))
    except ExperimentNotFoundError:
        return None


def check_promise(
    scene: Scene, action: Action, *, must_be: int | str | None = "either", goes_on: bool = True
) -> int | None:
    """Look as the next process would: old or new is complete, nothing else was touched, and work goes on at once.

    Returns
    -------
    int or None
        The version found, None for no experiment.
    """
    scene.state()  # before anybody repairs anything: whatever counts as live is complete
    session = scene.session()
    found = find(session, action.name)
    assert found in (action.before, action.after)
    if must_be != "either":
        assert found == must_be
    assert find(session, BYSTANDER) == 1
    state = scene.state()
    assert state.pending == []
    assert state.rows == state.live
    owners = [folder.current["name"] for folder in state.folders.values() if folder.is_live and folder.current]
    assert state.names == {name: (owner, None) for name, owner in _owners(state)}
    assert len(owners) == len(set(owners))
    assert set(session.ls().id_experiment) == set(state.live)
    session.database.close()
    if goes_on:
        go_on(scene, action, found)
    return found


def _owners(state: State) -> Iterator[tuple[str, str]]:
    for folder in state.folders.values():
        if folder.is_live and folder.current:
            yield folder.current["name"], folder.id_experiment


def go_on(scene: Scene, action: Action, found: int | None) -> None:
    """Persist under the name again, in both ways, at once."""
    session = scene.session()
    if found is None:
        fill(session.create_experiment(action.name), 3).persist()
    else:
        fill(session.load_experiment(action.name), 3).persist(if_exists="update")
    fill(session.create_experiment(action.name), 4).persist(if_exists="replace")
    assert find(scene.session(), action.name) == 4
    state = scene.state()
    assert state.rows == state.live
    assert state.pending == []
    session.database.close()


def swept(scene: Scene) -> None:
    """Sweep without grace; check that nothing is left to find, and every experiment reads as before."""
    before = scene.state().live
    session = scene.session()
    with options.ctx({"tqdm.disable": True}):
        session.sweep(dry_run=False, grace_s=0)
        report = session.check(deep=True)
    assert len(report) == 0, str(report)
    assert scene.state().live == before
    left = scene.state().leftovers
    assert left == set(), (left, sorted(str(path.relative_to(scene.store)) for path in scene.store.rglob("*")))
    session.database.close()
