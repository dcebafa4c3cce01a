"""How a key is written through fsspec: the best that each kind of filesystem can do."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeAlias

from mltraq_ds.storage.base import TEMPORARY

__all__ = ["CREATORS", "FLAT", "Failing", "Views", "write_by_rename", "write_whole"]

Views: TypeAlias = Iterable[memoryview]
#: Around each call of a filesystem and nothing else: turns what it raises into an error of ours.
Failing: TypeAlias = AbstractContextManager[None]

#: Filesystems without folders, where a key appears whole when its upload ends.
FLAT = frozenset(["adl", "gcs", "gs", "http", "https", "memory", "oci", "oss", "tos"])

SMALL = 8 * 2**20  # up to here buffers are joined for one request (bytes)

_locks: dict[int, threading.Lock] = {}


def write_whole(
    filesystem: Any, path: str, views: Views, size: int, failing: Failing, *, replace: bool, mode: str = "wb"
) -> None:
    """Write a key that appears when it is complete.  Without `replace` looks first, as two writers can at once.

    Large ones are streamed in `mode`; "xb" where the filesystem has the service decide.
    """
    if not replace:
        with failing:
            _check_absent(filesystem, path)
    # In memory a file that is being written is visible, so there it is always joined.
    if size <= SMALL or "memory" in _protocols(filesystem):
        data = b"".join(views)
        with failing:
            filesystem.pipe_file(path, data)
    else:
        _stream(filesystem, path, views, failing, remove=not replace, mode=mode)


def write_by_rename(filesystem: Any, path: str, views: Views, size: int, failing: Failing, *, replace: bool) -> None:
    """Write a temporary file beside the key and rename it: its name never stands for half of its bytes."""

    def publish(temporary: str) -> None:
        if replace:
            if filesystem.isdir(path):
                raise IsADirectoryError(path)  # it would be moved *into* the folder
        else:
            _check_absent(filesystem, path)
        filesystem.mv(temporary, path)

    _write_temporary(filesystem, path, views, failing, publish)


def _create_by_link(filesystem: Any, path: str, views: Views, size: int, failing: Failing) -> None:
    def publish(temporary: str) -> None:
        filesystem.link(temporary, path)
        filesystem.rm_file(temporary)

    with failing:
        _check_absent(filesystem, path)  # before all bytes are written; the link decides
    _write_temporary(filesystem, path, views, failing, publish)


def _create_in_memory(filesystem: Any, path: str, views: Views, size: int, failing: Failing) -> None:
    data = b"".join(views)
    # One lock per process: a child forked while another thread held it would wait for ever.
    with failing, _locks.setdefault(os.getpid(), threading.Lock()):
        _check_absent(filesystem, path)
        filesystem.pipe_file(path, data)


Creator: TypeAlias = Callable[[Any, str, Views, int, Failing], None]

#: By scheme: writes a key if the storage itself finds it absent, else raises ``FileExistsError``.  fsspec's
#: ``mode="create"`` is none of these: most implementations look, then write.
CREATORS: dict[str, Creator] = {
    "file": _create_by_link,
    "local": _create_by_link,
    "memory": _create_in_memory,
}


def _check_absent(filesystem: Any, path: str) -> None:
    try:
        filesystem.info(path)  # `exists` takes every error for "no"
    except FileNotFoundError:
        return
    raise FileExistsError(path)


def _write_temporary(
    filesystem: Any, path: str, views: Views, failing: Failing, publish: Callable[[str], None]
) -> None:
    folder = path.rpartition("/")[0]
    temporary = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}"
    _stream(filesystem, temporary, views, failing, remove=True)
    try:
        with failing:
            publish(temporary)
    except BaseException:
        with suppress(Exception):  # another error is on its way
            filesystem.rm_file(temporary)
        raise


def _stream(filesystem: Any, path: str, views: Views, failing: Failing, *, remove: bool, mode: str = "wb") -> None:
    # `autocommit=False`: closing alone must not publish what a failure has cut short.
    with failing:
        is_own = "local" in _protocols(filesystem)  # its uncommitted files are elsewhere, maybe on another disk
        file = filesystem.open(path, mode, **({} if is_own else {"autocommit": False}))
    try:
        for view in views:
            with failing:
                file.write(view)
        with failing:
            file.close()
            if not is_own and hasattr(file, "commit"):
                file.commit()
    except BaseException:
        with suppress(Exception):  # another error is on its way
            _abandon(file)
        if remove:
            with suppress(Exception):
                filesystem.rm_file(path)
        raise


def _abandon(file: Any) -> None:
    """Throw away what was written; a file that is merely forgotten is closed, and so published, by its finalizer."""
    try:
        file.discard()
    finally:
        try:
            file.closed = True
        except AttributeError:  # no file of fsspec's own: closing publishes nothing that is not there already
            file.close()


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
