"""Deleting a version of an artifact: its tombstone (the commit), the row, then the bytes.

The tombstone keeps the number for ever, so that it is never given to another value, and what the backend noted until
the backend has let go of the value: called again, a delete that was killed goes on.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from mltraq_ds.errors import (
    ConflictError,
    IndexBehindWarning,
    KeyExistsError,
    KeyMissingError,
    LeftoversWarning,
)
from mltraq_ds.objects import Objects
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import intents, layout, outside, versions
from mltraq_ds.store.artifact_rows import row_of, update_rows
from mltraq_ds.store.follow_up import remove_intent
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.store.versions import Version

__all__ = ["delete_version", "finish"]


def delete_version(
    storage: Storage, index: ArtifactIndex | None, version: Version, let_go: Callable[[Version], None]
) -> None:
    """Delete one version, or go on with a delete that was stopped.

    Parameters
    ----------
    storage : Storage
        Of the store.
    index : ArtifactIndex or None
        The SQL side.
    version : Version
        As read: a living one, or a tombstone that is not done.
    let_go : callable
        Has the backend remove what it keeps of the version; may be called again.

    Raises
    ------
    ConflictError
        If the store moves.  Nothing was changed.
    StorageError
        If the tombstone cannot be written.  Nothing was changed.

    Warns
    -----
    IndexBehindWarning, LeftoversWarning
        If it is deleted, but the database could not be told or not all bytes are removed; `sweep`, or this, goes on.
    """
    intent = Intent(
        writer=str(uuid.uuid4()),
        action=intents.DELETE_VERSION,
        id_experiment=version.folder,
        name=version.name,
        parent=0,
        number=version.number,
    )
    with Keeper(storage, intent) as keeper:
        try:
            layout.refuse_moved(storage)
        except ConflictError:
            intents.remove_intent(storage, intent)
            raise
        is_finished = False
        try:
            tombstone = _tombstone(version)
            if not version.deleted:
                versions.bury(storage, tombstone)
            is_finished = _follow_up(storage, index, version, tombstone, let_go)
        finally:
            if not is_finished:
                keeper.leave()
    if is_finished:
        remove_intent(storage, intent, f"The {version.label} is deleted")


def _tombstone(version: Version) -> Version:
    if version.deleted:
        return version
    return replace(version, deleted=True, value=None, blobs=(), code={}, retires=tuple(sorted(version.keys)))


def _follow_up(
    storage: Storage,
    index: ArtifactIndex | None,
    version: Version,
    tombstone: Version,
    let_go: Callable[[Version], None],
) -> bool:
    is_told = index is not None
    try:
        if index is not None:
            index.write([row_of(tombstone)])
    except INDEX_ERRORS as error:
        _warn(f"The {version.label} is deleted, but the database could not be told: {error}", IndexBehindWarning)
        is_told = False
    try:
        storage.delete_many(tombstone.retires)
        if tombstone.metadata:
            let_go(tombstone)
            versions.bury(storage, replace(tombstone, metadata={}))
    except Exception as error:  # noqa: BLE001 - of a foreign backend too; the tombstone is there, so it is deleted
        _warn(f"The {version.label} is deleted, but not all of it is removed: {error}", LeftoversWarning)
        return False
    return is_told


def _warn(message: str, kind: type[Warning]) -> None:
    who = "The next session goes on, or sweep()," if kind is IndexBehindWarning else "sweep() goes on,"
    warnings.warn(f"{message} {who} or call delete() again.", kind, stacklevel=6)


def finish(objects: Objects, index: ArtifactIndex | None, intent: Intent, *, asks_backends: bool = False) -> bool:
    """Finish the work of a dead writer of an artifact, then remove its intent.

    Whatever it committed is in the files, so the rows are made what these say.  What it did not commit are orphans; a
    writer that was taken for dead by mistake finds its intent gone, and gives up.  What lies with a backend is taken
    back by that, unless the save was announced in another store, which this one is a copy of and which may refer to it.

    Returns
    -------
    bool
        Whether all is done.  Otherwise the intent stays, because it is the only trace of what a backend keeps.
    """
    storage = objects.storage
    may_come = not (storage.is_local and intents.is_surely_dead(intent))
    if may_come:
        with suppress(KeyExistsError):
            storage.put(intent.fence_key, [b""], size=0)
    folder = layout.artifact_folder(intent.name)
    damaged: list[str] = []  # left as they are: they must not keep everybody out, and `check` names them

    def leave(key: str, error: Exception) -> None:
        damaged.append(key)

    found = versions.read_all(storage, folder, leave) if index is None else update_rows(storage, index, folder, leave)
    if intent.action == intents.DELETE_VERSION:
        for version in found:
            if version.deleted and version.number == intent.number:
                storage.delete_many(version.retires)
                if version.metadata and not asks_backends:
                    return False
                if version.metadata:
                    outside.let_go(version, objects)  # if not, the tombstone keeps the notes: check and sweep find it
    elif intent.storage_backend and not any(one.writer == intent.writer and not one.deleted for one in found):
        # One that cannot be read may be its own, and a request of its own may still be on its way.
        is_known = not damaged and outside.is_of(storage, intent) and not (may_come and _is_young(storage, intent))
        if not (is_known and asks_backends and outside.take_back(intent, objects)):
            return False
    intents.remove_intent(storage, intent)
    storage.delete(intent.fence_key)
    return True


def _is_young(storage: Storage, intent: Intent) -> bool:
    try:
        return storage.now() - storage.stat(intent.key).modified < intents.LEASE_S
    except KeyMissingError:
        return True  # somebody else has finished it
