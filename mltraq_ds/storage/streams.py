"""A stream over anything that is read in ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

__all__ = ["stream_of"]

_BUFFER_BYTES = 256 * 1024


def stream_of(read: Callable[[int, int], memoryview], size: int) -> BinaryIO:
    """Return a seekable, buffered stream.

    Parameters
    ----------
    read : callable
        Takes offset and size (bytes) and returns that many bytes.
    size : int
        Size of the whole (bytes).
    """
    return cast(BinaryIO, io.BufferedReader(_Stream(read, size), _BUFFER_BYTES))


class _Stream(io.RawIOBase):
    def __init__(self, read: Callable[[int, int], memoryview], size: int) -> None:
        self._read = read
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._position, self._size)[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}: the position must not be negative")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer needs Python 3.12
        size = max(0, min(len(buffer), self._size - self._position))
        if size:  # a position may lie behind the end, and nothing is there
            buffer[:size] = self._read(self._position, size)
            self._position += size
        return size
