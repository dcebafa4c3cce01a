"""Reading a blob of a remote through the read cache: every range is verified, where from ever it comes."""

from __future__ import annotations

import bisect
import hashlib
import struct
import threading
from contextlib import suppress

from mltraq_ds.blob import Blob, open_blob
from mltraq_ds.blob.hashing import PIECE
from mltraq_ds.blob.index import Row
from mltraq_ds.blob.member import Verify
from mltraq_ds.blob.parsing import Index, parse_index
from mltraq_ds.blob.reader import find_index
from mltraq_ds.errors import CorruptBlobError
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.storage.cache import ReadCache
from mltraq_ds.storage.sources import check_range, new_buffer

__all__ = ["CachedSource", "open_cached"]

_OFFSET = struct.Struct("<Q")  # of the index in its blob, kept before it


def open_cached(source: Source, cache: ReadCache, *, digest: str, verify: Verify = "crc") -> Blob:
    """Open a blob whose index and members are kept in a cache once they were read.

    Parameters
    ----------
    source : Source
        The bytes, on a remote.
    cache : ReadCache
        Where they are kept.
    digest : str
        ``sha256:…`` of the index, as in the reference: all that is kept is compared with it.
    verify : {"crc", "none", "digest"}
        What a member's bytes are compared with, beside that.

    Raises
    ------
    CorruptBlobError, FormatError, InvalidNameError
        As `open_blob`.
    """
    sha256 = bytes.fromhex(digest.removeprefix("sha256:"))
    kept = cache.get(sha256, head=_OFFSET.size)
    if kept is not None:
        offset, packed = _OFFSET.unpack_from(kept)[0], kept[_OFFSET.size :]
        with suppress(CorruptBlobError):  # the offset alone is not part of the digest, but it is compared
            return _blob(
                source, cache, parse_index(packed, offset, source.key), (offset, packed.nbytes), verify, digest
            )
    offset, packed, _ = find_index(source)
    if hashlib.sha256(packed).digest() != sha256:
        return open_blob(source, digest=digest, verify=verify)  # which says what is wrong
    blob = _blob(source, cache, parse_index(packed, offset, source.key), (offset, packed.nbytes), verify, digest)
    cache.put(sha256, [_OFFSET.pack(offset), packed])
    return blob


def _blob(source: Source, cache: ReadCache, index: Index, place: tuple[int, int], verify: Verify, digest: str) -> Blob:
    return Blob(CachedSource(source, cache, index.rows), index, place, digest, verify)


class CachedSource(Source):
    """A blob on a remote, whose members are kept in pieces (16 MiB) as they were read; safe in threads.

    A range inside a member is verified before it is kept or handed out, whole pieces of it are read.  Other ranges
    (headers, directory) are read from the remote.  A pickled copy reads without the cache.

    Parameters
    ----------
    source : Source
        The blob on the remote.
    cache : ReadCache
        Where pieces are kept.
    rows : list of Row
        The members, in the order of the file, from a verified index.
    """

    def __init__(self, source: Source, cache: ReadCache, rows: list[Row]) -> None:
        self.key = source.key
        self.size = source.size
        self._source = source
        self._cache = cache
        self._rows = rows
        self._starts = [row.offset for row in rows]
        self._last: tuple[int, memoryview] = (0, memoryview(b""))
        self._lock = threading.Lock()

    @property
    def home(self) -> Storage | None:
        # docstring inherited
        return self._source.home

    def spare(self, error: Exception) -> Source | None:
        # docstring inherited
        return self._source.spare(error)

    def __reduce__(self) -> tuple[object, ...]:
        return self._source.__reduce__()

    def read(self, offset: int, size: int) -> memoryview:
        """Return verified bytes.

        Raises
        ------
        CorruptBlobError
            If what the remote has differs from the index, or the range leaves the blob.
        """
        check_range(self.key, offset, size, self.size)
        row = self._row_with(offset, size)
        if row is None or not size:
            return self._source.read(offset, size)
        found = self._from_last(offset, size)
        if found is not None:
            return found
        first = (offset - row.offset) // PIECE
        last = -(-(offset + size - row.offset) // PIECE)
        start = row.offset + first * PIECE
        view = self._pieces(row, first, last)
        if view.nbytes == size:
            return view
        # Streamed in steps smaller than what can be verified: the next step comes from here.
        keep = (last - first - 1) * PIECE
        with self._lock:
            self._last = (start + keep, view[keep:])
        return memoryview(bytearray(view[offset - start : offset - start + size]))

    def close(self) -> None:
        # docstring inherited
        with self._lock:
            self._last = (0, memoryview(b""))
        self._source.close()

    def _row_with(self, offset: int, size: int) -> Row | None:
        position = bisect.bisect_right(self._starts, offset) - 1
        row = self._rows[position] if position >= 0 else None
        return row if row is not None and offset + size <= row.offset + row.stored_size else None

    def _from_last(self, offset: int, size: int) -> memoryview | None:
        with self._lock:
            start, view = self._last
        if start <= offset and offset + size <= start + view.nbytes:
            return memoryview(bytearray(view[offset - start : offset - start + size]))
        return None

    def _pieces(self, row: Row, first: int, last: int) -> memoryview:
        """Return whole pieces of a member, one behind the other."""
        kept = [row.sha256[32 * number : 32 * number + 32] in self._cache for number in range(first, last)]
        if not any(kept):
            return self._fetch(row, first, last)
        if last - first == 1:
            return self._piece(row, first)
        start, end = first * PIECE, min(last * PIECE, row.stored_size)
        buffer = new_buffer(end - start)
        for number in range(first, last):
            view = self._piece(row, number)
            buffer[(number - first) * PIECE : (number - first) * PIECE + view.nbytes] = view
        return buffer

    def _piece(self, row: Row, number: int) -> memoryview:
        size = min(PIECE, row.stored_size - number * PIECE)
        kept = self._cache.get(row.sha256[32 * number : 32 * number + 32], size)
        return self._fetch(row, number, number + 1) if kept is None else kept

    def _fetch(self, row: Row, first: int, last: int) -> memoryview:
        """Read pieces from the remote, at once, and keep them."""
        start, end = first * PIECE, min(last * PIECE, row.stored_size)
        view = self._source.read(row.offset + start, end - start)
        for number in range(first, last):
            piece = view[(number - first) * PIECE : (number - first + 1) * PIECE]
            sha256 = row.sha256[32 * number : 32 * number + 32]
            if hashlib.sha256(piece).digest() != sha256:
                raise CorruptBlobError(
                    f"The member {row.name!r} of the blob {self.key!r} is damaged: its SHA-256 differs. Restore the "
                    "blob from a copy; 'mltraq-ds check --deep' lists what else is damaged."
                )
            self._cache.put(sha256, [piece])
        return view
