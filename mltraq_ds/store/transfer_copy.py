"""Copying one file from one storage to another, verified where it has arrived."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from mltraq_ds.blob import open_blob
from mltraq_ds.blob.hashing import crc_of
from mltraq_ds.errors import (
    ConflictError,
    CorruptBlobError,
    DamageError,
    FormatError,
    KeyExistsError,
    KeyMissingError,
    LeftoversWarning,
)
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.store import descriptors, generations, intents, layout, run_mapping, single_records
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.store.transfer_plan import Item, Plan

__all__ = ["announced", "check_arrived", "copy", "put_mark"]

_STEP = 8 << 20


class _Pieces:
    """The bytes of a source, from the start each time they are asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __iter__(self) -> Iterator[memoryview]:
        for start in range(0, self._source.size, _STEP):
            yield self._source.read(start, min(_STEP, self._source.size - start))


def copy(source: Storage, target: Storage, item: Item, *, overwrite: bool) -> bool:
    """Copy one file; tell whether it had to be copied.

    One that is there already is compared with its source, never trusted by its name or size.

    Raises
    ------
    ConflictError
        If the target has other bytes under this name and may not be overwritten, as blobs and generations never are.
        They stay.
    DamageError
        If the bytes at the source are not those that were written.  The target has what it had.
    StorageError
        If one of the storages refuses.
    """
    opened = source.open(item.key)
    try:
        if _is_there(opened, target, item.key):
            _verify(target, item)
            return False
        _verify(source, item, by="crc")  # first: what is damaged here must not take the place of what is whole there
        is_replaced = _put(opened, target, item, overwrite=overwrite)
        try:
            if not _is_there(opened, target, item.key):
                raise CorruptBlobError(f"{item.key} has arrived at {target.url} with other bytes. Copy it again.")
            _verify(target, item)
        except (DamageError, FormatError):
            if not is_replaced:
                target.delete(item.key)
            raise
        return True
    finally:
        opened.close()


def _put(opened: Source, target: Storage, item: Item, *, overwrite: bool) -> bool:
    """Write one file; tell whether it has replaced another.  What is never written twice is never replaced."""
    try:
        target.put(item.key, _Pieces(opened), size=opened.size, parents=True)
        return False
    except KeyExistsError:
        if item.is_fixed:
            raise ConflictError(
                f"{item.key} is at {target.url} with other bytes, and a file of this kind is never replaced. Run check "
                "there: if it is damaged, remove it and export again; else somebody has persisted there."
            ) from None
        if not overwrite:
            raise ConflictError(
                f"{item.key} is at {target.url} with other bytes. Use overwrite=True to replace it."
            ) from None
    target.put(item.key, _Pieces(opened), size=opened.size, parents=True, replace=True)
    return True


def _is_there(opened: Source, target: Storage, key: str) -> bool:
    """Tell whether the target has exactly these bytes."""
    try:
        there = target.open(key)
    except KeyMissingError:
        return False
    try:
        return there.size == opened.size and crc_of(_Pieces(there)) == crc_of(_Pieces(opened))
    finally:
        there.close()


def _verify(storage: Storage, item: Item, *, by: Literal["crc", "digest"] = "digest") -> None:
    """Compare what is there with the digest in whatever refers to it, or with its own checksum.

    The SHA-256 of a blob's index is in the reference, that of every member in the index.  At the source a blob is
    compared by the CRC-32 of its members, as reading does; where it has arrived by their SHA-256, with which damage
    that no CRC-32 shows ends there too.
    """
    reference = item.reference
    if reference is None:
        if item.kind == "artifacts":
            _verify_artifact(storage, item.key)
        elif item.kind == "runs":
            single_records.parse(storage.read(item.key), item.key)
        elif item.kind == "generations":
            descriptors.from_bytes(storage.read(item.key), "generation", item.key)
        elif item.descriptor:
            descriptors.from_bytes(storage.read(item.key), item.descriptor, item.key)
        return
    source = storage.open(reference.key, size=reference.size)
    try:
        if item.kind == "blobs":
            blob = open_blob(source, digest=reference.digest)
            for member in blob.members:
                member.verify(by)
        elif f"sha256:{_sha256(source)}" != reference.digest:
            raise CorruptBlobError(f"{item.key} does not verify: its bytes differ from those that were written.")
    finally:
        source.close()


def _verify_artifact(storage: Storage, entry_key: str) -> None:
    body = descriptors.from_bytes(storage.read(entry_key), "artifact", entry_key)
    descriptor = run_mapping.entry_from(body, entry_key)
    source = storage.open(descriptor.uri)
    try:
        if f"sha256:{_sha256(source)}" != descriptor.content_hash:
            raise CorruptBlobError(
                f"{descriptor.uri} does not verify: its bytes differ from those that were put. Restore it from a copy."
            )
    finally:
        source.close()


def _sha256(source: Source) -> str:
    found = hashlib.sha256()
    for piece in _Pieces(source):
        found.update(piece)
    return found.hexdigest()


def put_mark(target: Storage, folder: str, id_experiment: str) -> None:
    """Mark the folder of an experiment as managed, before anything is in it."""
    data = layout.meta_bytes(id_experiment, id_experiment, 0)
    if not target.exists(layout.meta_key(folder)):
        try:
            target.put(layout.meta_key(folder), [data], size=len(data), parents=True)
        except KeyExistsError:
            return


@contextmanager
def announced(target: Storage, id_experiment: str, generation: generations.Generation | None) -> Iterator[Intent]:
    """Keep an intent at the target, so that no sweep takes what is there for an orphan before its generation arrives.

    Recovery of one that was left removes it and nothing else: no generation has its writer.

    Raises
    ------
    ConcurrentPersistError
        If another writer is at work on the experiment where the storage does not keep them apart.
    """
    intent = Intent(
        writer=str(uuid.uuid4()),
        action="export",
        id_experiment=id_experiment,
        name=generation.name if generation else id_experiment,
        parent=0,
        number=generation.number if generation else 0,
    )
    try:
        with Keeper(target, intent):
            intents.refuse_others(target, intent)
            yield intent
    finally:
        try:
            intents.remove_intent(target, intent)
        except OSError as error:
            warnings.warn(
                f"The export of experiment {id_experiment!r:.80} has ended, but its intent {intent.key} could not be "
                f"removed: {error} The next session at {target.url} removes it.",
                LeftoversWarning,
                stacklevel=6,
            )


def check_arrived(target: Storage, intent: Intent, plan: Plan) -> None:
    """Look whether all that a generation refers to is there, just before it is copied.

    Raises
    ------
    ConflictError
        If something was removed meanwhile, or the export was taken for dead.  No generation was copied.
    """
    there = {stat.key for stat in target.list(layout.folder_of(intent.id_experiment))}
    gone = [item.key for step in plan.steps[:2] for item in step if item.key not in there]
    if gone:
        raise ConflictError(
            f"{gone[0]} was removed from {target.url} during the export ({len(gone)} files in all). Export again when "
            "no sweep is at work there."
        )
    if target.exists(intent.fence_key) or not target.exists(intent.key):
        raise ConflictError(
            f"The export to {target.url} was taken for dead because it was silent for too long. Export again."
        )
