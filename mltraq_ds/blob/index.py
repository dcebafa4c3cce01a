"""``index.msgpack``: what a blob holds and where.  Its SHA-256 is the digest in a reference."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgpack

from mltraq_ds.blob.zipformat import COMMENT_SIZE, central_entry, central_size, end_of_archive, format_comment

__all__ = [
    "FORMAT",
    "INDEX_NAME",
    "KINDS",
    "Row",
    "bin_header",
    "corrupt",
    "make_packer",
    "pack_fragments",
    "pack_head",
    "render_tail",
    "tail_size",
]

FORMAT = 1
INDEX_NAME = "index.msgpack"
KINDS = ("datastore", "value", "pack")

#: A larger expansion is refused above `EXPANSION_FREE` bytes: 1,000 is beyond what real values reach, and a bomb.
EXPANSION_MAX = 1000
EXPANSION_FREE = 64 * 1024 * 1024

_CRC = struct.Struct(">BI")
_BIN16 = struct.Struct(">BH")
_BIN32 = struct.Struct(">BI")
_CRC_SHORTER = 0xFFFF  # msgpack takes 5 bytes for what is above


class Row(NamedTuple):
    """One member in the index.

    Parameters
    ----------
    name : str
        Name inside the blob.
    offset : int
        Where its payload starts in the file (bytes).
    stored_size : int
        Size of the payload (bytes).
    crc32 : int
        CRC-32 of the payload.
    sha256 : bytes
        SHA-256 of each 16 MiB of the payload, 32 bytes each, one behind the other.
    compression : str or None
        ``zstd`` where the payload is a zstd frame.
    size : int
        Size after decompression (bytes).
    """

    name: str
    offset: int
    stored_size: int
    crc32: int
    sha256: bytes
    compression: str | None
    size: int


def bin_header(size: int) -> bytes:
    """Return what msgpack puts before `size` bytes."""
    if size < 1 << 8:
        return bytes((0xC4, size))
    return _BIN16.pack(0xC5, size) if size < 1 << 16 else _BIN32.pack(0xC6, size)


def pack_fragments(fragments: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """Pack the second part of the index: the entries."""
    size = sum(sum(map(len, entries.values())) + 64 * len(entries) for entries in fragments.values())
    packed: bytes = make_packer(size).pack(fragments)
    return packed


def pack_head(kind: str, rows: Sequence[Row], packer: msgpack.Packer) -> bytes:
    """Pack the first part of the index, what comes before the entries.

    Its size depends on neither CRC nor digest of a row, so it is known before a byte is hashed.
    """
    if all(row.crc32 > _CRC_SHORTER for row in rows):
        members: bytes = packer.pack(rows)
    else:
        members = _pack_rows(rows, packer)
    start = packer.pack({"format": FORMAT, "kind": kind, "members": members})
    head: bytes = b"\x84" + start[1:] + packer.pack("fragments")
    return head


def _pack_rows(rows: Sequence[Row], packer: msgpack.Packer) -> bytes:
    parts = [packer.pack_array_header(len(rows))]
    for name, offset, stored_size, crc32, sha256, compression, size in rows:
        # msgpack would choose the shortest form of the CRC; this one always takes 5 bytes.
        checksums = _CRC.pack(0xCE, crc32) + packer.pack(sha256)
        parts += (b"\x97", packer.pack(name), packer.pack(offset), packer.pack(stored_size), checksums)
        parts += (packer.pack(compression), packer.pack(size))
    return b"".join(parts)


def make_packer(size: int = 0) -> msgpack.Packer:
    """Return a packer that keeps any string; one serves a whole blob, since making one costs more than an entry.

    With about `size` bytes to pack it need not copy what it has each time its buffer is full.
    """
    return msgpack.Packer(unicode_errors="surrogatepass", buf_size=max(size, 64 * 1024))


def render_tail(rows: list[Row], end: int, index_offset: int, index_size: int, index_crc32: int) -> bytes:
    """Return central directory and end of a blob whose last member ends at `end`."""
    entries = []
    start = 0
    for row in rows:
        entries.append(central_entry(row.name.encode(), row.stored_size, row.crc32, start))
        start = row.offset + row.stored_size
    entries.append(central_entry(INDEX_NAME.encode(), index_size, index_crc32, end))
    directory = b"".join(entries)
    comment = format_comment(index_offset, index_size, index_crc32)
    return directory + end_of_archive(len(entries), index_offset + index_size, len(directory), comment)


def tail_size(rows: Sequence[Row], end: int, index_offset: int, index_size: int) -> int:
    """Return the size of `render_tail` without rendering it (bytes)."""
    size = start = 0
    for row in rows:
        size += central_size(row.name.encode(), row.stored_size, start)
        start = row.offset + row.stored_size
    size += central_size(INDEX_NAME.encode(), index_size, end)
    return size + len(end_of_archive(len(rows) + 1, index_offset + index_size, size, bytes(COMMENT_SIZE)))


def end_of(rows: Sequence[Row]) -> int:
    """Return where the last member ends (bytes)."""
    return rows[-1].offset + rows[-1].stored_size if rows else 0


def is_bomb(size: int, stored_size: int) -> bool:
    """Tell whether a compressed member expands so much that reading it would be a danger."""
    return size > EXPANSION_FREE and size > EXPANSION_MAX * stored_size


def corrupt(blob: str, problem: str, member: str = "") -> str:
    """Return the text of a `CorruptBlobError`."""
    where = f"member {member!r} of the blob {blob!r}" if member else f"blob {blob!r}"
    return f"The {where} is damaged: {problem}. Restore it from a copy; 'mltraq-ds check' lists what else is damaged."
