"""Writing a file so that its name appears with all its bytes, or not at all."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from mltraq_ds.errors import ValueChangedError
from mltraq_ds.storage.base import TEMPORARY, Buffer
from mltraq_ds.storage.failures import Failing
from mltraq_ds.storage.writeback import STEP, Writeback

__all__ = ["counted", "preallocate", "publish", "sync_file", "sync_folder", "write_buffers", "write_file"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# Blobs are read-only from birth, through the umask.  Windows could not remove them.
_READ_ONLY = 0o444 if os.name == "posix" else 0o666
_PREALLOCATE_FROM = 2**20

_MAX_BUFFERS = min(os.sysconf("SC_IOV_MAX"), 1024) if hasattr(os, "sysconf") else 1
_MAX_BYTES = 2**30  # one call writes at most 2 GiB on Linux, and fails above that on macOS
_BATCH_BYTES = 2**20  # beyond that a call costs nothing beside its bytes, and streamed values are not gathered
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}
_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


def counted(buffers: Iterable[Buffer], size: int, key: str) -> Iterator[memoryview]:
    """Yield `buffers` as views of bytes without the empty ones; raise unless they sum up to `size` (bytes)."""
    total = 0
    for buffer in buffers:
        view = memoryview(buffer)
        if view.nbytes == 0:
            continue
        total += view.nbytes
        if total > size:
            break
        yield view.cast("B")
    if total != size:
        raise ValueChangedError(
            f"put {key!r} failed because {size} bytes were announced and its buffers hold {total}"
            f"{' or more' if total > size else ''}. A value or file was "
            "changed while it was written: write it again when it is at rest."
        )


def preallocate(fd: int, size: int) -> None:
    """Reserve `size` bytes: a full disk is found before anything is written, and large writes are faster."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def write_buffers(fd: int, views: Iterable[memoryview], failing: Failing, writeback: Writeback | None = None) -> None:
    """Write all views without joining them; `writeback` is told how far it is."""
    batch: list[memoryview] = []
    pending = 0
    for view in views:
        batch.append(view)
        pending += view.nbytes
        if pending >= _BATCH_BYTES or len(batch) >= _MAX_BUFFERS:
            with failing:
                _write_batch(fd, batch, writeback)
            batch, pending = [], 0
    if batch:
        with failing:
            _write_batch(fd, batch, writeback)


def _write_batch(fd: int, batch: Sequence[memoryview], writeback: Writeback | None = None) -> None:
    step = _MAX_BYTES if writeback is None else STEP
    views = [view[i : i + step] for view in batch for i in range(0, view.nbytes, step)]
    while views:
        # A call may write less than asked for: at a signal, at 2 GiB, or just before the disk is full.
        written = _write_some(fd, views, step)
        if writeback is not None:
            writeback.advance(written)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _write_some(fd: int, views: Sequence[memoryview], room: int) -> int:
    if len(views) == 1 or views[0].nbytes >= _BATCH_BYTES or not hasattr(os, "writev"):
        return os.write(fd, views[0])
    some: list[memoryview] = []
    for view in views:
        if view.nbytes > room:
            break
        room -= view.nbytes
        some.append(view)
    return os.writev(fd, some)


def sync_file(fd: int) -> None:
    """Make the bytes of a file durable."""
    if sys.platform == "darwin":  # pragma: no cover - fsync does not reach the disk there
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":  # pragma: no cover - folders cannot be opened there
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT:  # some network file systems cannot, and then there is nothing more to do
            raise
    finally:
        os.close(fd)


def write_file(
    path: str,
    buffers: Iterable[Buffer],
    size: int,
    failing: Failing,
    *,
    replace: bool,
    is_durable: bool,
    make_folder: Callable[[str], None] | None,
    before_publish: Callable[[], None] | None,
    is_preallocatable: Callable[[int], bool],
) -> None:
    """Write a temporary file beside `path`, flush it if `is_durable`, and give it its name.

    Whatever is raised, also ``KeyboardInterrupt``, the temporary file is gone.  Killed, it stays: sweep removes it.
    `make_folder` makes a missing folder, `before_publish` may stop the write at the last moment, `is_preallocatable`
    is asked about the device of a large file.
    """
    temporary = os.path.join(os.path.dirname(path), f"{TEMPORARY}{uuid.uuid4().hex}")
    fd = -1
    try:
        with failing:
            if not replace and os.path.lexists(path):  # before the bytes are written; the link decides
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            fd = _create(temporary, 0o666 if replace else _READ_ONLY, make_folder)
            if size >= _PREALLOCATE_FROM and is_preallocatable(os.fstat(fd).st_dev):
                preallocate(fd, size)
        writeback = Writeback(fd) if is_durable and size >= STEP else None
        write_buffers(fd, counted(buffers, size, failing.key), failing, writeback)
        with failing:
            if is_durable:
                sync_file(fd)
            closing, fd = fd, -1  # closed twice it could be another thread's file
            os.close(closing)
        if before_publish is not None:
            before_publish()
        with failing:
            if replace:
                os.replace(temporary, path)
            else:
                publish(temporary, path)
    except BaseException:
        with suppress(OSError):  # another error is on its way
            if fd >= 0:
                os.close(fd)
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _create(path: str, mode: int, make_folder: Callable[[str], None] | None) -> int:
    try:
        return os.open(path, _NEW, mode)
    except FileNotFoundError:
        if make_folder is None:
            raise
    make_folder(os.path.dirname(path))
    return os.open(path, _NEW, mode)


def publish(temporary: str, path: str) -> None:
    """Give a finished file its name, never over an existing one (``FileExistsError``).

    Where there are no hard links the name is claimed with ``O_EXCL`` first, so that exactly one writer wins, and the
    file then takes the place of the claim.  Killed in between, an empty file is left, which verifies as nothing.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
    else:
        os.unlink(temporary)
        return
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(path)
        raise
