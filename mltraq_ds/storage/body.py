"""The body of a request: buffers as they are, neither joined nor copied."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

from zlib_ng import zlib_ng

__all__ = ["Body", "parts_of"]

_PIECE = 2**20  # handed to the socket at a time (bytes)


class Body:
    """Views, read like a file by those who sign, and iterated by those who send.

    Not a file by its class: clients would read that one in small pieces, each in another thread.
    """

    def __init__(self, views: list[memoryview]) -> None:
        self._views = [view.cast("B") for view in views if view.nbytes]
        self._position = 0
        self.size = sum(view.nbytes for view in self._views)

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True

    def tell(self) -> int:
        """Return the position (bytes)."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position (bytes)."""
        self._position = (0, self._position, self.size)[whence] + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes | memoryview:
        """Return up to `size` bytes from the position on; copied only where buffers meet."""
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        found = list(self._between(self._position, end))
        self._position = end
        return found[0] if len(found) == 1 else b"".join(found)

    def pieces(self) -> Iterator[memoryview]:
        """Yield all bytes in pieces of at most 1 MiB."""
        for view in self._views:
            for start in range(0, view.nbytes, _PIECE):
                yield view[start : start + _PIECE]

    def after(self, start: int) -> Body:
        """Return what follows the first `start` bytes, as another body."""
        return Body(list(self._between(start, self.size)))

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for piece in self.pieces():
            yield piece

    def crc32(self) -> int:
        """Return the CRC-32 of all bytes."""
        crc = 0
        for view in self._views:
            crc = zlib_ng.crc32(view, crc)
        return crc

    def joined(self) -> bytes | memoryview:
        """Return all bytes in one piece; copied only if there are several buffers."""
        return self._views[0] if len(self._views) == 1 else b"".join(self._views)

    def _between(self, start: int, end: int) -> Iterator[memoryview]:
        for view in self._views:
            if start < view.nbytes and end > 0:
                yield view[max(0, start) : end]
            start, end = start - view.nbytes, end - view.nbytes


def parts_of(views: Iterable[memoryview], part_size: int) -> Iterator[Body]:
    """Cut views into bodies of `part_size` bytes, the last one shorter; nothing is copied."""
    part: list[memoryview] = []
    room = part_size
    for view in views:
        while view.nbytes:
            part.append(view[:room])
            room -= part[-1].nbytes
            view = view[part[-1].nbytes :]
            if not room:
                yield Body(part)
                part, room = [], part_size
    if part:
        yield Body(part)
