"""Copying: all files of a store into another one, the blobs as somebody else decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from mltraq_ds.errors import ConflictError, KeyExistsError, UsageError
from mltraq_ds.lake import following
from mltraq_ds.lake.lineage import Lineage
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.selection import Selected
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.storage.pointer import SUFFIX, blob_of
from mltraq_ds.store import generations, layout
from mltraq_ds.store.retire import with_pointers

__all__ = ["Place", "clone_store"]

#: Gets a blob into a store and says what it did.
Place = Callable[[Reference], BlobRow]


def clone_store(
    source: Storage,
    target: Storage,
    selected: Sequence[Selected],
    place: Place,
    failures: Failures,
    jobs: int | None,
    *,
    prune: bool,
) -> tuple[list[BlobRow], tuple[str, ...]]:
    """Write all files of a store into another one; `place` decides what becomes of the blobs.

    A generation is written last, so that an experiment is there whole or not at all; whatever is there already is
    compared and kept, so that a clone that was killed is finished by running it again.

    Returns
    -------
    list, tuple
        What was done with each blob, and notes on the experiments that have gone from the source since the last time.
        With `prune` they go from the target, unless somebody went on with them there, or something failed.

    Raises
    ------
    ConflictError
        If the target has a version of an experiment, or a file, that did not come from a clone.  It was left as it is.
    """
    if layout.read_store_id(source) == layout.read_store_id(target):
        raise UsageError(
            f"The clone of {source.url} is refused because {target.url} is the same store, or a bare copy of it."
        )
    _refuse_nested(source, target)
    layout.store_id(target)
    lineage = Lineage(target, str(layout.read_store_id(source)))
    lineage.announce(selected)
    rows: list[BlobRow] = []
    for one in selected:
        done = do(place, one.generation.blobs, lambda blob: blob.key, failures, jobs)
        rows += done
        if len(done) == len(one.generation.blobs):
            _finish_experiment(source, lineage, one)
            following.drop_replaced(target, one, done, failures)
    _copy_rest(source, lineage, {one.folder for one in selected})
    notes = [] if failures.causes else following.follow_gone(source, lineage, selected, prune=prune)
    lineage.save()
    return rows, tuple(notes)


def _refuse_nested(source: Storage, target: Storage) -> None:
    if source.is_local and target.is_local:
        one, other = (f"{os.path.realpath(path_from(storage.url))}{os.sep}" for storage in (source, target))
        if one.startswith(other) or other.startswith(one):
            raise UsageError(
                f"The clone of {source.url} is refused because one of it and {target.url} is in the other."
            )


def _finish_experiment(source: Storage, lineage: Lineage, one: Selected) -> None:
    """Copy all but the blobs; the generation, which makes them an experiment, last."""
    target = lineage.target
    blobs = {reference.key for reference in one.generation.blobs}
    files = [
        stat.key
        for stat in source.list(one.folder)
        if blob_of(stat.key) not in blobs and not stat.key.startswith(f"{one.folder}/generations/")
    ]
    needed = {reference.key for reference in one.generation.records}
    copied = [file for file in files if file in needed or not _is_nobodys(one.folder, file)]
    for file in copied:
        lineage.copy(source, file)
    target.flush([*copied, *blobs, *(f"{blob}{SUFFIX}" for blob in blobs)])
    before = generations.current(target, one.folder)
    if _commit(lineage, one) and before is not None:
        target.delete_many(with_pointers(before.keys - one.generation.keys))


def _commit(lineage: Lineage, one: Selected) -> bool:
    """Create the generation, if nobody has persisted the experiment in the target; tell whether it is new."""
    expected = lineage.require_ours(one.generation, one.folder)
    if expected == one.generation.ident:
        return False

    def look_again() -> None:
        if lineage.require_ours(one.generation, one.folder) != expected:
            raise ConflictError(f"Experiment {one.generation.name!r} is being cloned by somebody else. Run it again.")

    data = one.generation.to_bytes()
    key = layout.generation_key(one.folder, one.generation.number)
    try:
        lineage.target.put(key, [data], size=len(data), parents=True, before_publish=look_again)
    except KeyExistsError:
        if lineage.require_ours(one.generation, one.folder) != one.generation.ident:
            raise
        return False
    return True


def _is_nobodys(folder: str, key: str) -> bool:
    """Tell whether a file is a blob or a record that the current version does not refer to."""
    rest = key[len(folder) + 1 :]
    return rest.endswith(".jsonl") or ("/" not in rest and rest != layout.META)


def _copy_rest(source: Storage, lineage: Lineage, folders: set[str]) -> None:
    """Copy what lies beside: files of users, artifacts, experiments of single records."""
    for folder in source.folders():
        if folder not in folders and folder != layout.PENDING and not _has_ended(source, folder):
            for stat in source.list(folder):
                lineage.copy(source, stat.key)


def _has_ended(source: Storage, folder: str) -> bool:
    generation = generations.current(source, folder)
    return generation is not None and generation.deleted
