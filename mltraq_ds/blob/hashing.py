"""CRC-32 and SHA-256 of what goes into a blob."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeAlias

from zlib_ng import zlib_ng

from mltraq_ds.storage.base import Buffer
from mltraq_ds.storage.parallel import core_count

__all__ = ["INLINE_SIZE", "PIECE", "Hasher", "checksums_of", "crc_of", "flat", "sha_of", "sha_size"]

#: A member has one SHA-256 per piece of this size (bytes).  One SHA-256 of 1 GiB takes a core longer than a disk takes
#: to write it; pieces are hashed on several cores, and can be verified alone.
PIECE = 16 * 1024 * 1024

#: Below this size (bytes) handing over to a thread costs more than hashing.
INLINE_SIZE = 64 * 1024

_CRC_IN_THREADS = 64 * 1024 * 1024  # starting a thread takes as long as the CRC-32 of some 8 MiB (bytes)
_STEP = 2 * 1024 * 1024  # how often a thread looks whether it is still wanted (bytes)
_IN_FLIGHT = 4  # buffers made on the fly that wait for a thread
_THREADS_MAX = 4  # beyond that, memory is the limit


def flat(buffers: Iterable[Buffer]) -> Iterator[memoryview]:
    """Yield the buffers as flat bytes, empty ones left out (Python cannot cast a view of shape (0,))."""
    for buffer in buffers:
        view = memoryview(buffer)
        if view.nbytes:
            yield view if view.ndim == 1 and view.format == "B" else view.cast("B")


def crc_of(views: Iterable[memoryview], crc32: int = 0) -> int:
    """Return the CRC-32 of the views, continued from `crc32`; a very large view is read by several threads."""
    for view in views:
        crc32 = zlib_ng.crc32(view, crc32) if view.nbytes < _CRC_IN_THREADS else _crc_in_threads(view, crc32)
    return crc32


def checksums_of(content: bytes) -> tuple[int, bytes]:
    """Return the CRC-32 and the SHA-256 of a whole small member."""
    return zlib_ng.crc32(content), hashlib.sha256(content).digest()


def _crc_in_threads(view: memoryview, crc32: int) -> int:
    share = -(-view.nbytes // min(core_count(), _THREADS_MAX))
    first, *others = (view[start : start + share] for start in range(0, view.nbytes, share))
    if not others:
        return zlib_ng.crc32(first, crc32)
    with ThreadPoolExecutor(len(others), thread_name_prefix="mltraq_ds-crc32") as threads:
        behind = threads.map(zlib_ng.crc32, others)
        crc32 = zlib_ng.crc32(first, crc32)
        for other, crc32_of_other in zip(others, behind, strict=True):
            crc32 = zlib_ng.crc32_combine(crc32, crc32_of_other, other.nbytes)
    return crc32


def sha_of(views: Iterable[memoryview]) -> bytes:
    """Return the SHA-256 of each piece of a member, one behind the other."""
    pieces = Pieces(None)
    for view in views:
        pieces.update(view)
    return pieces.digest()


def sha_size(size: int) -> int:
    """Return the size of the SHA-256s of a member of `size` bytes (bytes): 32 a piece, and at least 32."""
    return 32 * max(1, -(-size // PIECE))


class Pieces:
    """The SHA-256s of one member; with a `Hasher`, complete when that has finished."""

    def __init__(self, hasher: Hasher | None) -> None:
        self._hasher = hasher
        self._shas = [hashlib.sha256()]
        self._queue = hasher.next_queue() if hasher else None
        self._filled = 0

    def update(self, view: memoryview, *, is_fresh: bool = False) -> None:
        """Add bytes; `is_fresh` says that only we keep them alive, so that not many may wait at a time."""
        while view.nbytes:
            if self._filled == PIECE:
                self._shas.append(hashlib.sha256())
                self._queue = self._hasher.next_queue() if self._hasher else None
                self._filled = 0
            part, view = view[: PIECE - self._filled], view[PIECE - self._filled :]
            self._filled += part.nbytes
            if self._hasher is None or self._queue is None:
                self._shas[-1].update(part)
            else:
                self._hasher.submit(self._queue, self._shas[-1], part, is_fresh)

    def digest(self) -> bytes:
        """Return the SHA-256s, one behind the other."""
        return b"".join(sha.digest() for sha in self._shas)


_Queue: TypeAlias = "SimpleQueue[tuple[Any, memoryview, bool] | None]"


class Hasher:
    """SHA-256 in threads, while another thread writes; they are started by the first large pieces.

    A piece belongs to one thread, so that its bytes are hashed in their order; the pieces of all members go around.
    """

    def __init__(self) -> None:
        self._queues: list[_Queue] = []
        self._begun = 0  # pieces
        self._threads: list[threading.Thread] = []
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self._is_abandoned = False
        self._error: Exception | None = None

    def pieces(self, size: int) -> Pieces:
        """Return the digests-to-be of a member of `size` bytes."""
        return Pieces(None if size < INLINE_SIZE else self)

    def next_queue(self) -> _Queue:
        """Return the queue of the thread that the next piece goes to."""
        if len(self._queues) < min(core_count(), _THREADS_MAX):
            self._start_thread()
        queue = self._queues[self._begun % len(self._queues)]
        self._begun += 1
        return queue

    def submit(self, queue: _Queue, sha: Any, view: memoryview, is_fresh: bool) -> None:
        """Add bytes of a piece to its digest; waits while too many fresh ones are not hashed yet."""
        if is_fresh:
            self._slots.acquire()
        queue.put((sha, view, is_fresh))

    def finish(self) -> None:
        """Wait until all digests are complete."""
        self._end_threads()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the threads, whatever they still have to do; nothing to do after `finish`."""
        self._is_abandoned = True
        self._end_threads()

    def _start_thread(self) -> None:
        queue: _Queue = SimpleQueue()
        thread = threading.Thread(target=self._run, args=(queue,), name="mltraq_ds-sha256", daemon=True)
        thread.start()
        self._queues.append(queue)
        self._threads.append(thread)

    def _end_threads(self) -> None:
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._queues = []

    def _run(self, queue: _Queue) -> None:
        while (job := queue.get()) is not None:
            sha, view, is_fresh = job
            try:
                for start in range(0, view.nbytes, _STEP):
                    if self._is_abandoned:
                        break
                    sha.update(view[start : start + _STEP])
            except Exception as error:  # noqa: BLE001 — carried to the writing thread, which raises it in `finish`
                self._error = error
            finally:
                del job, view
                if is_fresh:
                    self._slots.release()
