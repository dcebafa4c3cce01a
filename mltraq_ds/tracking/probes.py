"""Probes: whether database and storage work, and belong together."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from mltraq_ds.errors import ConflictError, KeyMissingError, StorageError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.storage import Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import layout
from mltraq_ds.store.identity import original_of
from mltraq_ds.tracking.finding import is_known

__all__ = ["matched", "probe_storage"]


def probe_storage(storage: Storage) -> None:
    """Write a key, read it and delete it.

    Raises
    ------
    StorageError
        If that is not possible, or the bytes differ.  Nothing is left, unless deleting failed.
    """
    key = f"{layout.PENDING}/{uuid.uuid4().hex}.probe"
    folder = path_from(storage.url) if storage.is_local else None
    made = [] if folder is None else [one for one in (f"{folder}/{layout.PENDING}", folder) if not os.path.isdir(one)]
    data = uuid.uuid4().bytes
    try:
        storage.put(key, [data], size=len(data), parents=True)
        try:
            read = storage.read(key)
        except KeyMissingError:
            read = b""
        finally:
            storage.delete(key)
        if read != data or storage.exists(key):
            raise StorageError(
                f"The storage {storage.url} cannot be used because what was written to it came back as "
                f"{len(read)} other bytes, or could not be deleted. Use another storage, or look at its configuration."
            )
    finally:
        for one in made:
            with suppress(OSError):  # gone, or somebody else made something in it meanwhile
                os.rmdir(one)


def matched(storage: Storage, database: Database) -> str:
    """Return how store and database belong together, as one sentence; nothing is changed.

    Raises
    ------
    UnknownStoreError
        If the database does not know the store, which is not empty; the remedy is in the text.
    ConflictError
        If the store is a copy of one that the database knows.
    """
    store_id = layout.read_store_id(storage)
    index = None if store_id is None else Index(database, store_id)
    original = None if index is None else original_of(storage, index)
    if original is not None:
        raise ConflictError(
            f"The store {storage.url} is a copy of the one at {original}, which the database {database.url} knows "
            f"under the same id {store_id}. Use renew_store_id, or the database that belongs to it."
        )
    if is_known(index, storage, database.url):
        return f"the database knows the store (id {store_id})"
    return "the store is new: nothing is stored in it yet"
