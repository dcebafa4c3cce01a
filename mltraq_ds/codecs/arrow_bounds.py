"""Reading an Arrow file that may be hostile: ranges of it, and a look at its directory before pyarrow follows it.

pyarrow checks what it reads, but it follows sizes: compressed buffers, which we never write, may unpack to any size,
and a thousand columns may share the same bytes.  Both are refused by reading the two tables (flatbuffers) that say so.

References
----------
Arrow columnar format, "IPC File Format"; ``File.fbs`` and ``Message.fbs`` of Apache Arrow; flatbuffers internals.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mltraq_ds.codecs.base import MemberSource
from mltraq_ds.errors import MltraqDSError

__all__ = ["RangeFile", "check_file", "malformed"]

_MAGIC = b"ARROW1"
#: Bytes fetched at once from both ends of a member that is read in ranges: the directory is nearly always in them.
_ENDS_BYTES = 64 << 10


@contextmanager
def malformed() -> Iterator[None]:
    """Turn what libraries raise on malformed members and descriptions into `ValueError`.

    Errors of this library and of the system (a storage that does not answer) pass.  So do programming errors outside of
    the lookups and conversions that a wrong description leads to.
    """
    try:
        yield
    except (MltraqDSError, ValueError):
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    except OSError as error:
        # pyarrow has no class of its own for "too few bytes".
        if error.errno is not None:
            raise
        raise ValueError(str(error)) from error
    except Exception as error:
        # Those of pyarrow that are nothing but ArrowException or MemoryError; everything else passes.
        if type(error).__module__.partition(".")[0] != "pyarrow":
            raise
        raise ValueError(f"{type(error).__name__}: {error}") from error


class RangeFile:
    """A file for pyarrow over ranges of a member; remembers the views handed out, so that they can be found again.

    Parameters
    ----------
    source : MemberSource
        The member.
    whole : bool
        Read (and verify) the member once instead of range by range.
    """

    closed = False

    def __init__(self, source: MemberSource, *, whole: bool) -> None:
        self._source = source
        self._position = 0
        self._views: list[tuple[int, int, memoryview]] = []
        if whole:
            self._remember(0, source.read())
        elif source.size <= 4 * _ENDS_BYTES:
            self._remember(0, source.read_range(0, source.size))
        else:
            head = self._remember(0, source.read_range(0, _ENDS_BYTES))
            tail = self._remember(source.size - _ENDS_BYTES, source.read_range(source.size - _ENDS_BYTES, _ENDS_BYTES))
            between = self._views[1][0] - self._views[0][0]
            if head.obj is tail.obj and between == source.size - _ENDS_BYTES:
                # Both lie in one mapping: all of it costs nothing, and pyarrow copies from files but not from memory.
                self._views.clear()
                self._remember(0, source.read_range(0, source.size))

    def _remember(self, offset: int, view: memoryview) -> memoryview:
        view = view.cast("B")
        if len(view):
            self._views.append((np.frombuffer(view, np.uint8).ctypes.data, offset, view))
        return view

    def whole(self) -> memoryview | None:
        """Return all bytes if they are at hand."""
        for _, start, view in self._views:
            if start == 0 and len(view) == self._source.size:
                return view
        return None

    def at(self, offset: int, size: int) -> memoryview:
        """Return `size` bytes from `offset`, fetched if they are not here yet."""
        if offset < 0 or size < 0 or offset + size > self._source.size:
            raise ValueError(f"{self._source.name}: bytes {offset} to {offset + size} are outside of the member")
        for _, start, view in self._views:
            if start <= offset and offset + size <= start + len(view):
                return view[offset - start : offset - start + size]
        return self._remember(offset, self._source.read_range(offset, size))

    def view_at(self, address: int, size: int) -> memoryview | None:
        """Return the bytes at a memory address as a writable view, or None if they are not in a view handed out."""
        for start, _, view in self._views:
            if start <= address and address + size <= start + len(view) and not view.readonly:
                return view[address - start : address - start + size]
        return None

    def read_buffer(self, size: int = -1) -> memoryview:
        """Read from the current position; pyarrow prefers this to `read` since nothing is copied."""
        left = max(self._source.size - self._position, 0)
        view = self.at(self._position, left if size < 0 else min(size, left))
        self._position += len(view)
        return view

    def read(self, size: int = -1) -> bytes:
        return bytes(self.read_buffer(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._source.size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        return self._source.size

    def close(self) -> None:
        """Nothing is open."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True


