"""What can go wrong at one operation of a storage; `mltraq_ds.testing.fault_storage` makes it happen."""

from __future__ import annotations

import errno
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mltraq_ds.storage.base import TEMPORARY, Buffer, Storage
from mltraq_ds.storage.failures import failure_of
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.storage.places import path_from

__all__ = ["Call", "Callback", "Delay", "Fail", "Fault", "Kill", "LoseResponse", "Short"]


@dataclass(frozen=True, slots=True)
class Call:
    """One operation: its number (from 1), the verb, and the key, prefix or keys joined by spaces."""

    number: int
    verb: str
    key: str


@dataclass(frozen=True)
class Fault:
    """What goes wrong at one operation.  Does nothing itself; subclasses say what, and may be yours."""

    def before(self, call: Call, storage: Storage) -> None:
        """Act before the operation; raise to keep it from being done."""

    def after(self, call: Call, storage: Storage) -> None:
        """Act after the operation was done; raise to lose its result."""

    def buffers(self, call: Call, storage: Storage, buffers: Iterable[Buffer], size: int) -> Iterable[Buffer]:
        """Return the buffers that a put shall write instead."""
        return buffers


@dataclass(frozen=True)
class Fail(Fault):
    """The storage refuses: nothing is done, and a `StorageError` with this ``errno`` is raised."""

    number: int = errno.EIO

    def before(self, call: Call, storage: Storage) -> None:
        # docstring inherited
        raise _failure(call, storage, self.number)


@dataclass(frozen=True)
class LoseResponse(Fault):
    """The operation is done, and a `StorageError` is raised all the same: the connection broke on the way back."""

    number: int = errno.ETIMEDOUT

    def after(self, call: Call, storage: Storage) -> None:
        # docstring inherited
        raise _failure(call, storage, self.number)


@dataclass(frozen=True)
class Short(Fault):
    """A put breaks off after half of its bytes; other operations fail.

    As in the real world the key does not appear.  In a folder the temporary file stays, as if removing it had failed.
    """

    number: int = errno.ENOSPC

    def before(self, call: Call, storage: Storage) -> None:
        # docstring inherited
        if call.verb != "put":
            raise _failure(call, storage, self.number)

    def buffers(self, call: Call, storage: Storage, buffers: Iterable[Buffer], size: int) -> Iterator[Buffer]:
        # docstring inherited
        written = bytearray()
        for view in _half(buffers, size):
            written += view
            yield view
        if isinstance(storage, LocalStorage):
            folder = os.path.dirname(os.path.join(path_from(storage.url), call.key))
            with open(os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}"), "xb") as file:
                file.write(written)
        raise _failure(call, storage, self.number)


@dataclass(frozen=True)
class Delay(Fault):
    """The operation is done late, by `seconds` (s)."""

    seconds: float = 0.1

    def before(self, call: Call, storage: Storage) -> None:
        # docstring inherited
        time.sleep(self.seconds)


@dataclass(frozen=True)
class Kill(Fault):
    """The process gets SIGKILL before, during (half of the bytes of a put are written) or after the operation."""

    when: Literal["before", "during", "after"] = "before"

    def before(self, call: Call, storage: Storage) -> None:
        # docstring inherited
        if self.when == "before" or (self.when == "during" and call.verb != "put"):
            _kill()

    def after(self, call: Call, storage: Storage) -> None:
        # docstring inherited
        _kill()

    def buffers(self, call: Call, storage: Storage, buffers: Iterable[Buffer], size: int) -> Iterable[Buffer]:
        # docstring inherited
        return self._half_then_die(buffers, size) if self.when == "during" else buffers

    def _half_then_die(self, buffers: Iterable[Buffer], size: int) -> Iterator[Buffer]:
        yield from _half(buffers, size)
        _kill()


@dataclass(frozen=True)
class Callback(Fault):
    """Call a function before the operation: a seam at which a test lets another writer go first."""

    function: Callable[[Call], object]

    def before(self, call: Call, storage: Storage) -> None:
        # docstring inherited
        self.function(call)


def _failure(call: Call, storage: Storage, number: int) -> Exception:
    return failure_of(call.verb, call.key, storage.url, OSError(number, os.strerror(number)))


def _kill() -> None:  # pragma: no cover - a killed process leaves no coverage
    os.kill(os.getpid(), signal.SIGKILL)


def _half(buffers: Iterable[Buffer], size: int) -> Iterator[memoryview]:
    left = size // 2
    for buffer in buffers:
        view = memoryview(buffer)
        if view.nbytes == 0:
            continue
        part = view.cast("B")[:left]
        left -= part.nbytes
        yield part
        if not left:
            return
