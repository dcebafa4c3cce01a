"""Somebody changes the files of values that are loaded: copies over them, cuts them, removes them.

Every reader is a process of its own, so that a SIGBUS would be seen as what it is.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import children
from scene import Scene

from mltraq_ds import DataStore, File, create_session, options
from mltraq_ds.errors import CorruptBlobError, MltraqDSError
from mltraq_ds.storage import LocalStorage, mappings
from mltraq_ds.storage.base import Source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")

N = 2**18
SIGBUS = -signal.SIGBUS


FILE = bytes(range(256)) * 4096


def copy_over(blob: Path, other: bytes) -> None:
    """As ``cp`` does: the same inode gets other bytes."""
    with open(blob, "wb") as file:
        file.write(other)


def in_place(blob: Path) -> None:
    """Change every page of the file and put its times back, so that they tell nothing."""
    found = blob.stat()
    with open(blob, "r+b") as file:
        for offset in range(0, found.st_size, 4096):
            file.seek(offset)
            file.write(b"changed!")
    os.utime(blob, ns=(found.st_atime_ns, found.st_mtime_ns))


ACTS = {
    "copied-over": lambda blob: copy_over(blob, blob.read_bytes()[::-1]),
    "longer": lambda blob: copy_over(blob, blob.read_bytes()[::-1] * 2),
    "cut-to-nothing": lambda blob: os.truncate(blob, 0),
    "cut-to-half": lambda blob: os.truncate(blob, blob.stat().st_size // 2),
    "cut-and-grown": lambda blob: (size := blob.stat().st_size, os.truncate(blob, 0), os.truncate(blob, size)),
    "in-place": in_place,
    "removed": os.unlink,
    "moved-over": lambda blob: os.replace(shutil.copy(__file__, blob.parent / "other"), blob),
    "cp": lambda blob: subprocess.run(["cp", "-f", __file__, str(blob)], check=True),
}


def made(root: Path) -> tuple[Scene, Path]:
    """Return a scene with one experiment, and the path of its blob, which its owner may write to."""
    scene = Scene(root / "scene")
    scene.root.mkdir()
    source = root / "model.bin"
    source.write_bytes(FILE)
    experiment = scene.session().create_experiment("mapped")
    with experiment.run() as run:
        frame = pd.DataFrame({"a": np.arange(N), "b": np.arange(N) / 2})
        run.fields.ds = DataStore(early=np.arange(N), late=np.arange(N) * 3, frame=frame, model=File(source))
    experiment.persist()
    (blob,) = (path for path in (scene.store / experiment.id_experiment).iterdir() if len(path.name) == 32)
    blob.chmod(0o644)
    return scene, blob


def as_told(read: Callable[[], bool]) -> str:
    """Read; tell "right", "WRONG" or the typed error."""
    try:
        return "right" if read() else "WRONG"
    except MltraqDSError as error:
        return type(error).__name__


def reader(
    root: Path, gate: Path, *, mmap: bool = True, leased: bool = True, act: str = "", fork: bool = False
) -> None:
    """Load, take values in the hand, have the file changed or do it, and tell what is read from then on."""
    if not leased:
        mappings.Leased._take = lambda self: False
    with options.ctx({"datastore.mmap": mmap, "datastore.durability": "relaxed"}):
        session = create_session(Scene(root).database_url, Scene(root).store)
    ds = session.load_experiment("mapped").runs.first().fields.ds
    early, frame, stream = ds.early, ds.frame, ds.model.open()
    early[5] = -5  # what is written into a loaded array stays, too
    head = stream.read(300_000)
    name = f"{os.getpid()}"
    if fork and not os.fork():
        name = "forked"
    if act:
        ACTS[act](gate / "blob")
    else:
        (gate / f"ready-{name}").touch()
        while not (gate / "open").exists():
            time.sleep(0.005)
    expected = np.arange(N)
    expected[5] = -5
    told = {
        "early": as_told(lambda: early.tobytes() == expected.tobytes()),
        "frame": as_told(lambda: frame.b.tolist() == (np.arange(N) / 2).tolist()),
        "stream": as_told(lambda: head + stream.read() == FILE),
        "late": as_told(lambda: ds.late.tobytes() == (np.arange(N) * 3).tobytes()),
        "anew": as_told(lambda: session.load_experiment("mapped").runs.first().fields.ds.late[7] == 21),
    }
    (gate / f"told-{name}.tmp").write_text(json.dumps(told))
    (gate / f"told-{name}.tmp").rename(gate / f"told-{name}")


def told_by(tmp_path: Path, change: str = "", *, n_readers: int = 1, **how: Any) -> list[dict[str, str]]:
    """Have a reader read while the blob is changed; return what it and its fork tell."""
    scene, blob = made(tmp_path)
    gate = tmp_path / "gate"
    gate.mkdir()
    (gate / "blob").symlink_to(blob)
    child = children.start(tmp_path, reader, scene.root, gate, **how)
    if change:
        wait_for(gate, "ready-*", n_readers, child)
        ACTS[change](blob)
        (gate / "open").touch()
    code = child.wait()
    assert code == 0, (code, child.said())
    wait_for(gate, "told-*[!p]", n_readers, child)
    return [json.loads(path.read_text()) for path in gate.glob("told-*") if path.suffix != ".tmp"]


def wait_for(gate: Path, pattern: str, number: int, child: children.Child) -> None:
    deadline = time.monotonic() + 30
    while len(list(gate.glob(pattern))) < number:
        assert time.monotonic() < deadline, child.said()
        assert child.process.exitcode in (None, 0), child.said()
        time.sleep(0.005)


DAMAGE = {"CorruptBlobError", "DanglingReferenceError"}


def check_told(told: dict[str, str], act: str) -> None:
    """What was in the hand is right; what is read later is right or damage by name."""
    if act == "in-place":
        told.pop("stream")  # verified when it is opened; later its times tell, and they were put back
    assert told["early"] == told["frame"] == "right", told
    assert set(told.values()) <= {"right", *DAMAGE}, told


@pytest.mark.parametrize("act", ACTS)
def test_another_process_changes_a_mapped_blob(tmp_path, act):
    """Values in the hand stay what they were, later reads are right or typed errors, and the process lives."""
    (told,) = told_by(tmp_path, act)
    check_told(told, act)
    assert told["anew"] in DAMAGE
    if act in ("removed", "moved-over"):  # the file that is open is still the old one
        assert told["late"] == "right"


@pytest.mark.parametrize("act", ["copied-over", "cut-to-nothing"])
def test_the_process_itself_changes_its_blob(tmp_path, act):
    """A program that writes to a blob that it has mapped itself neither hangs nor dies."""
    (told,) = told_by(tmp_path, act=act)
    check_told(told, act)


@pytest.mark.parametrize("act", ["copied-over", "cut-to-nothing"])
def test_a_forked_process_is_told_as_well(tmp_path, act):
    """Parent and forked child, who share what was mapped before the fork, both keep their values."""
    for told in told_by(tmp_path, act, n_readers=2, fork=True):
        check_told(told, act)


@pytest.mark.parametrize("act", ACTS)
def test_without_mappings_no_lease_is_needed(tmp_path, act):
    """Where the system grants no lease, `datastore.mmap=False` keeps the promise."""
    (told,) = told_by(tmp_path, act, mmap=False, leased=False)
    check_told(told, act)


def read_in_threads(folder: Path) -> None:
    """Read ranges of a file in four threads while it is changed: each is right for as long as it lives, or refused."""
    storage = LocalStorage(folder, durability="relaxed")
    data = np.arange(4 * N)
    for number in range(20):
        storage.put(f"{number}", [data.tobytes()], size=data.nbytes)
        source, is_over, told = storage.open(f"{number}"), threading.Event(), set()
        threads = [threading.Thread(target=_read, args=(source, seed, is_over, told)) for seed in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.03)  # the clock of the file system has moved on since it was written
        _wait(lambda told=told: "right" in told)
        ACTS["cut-to-nothing" if number % 2 else "copied-over"](folder / f"{number}")
        _wait(lambda told=told: "CorruptBlobError" in told)
        is_over.set()
        for thread in threads:
            thread.join()
        assert told == {"right", "CorruptBlobError"}, (number, told)


def _wait(is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_there() and time.monotonic() < deadline:
        time.sleep(0.005)


def _read(source: Source, seed: int, is_over: threading.Event, told: set[str]) -> None:
    dice = random.Random(seed)
    while not is_over.is_set():
        start = dice.randrange(2 * N)
        try:
            array = np.frombuffer(source.read(8 * start, 16 * N), np.int64)
        except CorruptBlobError as error:
            told.add(type(error).__name__)
            continue
        for _ in range(2):
            told.add("right" if (array == np.arange(start, start + 2 * N)).all() else "WRONG")
            time.sleep(dice.random() / 500)


def test_ranges_read_in_threads_while_a_file_changes(tmp_path):
    """Also what no CRC covers is right or refused, whichever thread reads it at whatever moment of the change."""
    child = children.run(tmp_path / "said", read_in_threads, tmp_path)
    assert child.wait() == 0, child.said()


@pytest.mark.parametrize(("act", "code"), [("cut-to-nothing", SIGBUS), ("cut-and-grown", 0), ("in-place", 0)])
def test_mapped_without_a_lease(tmp_path, act, code):
    """With neither, a process dies or reads wrong values: so it is documented, and so these tests can find it."""
    scene, blob = made(tmp_path)
    (tmp_path / "blob").symlink_to(blob)
    child = children.run(tmp_path, reader, scene.root, tmp_path, leased=False, act=act)
    assert child.wait() == code, child.said()
    if not code:
        (told,) = (json.loads(path.read_text()) for path in tmp_path.glob("told-*"))
        assert told["early"] == "WRONG"


def test_a_blob_that_somebody_is_writing_to_is_not_mapped(tmp_path):
    """While a file is open for writing no lease is granted, and its bytes are read."""
    scene, blob = made(tmp_path)
    ds = scene.session().load_experiment("mapped").runs.first().fields.ds
    with open(blob, "r+b"):
        before = len(mappings._state.mappings)
        assert ds.early.tolist() == list(range(N))
        assert len(mappings._state.mappings) == before
    assert ds.late[7] == 21
    assert len(mappings._state.mappings) == before + 1


def test_a_lease_ends_with_the_last_value(tmp_path):
    """Nobody has to wait for a process that has let go of its values."""
    scene, blob = made(tmp_path)
    ds = scene.session().load_experiment("mapped").runs.first().fields.ds
    early = ds.early
    assert leases_of(blob) == 1
    del ds
    assert early[7] == 7
    assert leases_of(blob) == 1
    del early
    gc.collect()
    assert leases_of(blob) == 0


def leases_of(path: Path) -> int:
    """Return how many leases the kernel knows of a file."""
    return sum(f":{path.stat().st_ino} " in line for line in Path("/proc/locks").read_text().splitlines())
