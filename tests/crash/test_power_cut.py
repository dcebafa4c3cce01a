"""The power goes at every step, on a disk that keeps only what was flushed and any part of the rest."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from power import Disk, Recorder
from scene import ACTIONS, BYSTANDER, SUBJECT, Action, Scene, build, check_promise, fill, find, same, swept

from mltraq_ds import DataStoreIO, get, options, save
from mltraq_ds.errors import MltraqDSError, NotFoundError
from mltraq_ds.storage import LocalStorage, folders, local, writing
from mltraq_ds.store import lease, survey
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing.store_hooks import artifact, full_record
from mltraq_ds.tracking import Session

Look = Callable[[Scene, bool, bool], object]
COPY = Action(lambda session: session.load_experiment(SUBJECT).copy_to(name="copy"), "copy", None, 1)


@dataclass(frozen=True)
class Deep(Scene):
    """A scene whose store is a folder of the disk, so that it can be new."""

    @property
    def store(self) -> Path:
        return self.root / "disk" / "store"

    @property
    def disk(self) -> Path:
        return self.root / "disk"


@dataclass(frozen=True)
class Door:
    """A way in which something is written, and what must be found when the power is back.

    Parameters
    ----------
    act : callable
        Writes with a session.
    look : callable
        Fails if what is left of a scene is not right; told whether the writer had returned, and whether to go on.
    prepare : callable, optional
        Makes of the two experiments what the act needs; with None the store is new.
    """

    act: Callable[[Session], object]
    look: Look
    prepare: Callable[[Deep], object] | None = lambda scene: None


def promise(action: Action) -> Look:
    """Return a look for an action on an experiment."""

    def look(scene: Scene, is_over: bool, goes_on: bool) -> None:
        check_promise(scene, action, must_be=action.after if is_over else "either", goes_on=goes_on)
        swept(scene)

    return look


def look_at_a_new_store(scene: Scene, is_over: bool, goes_on: bool) -> None:
    """The first persist has happened or not, and others can persist."""
    session = scene.session()
    fill(session.create_experiment(BYSTANDER), 1).persist()
    session.database.close()
    promise(ACTIONS["new"])(scene, is_over, goes_on)


def look_after_a_sweep(scene: Scene, is_over: bool, goes_on: bool) -> None:
    """Nothing but orphans has gone, and the next sweep takes what is left."""
    session = scene.session()
    (mine,) = DataStoreIO.list("self_managed", store=session)
    assert mine.read() == b"of the user"
    assert find(session, BYSTANDER) == find(session, SUBJECT) == 1
    session.database.close()
    swept(scene)


def litter(scene: Scene) -> None:
    session = scene.session()
    fill(session.load_experiment(SUBJECT), 1).persist(if_exists="update")  # an old generation
    DataStoreIO.write(b"of the user", "self_managed/x", store=session)
    session.database.close()
    for folder in scene.state().folders.values():
        (scene.store / folder.path / uuid.uuid4().hex).write_bytes(b"an orphan")


def write_own(session: Session) -> None:
    DataStoreIO.serialize_write(np.arange(5000.0), "self_managed/x", store=session)


def look_at_own(scene: Scene, is_over: bool, goes_on: bool) -> None:
    """The file is whole or not there, and can be written again."""
    session = scene.session()
    for count in (is_over, is_over + 1):
        found = DataStoreIO.list("self_managed", store=session)
        assert count <= len(found) <= count + (not is_over)
        for one in found:
            same(one.read_deserialize(np.ndarray), np.arange(5000.0))
        write_own(session)
    session.database.close()


def save_version(session: Session) -> None:
    with options.ctx({"datastore.url": str(session.storage.url), "database.url": session.database.url}):
        save(np.arange(3000), "an artifact")


def look_at_versions(scene: Scene, is_over: bool, goes_on: bool) -> None:
    """The version is whole or not there, and the next one can be saved."""
    with options.ctx({"datastore.url": str(scene.store), "database.url": scene.database_url}):
        try:
            same(get("an artifact", version=1).get_value(), np.arange(3000))
        except NotFoundError:
            assert not is_over
        save(np.arange(9), "an artifact")
        same(get("an artifact").get_value(), np.arange(9))


def put_all(session: Session) -> None:
    store = FileStore(session.storage, experiment_id="e")
    store.put_run_record(full_record(experiment_id="e"))
    store.put_log("run-1", "out", "hello")
    store.put_derived("run-1", {"x": 1.0})
    store.put_artifact(b"12345" * 100, artifact("model", "run-1"))


def look_at_files(scene: Scene, is_over: bool, goes_on: bool) -> None:
    """Each of the four is whole or not there, and can be put again."""
    store = FileStore(LocalStorage(scene.store), experiment_id="e")
    for is_back in (is_over, True):
        missing = () if is_back else (None,)
        assert store.get_run_record("run-1") in (full_record(experiment_id="e"), *missing)
        assert store.get_log("run-1", "out") in ("hello", *missing)
        assert store.get_derived("run-1") in ({"x": 1.0}, *missing)
        kept = store.list_artifacts("run-1")
        assert kept or not is_back
        assert all(store.get_artifact(one.uri) == b"12345" * 100 for one in kept)
        session = scene.session()
        put_all(session)
        session.database.close()


DOORS = {
    **{name: Door(action.run, promise(action)) for name, action in ACTIONS.items()},
    "first": Door(ACTIONS["new"].run, look_at_a_new_store, None),
    "copy": Door(COPY.run, promise(COPY)),
    "sweep": Door(lambda session: session.sweep(dry_run=False, grace_s=0), look_after_a_sweep, litter),
    "own file": Door(write_own, look_at_own),
    "artifact": Door(save_version, look_at_versions),
    "first artifact": Door(save_version, look_at_versions, None),
    "puts": Door(put_all, look_at_files),
    "first puts": Door(put_all, look_at_files, None),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Let leases end at once and no moment be too short for sweep, and draw no bars."""
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    monkeypatch.setattr(survey, "_MOMENT_S", 0.0)
    with options.ctx({"tqdm.disable": True}):
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    scene = Deep(tmp_path_factory.mktemp("template") / "scene")
    scene.disk.mkdir(parents=True)
    return build(scene)


