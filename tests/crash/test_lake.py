"""A kill at every operation of the lake's verbs that changes something, on the store and the remote.

Between two of them nothing on the disk changes, so a kill at a read leaves what the one before the next change leaves.

Whatever was being done: every value of the store reads as before, no object on the remote has wrong bytes under a right
name, and running the verb again ends as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import children
from scene import same

from mltraq_ds import DataStore, create_session, lake, options
from mltraq_ds.storage import LocalStorage, remote_urls
from mltraq_ds.testing import FaultStorage, Kill

BLOBS = 2
#: The operations that change something.
CHANGES = ("put", "delete", "delete_many", "flush", "prune", "make_folder", "move_folder", "delete_folder")


def build(root: Path) -> Path:
    """Return a folder with a store and, for what needs it, a remote that has its blobs."""
    options.set("tqdm.disable", True)
    session = create_session("sqlite:///:memory:", root / "store")
    experiment = session.create_experiment("digits")
    with experiment.run() as run:
        for number in range(BLOBS):
            run.fields[f"ds{number}"] = DataStore(w=np.arange(2000.0) + number)
    experiment.persist()
    return root


def check_values(store: Path) -> None:
    """Read every value, in a session that knows nothing."""
    (folder,) = (path.name for path in store.iterdir() if path.is_dir() and not path.name.startswith("_"))
    session = create_session("sqlite:///:memory:", store)
    fields = session.load_experiment(id_experiment=folder).runs.first().fields
    for number in range(BLOBS):
        same(fields[f"ds{number}"].w, np.arange(2000.0) + number)
    session.close()


def check_remote(home: Path) -> int:
    """Return how many objects there are; each has the bytes that its name says."""
    paths = [path for path in home.glob("*") if not path.name.startswith((".", "_"))]
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    return len(paths)


def uploaded(root: Path, store: object, out: object) -> None:
    lake.upload(store, remotes=root / "lake", jobs=1)


def added(root: Path, store: object, out: object) -> None:
    lake.add(store, out, remotes=root / "lake", jobs=1)


def added_in_place(root: Path, store: object, out: object) -> None:
    lake.add(store, remotes=root / "lake", in_place=True, jobs=1)


def cloned(root: Path, store: object, out: object) -> None:
    lake.clone(store, out, mode="DEEP_COPY", jobs=1)


def dropped(root: Path, store: object, out: object) -> None:
    lake.drop(store, jobs=1)


def pulled(root: Path, store: object, out: object) -> None:
    lake.pull(store, jobs=1)


def swept(root: Path, store: object, out: object) -> None:
    lake.sweep(root / "lake", refs=[store], grace_s=0, dry_run=False, jobs=1)


def copied(root: Path, store: object, out: object) -> None:
    lake.clone(store, out, jobs=1)


def pointed(root: Path, store: object, out: object) -> None:
    lake.clone(store, out, mode="REMOTE_FILE", jobs=1)


VERBS = {
    "upload": (uploaded, [], {"local and remote": BLOBS}),
    "add": (added, [], {"local": BLOBS}),
    "add-in-place": (added_in_place, [], {"remote": BLOBS}),
    "clone": (cloned, [uploaded], {"local and remote": BLOBS}),
    "pointers-for-bytes": (pointed, [copied, uploaded], {"local and remote": BLOBS}),
    "drop": (dropped, [uploaded], {"remote": BLOBS}),
    "pull": (pulled, [added_in_place], {"local and remote": BLOBS}),
    "sweep": (swept, [uploaded], {"local and remote": BLOBS}),
}


def strike(root: Path, verb: str, number: int, when: str) -> None:
    """Do it, and be killed at one operation, wherever it goes to."""
    options.set("tqdm.disable", True)
    places = itertools.count(1)

    def plan(call: object) -> Kill | None:
        return Kill(when) if next(places) == number else None

    def opened(folder: Path) -> FaultStorage:
        return FaultStorage(LocalStorage(folder), plan, verbs=CHANGES)

    url = (root / "lake").as_uri()
    remote_urls._opened[url, "{}"] = opened(root / "lake")
    VERBS[verb][0](root, opened(root / "store"), opened(root / "out"))
    print("untouched" if next(places) <= number else "struck")


@pytest.mark.parametrize("when", ["during", pytest.param("after", marks=pytest.mark.soak)])
@pytest.mark.parametrize("verb", VERBS)
def test_kill_at_every_operation(tmp_path, verb, when):
    """Killed at the n-th operation, for n = 1, 2, … until it was done: nothing is lost, and again finishes it."""
    function, before, states = VERBS[verb]
    template = build(tmp_path / "template")
    for prepare in before:
        prepare(template, template / "store", template / "out")
    if verb == "sweep":
        lake.remove(template / "store", remotes=template / "lake", keys="ds0")
    struck = 0
    for number in itertools.count(1):
        # Absolute URLs of the remote are in the pointers, so each attempt has the same place.
        shutil.rmtree(tmp_path / "place", ignore_errors=True)
        root = tmp_path / "place"
        shutil.copytree(template, root)
        for pointer in root.glob("store/*/*.remote"):
            pointer.chmod(0o644)
            pointer.write_text(pointer.read_text().replace("/template/", "/place/"))
        child = children.run(tmp_path / "children", strike, root, verb, number, when)
        if child.process.exitcode == 0:
            assert "untouched" in child.said(), child.said()
            break
        assert child.process.exitcode == children.KILLED, child.said()
        look(root, verb)
        function(root, root / "store", root / "out")
        look(root, verb, is_done=True)
        struck += 1
        found = lake.status(root / "store").actions()
        assert found == (states if verb != "sweep" else {"local": 1, "local and remote": BLOBS - 1})
    assert struck >= (1 if verb == "sweep" else BLOBS)


def look(root: Path, verb: str, *, is_done: bool = False) -> None:
    """Look at everything around the code under test."""
    check_values(root / "store")
    objects = check_remote(root / "lake") if (root / "lake").exists() else 0
    out = root / "out"
    if is_done and verb in ("add", "clone", "pointers-for-bytes"):
        check_values(out)
        assert verb == "clone" or not [path for path in out.glob("*/*") if len(path.name) == 32]
    elif out.exists() and list(out.glob("*/generations/*.json")):
        check_values(out)  # an experiment is there whole or not at all
    if is_done and verb != "clone":
        assert objects == (BLOBS - 1 if verb == "sweep" else BLOBS)
    if is_done:
        session = create_session("sqlite:///:memory:", root / "store")
        session.rebuild_index()
        assert set(session.check(deep=True).kinds()) <= {"unfinished write"}
        session.close()
