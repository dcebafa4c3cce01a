"""One member of a blob on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Literal, TypeAlias, TypeVar, cast

from mltraq_ds.blob.hashing import crc_of, sha_of
from mltraq_ds.blob.index import Row, corrupt
from mltraq_ds.errors import CorruptBlobError
from mltraq_ds.storage.base import Source
from mltraq_ds.storage.streams import stream_of

__all__ = ["StoredMember", "Verify"]

Verify: TypeAlias = Literal["crc", "none", "digest"]

T = TypeVar("T")

_CHUNK = 4 * 1024 * 1024


class StoredMember:
    """One member of a blob on disk; safe in threads.

    Attributes
    ----------
    name : str
        Name inside the blob.
    size, stored_size : int
        Size after decompression and in the blob (bytes).
    crc32 : int
        CRC-32 of the stored bytes.
    sha256 : bytes
        SHA-256 of each 16 MiB of the stored bytes, 32 bytes each, one behind the other.
    compression : str or None
        ``zstd`` where it is stored as a zstd frame.
    folder : str
        The part of the name that stands for the fragment of a pack, with its ``/``.
    """

    __slots__ = ("folder", "_is_verified", "_offset", "_source", "_verify", *Row._fields[:1], *Row._fields[2:])

    def __init__(self, source: Source, row: Row, verify: Verify, folder: str = "") -> None:
        self.name, self._offset, self.stored_size, self.crc32, self.sha256, self.compression, self.size = row
        self.folder = folder
        self._source = source
        self._verify = verify
        self._is_verified = verify == "none"

    def __repr__(self) -> str:
        return f"<member {self.name!r} of {self._source.key!r}, {self.size} bytes>"

    def read(self) -> memoryview:
        """Return all bytes, verified; they are private to the caller, who may write into them.

        Raises
        ------
        CorruptBlobError
            If they are not those that were written.
        """
        view = self._intact(self._read)
        if self.compression is None:
            return view
        content = bytearray()
        for piece in self._decompressed([view]):
            content += piece
        return memoryview(content)

    def _read(self) -> memoryview:
        view = self._source.read(self._offset, self.stored_size)
        self._require(_checksum([view], self._verify))  # at each reading: the source may read anew
        return view

    def _intact(self, work: Callable[[], T]) -> T:
        """Return what `work` gives; if the bytes are wrong and are elsewhere too, what it gives with those."""
        try:
            return work()
        except CorruptBlobError as error:
            spare = self._source.spare(error)
            if spare is None:
                raise
        self._source = spare
        return work()

    def read_range(self, offset: int, size: int) -> memoryview:
        """Return some bytes.  Not verified, since that would read all of them, unless the member is compressed.

        Raises
        ------
        CorruptBlobError
            If they reach beyond the member, or as of `read` if it is compressed.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self._corrupt(f"bytes {offset} to {offset + size} were asked for, and it has {self.size}")
        if self.compression is None:
            return self._source.read(self._offset + offset, size)
        return self.read()[offset : offset + size]

    def open(self) -> BinaryIO:
        """Return a seekable stream over the bytes; verified before, in bounded memory; errors as of `read`."""
        if not self._is_verified:
            self.verify(self._verify)
        if self.compression is None:
            return stream_of(self.read_range, self.size)
        spool = SpooledTemporaryFile(max_size=_CHUNK)  # noqa: SIM115 — the caller closes it
        try:
            for piece in self._decompressed(self._raw()):
                spool.write(piece)
            spool.seek(0)
        except BaseException:
            spool.close()
            raise
        return cast(BinaryIO, spool)

    def buffers(self) -> Iterator[memoryview]:
        """Yield the stored bytes, still compressed, to be copied into another blob.

        Raises
        ------
        CorruptBlobError
            After the last one, if the CRC-32 of all differs.
        """
        crc32 = 0
        for view in self._raw():
            crc32 = crc_of([view], crc32)
            yield view
        self._require(crc32)

    def verify(self, by: Verify = "digest") -> None:
        """Compare the stored bytes with the index, in bounded memory.

        Raises
        ------
        CorruptBlobError
            If CRC-32 (``"crc"``) or SHA-256 (``"digest"``) differ.
        """
        self._intact(lambda: self._require(_checksum(self._raw(), by)))
        self._is_verified = True

    def decompressed(self) -> Iterator[bytes]:
        """Yield the content of a compressed member; the stored bytes are not verified; errors as of `read`."""
        return self._decompressed(self._raw())

    def _raw(self) -> Iterator[memoryview]:
        for start in range(0, self.stored_size, _CHUNK):
            yield self._source.read(self._offset + start, min(_CHUNK, self.stored_size - start))

    def _decompressed(self, views: Iterable[memoryview]) -> Iterator[bytes]:
        from mltraq_ds.blob.compression import decompressed

        try:
            yield from decompressed(views, self.size)
        except ValueError as error:
            raise self._corrupt(f"it cannot be decompressed: {error}") from error

    def _require(self, checksum: int | bytes | None) -> None:
        if checksum is None or checksum in (self.crc32, self.sha256):
            return
        raise self._corrupt(f"its {'CRC-32' if isinstance(checksum, int) else 'SHA-256'} differs")

    def _corrupt(self, problem: str) -> CorruptBlobError:
        return CorruptBlobError(corrupt(self._source.key, problem, self.name))


def _checksum(views: Iterable[memoryview], by: Verify) -> int | bytes | None:
    if by == "none":
        return None
    if by == "crc":
        return crc_of(views)
    return sha_of(views)
