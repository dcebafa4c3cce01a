"""A folder with copies of what was read from remotes, each named by its SHA-256, so that nothing in it can be wrong."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress

from mltraq_ds.errors import CacheFailedWarning
from mltraq_ds.storage.base import TEMPORARY, Buffer
from mltraq_ds.storage.sources import new_buffer

__all__ = ["ReadCache"]

_FORMAT = "1"
_STALE_S = 3600.0  # a temporary file of this age was left by a killed process
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class ReadCache:
    """Bytes by their SHA-256, in a folder that many processes share.  Pickles; safe in threads and after a fork.

    What is handed out was compared with its name.  So it does not matter what store it came from, who else writes into
    the folder, or what a power cut has left there: what differs is removed, and counts as absent.  A failure (disk
    full, no permission) is a `CacheFailedWarning`, once, and never an error.

    Parameters
    ----------
    folder : str
        Absolute path; made when something is kept.
    limit_bytes : int
        How much is kept (bytes); what was not used for longest goes first.  A process looks at the folder again after
        it has written a sixteenth of that, so several together may be over it by as much each.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = ReadCache(folder, 1000)
    ...     cache.put(hashlib.sha256(b"abc").digest(), [b"abc"])
    ...     bytes(cache.get(hashlib.sha256(b"abc").digest(), 3))
    b'abc'
    """

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._root = os.path.join(folder, _FORMAT)
        self._size: int | None = None  # of all that was there at the last look, and what was written since (bytes)
        self._unseen = 0
        self._has_warned = False

    def get(self, sha256: bytes, size: int | None = None, *, head: int = 0) -> memoryview | None:
        """Return what has a digest, or None; the first `head` bytes (those of the caller) are not part of it.

        Parameters
        ----------
        sha256 : bytes of length 32
            The digest.
        size : int, optional
            Of the whole (bytes).
        """
        path = self._path(sha256)
        try:
            fd = os.open(path, _READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        try:
            view = _read(fd, size)
        except OSError as error:
            self._warn("read", error)
            return None
        finally:
            os.close(fd)
        is_right = view is not None and hashlib.sha256(view[head:]).digest() == sha256
        # Others may be making room, or have no permission to write: what was found is right or wrong all the same.
        with suppress(OSError):
            if is_right:
                os.utime(path)
            else:
                os.unlink(path)
        return view if is_right else None

    def __contains__(self, sha256: bytes) -> bool:
        return os.path.exists(self._path(sha256))

    def put(self, sha256: bytes, buffers: Iterable[Buffer]) -> None:
        """Keep what has a digest; the caller has compared it.  Nothing of it is visible before it is whole."""
        views = [memoryview(buffer) for buffer in buffers]
        size = sum(view.nbytes for view in views)
        if size > self.limit_bytes:
            return
        temporary = os.path.join(self._root, f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            self._make_room(size)
            path = self._path(sha256)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0) as file:
                    for view in views:
                        _write(file.fileno(), view)
                os.replace(temporary, path)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
        except OSError as error:
            self._warn("write", error)
            return
        self._size = (self._size or 0) + size
        self._unseen += size

    def _path(self, sha256: bytes) -> str:
        name = sha256.hex()
        return os.path.join(self._root, name[:2], name)

    def _make_room(self, size: int) -> None:
        if self._size is not None and self._size + size <= self.limit_bytes and self._unseen <= self.limit_bytes // 16:
            return
        from filelock import FileLock, Timeout  # heavy, and of no use without a cache

        os.makedirs(self._root, mode=0o700, exist_ok=True)
        try:
            with FileLock(os.path.join(self._root, ".lock"), timeout=10):
                self._size = self._prune(size)
        except Timeout:
            self._size = 0  # somebody else is making room
        self._unseen = 0

    def _prune(self, size: int) -> int:
        found = sorted(self._files())
        total = sum(one for _, one, _ in found)
        if total + size <= self.limit_bytes:
            return total
        wanted = self.limit_bytes - max(size, self.limit_bytes // 8)
        for _, one, path in found:
            if total <= wanted:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            total -= one
        return total

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Yield time of the last use, size and path of each; remove what killed processes have left."""
        now = time.time()
        for folder in (self._root, *(each.path for each in os.scandir(self._root) if each.is_dir())):
            for each in os.scandir(folder):
                try:
                    status = each.stat(follow_symlinks=False)
                    if each.name.startswith(TEMPORARY) and now - status.st_mtime > _STALE_S:
                        os.unlink(each.path)
                    elif folder != self._root:
                        yield status.st_mtime, status.st_size, each.path
                except FileNotFoundError:
                    continue

    def _warn(self, verb: str, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"The read cache in {self.folder} failed to {verb} because of: {error.strerror or error}. Values are "
                "read from the storage instead. Free space there, or choose another 'datastore.cache_dir'.",
                CacheFailedWarning,
                stacklevel=3,
            )


def _read(fd: int, size: int | None) -> memoryview | None:
    """Return all bytes of a file, in private memory; None if it has another size."""
    found = os.fstat(fd).st_size
    if size is not None and size != found:
        return None
    buffer = new_buffer(found)
    with open(fd, "rb", 0, closefd=False) as file:
        done = 0
        while done < found:
            count = file.readinto(buffer[done:])
            if not count:
                return None
            done += count
    return buffer


def _write(fd: int, view: memoryview) -> None:
    view = view.cast("B")
    while view.nbytes:
        view = view[os.write(fd, view) :]
