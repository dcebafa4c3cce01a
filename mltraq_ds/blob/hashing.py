"""CRC-32 and SHA-256 of what goes into a blob."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any

from zlib_ng import zlib_ng

from mltraq_ds.storage.base import Buffer

__all__ = ["Hasher", "crc_of", "flat", "sha_of"]

#: Below this size (bytes) handing over to the thread costs more than hashing.
INLINE_SIZE = 64 * 1024
_STEP = 4 * 1024 * 1024  # how often the thread looks whether it is still wanted (bytes)
_IN_FLIGHT = 4  # buffers made on the fly that wait for the thread


def flat(buffers: Iterable[Buffer]) -> Iterator[memoryview]:
    """Yield the buffers as flat bytes, empty ones left out (Python cannot cast a view of shape (0,))."""
    for buffer in buffers:
        view = memoryview(buffer)
        if view.nbytes:
            yield view if view.ndim == 1 and view.format == "B" else view.cast("B")


def crc_of(views: Iterable[memoryview], crc32: int = 0) -> int:
    """Return the CRC-32 of the views, continued from `crc32`."""
    for view in views:
        crc32 = zlib_ng.crc32(view, crc32)
    return crc32


def sha_of(views: Iterable[Buffer]) -> bytes:
    """Return the SHA-256 of the views."""
    sha = hashlib.sha256()
    for view in views:
        sha.update(view)
    return sha.digest()


class Hasher:
    """SHA-256 in a second thread, while the first one writes; the thread is started by the first large member."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Any, memoryview, bool] | None] = SimpleQueue()
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self._thread: threading.Thread | None = None
        self._is_abandoned = False
        self._error: Exception | None = None

    def update(self, sha: Any, view: memoryview, *, is_fresh: bool = False) -> None:
        """Add a view to a digest; waits while too many fresh buffers, which only we keep alive, are not hashed yet."""
        if self._thread is None:
            if view.nbytes < INLINE_SIZE:
                sha.update(view)
                return
            self._thread = threading.Thread(target=self._run, name="mltraq_ds-sha256", daemon=True)
            self._thread.start()
        if is_fresh:
            self._slots.acquire()
        self._queue.put((sha, view, is_fresh))

    def finish(self) -> None:
        """Wait until all digests are complete."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread, whatever it still has to do; nothing to do after `finish`."""
        self._is_abandoned = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            sha, view, is_fresh = job
            try:
                for start in range(0, 0 if self._error else view.nbytes, _STEP):
                    if self._is_abandoned:
                        break
                    sha.update(view[start : start + _STEP])
            except Exception as error:  # noqa: BLE001 — carried to the writing thread, which raises it in `finish`
                self._error = error
            finally:
                del job, view
                if is_fresh:
                    self._slots.release()