def record(template, root, monkeypatch, door, durability):
    """Do it once; return the disk with its history, and the database at each step."""
    scene = Deep(root)
    if door.prepare is None:
        scene.disk.mkdir(parents=True)
    else:
        template.copy_to(root)
        at_home(scene)
        door.prepare(scene)
    disk = Disk(scene.disk)
    databases: list[dict[str, bytes]] = []

    def on_step():
        databases.append({path.name: path.read_bytes() for path in scene.root.glob("index.db*")})

    recorder = Recorder(disk, on_step)
    with monkeypatch.context() as patch, options.ctx({"datastore.durability": durability}):
        for module in (local, writing, folders):
            patch.setattr(module, "os", recorder)
        patch.setattr(folders, "shutil", SimpleNamespace(rmtree=recorder.rmtree))
        session = scene.session(LocalStorage(scene.store, durability=durability))
        door.act(session)
    on_step()
    session.database.close()
    assert len(databases) == len(disk.steps) + 1
    return disk, databases


def at_home(scene: Deep) -> None:
    """Let the database take the store for the one that it has always known: a copied one would be another."""
    connection = sqlite3.connect(scene.root / "index.db")
    with suppress(sqlite3.OperationalError), connection:  # no tables yet
        connection.execute("UPDATE mltraq_stores SET url = ?", [scene.store.as_uri()])
    connection.close()


def restart(root: Path, files, database) -> Deep:
    """Return the scene as it is when the power is back."""
    scene = Deep(root)
    scene.disk.mkdir(parents=True)
    for path, data in files.items():
        if data is None:
            (scene.disk / path).mkdir(parents=True, exist_ok=True)
        else:
            (scene.disk / path).write_bytes(data)
    for name, data in database.items():
        if not name.endswith("-shm"):
            (root / name).write_bytes(data)
    if database:
        at_home(scene)
    return scene


