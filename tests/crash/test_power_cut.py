"""The power goes at every step, on a disk that keeps only what was flushed and any part of the rest."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from power import Disk, Recorder
from scene import ACTIONS, Scene, build, check_promise

from mltraq_ds.storage import LocalStorage, folders, local, writing


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return build(tmp_path_factory.mktemp("template") / "scene")


def record(template, root, monkeypatch, name, durability):
    """Do it once; return the disk with its history, and the database at each step."""
    scene = template.copy_to(root)
    disk = Disk(scene.store)
    databases: list[dict[str, bytes]] = []

    def on_step():
        databases.append({path.name: path.read_bytes() for path in scene.root.glob("index.db*")})

    recorder = Recorder(disk, on_step)
    session = scene.session(LocalStorage(scene.store, durability=durability))
    with monkeypatch.context() as patch:
        for module in (local, writing, folders):
            patch.setattr(module, "os", recorder)
        patch.setattr(folders, "shutil", SimpleNamespace(rmtree=recorder.rmtree))
        ACTIONS[name].run(session)
    on_step()
    session.database.close()
    assert len(databases) == len(disk.steps) + 1
    return disk, databases


def restart(root: Path, files, database) -> Scene:
    """Return the scene as it is when the power is back."""
    scene = Scene(root)
    scene.store.mkdir(parents=True)
    for path, data in files.items():
        if data is None:
            (scene.store / path).mkdir(parents=True, exist_ok=True)
        else:
            (scene.store / path).write_bytes(data)
    for name, data in database.items():
        if not name.endswith("-shm"):
            (root / name).write_bytes(data)
    connection = sqlite3.connect(root / "index.db")
    with connection:
        connection.execute("UPDATE mltraq_stores SET url = ?", [scene.store.as_uri()])
    connection.close()
    return scene


def cuts(template, tmp_path, monkeypatch, name, durability, randoms, seed=0):
    """Cut the power before every step; yield what failed, and count the different states that were looked at."""
    disk, databases = record(template, tmp_path / "recorded", monkeypatch, name, durability)
    action = ACTIONS[name]
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
                must_be = action.after if cut == len(disk.steps) else "either"
                check_promise(scene, action, must_be=must_be, goes_on=cut % 10 == 0)
            except Exception as failure:  # noqa: BLE001 - judged by the caller
                failure.add_note(f"{name}, power cut before step {cut} ({[*disk.steps, 'the end'][cut]}), {number}")
                yield failure
            shutil.rmtree(root, ignore_errors=True)
    print(f"{name} {durability}: {len(disk.steps)} steps, {len(seen)} states")


@pytest.mark.parametrize("name", ACTIONS)
def test_full_durability(template, tmp_path, monkeypatch, name):
    """With durability "full" the old or the new version is complete at any power cut, and after the end the new one."""
    for failure in cuts(template, tmp_path, monkeypatch, name, "full", randoms=1):
        raise failure


@pytest.mark.soak
@pytest.mark.parametrize("name", ACTIONS)
def test_full_durability_in_many_orders(template, tmp_path, monkeypatch, name):
    """As above, with 20 random parts of what was not flushed at each step."""
    for failure in cuts(template, tmp_path, monkeypatch, name, "full", randoms=20, seed=1):
        raise failure


def test_relaxed_durability_loses(template, tmp_path, monkeypatch):
    """With durability "relaxed" the same test finds a loss, which shows that it can."""
    failures = cuts(template, tmp_path, monkeypatch, "update", "relaxed", randoms=4)
    assert next(failures, None) is not None


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
