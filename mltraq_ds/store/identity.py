"""Identity: a store that was moved is the same store, a copy is another one.

Both look alike: the same id in `_store.json`.  Only the database can tell, which remembers where it last met the store:
if there is still a store of this id there, this one is a copy.  Unless the database was copied with it, as happens when
a whole project folder is: then there is one of each for each, and nothing to tell apart.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from mltraq_ds.errors import ConflictError, MltraqDSError, UsageError
from mltraq_ds.objects import Objects, objects_of
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.overview import path_of, remembered_url
from mltraq_ds.storage import Storage, open_storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import descriptors, layout

__all__ = ["original_of", "refuse_copy", "renew_store_id"]


def original_of(storage: Storage, index: Index) -> str | None:
    """Return where the store is that this one is a copy of; None if it is no copy, as far as the database knows.

    Nothing is changed.  Two URLs of one place are told apart only where it is a folder; see `refuse_copy`.
    """
    url = remembered_url(index)
    if not url or url == storage.url:
        return None
    original = _reachable(url, index.store_id)
    if original is None or _is_same_folder(storage, original) or _came_along(storage, original, index):
        return None
    return url


def refuse_copy(storage: Storage, index: Index) -> None:
    """Raise if the store is a copy; otherwise have the database remember where it is now.

    Raises
    ------
    ConflictError
        If the store that it was copied from is where the database remembers it.  Nothing was changed.
    """
    url = original_of(storage, index)
    if url is None:
        if remembered_url(index) not in ("", storage.url) and index.knows_store():
            index.register_store(storage.url)  # it was moved
        return
    if _is_same_place(storage, open_storage(url)):
        return
    raise ConflictError(
        f"The store {storage.url} cannot be used with the database {index.database.url} because it is a copy of the "
        f"one at {url}, and both have the id {index.store_id}. Call mltraq_ds.store.maintenance.renew_store_id("
        f"{storage.url!r}) once, then session.rebuild_index(); or remove the one that is not wanted."
    )


def renew_store_id(store: Objects | Storage | str | os.PathLike[str]) -> str:
    """Give a copied store an id of its own, so that one database can index it beside its original.

    No other file is changed, since all of them refer to each other by store-relative keys.  Sessions that have the
    store open go on under the old id: end them first, and call `Session.rebuild_index` afterwards.

    Parameters
    ----------
    store : Objects, Storage, URL or path
        The copy.

    Returns
    -------
    str
        The new id.

    Raises
    ------
    UsageError
        If it is no store.  Nothing was changed.
    CorruptRecordError
        If its id cannot be read.  Nothing was changed.
    """
    storage = objects_of(store).storage
    before = layout.read_store_id(storage)
    if before is None:
        raise UsageError(
            f"{storage.url} gets no new store id because it is no store: there is no {layout.STORE}. Look at the URL."
        )
    body = {"store_id": str(uuid.uuid4()), "created": layout.now_text(), "copy_of": before}
    data = descriptors.to_bytes("store", body)
    storage.put(layout.STORE, [data], size=len(data), replace=True)
    return str(body["store_id"])


def _reachable(url: str, store_id: str) -> Storage | None:
    """Return the store at a URL if it answers and has this id."""
    with suppress(MltraqDSError, OSError):
        storage = open_storage(url)
        if layout.read_store_id(storage) == store_id:
            return storage
    return None


def _is_same_folder(storage: Storage, other: Storage) -> bool:
    paths = [_path(one) for one in (storage, other)]
    if None in paths:
        return False
    try:
        return os.path.samefile(*(os.path.join(str(path), layout.STORE) for path in paths))
    except OSError:
        return False


def _came_along(storage: Storage, original: Storage, index: Index) -> bool:
    """Tell whether the database is a copy too: a project folder was copied whole, and each keeps to its own."""
    ours, theirs, database = _path(storage), _path(original), path_of(index)
    if ours is None or theirs is None or database is None:
        return False
    other = os.path.normpath(os.path.join(theirs, os.path.relpath(database, ours)))
    return os.path.exists(other) and os.path.exists(database) and not os.path.samefile(other, database)


def _path(storage: Storage) -> str | None:
    return path_from(storage.url) if storage.is_local else None


def _is_same_place(storage: Storage, other: Storage) -> bool:
    """Tell whether two URLs lead to one place: what is put through one is seen through the other."""
    key = f"{layout.PENDING}/{uuid.uuid4().hex}.probe"
    try:
        storage.put(key, [b""], size=0, parents=True)
    except OSError:
        return True  # it cannot be written, so no harm is done here
    try:
        return other.exists(key)
    finally:
        storage.delete(key)
