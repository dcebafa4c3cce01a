"""Random access to a local file: mapped where that is safe, read elsewhere."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from contextlib import suppress

from mltraq_ds.errors import CorruptBlobError, StorageError
from mltraq_ds.storage.base import Source
from mltraq_ds.storage.failures import Failing

__all__ = ["MAP_FROM", "FileSource", "check_range", "new_buffer"]

#: Smaller reads are copied: a mapping costs some system calls and, before Python 3.13, a file descriptor (bytes).
MAP_FROM = 64 * 1024

_UNTRACKED = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_seek_lock = threading.Lock()


def _max_mappings() -> int:
    # Every mapping holds a descriptor, and arrays may live long: the rest is left to the program, and reads are copied.
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return 256
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 16_384 if soft == resource.RLIM_INFINITY else min(soft // 2, 16_384)


def new_buffer(size: int) -> memoryview:
    """Return `size` writable bytes of private memory, page-aligned where large (bytes)."""
    if size < MAP_FROM:
        return memoryview(bytearray(size))
    if not hasattr(mmap, "MAP_PRIVATE"):  # pragma: no cover - Windows
        return memoryview(mmap.mmap(-1, size))
    # The default, MAP_SHARED, would let a forked child write into the arrays of its parent.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages; they only make fewer page faults
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def check_range(key: str, offset: int, size: int, total: int) -> None:
    """Raise `CorruptBlobError` if a range leaves a key of `total` bytes: offsets are read from files, and untrusted."""
    if offset < 0 or size < 0 or offset + size > total:
        raise CorruptBlobError(
            f"read {key!r} failed because bytes {offset} to {offset + size} were asked for and it has {total}. It was "
            "cut short or does not belong to what refers to it: restore it from a copy."
        )


class FileSource(Source):
    """An open file.  Holds one file descriptor until it is closed or forgotten.

    Every read gives memory of its own: large ones a private, copy-on-write mapping of just that range, small ones a
    copy.  So an array that is changed in place changes neither the file nor what is read next.  A file that is cut
    *after* a mapping was handed out makes touching the lost pages a SIGBUS; the library never cuts a file.
    """

    def __init__(self, fd: int, size: int, failing: Failing, *, is_mappable: bool) -> None:
        self.key = failing.key
        self.size = size
        self._fd = fd
        self._failing = failing
        self._is_mappable = is_mappable

    def read(self, offset: int, size: int) -> memoryview:
        # docstring inherited
        if self._fd < 0:
            raise StorageError(f"read {self.key!r} failed because it was closed. Open it again.")
        check_range(self.key, offset, size, self.size)
        with self._failing:
            now = os.fstat(self._fd).st_size
        if now != self.size:
            raise CorruptBlobError(
                f"read {self.key!r} in {self._failing.url} failed because it has {now} bytes now and had {self.size} "
                "when it was opened. Something changed it: restore it from a copy."
            )
        if self._is_mappable and size >= MAP_FROM and len(_mappings) < _max_mappings():
            return self._map(offset, size)
        return self._copy(offset, size)

    def _map(self, offset: int, size: int) -> memoryview:
        skip = offset % mmap.ALLOCATIONGRANULARITY
        with self._failing:
            mapping = mmap.mmap(self._fd, skip + size, access=mmap.ACCESS_COPY, offset=offset - skip, **_UNTRACKED)
        _mappings.add(mapping)
        return memoryview(mapping)[skip:]

    def _copy(self, offset: int, size: int) -> memoryview:
        buffer = new_buffer(size)
        done = 0
        while done < size:
            with self._failing:
                count = _read_into(self._fd, buffer[done:], offset + done)
            if count == 0:
                check_range(self.key, offset, size, offset + done)
            done += count
        return buffer

    def close(self) -> None:
        # docstring inherited
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


def _read_into(fd: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [buffer], offset)
    with _seek_lock:  # pragma: no cover - Windows
        os.lseek(fd, offset, os.SEEK_SET)
        data = os.read(fd, buffer.nbytes)
    buffer[: len(data)] = data
    return len(data)
