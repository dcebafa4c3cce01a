"""What a backend notes of a value that it keeps, and the folder of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mltraq_ds.errors import KeyExistsError
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import layout, versions

__all__ = ["Kept", "make_folder", "unmake_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a backend notes of a value that it keeps.

    Parameters
    ----------
    value : JSON
        The value as tagged JSON, from ``Save.write``.
    blobs : tuple of Reference
        The blobs that ``Save.write`` wrote.
    metadata : mapping
        What the backend needs to find the value again: JSON, no secrets.
    size_bytes : int
        Size of what the store keeps (bytes).
    digest : str or None
        Of the value.
    """

    value: Any = None
    blobs: tuple[Reference, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    digest: str | None = None


def make_folder(storage: Storage, name: str) -> bool:
    """Make the folder of an artifact and mark it as ours; tell whether the mark was made here."""
    folder = layout.artifact_folder(name)
    for place in (layout.ARTIFACTS, folder, f"{folder}/versions"):
        with suppress(KeyExistsError):
            storage.make_folder(place)
    data = layout.artifact_meta_bytes(name)
    try:
        storage.put(layout.meta_key(folder), [data], size=len(data), flush=False)
    except KeyExistsError:
        return False
    return True


def unmake_folder(storage: Storage, name: str) -> None:
    """Remove the folder of an artifact that has no version, unless somebody else has put anything into it."""
    folder = layout.artifact_folder(name)
    if versions.numbers(storage, folder):
        return
    storage.prune(f"{folder}/versions")
    if len(list(storage.list(folder))) == 1:
        storage.delete(layout.meta_key(folder))
    storage.prune(folder)
