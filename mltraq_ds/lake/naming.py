"""How stores, remotes and fields are named in the verbs of the lake, and one way to do work on every blob."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from mltraq_ds.lake.remotes import Remote, open_all
from mltraq_ds.lake.report import BlobRow, LakeReport
from mltraq_ds.lake.selection import Selection, require_store
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.place import place_of
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage

__all__ = ["Keys", "Store", "Url", "Urls", "create_remotes", "each_blob", "storage_of", "urls_of"]

#: A Session, a Storage, a URL or a path; None is the store of the run that executes.
Store: TypeAlias = Any
Url: TypeAlias = str | os.PathLike[str]
Urls: TypeAlias = Url | Iterable[Url]
#: Names of fields.
Keys: TypeAlias = Iterable[str] | str | None


def storage_of(store: Store, *, is_new: bool = False) -> Storage:
    """Return the storage of a store, which must be one unless it `is_new`."""
    storage = place_of(store).objects.storage
    if not is_new:
        require_store(storage)
    return storage


def urls_of(remotes: Urls) -> list[Url]:
    """Return the URLs that an argument names, one or several."""
    return [remotes] if isinstance(remotes, str | os.PathLike) else list(remotes)


def create_remotes(remotes: Urls) -> list[Remote]:
    """Return the remotes that an argument names, each made one if it is none yet."""
    return [remote.create() for remote in open_all(urls_of(remotes))]


def each_blob(
    verb: str,
    store: Store,
    selection: Selection,
    done: str,
    work: Callable[[Storage, Reference], BlobRow | None],
    jobs: int | None = None,
) -> LakeReport:
    """Do `work` on every blob that is meant; rows of None are left out.

    Raises
    ------
    RemotesError
        If some failed.  The others are done.
    """
    storage = storage_of(store)
    blobs = [blob for one in selection.read(storage) for blob in one.blobs]
    failures = Failures(done)
    rows = do(lambda blob: work(storage, blob), blobs, lambda blob: blob.key, failures, jobs)
    storage.flush(row.key for row in rows if row is not None and row.is_local)
    failures.raise_any(len(blobs))
    return LakeReport(verb, storage.url, tuple(row for row in rows if row is not None))
