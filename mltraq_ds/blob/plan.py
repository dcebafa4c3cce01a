"""What a blob will hold, decided before a byte is written: names, places, sizes, and packed entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from mltraq_ds.blob.entry import StoredEntry
from mltraq_ds.blob.hashing import crc_of, flat, sha_of
from mltraq_ds.blob.index import INDEX_NAME, bin_header, is_bomb, make_packer
from mltraq_ds.blob.member import StoredMember
from mltraq_ds.blob.zipformat import header_size
from mltraq_ds.codecs.base import Encoded, Member
from mltraq_ds.errors import UsageError, ValueChangedError
from mltraq_ds.ids import escape_member
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Buffer

if TYPE_CHECKING:
    from mltraq_ds.blob.compression import Spool

__all__ = ["Part", "Plan"]

_JOIN_PIECES = 1024


@dataclass(slots=True)
class Part:
    """One member with its place in the file.

    Parameters
    ----------
    name : str
        Name inside the blob.
    header_offset, offset : int
        Where its header and its payload start (bytes).
    stored_size, size : int
        Size of the payload, and after decompression (bytes).
    compression : str or None
        As in the index.
    buffers : callable
        Returns the payload, from the start at every call.
    member : Member, optional
        The member of a value; None for one of another blob.
    checksums : tuple of int and bytes, optional
        CRC-32 and SHA-256 of the payload where they are known beforehand.
    crc32_before : int, optional
        CRC-32 of the member before compression.
    """

    name: str
    header_offset: int
    offset: int
    stored_size: int
    size: int
    compression: str | None
    buffers: Callable[[], Iterable[Buffer]]
    member: Member | None
    checksums: tuple[int, bytes] | None = None
    crc32_before: int | None = None


class Plan:
    """Collects entries; `parts` lie one behind the other, `end` is where the last payload ends (bytes)."""

    def __init__(self, nested: Callable[[Any], Reference] | None, compression: str | None) -> None:
        if compression not in (None, "zstd"):
            raise UsageError(f"There is no compression {compression!r}: use 'zstd' or None.")
        self.parts: list[Part] = []
        self.end = 0
        self.spool: Spool | None = None
        self.packer: msgpack.Packer = make_packer()
        self._count = 0  # of fragments
        self._packed: list[bytes] = []  # all of them, in pieces
        self._nested = nested
        self._compression = compression
        self._files = {INDEX_NAME}
        self._folders: set[str] = set()
        self._summary: object = None  # the last one packed: arrays of one shape share theirs
        self._packed_summary = b""
        self._tree_size = -1  # of the last entry without members, and what was around its tree
        self._before = self._behind = b""

    def add_fragment(self, fragment: str, entries: Mapping[str, Encoded | StoredEntry]) -> None:
        """Add all entries of a fragment; the members of a named one lie in a folder of its name."""
        folder = escape_member(fragment) + "/" if fragment else ""
        packed, pack = self._packed, self.packer.pack
        packed += (pack(fragment), self.packer.pack_map_header(len(entries)))
        self._count += 1
        for key, entry in entries.items():
            if isinstance(entry, StoredEntry) or entry.members or entry.nested:
                content = self._add(entry, folder)
                packed += (pack(key), bin_header(len(content)), content)
                continue
            # Ten thousand small values: be quick.
            tree = entry.tree
            if entry.summary is not self._summary or len(tree) != self._tree_size:
                self._remember_frame(entry)
            packed += (pack(key), self._before, tree, self._behind)

    def close_fragments(self) -> int:
        """Put their number before them, and return the size of `packed_fragments` (bytes)."""
        self._packed.insert(0, self.packer.pack_map_header(self._count))
        return sum(map(len, self._packed))

    def packed_fragments(self) -> Iterator[bytes]:
        """Yield the packed entries of all fragments: the second part of the index."""
        # Not joined as a whole: fresh memory costs more than putting some pieces together, twice.
        for start in range(0, len(self._packed), _JOIN_PIECES):
            yield b"".join(self._packed[start : start + _JOIN_PIECES])

    def _remember_frame(self, entry: Encoded) -> None:
        """Keep what is before and behind the tree of an entry without members: ``[tree, [], [], summary]``."""
        packed_summary = self._pack_summary(entry.summary)
        self._tree_size = len(entry.tree)
        start = b"\x94" + bin_header(self._tree_size)
        self._behind = b"\x90\x90" + bin_header(len(packed_summary)) + packed_summary
        self._before = bin_header(len(start) + self._tree_size + len(self._behind)) + start

    def _pack_summary(self, summary: Mapping[str, Any]) -> bytes:
        if summary is not self._summary:
            self._summary, self._packed_summary, self._tree_size = summary, self.packer.pack(summary), -1
        return self._packed_summary

    def _add(self, entry: Encoded | StoredEntry, folder: str) -> bytes:
        first = len(self.parts)
        if isinstance(entry, StoredEntry):
            references = entry.references
            for stored in entry.members:
                self._add_stored(stored, folder)
        else:
            references = [self._refer(value) for value in entry.nested]
            for member in entry.members:
                self._add_member(member, folder)
        lists = [reference.to_list() for reference in references]
        positions = list(range(first, len(self.parts)))
        summary = self._pack_summary(entry.summary)
        packed: bytes = self.packer.pack((entry.tree, positions, lists, summary))
        return packed

    def _refer(self, value: object) -> Reference:
        if self._nested is None:
            raise UsageError(
                "A DataStore is nested in a value, and no 'nested' was given that makes a reference of it."
            )
        return self._nested(value)

    def _add_stored(self, stored: StoredMember, folder: str) -> None:
        name = folder + stored.name.removeprefix(stored.folder)
        part = self._place(name, stored.stored_size, stored.size, stored.compression, stored.buffers, None)
        part.checksums = (stored.crc32, stored.sha256)

    def _add_member(self, member: Member, folder: str) -> None:
        name = folder + (member.name or f"member.{member.suffix}")
        if self._compression and self._add_compressed(member, name):
            return
        self._place(name, member.size, member.size, None, member.buffers, member)

    def _add_compressed(self, member: Member, name: str) -> bool:
        """Compress a member into the spool; False, and nothing added, if it does not become smaller."""
        from mltraq_ds.blob.compression import Spool, compressed  # zstd and tempfile, rarely needed

        spool = self.spool = self.spool or Spool()
        crc32 = size = 0

        def views() -> Iterable[memoryview]:
            nonlocal crc32, size
            for view in flat(member.buffers()):
                crc32 = crc_of([view], crc32)
                size += view.nbytes
                yield view

        place = spool.add(compressed(views()), member.size)
        if place is None:
            return False
        if size != member.size:
            raise ValueChangedError(changed(name, f"it has {size} bytes instead of {member.size}"))
        if is_bomb(size, place[1]):
            return False  # readers refuse it: they cannot tell it from an attack
        part = self._place(name + ".zst", place[1], size, "zstd", lambda: spool.read(*place), member)
        part.checksums = (crc_of(flat(spool.read(*place))), sha_of(flat(spool.read(*place))))
        part.crc32_before = crc32
        return True

    def _place(
        self,
        name: str,
        stored_size: int,
        size: int,
        compression: str | None,
        buffers: Callable[[], Iterable[Buffer]],
        member: Member | None,
    ) -> Part:
        name = self._unique(name)
        start = self.end
        offset = start + header_size(name.encode(), stored_size, start)
        self.end = offset + stored_size
        part = Part(name, start, offset, stored_size, size, compression, buffers, member)
        self.parts.append(part)
        return part

    def _unique(self, name: str) -> str:
        """Return a name that neither another member nor a folder has, so that the blob can be extracted."""
        files, folders = self._files, self._folders
        above = _folders_of(name)
        if not files.isdisjoint(above):
            name, above = name.replace("/", "~"), []
        candidate = name
        if name in files or name in folders:
            stem, suffix = _split(name)
            number = 1
            while candidate in files or candidate in folders:
                number += 1
                candidate = f"{stem}~{number}{suffix}"  # no escaped name has a "~"
        files.add(candidate)
        folders.update(above)
        return candidate


def changed(name: str, how: str) -> str:
    """Return the text of a `ValueChangedError`."""
    return (
        f"The value behind the member {name!r} changed while it was written: {how}. Nothing was committed. Write it "
        "again while no other thread or process changes it, or write a copy."
    )


def _folders_of(name: str) -> list[str]:
    return [name[:i] for i, char in enumerate(name) if char == "/"] if "/" in name else []


def _split(name: str) -> tuple[str, str]:
    """Split ``a/x.npy.zst`` into ``a/x`` and ``.npy.zst``."""
    folder, slash, last = name.rpartition("/")
    stem = last.removesuffix(".zst")
    stem = stem.rpartition(".")[0] or stem
    return folder + slash + stem, last[len(stem) :]
