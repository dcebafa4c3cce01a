"""Places that cannot be stores: files, and folders inside a store that the store itself manages."""

from __future__ import annotations

import os
from contextlib import suppress

from mltraq_ds.errors import DamageError, FormatError, KeyMissingError, UsageError
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import descriptors

__all__ = ["refuse_file", "refuse_no_place"]

_STORE, _META = "_store.json", "_meta.json"


def refuse_file(storage: Storage) -> None:
    """Raise if the place is a file.

    Raises
    ------
    UsageError
        Nothing was changed.
    """
    if storage.is_local and os.path.isfile(path_from(storage.url)):
        raise UsageError(f"{storage.url} cannot be a store because it is a file. Use the URL of a folder.")


def refuse_no_place(storage: Storage) -> None:
    """Raise if no store can be here: a mistyped URL would make a store inside a store, or look like an empty one.

    Raises
    ------
    UsageError
        If it is a file, or a folder that a store manages, such as that of an experiment.  Nothing was changed.
    """
    refuse_file(storage)
    with suppress(KeyMissingError):
        if _is_mark(storage.read(_META)):
            raise _inside(storage, storage.url)
    if storage.is_local:
        path = path_from(storage.url)
        while (above := os.path.dirname(path)) != path:
            name, path = os.path.basename(path), above
            is_reserved = (name.startswith("_") or name == "artifacts") and os.path.isfile(os.path.join(path, _STORE))
            if is_reserved or _has_mark(path):
                raise _inside(storage, os.path.join(path, name) if is_reserved else path)


def _has_mark(folder: str) -> bool:
    try:
        with open(os.path.join(folder, _META), "rb") as file:
            return _is_mark(file.read(1 << 20))
    except OSError:
        return False


def _is_mark(data: bytes) -> bool:
    try:
        descriptors.from_bytes(data, "folder", _META)
    except (DamageError, FormatError):
        return False  # without our mark it is a folder like any other
    return True


def _inside(storage: Storage, managed: str) -> UsageError:
    where = "," if managed == storage.url else f" ({managed}),"
    return UsageError(
        f"{storage.url} cannot be a store because it is a folder inside one{where} which manages it. Use the URL of "
        f"the folder that has {_STORE}."
    )
