"""The storage that fails on purpose does so where it is told, and nowhere else."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from mltraq_ds.errors import StorageError
from mltraq_ds.storage import LocalStorage, open_storage
from mltraq_ds.testing import Call, Callback, Delay, Fail, Fault, FaultStorage, Kill, LoseResponse, Short


def use(storage):
    """Do every verb once."""
    storage.put("a/x", [b"", b"12", b"34"], size=4, parents=True)
    with_source = storage.open("a/x")
    with_source.read(0, 1)
    with_source.close()
    storage.read("a/x")
    storage.exists("a/x")
    storage.stat("a/x")
    list(storage.list("a"))
    list(storage.list_unfinished())
    storage.flush(["a/x"])
    storage.folders()
    storage.make_folder("b")
    storage.prune("b")
    storage.move_folder("a", "c")
    storage.delete("c/y")
    storage.delete_many(iter(["c/x", "c/z"]))
    storage.delete_folder("c")
    storage.now()


VERBS = [
    *["put", "open", "read_range", "read", "exists", "stat", "list", "list_unfinished", "flush", "folders"],
    *["make_folder", "prune", "move_folder", "delete", "delete_many", "delete_folder", "now"],
]


def test_every_verb_is_counted(tmp_path):
    """The log has every operation in order, numbered from 1, with its keys."""
    storage = FaultStorage(LocalStorage(tmp_path))
    use(storage)
    assert [call.verb for call in storage.log] == VERBS
    assert [call.number for call in storage.log] == list(range(1, len(VERBS) + 1))
    assert storage.log[0] == Call(1, "put", "a/x")
    assert storage.log[-3].key == "c/x c/z"
    assert storage.fired == []
    assert f"operations={len(VERBS)}" in repr(storage)
    assert (storage.scheme, storage.is_local, storage.is_shareable, storage.creates_if_absent) == (
        *("file", True, True, True),
    )


@pytest.mark.parametrize("number", range(1, len(VERBS) + 1))
@pytest.mark.parametrize("fault", [Fail(errno.EACCES), LoseResponse(errno.EACCES), Short(errno.EACCES)])
def test_fails_at_the_nth_operation(tmp_path, number, fault):
    """Exactly the n-th operation fails, with the number asked for."""
    storage = FaultStorage(LocalStorage(tmp_path), {number: fault})
    with pytest.raises(StorageError, match=VERBS[number - 1]) as caught:
        use(storage)
    assert caught.value.errno == errno.EACCES
    assert [call.number for call in storage.fired] == [number]
    assert len(storage.log) == number


def test_failed_or_lost(tmp_path):
    """An operation that failed was not done; one whose response was lost was."""
    inner = LocalStorage(tmp_path)
    for key, fault in (("failed", Fail()), ("lost", LoseResponse())):
        with pytest.raises(StorageError):
            FaultStorage(inner, {1: fault}).put(key, [b"1"], size=1)
    assert [stat.key for stat in inner.list()] == ["lost"]


@pytest.mark.parametrize("scheme", ["folder", "memory"])
def test_short_write(tmp_path, scheme):
    """A put that breaks off shows nothing of the key; in a folder half of the bytes stay in a temporary file."""
    inner = LocalStorage(tmp_path) if scheme == "folder" else open_storage(f"memory://{tmp_path.name}-short")
    storage = FaultStorage(inner, {1: Short()})
    with pytest.raises(OSError, match="No space left") as caught:
        storage.put("x", [b"123", b"", b"456", b"7"], size=7, parents=True)
    assert caught.value.errno == errno.ENOSPC
    assert list(inner.list()) == []
    left = list(inner.list_unfinished())
    assert [stat.size for stat in left] == ([3] if scheme == "folder" else [])
    storage.put("x", [b"1"], size=1)
    assert inner.read("x") == b"1"


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("verb", ["put", "delete"])
def test_kill(tmp_path, when, verb):
    """The process dies before, within or after the operation; nothing of a put is visible unless it was done."""
    LocalStorage(tmp_path).put("old", [b"1"], size=1)
    code = f"""
