"""Random access to what a blob holds.  Every byte read is untrusted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from mltraq_ds.blob.check import damage_by_crc, damage_of_members, damage_of_structure
from mltraq_ds.blob.entry import StoredEntry
from mltraq_ds.blob.hashing import crc_of
from mltraq_ds.blob.index import corrupt
from mltraq_ds.blob.member import StoredMember, Verify
from mltraq_ds.blob.parsing import UNPACK_ERRORS, Index, check_format, parse_entry, parse_index
from mltraq_ds.blob.zipformat import END_SIZE, VERSION, parse_end
from mltraq_ds.errors import CorruptBlobError, CorruptRecordError, InvalidNameError, UsageError
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Source

__all__ = ["Blob", "StoredEntry", "find_index", "open_blob"]

#: The end of a blob that is read at once (bytes): most indexes are in it, and one request is enough.
TAIL_SIZE = 64 * 1024


def open_blob(source: Source, *, digest: str | None = None, verify: Verify = "crc") -> Blob:
    """Open a blob; only its index is read, with one read of the end unless the index is large.

    Parameters
    ----------
    source : Source
        The bytes.  The blob uses it as long as members are read, and `Blob.close` closes it.
    digest : str, optional
        ``sha256:…`` of the index, as in the reference.
    verify : {"crc", "none", "digest"}
        What a member's bytes are compared with when they are read.

    Raises
    ------
    CorruptBlobError
        If it is no blob, was cut short, or differs from the digest.  The source stays open.
    FormatError
        If a newer version of the library wrote it.
    InvalidNameError
        If a member name could leave the folder that it is extracted to.
    """
    if verify not in ("crc", "none", "digest"):
        raise UsageError(f"There is no verify={verify!r}: use 'crc', 'none' or 'digest'.")
    index_offset, packed, crc32 = find_index(source)
    found = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    if digest is None:
        if crc_of([packed]) != crc32:
            raise CorruptBlobError(corrupt(source.key, "the CRC-32 of its index differs"))
    elif found != digest:
        raise CorruptBlobError(
            corrupt(source.key, "its index has another SHA-256 than the reference: it was changed, or is another blob")
        )
    return Blob(source, parse_index(packed, index_offset, source.key), (index_offset, packed.nbytes), found, verify)


def find_index(source: Source) -> tuple[int, memoryview, int]:
    """Return offset, bytes and expected CRC-32 of the index."""
    start = max(0, source.size - TAIL_SIZE)
    tail = source.read(start, source.size - start)
    found = parse_end(bytes(tail[-END_SIZE:]))
    if found is None:
        raise CorruptBlobError(corrupt(source.key, _what_else(source, tail)))
    offset, size, crc32 = found
    if offset + size > source.size - END_SIZE:
        raise CorruptBlobError(corrupt(source.key, f"its index would end at {offset + size} of {source.size} bytes"))
    if offset >= start:
        return offset, tail[offset - start : offset - start + size], crc32
    return offset, source.read(offset, size), crc32


def _what_else(source: Source, tail: memoryview) -> str:
    if source.size == 0:
        return "it is empty"
    end = bytes(tail)
    version = VERSION.search(end, max(0, len(end) - END_SIZE))
    if version and int(version[1]):
        check_format(int(version[1]), source.key)
    if b"PK\x05\x06" in end:
        return "it is a ZIP archive, but its comment does not say where the index of a blob is"
    return f"its end is missing; it has {source.size} bytes and was cut short, or never was a blob"


class _Entries(Mapping[str, StoredEntry]):
    """The keys of one fragment; an entry is parsed when it is asked for."""

    def __init__(self, blob: Blob, packed: dict[str, bytes]) -> None:
        self._blob = blob
        self._packed = packed

    def __getitem__(self, key: str) -> StoredEntry:
        return self._blob.parse_entry(key, self._packed[key])

    def __contains__(self, key: object) -> bool:
        return key in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


class Blob:
    """What one blob holds; safe in threads.  Made by `open_blob`.

    Attributes
    ----------
    key : str
        Store-relative name.
    kind : str
        ``datastore``, ``value`` or ``pack``.
    digest : str
        ``sha256:…`` of the index, as in a reference.
    """

    def __init__(self, source: Source, index: Index, place: tuple[int, int], digest: str, verify: Verify) -> None:
        self.key = source.key
        self.digest = digest
        self.kind = index.kind
        self._source = source
        self._index = index
        self._place = place
        self._verify = verify
        self._members: list[StoredMember | None] = [None] * len(index.rows)

    def __repr__(self) -> str:
        return f"<blob {self.key!r}, {self.kind}, {len(self._members)} members, {self._source.size} bytes>"

    @property
    def size(self) -> int:
        """Size of the whole blob (bytes)."""
        return self._source.size

    @property
    def fragments(self) -> list[str]:
        """Names of the subtrees; ``[""]`` unless the blob is a pack."""
        return list(self._index.fragments)

    @property
    def members(self) -> tuple[StoredMember, ...]:
        """All members, in the order of the file."""
        return tuple(self._member(position) for position in range(len(self._members)))

    def entries(self, fragment: str = "") -> Mapping[str, StoredEntry]:
        """Return the keys of a fragment.

        Raises
        ------
        CorruptBlobError
            If the blob has no such fragment; later, by look-up of a key, if its entry is damaged.
        """
        if fragment not in self._index.fragments:
            raise CorruptBlobError(
                f"The blob {self.key!r} has no fragment {fragment!r:.100}: the reference belongs to another blob. "
                "'mltraq-ds check' lists what else is damaged."
            )
        return _Entries(self, self._index.fragments[fragment])

    def check(self, *, deep: bool = True) -> list[str]:
        """Compare every byte with what the index says; the index itself was verified when the blob was opened.

        Parameters
        ----------
        deep : bool
            Hash all members and parse all entries too; otherwise only headers, padding and directory are compared.

        Returns
        -------
        list of str
            One sentence per damaged place; empty if there is none.

        Raises
        ------
        StorageError
            If the storage does not answer.
        """
        findings = list(damage_of_structure(self._source, self._index, self._place))
        if deep:
            findings += damage_of_members(self.members)
            findings += self._damage_of_entries()
        return findings

    def check_crc(self) -> list[str]:
        """Compare every byte by structure and CRC-32: much faster than SHA-256, and no help against malice."""
        return list(damage_by_crc(self._source, self._index, self._place))

    def _damage_of_entries(self) -> Iterator[str]:
        for fragment in self.fragments:
            entries = self.entries(fragment)
            for key in entries:
                try:
                    entries[key].summary  # noqa: B018 — parsed by being asked for
                except (CorruptBlobError, InvalidNameError) as error:
                    yield str(error)

    def close(self) -> None:
        """Close the source.  Values and views handed out stay valid."""
        self._source.close()

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def parse_entry(self, key: str, packed: bytes) -> StoredEntry:
        """Parse one entry; errors as of `entries`."""
        try:
            tree, positions, references, summary = parse_entry(packed)
            if not positions and not references:
                return StoredEntry(tree, (), None, summary, self.key)
            if positions and not 0 <= min(positions) <= max(positions) < len(self._members):
                raise ValueError(f"it refers to members beyond the {len(self._members)} there are")
            members = tuple(self._member(position) for position in positions)
            found = [Reference.from_list(parts) for parts in references]
            return StoredEntry(tree, members, found, summary, self.key)
        except InvalidNameError:
            raise
        except (*UNPACK_ERRORS, CorruptRecordError) as error:
            raise CorruptBlobError(corrupt(self.key, f"the entry of {key!r:.100} cannot be read: {error}")) from error

    def _member(self, position: int) -> StoredMember:
        member = self._members[position]
        if member is None:
            row = self._index.rows[position]
            folder = row.name[: row.name.find("/") + 1] if self.kind == "pack" else ""
            member = StoredMember(self._source, row, self._verify, folder)
            self._members[position] = member
        return member
