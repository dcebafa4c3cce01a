"""Copying: all files of a store into another one, the blobs as somebody else decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from mltraq_ds.errors import KeyExistsError, KeyMissingError, UsageError
from mltraq_ds.lake.bytes import Unverified
from mltraq_ds.lake.lineage import announce
from mltraq_ds.lake.remotes import pieces, sha256_of
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.selection import Selected
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import SUFFIX, blob_of
from mltraq_ds.store import generations, layout
from mltraq_ds.store.retire import with_pointers

__all__ = ["Place", "clone_store"]

#: Gets a blob into a store and says what it did.
Place = Callable[[Reference], BlobRow]


def clone_store(
    source: Storage, target: Storage, selected: Sequence[Selected], place: Place, failures: Failures, jobs: int | None
) -> list[BlobRow]:
    """Write all files of a store into another one; `place` decides what becomes of the blobs.

    A generation is written last, so that an experiment is there whole or not at all; whatever is there already is
    compared and kept, so that a clone that was killed is finished by running it again.

    Raises
    ------
    ConflictError
        If the target has a version of an experiment that did not come from a clone.  Nothing of it was changed.
    """
    if layout.read_store_id(source) == layout.read_store_id(target):
        raise UsageError(
            f"The clone of {source.url} is refused because {target.url} is the same store, or a bare copy of it."
        )
    layout.store_id(target)
    announce(target, selected)
    rows: list[BlobRow] = []
    for one in selected:
        done = do(place, one.generation.blobs, lambda blob: blob.key, failures, jobs)
        rows += done
        if len(done) == len(one.generation.blobs):
            _finish_experiment(source, target, one)
    _copy_rest(source, target, {one.folder for one in selected})
    return rows


def _finish_experiment(source: Storage, target: Storage, one: Selected) -> None:
    """Copy all but the blobs; the generation, which makes them an experiment, last."""
    key = layout.generation_key(one.folder, one.generation.number)
    blobs = {reference.key for reference in one.generation.blobs}
    files = [
        stat.key
        for stat in source.list(one.folder)
        if blob_of(stat.key) not in blobs and not stat.key.startswith(f"{one.folder}/generations/")
    ]
    needed = {reference.key for reference in one.generation.records}
    copied = [file for file in files if file in needed or not _is_nobodys(one.folder, file)]
    for file in copied:
        _copy_file(source, target, file)
    target.flush([*copied, *blobs, *(f"{blob}{SUFFIX}" for blob in blobs)])
    before = generations.current(target, one.folder)
    data = one.generation.to_bytes()
    with suppress(KeyExistsError):
        target.put(key, [data], size=len(data), parents=True)
    if before is not None and before.number < one.generation.number:
        target.delete_many(with_pointers(before.keys - one.generation.keys))


def _is_nobodys(folder: str, key: str) -> bool:
    """Tell whether a file is a blob or a record that the current version does not refer to."""
    rest = key[len(folder) + 1 :]
    return rest.endswith(".jsonl") or ("/" not in rest and rest != layout.META)


def _copy_rest(source: Storage, target: Storage, folders: set[str]) -> None:
    """Copy what lies beside: files of users, artifacts, experiments of single records."""
    for folder in source.folders():
        if folder not in folders and folder != layout.PENDING and not _has_ended(source, folder):
            for stat in source.list(folder):
                _copy_file(source, target, stat.key)


def _has_ended(source: Storage, folder: str) -> bool:
    generation = generations.current(source, folder)
    return generation is not None and generation.deleted


def _copy_file(source: Storage, target: Storage, key: str) -> None:
    try:
        here = source.open(key)
    except KeyMissingError:
        return  # removed since it was listed
    try:
        with suppress(KeyMissingError):
            there = target.open(key)
            try:
                if there.size == here.size and sha256_of(pieces(there)) == sha256_of(pieces(here)):
                    return
            finally:
                there.close()
        target.put(key, Unverified(here), size=here.size, replace=True, parents=True, flush=False)
    finally:
        here.close()
