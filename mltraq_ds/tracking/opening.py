"""Opening: from options to the storage and the database of a session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mltraq_ds.objects import Objects
from mltraq_ds.settings import Settings, options, resolve
from mltraq_ds.storage import Storage, Usual, open_storage
from mltraq_ds.storage.cache import ReadCache
from mltraq_ds.storage.places import scheme_of
from mltraq_ds.tracking.database import Database, told_where
from mltraq_ds.tracking.transfer_bar import transfer_bar

__all__ = ["objects_at", "opened", "opened_at"]


def opened(
    url: str | None, store: str | os.PathLike[str] | Storage | None, storage_options: Mapping[str, Any] | None
) -> tuple[Storage, Database]:
    """Return storage and database of a new session, after reading environment and configuration file.

    Raises
    ------
    UsageError
        If an option cannot be used; the text says where it is from.
    """
    options.reload()
    settings = resolve(
        {
            "database.url": url,
            "datastore.url": None if store is None or isinstance(store, Storage) else os.fspath(store),
            "datastore.storage_options": storage_options,
        }
    )
    return store if isinstance(store, Storage) else _storage(settings), Database.from_settings(settings)


def _storage(settings: Settings) -> Storage:
    """Return the storage that options name; nothing is made or written until it is used."""
    with told_where(settings, "datastore.url", "datastore.storage_options"):
        return open_storage(
            settings["datastore.url"],
            storage_options=settings["datastore.storage_options"] or None,
            durability=settings["datastore.durability"],
            mmap=settings["datastore.mmap"],
            on_transfer=transfer_bar,
            client=settings["datastore.client"],
        )


def usual() -> Usual:
    """Return how storages are opened, as the present options say."""
    settings = resolve()
    return Usual(
        durability=settings["datastore.durability"],
        mmap=settings["datastore.mmap"],
        on_transfer=transfer_bar,
        client=settings["datastore.client"],
    )


def opened_at(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None) -> Storage:
    """Return another storage than that of the options, but with their durability."""
    return open_storage(os.fspath(url), storage_options=dict(storage_options) if storage_options else None)


def named(url: str) -> Storage:
    """Return the storage at a URL that a call names.

    Option ``datastore.storage_options`` is used if it is for the same service: scheme and bucket, or host, are those of
    ``datastore.url``.  Credentials go nowhere else.
    """
    settings = resolve()
    is_same = scheme_of(url) != "" and _service_of(url) == _service_of(settings["datastore.url"])
    return opened_at(url, settings["datastore.storage_options"] if is_same else None)


def _service_of(url: str) -> tuple[str, str]:
    authority = url.partition("://")[2].partition("/")[0]
    return scheme_of(url), authority.rpartition("@")[2]


def objects_at(storage: Storage, settings: Settings) -> Objects:
    """Return the objects of a storage, written and read as options say."""
    return Objects(
        storage,
        verify=settings["datastore.verify"],
        compression=settings["serialization.compression.codec"],
        allow_pickle=settings["serialization.allow_pickle"],
        cache=_cache(settings),
    )


def _cache(settings: Settings) -> ReadCache | None:
    """Return the read cache that options name, or None; one for each folder and size in a process."""
    folder = settings["datastore.cache_dir"]
    if folder is None:
        return None
    return _read_cache(os.path.abspath(os.path.expanduser(folder)), settings["datastore.cache_bytes"])


_read_cache = lru_cache(maxsize=64)(ReadCache)
