"""Bytes at a URL: a folder, or whatever fsspec reaches.

`open_storage` is the one door.  A storage interprets nothing; see `mltraq_ds.storage.base` for the verbs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mltraq_ds.errors import UsageError
from mltraq_ds.storage.base import Buffer, Source, Stat, Storage
from mltraq_ds.storage.local import Durability, LocalStorage
from mltraq_ds.storage.obstore_options import ClientName
from mltraq_ds.storage.places import scheme_of
from mltraq_ds.storage.streams import stream_of
from mltraq_ds.storage.transfers import OnTransfer

__all__ = [
    "Buffer",
    "Durability",
    "LocalStorage",
    "Source",
    "Stat",
    "Storage",
    "Usual",
    "open_storage",
    "set_usual",
    "stream_of",
    "usually",
]


@dataclass(frozen=True, slots=True)
class Usual:
    """How storages are opened where nothing else is said; the fields are parameters of `open_storage`."""

    durability: Durability = "full"
    mmap: bool = True
    on_transfer: OnTransfer | None = None
    client: ClientName = "auto"


_usual: list[Callable[[], Usual]] = []


def set_usual(provider: Callable[[], Usual]) -> None:
    """Name the function that gives what options say; called once, by `tracking`, which reads them."""
    _usual[:] = [provider]


def usually() -> Usual:
    """Return how storages are opened where nothing else is said."""
    return _usual[0]() if _usual else Usual()


def open_storage(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, object] | None = None,
    durability: Durability | None = None,
    mmap: bool | None = None,
    on_transfer: OnTransfer | None = None,
    client: ClientName | None = None,
) -> Storage:
    """Return the storage at a URL.  Nothing is made or written until it is used.

    What is not said is as options have it where sessions are known (`mltraq_ds.create_session` and what belongs to it),
    otherwise "full", True, none and "auto".

    Parameters
    ----------
    url : str or path
        A path (relative ones are made absolute now, ``~`` is expanded), ``file:///path``, or the URL of any installed
        fsspec implementation: ``s3://bucket/prefix``, ``memory://name``.
    storage_options : mapping, optional
        As fsspec and pandas take them: ``{"profile": …}``, ``{"endpoint_url": …}``, ``{"anon": True}``.  By default the
        provider's own chain finds the credentials.  Secrets work, with a `SecretInOptionsWarning` once, and are never
        shown, stored or pickled.
    durability : {"full", "relaxed"}
        For folders: whether files and names are flushed to the disk.
    mmap : bool
        For folders: whether large reads may be mapped.
    on_transfer : callable, optional
        For remotes: called with verb ("put" or "read"), key and size (bytes) of each transfer of 64 MiB or more;
        returns a callback of fsspec (``lambda verb, key, size: fsspec.callbacks.TqdmCallback()``), or None.
    client : {"auto", "fsspec", "obstore"}
        For S3, Google Cloud Storage and Azure: who sends the requests.  "auto" is fsspec, unless only obstore is
        installed.

    Raises
    ------
    MissingExtraError
        If the package for the scheme is not installed; the text has the pip command.
    UsageError
        If the URL cannot be understood.

    Examples
    --------
    >>> open_storage("memory://docs").url
    'memory://docs'
    """
    place = os.fspath(url)
    usual = usually()
    if scheme_of(place) not in ("", "file"):
        from mltraq_ds.storage.remote import RemoteStorage

        storage = RemoteStorage(
            place,
            storage_options=storage_options,
            on_transfer=on_transfer or usual.on_transfer,
            client=client or usual.client,
        )
        storage.warn_of_secrets()
        return storage
    if storage_options:
        raise UsageError(
            f"The storage options {sorted(storage_options)} are refused because {place!r} is a folder, which takes "
            "none. Leave them out, or give the URL that they are for."
        )
    return LocalStorage(place, durability=durability or usual.durability, mmap=usual.mmap if mmap is None else mmap)
