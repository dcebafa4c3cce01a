"""Random access to a local file: mapped where that is safe, read elsewhere."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from mltraq_ds.errors import CorruptBlobError, StorageError
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.storage.failures import Failing
from mltraq_ds.storage.folders import check_is_file
from mltraq_ds.storage.mappings import Descriptor, Leased, has_room

__all__ = ["MAP_FROM", "FileSource", "check_range", "new_buffer", "open_file"]

#: Smaller reads are copied: a mapping costs some system calls and, before Python 3.13, a file descriptor (bytes).
MAP_FROM = 64 * 1024

# Without O_NONBLOCK opening a pipe would wait for a writer.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_IS_LINK = {errno.ELOOP, errno.EMLINK}
_seek_lock = threading.Lock()


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


class FileSource(Source):
    """An open file.  Holds one file descriptor until it is closed or forgotten.

    Every read gives memory of its own: large ones a private, copy-on-write mapping of just that range, small ones a
    copy.  So an array that is changed in place changes neither the file nor what is read next.  What others do to the
    file is found at the next read, and does not reach what was handed out before; see `mltraq_ds.storage.mappings`.

    Parameters
    ----------
    fd : int
        Open for reading; owned from now on.
    failing : Failing
        Names the key.
    size : int, optional
        What it must hold (bytes), else `CorruptBlobError`.
    is_local : callable
        Tells of a device whether it is a disk of this machine.
    mmap : bool
        Map large ranges of files on such a device.
    home : Storage, optional
        Where a pickled copy opens the key again.
    """

    def __init__(
        self,
        fd: int,
        failing: Failing,
        *,
        size: int | None,
        is_local: Callable[[int], bool],
        mmap: bool = True,
        home: Storage | None = None,
    ) -> None:
        self._home = home
        self._file: Leased | None = Leased(Descriptor(fd))
        self._failing = failing
        self.key = failing.key
        with failing:
            status = os.fstat(fd)
            check_is_file(status)
        if size is not None and status.st_size != size:
            raise self._changed(status.st_size, size, "written")
        self.size = status.st_size
        self._modified = status.st_mtime_ns
        self._is_local = is_local
        self._is_mappable = mmap and self.size >= MAP_FROM and is_local(status.st_dev)

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
        if self._is_mappable and size >= MAP_FROM and has_room():
            # Mapping fails where files cannot be mapped or descriptors have run out; reading is only slower.
            with suppress(OSError):
                return self._map(file, offset, size)
        self._require_unchanged(file)  # a mapping that was refused for that ends here too
        view = self._copy(file.number, offset, size)
        self._require_unchanged(file)
        return view

    def _require_unchanged(self, file: Leased) -> None:
        with self._failing:
            now = os.fstat(file.number)
        if now.st_size != self.size:
            raise self._changed(now.st_size, self.size, "there when it was opened")
        # Servers round times when they get to know them; a disk of this machine does not.
        if now.st_mtime_ns != self._modified and self._is_local(now.st_dev):
            raise self._corrupt(
                "it was written to since it was opened. Load it again; 'mltraq-ds check --deep' tells whether it is "
                "damaged."
            )

    def _map(self, file: Leased, offset: int, size: int) -> memoryview:
        skip = offset % mmap.ALLOCATIONGRANULARITY
        try:
            mapping = file.map(offset - skip, skip + size, lambda: self._require_unchanged(file))
        except ValueError as error:  # it looks at the size, too
            raise self._changed(os.fstat(file.number).st_size, self.size, "there when it was opened") from error
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
        return self._corrupt(
            f"it has {now} bytes and {size} were {when}. It was cut or changed: restore it from a copy."
        )

    def _corrupt(self, reason: str) -> CorruptBlobError:
        return CorruptBlobError(f"read {self.key!r} in {self._failing.url} failed because {reason}")

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