from mltraq_ds.storage import LocalStorage
from mltraq_ds.testing import FaultStorage, Kill
storage = FaultStorage(LocalStorage({str(tmp_path)!r}), {{1: Kill({when!r})}}, verbs=[{verb!r}])
storage.exists("old")
storage.put("x", [b"12", b"34"], size=4)
storage.delete("old")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    keys = {stat.key for stat in LocalStorage(tmp_path).list()}
    if verb == "put":
        assert keys == ({"old", "x"} if when == "after" else {"old"})
        assert len(list(LocalStorage(tmp_path).list_unfinished())) == (when == "during")
    else:
        assert keys == ({"x"} if when == "after" else {"x", "old"})


def test_delay_and_callback(tmp_path):
    """An operation can be late, or wait for what a test does first."""
    inner = LocalStorage(tmp_path)
    storage = FaultStorage(
        inner, {1: Delay(0.05), 2: Callback(lambda call: inner.put("seam", [call.verb.encode()], size=6))}
    )
    start = time.monotonic()
    storage.exists("x")
    assert time.monotonic() - start >= 0.05
    assert storage.exists("seam")
    assert inner.read("seam") == b"exists"
    assert len(storage.fired) == 2


def test_plan_as_a_function(tmp_path):
    """A plan may decide by verb and key; verbs that are not counted never fail."""
    storage = FaultStorage(
        LocalStorage(tmp_path), lambda call: Fail() if call.key == "bad" else None, verbs=["put", "stat"]
    )
    storage.put("good", [b"1"], size=1)
    with pytest.raises(StorageError):
        storage.put("bad", [b"1"], size=1)
    with pytest.raises(StorageError):
        storage.stat("bad")
    storage.delete("bad")
    assert [call.verb for call in storage.log] == ["put", "put", "stat"]


def test_own_fault(tmp_path):
    """A fault of one's own overrides what it needs."""

    class Flip(Fault):
        def buffers(self, call, storage, buffers, size):
            return [bytes(reversed(b"".join(buffers)))]

    storage = FaultStorage(LocalStorage(tmp_path), {1: Flip()})
    storage.put("x", [b"12", b"3"], size=3)
    assert storage.read("x") == b"321"


def test_copies_count_for_themselves(tmp_path):
    """A pickled copy has plan and log of the moment, and goes on alone."""
    storage = FaultStorage(LocalStorage(tmp_path), {3: Fail()})
    storage.exists("x")
    copy = pickle.loads(pickle.dumps(storage))
    copy.exists("x")
    with pytest.raises(StorageError):
        copy.exists("x")
    assert (len(storage.log), len(copy.log)) == (1, 3)
    assert os.listdir(tmp_path) == []


def test_kill_does_not_strike_later():
    """A fault that kills within a put lets the buffers of other moments alone."""
    buffers = [b"1"]
    assert Kill("before").buffers(Call(1, "put", "x"), None, buffers, 1) is buffers  # type: ignore[arg-type]
    Fault().before(Call(1, "put", "x"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("verb", ["put", "stat"])
def test_kill_strikes_once_at_its_moment(tmp_path, monkeypatch, when, verb):
    """The signal is sent at the moment asked for, to this process, and to no other."""
    sent = []

    def kill(pid, number):
        sent.append((pid, number))
        raise ZeroDivisionError  # here the process would be gone

    monkeypatch.setattr(os, "kill", kill)
    inner = LocalStorage(tmp_path)
    inner.put("old", [b"1"], size=1)
    storage = FaultStorage(inner, {1: Kill(when)}, verbs=[verb])
    with pytest.raises(ZeroDivisionError):
        storage.put("x", [b"12", b"", b"34"], size=4)
        storage.stat("old")
    assert sent == [(os.getpid(), signal.SIGKILL)]
    assert inner.exists("x") == (verb == "stat" or when == "after")
