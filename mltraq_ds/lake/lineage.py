"""Lineage: what a clone got from its source, so that work done in the clone is never taken for an old copy."""

from __future__ import annotations

from collections.abc import Sequence

from mltraq_ds.errors import ConflictError, CorruptRecordError, KeyMissingError
from mltraq_ds.lake.selection import Selected
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, generations, layout

__all__ = ["announce"]

_KEPT = 2  # the version that is there and the one that is coming: a kill may leave either


def announce(target: Storage, selected: Sequence[Selected]) -> None:
    """Note which versions are about to be cloned; refuse experiments that somebody has persisted in the clone.

    Raises
    ------
    ConflictError
        If the target has a version that did not come from a clone.  Nothing was changed.
    """
    known = _read(target)
    for one in selected:
        coming = list(one.generation.ident)
        idents = known.get(one.generation.id_experiment, [])
        there = generations.current(target, one.folder)
        if there is not None and list(there.ident) not in (*idents, coming):
            raise ConflictError(
                f"Experiment {one.generation.name!r} is not cloned because {target.url} has generation {there.number} "
                "of it, which did not come from a clone: somebody has persisted it there. Clone into another store."
            )
        if coming not in idents:
            known[one.generation.id_experiment] = [*idents, coming][-_KEPT:]
    data = descriptors.to_bytes("clone", {"experiments": dict(sorted(known.items()))})
    try:
        if target.read(layout.CLONE) == data:
            return
    except KeyMissingError:
        pass
    target.put(layout.CLONE, [data], size=len(data), replace=True, parents=True)


def _read(target: Storage) -> dict[str, list[list[object]]]:
    try:
        body = descriptors.from_bytes(target.read(layout.CLONE), "clone", layout.CLONE)
    except KeyMissingError:
        return {}
    found = body.get("experiments")
    if not isinstance(found, dict) or not all(isinstance(idents, list) for idents in found.values()):
        raise CorruptRecordError(f"{layout.CLONE} of {target.url} cannot be read. Restore it from a copy.")
    return found
