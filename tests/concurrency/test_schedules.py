"""The schedules of the model, acted by the real code: four writers, deletes, sweeps, sleepers, deaths, lost answers."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import warnings
from collections import Counter
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mltraq_ds.errors import MltraqDSWarning
from mltraq_ds.storage import LocalStorage, open_storage
from mltraq_ds.store import intents, slots
from tests.concurrency.real import REAL, RealWorld, id_of, persist, sweep
from tests.model.protocol import GRACE, LEASE
from tests.model.schedules import Experiment, Violation, run_all, waves

MEMORY = "memory://schedules"


def local_files(root: Path, prefix: str) -> dict[str, bytes]:
    """Return the bytes of all files in a folder by key."""
    found = {}
    for folder, _, names in os.walk(root / prefix):
        for name in names:
            if not name.startswith(".tmp-"):
                path = Path(folder, name)
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


def memory_files(prefix: str) -> dict[str, bytes]:
    """Return the bytes of all files in memory by key."""
    start = "/schedules/"
    return {
        path.removeprefix(start): file.getvalue()
        for path, file in MemoryFileSystem.store.items()
        if path.startswith(start + prefix)
    }


class Stage:
    """Two experiments, x named n and y named m, put up anew for each schedule."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        self.work = root / "work"
        self._set(local_files(root / "none", ""))
        self.work.mkdir()
        self.files: dict[str, bytes] = {}
        w = self._world(0)
        for key, name in ("xn", "ym"):
            run_all(w, persist(w, Experiment(key), name))
        self.contents, self.count = w.contents, w.count
        w.end()
        self.files = self._read("")
        shutil.copy(self.work / "index.db", root / "index.db")

    def _read(self, prefix: str) -> dict[str, bytes]:
        return local_files(self.work / "store", prefix) if self.kind == "folder" else memory_files(prefix)

    def _set(self, files: dict[str, bytes]) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        for path in [path for path in MemoryFileSystem.store if path.startswith("/schedules/")]:
            del MemoryFileSystem.store[path]

    def _world(self, seed: int) -> RealWorld:
        store = self.work / "store"
        store.mkdir(exist_ok=True)
        storage = LocalStorage(store, durability="relaxed") if self.kind == "folder" else open_storage(MEMORY)
        for key, data in self.files.items():
            storage.put(key, [data], size=len(data), parents=True)
        return RealWorld(seed, storage, f"sqlite:///{self.work}/index.db", self._read)

    def world(self, seed: int) -> RealWorld:
        """Return a world with the two experiments."""
        self._set(self.files)
        self.work.mkdir()
        shutil.copy(self.root / "index.db", self.work / "index.db")
        w = self._world(seed)
        w.contents, w.count = dict(self.contents), self.count
        return w


@pytest.fixture(params=["folder", "object-store"])
def stage(request, tmp_path, monkeypatch):
    """Return a stage; every thread is a machine of its own, and nobody waits before asking again."""
    monkeypatch.setattr(intents, "this_machine", lambda: threading.current_thread().name)
    monkeypatch.setattr(slots, "_FIRST_PAUSE_S", 0.0)
    warnings.simplefilter("ignore", MltraqDSWarning)
    return Stage(tmp_path, request.param)


def schedule(stage: Stage, seed: int) -> RealWorld:
    """Act a schedule, then let all be quiet, and look what is left."""
    w = stage.world(seed)
    try:
        loaded = [Experiment("x"), Experiment("y"), *REAL.load(w), *REAL.load(w)]
        waves(w, loaded, REAL)
        settle(stage, w)
    except BaseException as failure:
        failure.add_note(f"seed {seed} on a {stage.kind}; {[(actor.name, actor.at) for actor in w.threads]}")
        raise
    finally:
        w.end()
    return w


def settle(stage: Stage, w: RealWorld) -> None:
    """After two sweeps without grace only what is current is left, the index says the same, and names can be taken."""
    w.end_threads()
    while w.inflight:
        w.create(*w.inflight.pop())
        w.check()
    for _ in range(2):
        w.now += GRACE + LEASE
        run_all(w, sweep(w, grace=0))
    current = {folder: body for folder in w.folders() if (body := w.newest(folder))}
    live = {body["id_experiment"]: body for body in current.values() if not body["deleted"]}
    expected, marks = {"_store.json"}, set()
    for folder, body in current.items():
        if not body["deleted"]:
            expected |= {parts[0] for parts in (*body["records"], *body["blobs"])}
        elif stage.kind == "folder":
            raise Violation(f"I4 {folder} is left over")
        expected.add(f"{folder}/generations/{body['generation']}.json")
        # A fence may be all that was ever put where a first persist died.
        (marks if body["deleted"] else expected).add(f"{folder}/_meta.json")
    if (left := set(stage._read("")) - marks) != expected:
        raise Violation(f"I4 left over: {sorted(left - expected)}, gone: {sorted(expected - left)}")
    names = {body["name"]: identity for identity, body in live.items()}
    if len(names) != len(live):
        raise Violation(f"I3 a name has two: {[(body['name'], identity) for identity, body in live.items()]}")
    check_rows(stage, {identity: body["generation"] for identity, body in live.items()}, names)
    for identity in live:
        w.read(w.session().load_experiment(id_experiment=identity))
    for name in ("n", "m"):
        run_all(w, persist(w, Experiment(f"new {name}"), name, "replace"))
        if w.session().load_experiment(name).id_experiment != id_of(f"new {name}"):
            raise Violation(f"I5 {name} cannot be taken")


def check_rows(stage: Stage, live: dict[str, int], names: dict[str, str]) -> None:
    """Compare the rows with the files."""
    connection = sqlite3.connect(stage.work / "index.db")
    rows = connection.execute("SELECT id_experiment, generation FROM mltraq_experiments WHERE state = 'current'")
    found = dict(rows.fetchall())
    owners = connection.execute("SELECT name, id_experiment, claim_intent FROM mltraq_names").fetchall()
    connection.close()
    if found != live:
        raise Violation(f"I6 index {found}, files {live}")
    if sorted(owners) != sorted((name, identity, None) for name, identity in names.items()):
        raise Violation(f"I6 names {owners}, files {names}")


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.soak)])
def test_the_real_code_keeps_the_promises_of_the_model(stage, count):
    """Whatever the order: what is current is whole, nobody's work is lost, and in the end nothing is left over."""
    told = Counter()
    for seed in range(count):
        w = schedule(stage, seed)
        told.update(actor.name.partition("-")[0] for actor in w.threads)
        told.update(persisted=len(w.reported), died=w.died)
    assert told["persisted"] > 3 * count
    print(f"{count} schedules: {dict(told)}")
