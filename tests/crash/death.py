"""A process that dies in the middle of what it does, inside this one: from that moment it reaches nothing any more.

Unlike with SIGKILL the next process can be asked at once, so that thousands of deaths fit into a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mltraq_ds.errors import StorageError
from mltraq_ds.storage.base import Buffer, Storage
from mltraq_ds.testing import Call, Fault, FaultStorage, Short


class Died(BaseException):
    """Not an `Exception`: nobody may go on after it."""


@dataclass
class Life:
    """Counts the moments at which a process may die, and ends it at one of them."""

    left: int | None = None
    is_over: bool = False

    def tick(self) -> None:
        """Die if it is time to, or long over."""
        if self.is_ending():
            self.is_over = True
        if self.is_over:
            raise Died
        if self.left is not None:
            self.left -= 1

    def is_ending(self) -> bool:
        return self.left == 0


@dataclass(frozen=True)
class Mortal(Fault):
    """An operation before, in the middle of and after which the process may die."""

    life: Life

    def before(self, call: Call, storage: Storage) -> None:
        self.life.tick()

    def buffers(self, call: Call, storage: Storage, buffers: Iterable[Buffer], size: int) -> Iterable[Buffer]:
        return self._half(call, storage, buffers, size) if self.life.is_ending() else buffers

    def _half(self, call: Call, storage: Storage, buffers: Iterable[Buffer], size: int) -> Iterator[Buffer]:
        with suppress(StorageError):
            yield from Short().buffers(call, storage, buffers, size)
        self.life.tick()

    def after(self, call: Call, storage: Storage) -> None:
        self.life.tick()


class MortalStorage(FaultStorage):
    """A storage whose user may die, and whose clock can be put forward."""

    def __init__(self, inner: Storage, clock: Callable[[], float]) -> None:
        self.life = Life()
        self.clock = clock
        super().__init__(inner, lambda _: Mortal(self.life))

    def now(self) -> float:
        return super().now() + self.clock()

    @contextmanager
    def dying(self, moment: int) -> Iterator[Life]:
        """Die at a moment: before or after an operation of the storage, inside a put, or before an SQL statement."""
        self.life.left = moment

        def on_statement(*_: Any) -> None:
            self.life.tick()

        sa.event.listen(sa.engine.Engine, "before_cursor_execute", on_statement)
        sa.event.listen(sa.engine.Engine, "commit", on_statement)
        try:
            yield self.life
        finally:
            sa.event.remove(sa.engine.Engine, "before_cursor_execute", on_statement)
            sa.event.remove(sa.engine.Engine, "commit", on_statement)
            self.life.left = None
