"""The buffers of one blob, in order, with the total size known before the first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from mltraq_ds.blob.entry import StoredEntry
from mltraq_ds.blob.hashing import INLINE_SIZE, Hasher, Pieces, checksums_of, crc_of, flat, sha_size
from mltraq_ds.blob.index import INDEX_NAME, Row, make_packer, pack_head, render_tail, tail_size
from mltraq_ds.blob.plan import Part, Plan, changed
from mltraq_ds.blob.zipformat import header_size, local_header
from mltraq_ds.codecs.base import Encoded
from mltraq_ds.errors import UsageError, ValueChangedError
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Buffer

__all__ = ["Packed", "pack", "pack_many"]

_JOIN_BELOW = 64 * 1024  # smaller buffers are copied together: a system call costs more than copying them
_JOIN_UP_TO = 1024 * 1024
_SOME_CRC = 0xFFFFFFFF  # one that msgpack packs in 5 bytes, as is done with all


def pack(
    entries: Mapping[str, Encoded | StoredEntry],
    *,
    kind: str = "datastore",
    nested: Callable[[Any], Reference] | None = None,
    compression: str | None = None,
) -> Packed:
    """Lay out one blob; nothing is read or written yet (with compression: members are compressed into a spool).

    Parameters
    ----------
    entries : mapping
        Key to encoded value; an entry of another blob is copied raw, as it was stored there.
    kind : str
        What the blob is: ``datastore`` or ``value``.
    nested : callable, optional
        Returns the reference of a DataStore met inside a value.
    compression : str, optional
        ``"zstd"``: members that become smaller are stored as zstd frames, and ``.zst`` is added to their names.

    Raises
    ------
    UsageError
        If there is no such kind or compression.
    ValueChangedError
        If the size of a member changed while it was compressed.
    """
    if kind not in ("datastore", "value"):
        raise UsageError(f"There is no kind {kind!r} of a blob: use 'datastore' or 'value'.")
    return _packed(kind, {"": entries}, nested, compression)


def pack_many(
    fragments: Mapping[str, Mapping[str, Encoded | StoredEntry]],
    *,
    nested: Callable[[Any], Reference] | None = None,
    compression: str | None = None,
) -> Packed:
    """Lay out a pack, one blob of many small DataStores; parameters and errors as of `pack`."""
    return _packed("pack", fragments, nested, compression)


def _packed(
    kind: str,
    fragments: Mapping[str, Mapping[str, Encoded | StoredEntry]],
    nested: Callable[[Any], Reference] | None,
    compression: str | None,
) -> Packed:
    plan = Plan(nested, compression)
    try:
        for fragment, entries in fragments.items():
            plan.add_fragment(fragment, entries)
        return Packed(kind, plan)
    except BaseException:
        if plan.spool:
            plan.spool.close()
        raise


class Packed:
    """One blob, not yet written.

    Iterating yields its buffers from the start each time, flat and in order: copies of small ones put together, views
    of the value for large ones.  Other threads hash meanwhile; they end with the iteration, however that ends.

    Attributes
    ----------
    size : int
        Sum of the sizes of the buffers (bytes).
    kind : str
        ``datastore``, ``value`` or ``pack``.
    """

    def __init__(self, kind: str, plan: Plan) -> None:
        self.kind = kind
        self._plan = plan
        self._rows = [_row(part, _SOME_CRC, bytes(sha_size(part.stored_size))) for part in plan.parts]
        self._digest: str | None = None
        self._index_size = len(pack_head(kind, self._rows, plan.packer)) + plan.close_fragments()
        self._index_offset = plan.end + header_size(INDEX_NAME.encode(), self._index_size, plan.end)
        tail = tail_size(self._rows, plan.end, self._index_offset, self._index_size)
        self.size = self._index_offset + self._index_size + tail

    @property
    def digest(self) -> str:
        """``sha256:…`` of the index, for the reference; known after a whole iteration."""
        if self._digest is None:
            raise UsageError("The digest of a blob is known only after all its buffers were written.")
        return self._digest

    def __iter__(self) -> Iterator[Buffer]:
        hasher = Hasher()
        frames = self._frames(hasher)
        waiting: list[bytes] = []
        waiting_size = 0
        try:
            for frame in frames:
                size = len(frame)
                if size < _JOIN_BELOW:
                    # A view is copied now: what is behind it may change.
                    waiting.append(frame if type(frame) is bytes else bytes(frame))
                    waiting_size += size
                    if waiting_size < _JOIN_UP_TO:
                        continue
                    size = 0
                if waiting:
                    yield memoryview(b"".join(waiting))
                    waiting, waiting_size = [], 0
                if size:
                    yield frame
            yield memoryview(b"".join(waiting))
        finally:
            frames.close()
            hasher.close()

    def check_unchanged(self) -> None:
        """Look at every value again after the write.

        Raises
        ------
        ValueChangedError
            If the CRC-32 of a member differs from the one written; the blob must not be committed.
        """
        if self._digest is None:
            raise UsageError("A blob is compared with what was written only after all its buffers were written.")
        for part, row in zip(self._plan.parts, self._rows, strict=True):
            if part.member is None or part.member.streamed:
                continue  # verified while they were copied
            expected = row.crc32 if part.crc32_before is None else part.crc32_before
            if part.size < INLINE_SIZE:
                crc32 = crc_of([memoryview(b"".join(part.member.buffers()))])
            else:
                crc32 = crc_of(flat(part.member.buffers()))
            if crc32 != expected:
                raise ValueChangedError(changed(part.name, "its CRC-32 differs after the write"))

    def close(self) -> None:
        """Remove temporary files of compression; nothing to do without."""
        if self._plan.spool:
            self._plan.spool.close()

    def _frames(self, hasher: Hasher) -> Generator[Buffer, None, None]:
        crcs: list[int] = []
        digests: list[Pieces | bytes] = []
        for part in self._plan.parts:
            member = part.member
            if part.checksums or member is None or member.streamed or part.stored_size >= INLINE_SIZE:
                yield from _frames_of(part, hasher, crcs, digests)
                continue
            # A thousand small members: be quick.  Their bytes are copied anyway, so the copy is what is hashed.
            content = b"".join(part.buffers())
            _require_size(part, len(content))
            crc32, sha = checksums_of(content)
            crcs.append(crc32)
            digests.append(sha)
            yield local_header(part.name.encode(), part.stored_size, crc32, part.header_offset)
            yield content
        hasher.finish()
        shas = [known if isinstance(known, bytes) else known.digest() for known in digests]
        rows = [_row(part, crc, sha) for part, crc, sha in zip(self._plan.parts, crcs, shas, strict=True)]
        head = pack_head(self.kind, rows, make_packer())
        crc32 = crc_of([memoryview(head)])
        sha256 = hashlib.sha256(head)
        for entries in self._plan.packed_fragments():
            crc32 = crc_of([memoryview(entries)], crc32)
            sha256.update(entries)
        self._rows = rows
        self._digest = f"sha256:{sha256.hexdigest()}"
        yield local_header(INDEX_NAME.encode(), self._index_size, crc32, self._plan.end)
        yield memoryview(head)
        for entries in self._plan.packed_fragments():
            yield memoryview(entries)
        yield self._tail(rows, crc32)

    def _tail(self, rows: list[Row], index_crc32: int) -> bytes:
        """Return what follows the index."""
        return render_tail(rows, self._plan.end, self._index_offset, self._index_size, index_crc32)


def _row(part: Part, crc32: int, sha256: bytes) -> Row:
    return Row(part.name, part.offset, part.stored_size, crc32, sha256, part.compression, part.size)


def _frames_of(part: Part, hasher: Hasher, crcs: list[int], digests: list[Pieces | bytes]) -> Iterator[Buffer]:
    """Yield header and payload of one member, and append its CRC-32 and its SHA-256 (or what will know it)."""
    name = part.name.encode()
    if part.checksums:
        crc32, sha256 = part.checksums
        crcs.append(crc32)
        digests.append(sha256)
        yield local_header(name, part.stored_size, crc32, part.header_offset)
        yield from flat(part.buffers())  # checks itself: it is a member of another blob, or our own spool
        return
    pieces = hasher.pieces(part.stored_size)
    digests.append(pieces)
    if part.member is not None and part.member.streamed:
        yield from _streamed(part, crcs, pieces)
        return
    views = list(flat(part.buffers()))
    _require_size(part, sum(view.nbytes for view in views))
    for view in views:
        pieces.update(view)  # before the CRC, so that all are at work
    crcs.append(crc_of(views))
    yield local_header(name, part.stored_size, crcs[-1], part.header_offset)
    yield from views


def _streamed(part: Part, crcs: list[int], pieces: Pieces) -> Iterator[Buffer]:
    """Read a member twice, since its CRC-32 comes before it; what changed in between is found at its end."""
    crc32 = size = 0
    for view in flat(part.buffers()):
        crc32 = crc_of([view], crc32)
        size += view.nbytes
    _require_size(part, size)
    crcs.append(crc32)
    yield local_header(part.name.encode(), size, crc32, part.header_offset)
    again = size = 0
    for view in flat(part.buffers()):
        again = crc_of([view], again)
        size += view.nbytes
        if size > part.stored_size:
            break
        pieces.update(view, is_fresh=True)
        yield view
    _require_size(part, size)
    if again != crc32:
        raise ValueChangedError(changed(part.name, "it has another CRC-32 when it is read again"))


def _require_size(part: Part, size: int) -> None:
    if size != part.stored_size:
        raise ValueChangedError(changed(part.name, f"it has {size} bytes instead of {part.stored_size}"))
