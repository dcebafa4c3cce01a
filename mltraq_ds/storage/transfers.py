"""Telling how far a long transfer is, to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

__all__ = ["LONG", "OnTransfer", "Transfer", "watched"]

#: Transfers of at least so much are told of (bytes).
LONG = 64 * 2**20


class Transfer(Protocol):
    """What is told how far one transfer is; callbacks of fsspec are such."""

    def set_size(self, size: int) -> object:
        """Take the size of the whole (bytes)."""

    def relative_update(self, inc: int = 1) -> object:
        """Take how much has arrived since the last call (bytes); called from several threads."""

    def close(self) -> object:
        """Take that it has ended, or failed."""


#: Takes verb ("put" or "read"), key and size (bytes); returns None for a transfer that nobody wants to know of.
OnTransfer: TypeAlias = Callable[[str, str, int], Transfer | None]


@contextmanager
def watched(on_transfer: OnTransfer | None, verb: str, key: str, size: int) -> Iterator[Callable[[int], object]]:
    """Give what is called with the number of bytes that have arrived."""
    transfer = on_transfer(verb, key, size) if on_transfer is not None and size >= LONG else None
    if transfer is None:
        yield lambda count: None
        return
    transfer.set_size(size)
    try:
        yield transfer.relative_update
    finally:
        transfer.close()
