"""What is mapped becomes memory when somebody wants to change the file, and the lease says when."""

import errno
import fcntl
import mmap
import os
import sys
import threading

import pytest

from mltraq_ds.storage import LocalStorage, mappings, remapping
from mltraq_ds.testing.storage_hooks import pattern

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")

SIZE = 3 * 2**20 + 12_345
DATA = pattern(SIZE)


@pytest.fixture
def storage(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.put("x", [DATA], size=SIZE)
    os.chmod(tmp_path / "x", 0o644)
    return storage


def is_leased(path):
    with open("/proc/locks") as locks:
        return any(f":{os.stat(path).st_ino} " in line for line in locks)


def refuse(monkeypatch, number):
    real = fcntl.fcntl

    def refusing(fd, command, *arguments):
        if command == fcntl.F_SETLEASE:
            raise OSError(number, os.strerror(number))
        return real(fd, command, *arguments)

    monkeypatch.setattr(fcntl, "fcntl", refusing)


def test_every_byte_is_kept(storage, tmp_path):
    """Ranges that begin and end anywhere, also where something was written into them, become memory as they are."""
    source = storage.open("x")
    ranges = [(0, SIZE), (4096, 2**20), (5001, 2**21 + 1), (SIZE - 70_000, 70_000)]
    views = [source.read(offset, size) for offset, size in ranges]
    for number, view in enumerate(views):
        view[number] = 255 - view[number]
        view[-1] = number
    expected = [bytes(view) for view in views]
    assert is_leased(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    assert [bytes(view) for view in views] == expected
    for view in views:
        view[:] = bytes(len(view))
    assert not is_leased(tmp_path / "x")


def test_mapped_memory_is_few_pieces(storage, tmp_path):
    """A mapping that became memory does not fall into a thousand pieces, of which a process has only so many."""
    view = storage.open("x").read(0, SIZE)
    (tmp_path / "x").write_bytes(b"")
    with open("/proc/self/maps") as maps:
        before = len(maps.readlines())
    del view
    with open("/proc/self/maps") as maps:
        assert abs(before - len(maps.readlines())) < 4


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL])
def test_where_no_lease_is_granted(storage, tmp_path, monkeypatch, number):
    """Somebody else's file, or a file system without leases, is mapped all the same."""
    refuse(monkeypatch, number)
    before = len(mappings._state.mappings)
    view = storage.open("x").read(0, SIZE)
    assert (bytes(view), len(mappings._state.mappings)) == (DATA, before + 1)
    assert not is_leased(tmp_path / "x")


def test_where_no_thread_starts(storage, monkeypatch):
    """A process that is about to end, or has too many threads, reads all the same."""
    monkeypatch.setattr(mappings._state, "_thread", None)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert bytes(storage.open("x").read(0, SIZE)) == DATA


def test_while_somebody_waits(storage, monkeypatch):
    """Nothing more is mapped while somebody waits to change the file; it is read."""
    source = storage.open("x")
    first = source.read(0, SIZE)
    monkeypatch.setattr(mappings.Leased, "_is_wanted", lambda self: True)
    before = len(mappings._state.mappings)
    assert bytes(source.read(0, SIZE)) == bytes(first) == DATA
    assert len(mappings._state.mappings) == before


@pytest.mark.parametrize("call", ["mmap", "mremap"])
def test_no_memory(storage, monkeypatch, call):
    """Without memory for the copy the mapping stays as it is, and nobody waits for ever."""
    real, page = remapping._system(), mmap.PAGESIZE
    failing = type("System", (), {name: getattr(real, name) for name in ("mmap", "mremap", "munmap")})
    monkeypatch.setattr(failing, call, staticmethod(lambda *arguments: remapping._FAILED))
    monkeypatch.setattr(remapping, "_system", lambda: failing)
    view = storage.open("x").read(page, SIZE - page)
    with pytest.raises(OSError, match="a mapped file"):
        remapping.move_to_memory(view.obj)
    assert bytes(view) == DATA[page:]
    monkeypatch.setattr(mappings.Leased, "_is_wanted", lambda self: True)
    held = mappings._state.mappings[view.obj]
    held.give_way()
    assert not held._is_held
    assert bytes(view) == DATA[page:]
