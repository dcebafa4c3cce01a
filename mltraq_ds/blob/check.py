"""Every byte of a blob against its index: the structure is rendered again, the members are hashed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mltraq_ds.blob.hashing import crc_of
from mltraq_ds.blob.index import INDEX_NAME, Row, end_of, make_packer, pack_fragments, pack_head, render_tail
from mltraq_ds.blob.member import StoredMember
from mltraq_ds.blob.parsing import Index
from mltraq_ds.blob.zipformat import local_header
from mltraq_ds.errors import DamageError
from mltraq_ds.storage.base import Source

__all__ = ["damage_by_crc", "damage_of_members", "damage_of_structure"]

_WINDOW = 4 * 1024 * 1024  # bytes read at once


def damage_of_structure(source: Source, index: Index, place: tuple[int, int]) -> Iterator[str]:
    """Yield a sentence for each header, padding or directory that is not what the index says."""
    window = _Window(source)
    yield from _compared(source, window, _headers(index))
    offset, _ = place
    packer = make_packer()
    rendered = pack_head(index.kind, index.rows, packer) + pack_fragments(index.fragments)
    yield from _compared(source, window, [(offset, rendered, "form of the index")])
    yield from _compared(source, window, _around(source, index, place))


def _compared(source: Source, window: _Window, parts: Iterable[tuple[int, bytes, str | Row]]) -> Iterator[str]:
    for offset, expected, what in parts:
        if window.read(offset, min(len(expected), source.size - offset)) != expected:
            yield _differs(source, what)


def _differs(source: Source, what: str | Row) -> str:
    named = f"header of the member {what.name!r}" if isinstance(what, Row) else what
    return f"The {named} of the blob {source.key!r} is not what its index says."


def damage_of_members(members: Iterable[StoredMember]) -> Iterator[str]:
    """Yield a sentence for each member whose SHA-256 differs, or that cannot be decompressed."""
    for member in members:
        try:
            member.verify("digest")
            if member.compression:
                for _ in member.decompressed():
                    pass
        except DamageError as error:
            yield str(error)


def damage_by_crc(source: Source, index: Index, place: tuple[int, int]) -> Iterator[str]:
    """Yield a sentence for each header or directory that is not what the index says, and each member of another CRC-32.

    The index itself was verified when the blob was opened.  One pass, with little done for each member: a pack has ten
    thousand of them, and is looked at whole before it is uploaded.
    """
    window = _Window(source)
    start = 0
    for row in index.rows:
        header = local_header(row.name.encode(), row.stored_size, row.crc32, start)
        if row.stored_size < _WINDOW // 2:
            whole = window.read(start, row.offset + row.stored_size - start)
            is_right, crc32 = whole[: len(header)] == header, crc_of([whole[len(header) :]])
        else:
            is_right, crc32 = window.read(start, len(header)) == header, 0
            for offset in range(row.offset, row.offset + row.stored_size, _WINDOW):
                crc32 = crc_of([window.read(offset, min(_WINDOW, row.offset + row.stored_size - offset))], crc32)
        if not is_right:
            yield _differs(source, row)
        if crc32 != row.crc32:
            yield f"The member {row.name!r} of the blob {source.key!r} is damaged: its CRC-32 differs."
        start = row.offset + row.stored_size
    yield from _compared(source, window, _around(source, index, place))


class _Window:
    """Reads neighbours together: a pack has thousands of small members, and a read costs more than its bytes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = 0
        self._view = memoryview(b"")

    def read(self, offset: int, size: int) -> memoryview:
        skip = offset - self._start
        if skip < 0 or skip + size > self._view.nbytes:
            self._start, skip = offset, 0
            self._view = self._source.read(offset, max(size, min(_WINDOW, self._source.size - offset)))
        return self._view[skip : skip + size]


def _headers(index: Index) -> Iterator[tuple[int, bytes, Row]]:
    """Yield place and bytes of the header of each member."""
    start = 0
    for row in index.rows:
        yield start, local_header(row.name.encode(), row.stored_size, row.crc32, start), row
        start = row.offset + row.stored_size


def _around(source: Source, index: Index, place: tuple[int, int]) -> Iterator[tuple[int, bytes, str]]:
    """Yield place, bytes and name of what is before and behind the index."""
    start = end_of(index.rows)
    offset, size = place
    crc32 = crc_of([source.read(offset, size)])
    yield start, local_header(INDEX_NAME.encode(), size, crc32, start), "header of the index"
    yield offset + size, render_tail(index.rows, start, offset, size, crc32), "directory at the end"
