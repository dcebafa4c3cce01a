"""Reading an index.  Whatever is parsed here is untrusted."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, NamedTuple

import msgpack

from mltraq_ds.blob.hashing import PIECE, sha_size
from mltraq_ds.blob.index import FORMAT, INDEX_NAME, KINDS, Row, corrupt, end_of, is_bomb
from mltraq_ds.blob.zipformat import header_size
from mltraq_ds.errors import CorruptBlobError, FormatError, InvalidNameError
from mltraq_ds.ids import validate_key

__all__ = ["UNPACK_ERRORS", "Index", "check_format", "parse_entry", "parse_index", "unpack_bounded"]

#: What unpacking raises on bytes that are not what they should be.
UNPACK_ERRORS = (ValueError, msgpack.UnpackException, RecursionError, MemoryError, OverflowError)

_SMALL = 1024  # below (bytes), lies about lengths cost less than a few MiB
_KEYS = {"format", "kind", "members", "fragments"}
_ROW_TYPES = ([str, int, int, int, bytes, type(None), int], [str, int, int, int, bytes, str, int])
_PLAIN_NAME = re.compile(r"(?:[A-Za-z0-9_=~][A-Za-z0-9_=~-]*(?:[./][A-Za-z0-9_=~-]+)*)")
_NAME_MAX = 200  # of plain ones (bytes)


class Index(NamedTuple):
    """What `parse_index` found; entries are still packed, so that opening a blob does not parse all of them."""

    kind: str
    rows: list[Row]
    fragments: dict[str, dict[str, bytes]]


def parse_index(packed: memoryview, index_offset: int, blob: str) -> Index:
    """Parse and validate an index.

    Parameters
    ----------
    packed : memoryview
        The bytes of ``index.msgpack``.
    index_offset : int
        Where they start in the file (bytes); every member lies before.
    blob : str
        Key of the blob, for messages.

    Raises
    ------
    CorruptBlobError
        If anything in it cannot be right.
    FormatError
        If a newer version of the library wrote it.
    InvalidNameError
        If a member name could leave the folder that it is extracted to.
    """
    try:
        # Only maps and bytes: no array, so nothing is allocated that is not there.
        index = msgpack.unpackb(packed, max_array_len=0, max_ext_len=0, unicode_errors="surrogatepass")
        if not isinstance(index, dict):
            raise ValueError("it is not a map")
        check_format(index.get("format"), blob)
        if not _KEYS.issubset(index):
            raise ValueError(f"it lacks {sorted(_KEYS - set(index))}")
        if index["kind"] not in KINDS:
            raise ValueError(f"its kind is {index['kind']!r:.50}")
        _require_fragments(index["fragments"], index["kind"])
        rows = _parse_rows(index["members"], blob)
        end = end_of(rows)
        if index_offset != end + header_size(INDEX_NAME.encode(), len(packed), end):
            raise ValueError("it does not start where the last member ends")
        return Index(index["kind"], rows, index["fragments"])
    except InvalidNameError:
        raise
    except (*UNPACK_ERRORS, TypeError) as error:
        raise CorruptBlobError(corrupt(blob, f"its index cannot be read: {error}")) from error


def check_format(version: object, blob: str) -> None:
    """Refuse a blob of a newer format."""
    if type(version) is not int or version < 1:
        raise ValueError(f"its format is {version!r:.50}")
    if version > FORMAT:
        raise FormatError(
            f"The blob {blob!r} is of format {version}; this version of mltraq_ds reads formats up to {FORMAT}. "
            "Upgrade it with 'pip install --upgrade mltraq-ds'."
        )


def _require_fragments(fragments: object, kind: str) -> None:
    if not isinstance(fragments, dict) or not set(map(type, fragments)) <= {str}:
        raise ValueError("its fragments are not a map of names")
    if kind != "pack" and set(fragments) != {""}:
        raise ValueError(f"a {kind} has other fragments than ''")
    if not set(map(type, fragments.values())) <= {dict}:
        raise ValueError("a fragment is not a map of keys")
    if not set(map(type, chain.from_iterable(fragments.values()))) <= {str}:
        raise ValueError("a fragment is not a map of names")
    if not set(map(type, chain.from_iterable(map(dict.values, fragments.values())))) <= {bytes}:
        raise ValueError("an entry is not packed")


def _parse_rows(packed: object, blob: str) -> list[Row]:
    if type(packed) is not bytes:
        raise ValueError("its members are not packed")
    members = unpack_bounded(packed, use_list=False)  # tuples of plain values cost the garbage collector nothing
    if type(members) is not tuple:
        raise ValueError("its members are not a list")
    rows = list(map(Row._make, members)) if _are_plain(members) else _require_rows(members, blob)
    if len({row.name for row in rows} | {INDEX_NAME}) <= len(rows):
        raise ValueError("two members have one name")
    return rows


def _are_plain(members: tuple[Any, ...]) -> bool:
    """Tell whether all of `members` are right as `_require_row` has it, short and not compressed.

    All are looked at together: a pack has ten thousands of them.
    """
    if set(map(type, members)) != {tuple} or set(map(len, members)) != {len(Row._fields)}:
        return False
    columns: list[tuple[Any, ...]] = list(zip(*members, strict=True))
    if [set(map(type, column)) for column in columns] != [{kind} for kind in _ROW_TYPES[0]]:
        return False
    names, offsets, stored_sizes, crcs, shas, _, sizes = columns
    if max(map(len, names)) > _NAME_MAX or not all(map(_PLAIN_NAME.fullmatch, names)):
        return False
    if min(stored_sizes) < 0 or max(stored_sizes) > PIECE or sizes != stored_sizes:
        return False
    if not 0 <= min(crcs) <= max(crcs) < 2**32 or set(map(len, shas)) != {sha_size(0)}:
        return False
    end = 0
    for size, offset, name in zip(stored_sizes, offsets, map(str.encode, names), strict=True):
        if offset != end + header_size(name, size, end):
            return False
        end = offset + size
    return True


def _require_rows(members: tuple[Any, ...], blob: str) -> list[Row]:
    rows = []
    end = 0
    for parts in members:
        row = _require_row(parts, end, blob)
        end = row.offset + row.stored_size
        rows.append(row)
    return rows


def _require_row(parts: object, header_offset: int, blob: str) -> Row:
    if type(parts) is not tuple or [type(part) for part in parts] not in _ROW_TYPES:
        raise ValueError(f"{parts!r:.100} is not a member")
    row = Row(*parts)
    name = row.name.encode("utf-8")
    if not (_PLAIN_NAME.fullmatch(row.name) and len(name) <= _NAME_MAX):
        validate_key(row.name, f"name of a member of the blob {blob!r}")
    # Offsets follow from names and sizes, so members cannot overlap or hide bytes between them.
    if row.stored_size < 0 or row.offset != header_offset + header_size(name, row.stored_size, header_offset):
        raise ValueError(f"the member {row.name!r:.100} is not where the one before it ends")
    if not 0 <= row.crc32 < 2**32 or len(row.sha256) != sha_size(row.stored_size):
        raise ValueError(f"the member {row.name!r:.100} has no checksums")
    if row.compression is None:
        is_sane = row.size == row.stored_size
    elif row.compression == "zstd":
        is_sane = row.size >= 0 and not is_bomb(row.size, row.stored_size)
    else:
        raise FormatError(
            f"The member {row.name!r:.100} of the blob {blob!r} is compressed by {row.compression!r:.50}, "
            "which this version of mltraq_ds does not know. Upgrade it with 'pip install --upgrade mltraq-ds'."
        )
    if not is_sane:
        raise ValueError(f"the member {row.name!r:.100} cannot have {row.size} bytes, stored in {row.stored_size}")
    return row


def parse_entry(packed: bytes) -> tuple[bytes, list[int], list[Any], bytes]:
    """Parse one entry into tree, positions, references and packed summary.

    Raises
    ------
    ValueError
        Or another of `UNPACK_ERRORS`, if it is not an entry.
    """
    if (plain := _parse_plain_entry(packed)) is not None:
        return plain
    entry = unpack_bounded(packed)
    if type(entry) is not list or [type(part) for part in entry] != [bytes, list, list, bytes]:
        raise ValueError("it is not [tree, members, references, summary]")
    tree, positions, references, summary = entry
    if not set(map(type, positions)) <= {int}:
        raise ValueError("a position is not a number")
    return tree, positions, references, summary


def _parse_plain_entry(packed: bytes) -> tuple[bytes, list[int], list[Any], bytes] | None:
    """Parse ``[tree, [], [], summary]``, of which there may be ten thousand; None if it is anything else."""
    start = {b"\x94\xc4": 3, b"\x94\xc5": 4}.get(packed[:2], 0)  # a tree of less than 256 bytes, or of less than 64 KiB
    if not start or len(packed) < start:
        return None
    end = start + int.from_bytes(packed[2:start], "big")
    rest = end + 4
    if packed[end : rest - 1] != b"\x90\x90\xc4" or len(packed) < rest or rest + packed[rest - 1] != len(packed):
        return None
    return packed[start:end], [], [], packed[rest:]


def unpack_bounded(packed: bytes, *, use_list: bool = True) -> Any:
    """Unpack untrusted bytes in memory that is a small multiple of their size.

    `msgpack` makes a list as long as a header claims, at every level, before it sees that the bytes end.  Skipping over
    them first allocates nothing, and finds every lie.
    """
    if len(packed) > _SMALL:
        unpacker = msgpack.Unpacker(max_buffer_size=len(packed))
        unpacker.feed(packed)
        unpacker.skip()
    return msgpack.unpackb(packed, max_ext_len=0, unicode_errors="surrogatepass", use_list=use_list)