def check_file(file: RangeFile) -> None:
    """Refuse an Arrow file whose contents could be larger than the file.

    Raises
    ------
    ValueError
        If it is no Arrow file, its directory is malformed, a buffer is compressed, or buffers overlap.
    """
    size = file.size()
    if size < 20 or bytes(file.at(0, 6)) != _MAGIC or bytes(file.at(size - 6, 6)) != _MAGIC:
        raise ValueError("not an Arrow file: the magic bytes are missing")
    try:
        (length,) = struct.unpack("<i", file.at(size - 10, 4))
        footer = _Table.root(file.at(size - 10 - length, length))
        for block in (*_blocks(footer, 2), *_blocks(footer, 3)):
            _check_block(file, *block)
    except struct.error as error:
        raise ValueError("the directory of the Arrow file is malformed") from error


def _blocks(footer: _Table, field: int) -> Iterator[tuple[int, int, int]]:
    """Yield offset, size of the message and size of the body (bytes) of dictionaries (2) or record batches (3)."""
    for start in footer.vector(field, 24):
        offset, message, body = struct.unpack_from("<qixxxxq", footer.bytes, start)
        yield offset, message, body


def _check_block(file: RangeFile, offset: int, message_size: int, body: int) -> None:
    message = file.at(offset, message_size)
    # Since format V5 a message starts with a marker and its size.
    table = _Table.root(message[8:])
    kind = table.scalar(1, "<B")
    batch = table.child(2)
    if kind == 2:
        batch = batch.child(1)
    if batch.offset(3):
        raise ValueError("an Arrow member is never compressed by itself")
    if offset + message_size + body > file.size():
        raise ValueError("a record batch ends after the file")
    end = 0
    for start in batch.vector(2, 16):
        first, size = struct.unpack_from("<qq", batch.bytes, start)
        if size:
            if first < end or size < 0:
                raise ValueError("buffers of a record batch overlap")
            end = first + size
    if end > body:
        raise ValueError("a buffer ends after its record batch")


class _Table:
    """A flatbuffers table: fields are found through a table of offsets that lies before it."""

    __slots__ = ("bytes", "position")

    def __init__(self, view: memoryview, position: int) -> None:
        self.bytes = view
        self.position = position
        if not 0 <= position <= len(view) - 4:
            raise ValueError("a table lies outside of its message")

    @classmethod
    def root(cls, view: memoryview) -> _Table:
        return cls(view, int(struct.unpack_from("<I", view, 0)[0]))

    def offset(self, field: int) -> int:
        """Return where a field lies, or 0 if it is absent."""
        table = self.position - int(struct.unpack_from("<i", self.bytes, self.position)[0])
        if not 0 <= table <= len(self.bytes) - 4:
            raise ValueError("a table of offsets lies outside of its message")
        if 4 + 2 * field >= int(struct.unpack_from("<H", self.bytes, table)[0]):
            return 0
        found = int(struct.unpack_from("<H", self.bytes, table + 4 + 2 * field)[0])
        return self.position + found if found else 0

    def scalar(self, field: int, layout: str) -> int:
        at = self.offset(field)
        return int(struct.unpack_from(layout, self.bytes, at)[0]) if at else 0

    def child(self, field: int) -> _Table:
        at = self.offset(field)
        if not at:
            raise ValueError("a message has no header")
        return _Table(self.bytes, at + int(struct.unpack_from("<I", self.bytes, at)[0]))

    def vector(self, field: int, item_size: int) -> range:
        """Return the positions of the items of a vector of structs."""
        at = self.offset(field)
        if not at:
            return range(0)
        start = at + int(struct.unpack_from("<I", self.bytes, at)[0])
        count = int(struct.unpack_from("<I", self.bytes, start)[0])
        if start + 4 + count * item_size > len(self.bytes):
            raise ValueError("a vector ends after its message")
        return range(start + 4, start + 4 + count * item_size, item_size)
