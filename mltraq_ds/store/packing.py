"""Packing: which blobs of a persist share a file, and writing them.

A thousand runs with one small DataStore each must not make a thousand files and fsyncs; a few get a file each, as the
documentation shows.
"""

from __future__ import annotations

from collections.abc import Iterable

from mltraq_ds.objects import Objects
from mltraq_ds.reference import Reference
from mltraq_ds.store.planned import PlannedBlob

__all__ = ["MAX_PACKED_BYTES", "MAX_PACK_BYTES", "MIN_PACKED", "group", "write_group"]

#: A pack is closed when it has this size (bytes).
MAX_PACK_BYTES = 16 * 1024 * 1024
#: Blobs of this size and more get a file of their own (bytes).
MAX_PACKED_BYTES = 64 * 1024
#: Up to this many small blobs get a file each.
MIN_PACKED = 32


def group(waiting: list[PlannedBlob]) -> list[list[PlannedBlob]]:
    """Return one list for each file to write, in an order in which nested DataStores come before what contains them.

    A pack holds one field only, so that a selection of fields is a selection of files; fields with too few small blobs
    for a pack of their own share one when they are many together.
    """
    # How large they are is asked only if it matters: one DataStore may have ten thousand values.
    small = [planned for planned in waiting if _may_share(planned)] if len(waiting) > MIN_PACKED else []
    if len(small) <= MIN_PACKED:
        return [[planned] for planned in waiting]
    by_field: dict[str, list[PlannedBlob]] = {}
    for planned in small:
        by_field.setdefault(planned.field_name, []).append(planned)
    crowds = [members for members in by_field.values() if len(members) > MIN_PACKED]
    rest = [planned for members in by_field.values() if len(members) <= MIN_PACKED for planned in members]
    if len(rest) > MIN_PACKED:
        crowds.append(rest)
    packed = {id(planned) for members in crowds for planned in members}
    singles = [[planned] for planned in waiting if id(planned) not in packed]
    return singles + [part for members in crowds for part in _split(members)]


def _may_share(planned: PlannedBlob) -> bool:
    return not planned.is_nested and not planned.nested and planned.size_bytes < MAX_PACKED_BYTES


def _split(members: list[PlannedBlob]) -> Iterable[list[PlannedBlob]]:
    part: list[PlannedBlob] = []
    size_bytes = 0
    for planned in members:
        if part and size_bytes + planned.size_bytes > MAX_PACK_BYTES:
            yield part
            part, size_bytes = [], 0
        part.append(planned)
        size_bytes += planned.size_bytes
    yield part


def write_group(objects: Objects, members: list[PlannedBlob], key: str) -> None:
    """Write one file and tell its members their references; the name is flushed later, with those of the others."""
    if len(members) == 1:
        only = members[0]
        only.reference = objects.put_entries(
            only.to_write(), key, kind=only.kind, nested=only.nested_reference, flush=False
        )
        return
    fragments = {str(number): planned.to_write() for number, planned in enumerate(members)}
    reference = objects.put_pack(fragments, key, flush=False)
    for number, planned in enumerate(members):
        planned.reference = Reference(reference.key, reference.size, reference.digest, str(number))
