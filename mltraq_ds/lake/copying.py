"""Cloning: a second store with the same experiments, blobs copied, linked, or as pointers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum

from mltraq_ds.errors import ConflictError, KeyExistsError, KeyMissingError, RemotesError, UsageError
from mltraq_ds.lake import linking
from mltraq_ds.lake.bytes import (
    Bytes,
    Unverified,
    Verified,
    local_source,
    pointer_of,
    put_from_remotes,
    require_intact,
)
from mltraq_ds.lake.remotes import pieces, sha256_of
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.selection import Selected
from mltraq_ds.lake.uploading import write_pointer
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import SUFFIX, blob_of
from mltraq_ds.store import generations, layout
from mltraq_ds.store.retire import with_pointers

__all__ = ["FALLBACKS", "Mode", "clone_blob", "clone_store"]


class Mode(StrEnum):
    """What stands for a blob in a clone."""

    #: Its bytes in a new file; no pointer.
    CREATE_NEW_FILE = "CREATE_NEW_FILE"
    #: Its bytes in a new file, and its pointer beside it if it has one.
    DEEP_COPY = "DEEP_COPY"
    #: A second name of the same file; both stores on one file system.
    HARD_LINK = "HARD_LINK"
    #: A symbolic link to the file, which must stay where it is.
    SYM_LINK = "SYM_LINK"
    #: Its pointer alone.
    REMOTE_FILE = "REMOTE_FILE"


#: What `fallback` tries next when a mode cannot work.
FALLBACKS = {
    Mode.SYM_LINK: Mode.HARD_LINK,
    Mode.HARD_LINK: Mode.DEEP_COPY,
    Mode.REMOTE_FILE: Mode.DEEP_COPY,
}

_ACTIONS = {
    Mode.CREATE_NEW_FILE: "copied",
    Mode.DEEP_COPY: "copied",
    Mode.HARD_LINK: "hard-linked",
    Mode.SYM_LINK: "sym-linked",
    Mode.REMOTE_FILE: "pointed",
}

#: Gets a blob into a store and says what it did.
Place = Callable[[Reference], BlobRow]


class NotPossible(Exception):  # noqa: N818 - an answer inside this module
    """A mode cannot work for this blob; another one may."""


def clone_store(
    source: Storage, target: Storage, selected: Sequence[Selected], place: Place, failures: Failures, jobs: int | None
) -> list[BlobRow]:
    """Write all files of a store into another one; `place` decides what becomes of the blobs.

    A generation is written last, so that an experiment is there whole or not at all; whatever is there already is
    compared and kept, so that a clone that was killed is finished by running it again.

    Raises
    ------
    ConflictError
        If the target has another version of an experiment.  Nothing of it was changed.
    """
    if source.url == target.url:
        raise UsageError(f"The clone of {source.url} is refused because it would be written over itself.")
    layout.store_id(target)
    rows: list[BlobRow] = []
    for one in selected:
        _refuse_other_version(target, one)
        done = do(place, one.generation.blobs, lambda blob: blob.key, failures, jobs)
        rows += done
        if len(done) == len(one.generation.blobs):
            _finish_experiment(source, target, one)
    _copy_rest(source, target, {one.folder for one in selected})
    return rows


def clone_blob(source: Storage, target: Storage, reference: Reference, mode: Mode, *, fallback: bool) -> BlobRow:
    """Get one blob into another store.

    Raises
    ------
    UsageError
        If the mode cannot work here; the text names those that can.  Nothing was changed.
    CorruptBlobError, RemotesError
        If its bytes are wrong, or no remote delivers them.  Nothing was changed.
    """
    while True:
        try:
            return _clone_blob(source, target, reference, mode)
        except NotPossible as error:
            if not fallback or mode not in FALLBACKS:
                raise UsageError(str(error)) from error
            mode = FALLBACKS[mode]


def _clone_blob(source: Storage, target: Storage, reference: Reference, mode: Mode) -> BlobRow:
    pointer = pointer_of(source, reference)
    bytes_here = local_source(source, reference)
    if bytes_here is not None:
        bytes_here.close()
    if mode is Mode.REMOTE_FILE:
        if pointer is None:
            raise NotPossible(
                "Mode REMOTE_FILE is not possible: no remote has it. Use 'mltraq-ds remote upload' first, or DEEP_COPY."
            )
    elif mode in (Mode.HARD_LINK, Mode.SYM_LINK):
        if bytes_here is None:
            raise NotPossible(
                f"Mode {mode} is not possible: its bytes are on remotes only. Use DEEP_COPY "
                "or CREATE_NEW_FILE, or 'mltraq-ds remote pull' first."
            )
        try:
            linking.link(source, target, reference, is_symbolic=mode is Mode.SYM_LINK)
        except (OSError, NotImplementedError) as error:
            raise NotPossible(
                f"Mode {mode} is not possible from {source.url} to {target.url}: {error}. Use DEEP_COPY or "
                "CREATE_NEW_FILE."
            ) from error
    else:
        _copy_bytes(source, target, reference)
    if pointer is not None and mode is not Mode.CREATE_NEW_FILE:
        write_pointer(target, reference, pointer)
    remotes = pointer.remotes if pointer is not None and mode is not Mode.CREATE_NEW_FILE else ()
    return BlobRow(reference.key, reference.size, _ACTIONS[mode], remotes, mode is not Mode.REMOTE_FILE)


def _copy_bytes(source: Storage, target: Storage, reference: Reference) -> None:
    """Copy the bytes of a blob, from wherever they are; those that are there already are verified."""
    there = local_source(target, reference)
    if there is not None:
        try:
            return require_intact(there, reference)
        finally:
            there.close()
    here = local_source(source, reference)
    pointer = pointer_of(source, reference)
    if here is None:
        if pointer is None:
            raise RemotesError(f"Blob {reference.key} is gone from {source.url}. Restore it from a copy.")
        put_from_remotes(pointer, lambda verified: _put(target, reference, verified))
        return None
    try:
        require_intact(here, reference)
        _put(target, reference, Verified(here, pointer.digest) if pointer else Unverified(here))
    finally:
        here.close()


def _put(target: Storage, reference: Reference, buffers: Bytes) -> None:
    with suppress(KeyExistsError):  # another clone was first: names are never reused, so it is the same blob
        target.put(reference.key, buffers, size=reference.size, parents=True, flush=False)


def _refuse_other_version(target: Storage, one: Selected) -> None:
    key = layout.generation_key(one.folder, one.generation.number)
    with suppress(KeyMissingError):
        if target.read(key) != one.generation.to_bytes():
            raise ConflictError(
                f"Experiment {one.generation.name!r} is not cloned because {target.url} has another generation "
                f"{one.generation.number} of it. Clone into another store."
            )


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
    """Copy what lies beside the experiments: files of users and artifacts."""
    for folder in source.folders():
        if folder not in folders and folder != layout.PENDING and not source.exists(layout.meta_key(folder)):
            for stat in source.list(folder):
                _copy_file(source, target, stat.key)


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
