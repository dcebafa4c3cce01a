"""Random access to a local file: mapped where that is safe, read elsewhere."""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from mltraq_ds.errors import CorruptBlobError, StorageError
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.storage.failures import Failing
from mltraq_ds.storage.folders import check_is_file

__all__ = ["MAP_FROM", "FileSource", "check_range", "new_buffer", "open_file"]

#: Smaller reads are copied: a mapping costs some system calls and, before Python 3.13, a file descriptor (bytes).
MAP_FROM = 64 * 1024

# Without O_NONBLOCK opening a pipe would wait for a writer.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_IS_LINK = {errno.ELOOP, errno.EMLINK}
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


def open_file(path: str, check_link: Callable[[str], None]) -> int:
    """Open a file for reading; `check_link` is called with a path that is a symbolic link, before it is followed."""
    try:
        return os.open(path, _READ | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno not in _IS_LINK:
            raise
    check_link(path)
    return os.open(path, _READ)


class _Descriptor:
    """A file descriptor that is closed when nobody uses it: not under the hands of a thread that is reading."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a file descriptor means nothing elsewhere")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.number)


class FileSource(Source):
    """An open file.  Holds one file descriptor until it is closed or forgotten.

    Every read gives memory of its own: large ones a private, copy-on-write mapping of just that range, small ones a
    copy.  So an array that is changed in place changes neither the file nor what is read next.  A file that is cut
    *after* a mapping was handed out makes touching the lost pages a SIGBUS; the library never cuts a file.

    Parameters
    ----------
    fd : int
        Open for reading; owned from now on.
    failing : Failing
        Names the key.
    size : int, optional
        What it must hold (bytes), else `CorruptBlobError`.
    is_mappable : callable
        Tells of a device whether its files may be mapped.
    home : Storage, optional
        Where a pickled copy opens the key again.
    """

    def __init__(
        self,
        fd: int,
        failing: Failing,
        *,
        size: int | None,
        is_mappable: Callable[[int], bool],
        home: Storage | None = None,
    ) -> None:
        self._home = home
        self._file: _Descriptor | None = _Descriptor(fd)
        self._failing = failing
        self.key = failing.key
        with failing:
            status = os.fstat(fd)
            check_is_file(status)
        if size is not None and status.st_size != size:
            raise self._changed(status.st_size, size, "written")
        self.size = status.st_size
        self._is_mappable = self.size >= MAP_FROM and is_mappable(status.st_dev)

    @property
    def home(self) -> Storage | None:
        # docstring inherited
        return self._home

    def read(self, offset: int, size: int) -> memoryview:
        # docstring inherited
        file = self._file
        if file is None:
            raise StorageError(f"read {self.key!r} failed because it was closed. Open it again.")
        check_range(self.key, offset, size, self.size)
        with self._failing:
            now = os.fstat(file.number).st_size
        if now != self.size:
            raise self._changed(now, self.size, "there when it was opened")
        if self._is_mappable and size >= MAP_FROM and len(_mappings) < _max_mappings():
            # Mapping fails where files cannot be mapped or descriptors have run out; reading is only slower.
            with suppress(OSError):
                return self._map(file.number, offset, size)
        return self._copy(file.number, offset, size)

    def _map(self, fd: int, offset: int, size: int) -> memoryview:
        skip = offset % mmap.ALLOCATIONGRANULARITY
        try:
            mapping = mmap.mmap(fd, skip + size, access=mmap.ACCESS_COPY, offset=offset - skip, **_UNTRACKED)
        except ValueError as error:  # it looks at the size, too
            raise self._changed(os.fstat(fd).st_size, self.size, "there when it was opened") from error
        _mappings.add(mapping)
        return memoryview(mapping)[skip:]

    def _copy(self, fd: int, offset: int, size: int) -> memoryview:
        buffer = new_buffer(size)
        done = 0
        while done < size:
            with self._failing:
                count = _read_into(fd, buffer[done:], offset + done)
            if count == 0:
                raise self._changed(offset + done, self.size, "there when it was opened")
            done += count
        return buffer

    def _changed(self, now: int, size: int, when: str) -> CorruptBlobError:
        return CorruptBlobError(
            f"read {self.key!r} in {self._failing.url} failed because it has {now} bytes and {size} were {when}. It "
            "was cut or changed: restore it from a copy."
        )

    def close(self) -> None:
        # docstring inherited
        self._file = None


def _read_into(fd: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [buffer], offset)
    with _seek_lock:  # pragma: no cover - Windows
        os.lseek(fd, offset, os.SEEK_SET)
        data = os.read(fd, buffer.nbytes)
    buffer[: len(data)] = data
    return len(data)