def cuts(template, tmp_path, monkeypatch, name, durability, randoms, seed=0) -> Iterator[Exception]:
    """Cut the power before every step; yield what failed, and count the different states that were looked at."""
    door = DOORS[name]
    disk, databases = record(template, tmp_path / "recorded", monkeypatch, door, durability)
    seen: set[int] = set()
    for cut in range(len(disk.steps) + 1):
        for number in range(1 + randoms):
            dice = random.Random(f"{seed} {cut} {number}") if number else None
            files = disk.after(cut, dice)
            mark = hash((tuple(sorted(files.items(), key=lambda item: item[0])), databases[cut].get("index.db-wal")))
            if mark in seen:
                continue
            seen.add(mark)
            root = tmp_path / f"{cut}-{number}"
            try:
                scene = restart(root, files, databases[cut])
                door.look(scene, cut == len(disk.steps), cut % 10 == 0)
            except Exception as failure:  # noqa: BLE001 - judged by the caller
                failure.add_note(f"{name}, power cut before step {cut} ({[*disk.steps, 'the end'][cut]}), {number}")
                yield failure
            shutil.rmtree(root, ignore_errors=True)
    print(f"{name} {durability}: {len(disk.steps)} steps, {len(seen)} states")


@pytest.mark.parametrize("name", DOORS)
def test_full_durability(template, tmp_path, monkeypatch, name):
    """With durability "full" the old or the new version is complete at any power cut, and after the end the new one."""
    for failure in cuts(template, tmp_path, monkeypatch, name, "full", randoms=1):
        raise failure


@pytest.mark.soak
@pytest.mark.parametrize("name", DOORS)
def test_full_durability_in_many_orders(template, tmp_path, monkeypatch, name):
    """As above, with 20 random parts of what was not flushed at each step."""
    for failure in cuts(template, tmp_path, monkeypatch, name, "full", randoms=20, seed=1):
        raise failure


@pytest.mark.parametrize("name", ["update", "first", "own file", "artifact", "puts"])
def test_relaxed_durability_loses(template, tmp_path, monkeypatch, name):
    """With durability "relaxed" the same test finds a loss, which shows that it can."""
    failures = cuts(template, tmp_path, monkeypatch, name, "relaxed", randoms=4)
    assert next(failures, None) is not None


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", ACTIONS)
def test_the_database_is_older_than_the_files(template, tmp_path, monkeypatch, name, step):
    """A database that forgot what it had confirmed (a backup, a disk that lies) is behind: `rebuild_index` makes up."""
    action = ACTIONS[name]
    disk, databases = record(template, tmp_path / "recorded", monkeypatch, DOORS[name], "full")
    n_states = 0
    for cut in range(len(disk.steps), 0, -step):
        older = {tuple(found.items()): found for found in databases[:cut] if found != databases[cut]}
        for database in older.values():
            scene = restart(tmp_path / f"{cut}-{n_states}", disk.after(cut, None), database)
            n_states += 1
            try:
                scene.state()
                session = scene.session()
                with suppress(MltraqDSError):
                    assert find(session, action.name) in (action.before, action.after)
                session.rebuild_index()
                session.database.close()
                must_be = action.after if cut == len(disk.steps) else "either"
                check_promise(scene, action, must_be=must_be, goes_on=n_states % 5 == 0)
                swept(scene)
            except Exception as failure:
                failure.add_note(f"{name}, cut before step {cut}, an older database")
                raise
            shutil.rmtree(scene.root)
    print(f"{name}: {n_states} states with an older database")


def test_a_folder_made_anew_is_flushed_again(tmp_path, monkeypatch):
    """A folder that another process removed and we make anew is as durable as the first one."""
    store = tmp_path / "store"
    store.mkdir()
    ours, theirs = LocalStorage(store), LocalStorage(store)
    ours.make_folder("x")
    theirs.delete_folder("x")
    disk = Disk(store)
    recorder = Recorder(disk, lambda: None)
    for module in (local, writing, folders):
        monkeypatch.setattr(module, "os", recorder)
    ours.make_folder("x")
    assert disk.after(len(disk.steps), None) == {"x": None}
