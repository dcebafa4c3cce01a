"""Every byte of a blob against its index: the structure is rendered again, the members are hashed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mltraq_ds.blob.hashing import crc_of
from mltraq_ds.blob.index import INDEX_NAME, end_of, make_packer, pack_fragments, pack_head, render_tail
from mltraq_ds.blob.parsing import Index
from mltraq_ds.blob.zipformat import local_header
from mltraq_ds.errors import DamageError, InvalidNameError
from mltraq_ds.storage.base import Source

if TYPE_CHECKING:
    from mltraq_ds.blob.reader import Blob

__all__ = ["check"]


def check(blob: Blob, source: Source, index: Index, place: tuple[int, int], *, deep: bool) -> list[str]:
    """Return one sentence per damaged place of a blob; see `Blob.check`."""
    findings = []
    for offset, expected, what in _structure(source, index, place):
        if bytes(source.read(offset, min(len(expected), source.size - offset))) != expected:
            findings.append(f"The {what} of the blob {blob.key!r} is not what its index says.")
    if deep:
        findings += _damage_of_members(blob)
        findings += _damage_of_entries(blob)
    return findings


def _structure(source: Source, index: Index, place: tuple[int, int]) -> Iterator[tuple[int, bytes, str]]:
    """Yield place, bytes and name of all that is not payload."""
    start = 0
    for row in index.rows:
        header = local_header(row.name.encode(), row.stored_size, row.crc32, start)
        yield start, header, f"header of the member {row.name!r}"
        start = row.offset + row.stored_size
    offset, size = place
    packed = source.read(offset, size)
    crc32 = crc_of([packed])
    yield start, local_header(INDEX_NAME.encode(), size, crc32, start), "header of the index"
    packer = make_packer()
    rendered = pack_head(index.kind, index.rows, packer) + pack_fragments(index.fragments, packer)
    yield offset, rendered, "form of the index"
    yield offset + size, render_tail(index.rows, end_of(index.rows), offset, size, crc32), "directory at the end"


def _damage_of_members(blob: Blob) -> Iterator[str]:
    for member in blob.members:
        try:
            member.verify("digest")
            for _ in member.decompressed() if member.compression else ():
                pass
        except DamageError as error:
            yield str(error)


def _damage_of_entries(blob: Blob) -> Iterator[str]:
    for fragment in blob.fragments:
        entries = blob.entries(fragment)
        for key in entries:
            try:
                entries[key].summary  # noqa: B018 — parsed by being asked for
            except (DamageError, InvalidNameError) as error:
                yield str(error)
