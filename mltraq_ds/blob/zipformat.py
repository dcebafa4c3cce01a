"""The structural bytes of a blob: ZIP headers, padding, central directory, end.  Pure functions, nothing is read.

Every byte follows from names, sizes and CRC-32s, so the writer knows the total size before it has seen a value, and
`Blob.check` can render the structure again and compare.

References
----------
APPNOTE.TXT 6.3.10, PKWARE: 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 (ZIP64 end), 4.5.3 (ZIP64 extra).
Extra field 0xD935 is the one `zipalign` of Android pads with; tools skip it.
"""

from __future__ import annotations

import re
import struct

__all__ = [
    "ALIGNMENT",
    "COMMENT_SIZE",
    "END_SIZE",
    "central_entry",
    "central_size",
    "end_of_archive",
    "format_comment",
    "header_size",
    "local_header",
]

#: Payloads start at multiples of this (bytes): a cache line, what `np.save` and Arrow align to.
ALIGNMENT = 64

# From these on a field holds its maximum and the value is in a ZIP64 record.
SIZE_LIMIT = 0xFFFFFFFF
COUNT_LIMIT = 0xFFFF

_STORED = 0
_UTF8 = 0x0800
_DATE = 0x0021  # 1980-01-01, the first date of DOS: equal values give equal bytes
_TIME = 0
_UNIX = 3 << 8
_MODE = 0o100644 << 16  # what `unzip` gives the extracted file
_ZIP64_EXTRA = 0x0001
_PAD_EXTRA = 0xD935
_PAD_MIN = 6  # id, length, alignment

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")

# The extra fields that pad a header, by how many bytes are missing.
_PADS = [struct.pack("<HHH", _PAD_EXTRA, 2 + pad, ALIGNMENT) + bytes(pad) for pad in range(ALIGNMENT)]

#: What a comment of any format begins with.
VERSION = re.compile(rb"mltraq_ds/(\d{1,9}) ")
_COMMENT = re.compile(rb"mltraq_ds/1 index=(\d{20}) size=(\d{20}) crc=([0-9a-f]{8})")
COMMENT_SIZE = len("mltraq_ds/1 index= size= crc=") + 20 + 20 + 8
#: Size of the end record with its comment (bytes).
END_SIZE = _END.size + COMMENT_SIZE


def local_header(name: bytes, size: int, crc32: int, header_offset: int) -> bytes:
    """Return the header of a member, padded so that the payload behind it is aligned.

    Parameters
    ----------
    name : bytes
        UTF-8.
    size : int
        Size of the stored payload (bytes).
    crc32 : int
        CRC-32 of the stored payload.
    header_offset : int
        Where the header starts in the file (bytes).
    """
    is_large = size >= SIZE_LIMIT
    extra = struct.pack("<HHQQ", _ZIP64_EXTRA, 16, size, size) if is_large else b""
    pad = -(header_offset + _LOCAL.size + len(name) + len(extra) + _PAD_MIN) % ALIGNMENT
    extra += _PADS[pad]
    short = 0xFFFFFFFF if is_large else size
    version = 45 if is_large else 20
    fixed = _LOCAL.pack(0x04034B50, version, _UTF8, _STORED, _TIME, _DATE, crc32, short, short, len(name), len(extra))
    return fixed + name + extra


def header_size(name: bytes, size: int, header_offset: int) -> int:
    """Return the size of `local_header` without rendering it (bytes)."""
    bare = _LOCAL.size + len(name) + (20 if size >= SIZE_LIMIT else 0) + _PAD_MIN
    return bare + -(header_offset + bare) % ALIGNMENT


def central_entry(name: bytes, size: int, crc32: int, header_offset: int) -> bytes:
    """Return the entry of a member in the central directory; parameters as of `local_header`."""
    wide = extra = b""
    version, short_size, short_offset = 20, size, header_offset
    if size >= SIZE_LIMIT:
        wide += struct.pack("<QQ", size, size)
        short_size = 0xFFFFFFFF
    if header_offset >= SIZE_LIMIT:
        wide += struct.pack("<Q", header_offset)
        short_offset = 0xFFFFFFFF
    if wide:
        version, extra = 45, struct.pack("<HH", _ZIP64_EXTRA, len(wide)) + wide
    fixed = _CENTRAL.pack(
        *(0x02014B50, _UNIX | version, version, _UTF8, _STORED, _TIME, _DATE, crc32, short_size, short_size),
        *(len(name), len(extra), 0, 0, 0, _MODE, short_offset),
    )
    return fixed + name + extra


def central_size(name: bytes, size: int, header_offset: int) -> int:
    """Return the size of `central_entry` without rendering it (bytes)."""
    wide = (16 if size >= SIZE_LIMIT else 0) + (8 if header_offset >= SIZE_LIMIT else 0)
    return _CENTRAL.size + len(name) + (4 + wide if wide else 0)


def end_of_archive(count: int, directory_offset: int, directory_size: int, comment: bytes) -> bytes:
    """Return what follows the central directory: ZIP64 end and locator where needed, the end record, the comment."""
    is_large = count >= COUNT_LIMIT or max(directory_offset, directory_size) >= SIZE_LIMIT
    wide = b""
    if is_large:
        at = directory_offset + directory_size
        wide = _END64.pack(
            *(0x06064B50, _END64.size - 12, _UNIX | 45, 45, 0, 0, count, count, directory_size, directory_offset)
        ) + _LOCATOR64.pack(0x07064B50, 0, at, 1)
    short_count = min(count, 0xFFFF) if count < COUNT_LIMIT else 0xFFFF
    short_size = directory_size if directory_size < SIZE_LIMIT else 0xFFFFFFFF
    short_offset = directory_offset if directory_offset < SIZE_LIMIT else 0xFFFFFFFF
    end = _END.pack(0x06054B50, 0, 0, short_count, short_count, short_size, short_offset, len(comment))
    return wide + end + comment


def format_comment(index_offset: int, index_size: int, index_crc32: int) -> bytes:
    """Return the archive comment: the last bytes of a blob, through which one read finds the index."""
    return b"mltraq_ds/1 index=%020d size=%020d crc=%08x" % (index_offset, index_size, index_crc32)


def parse_end(tail: bytes) -> tuple[int, int, int] | None:
    """Return offset, size and CRC-32 of the index from the last `END_SIZE` bytes; None if it is not format 1."""
    found = _COMMENT.fullmatch(tail, _END.size)
    if not found or tail[:4] != b"PK\x05\x06":
        return None
    return int(found[1]), int(found[2]), int(found[3], 16)
