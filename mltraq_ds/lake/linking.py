"""Linking: a blob of one store under a second name in another, both folders."""

from __future__ import annotations

import os
from contextlib import suppress

from mltraq_ds.errors import CorruptRecordError
from mltraq_ds.lake.bytes import local_source, require_intact
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import descriptors, layout

__all__ = ["link", "list_links"]


def link(source: Storage, target: Storage, reference: Reference, *, is_symbolic: bool) -> None:
    """Give a blob a second name; one that is there already is verified.

    Raises
    ------
    OSError, NotImplementedError
        If the file systems cannot.  Nothing was changed.
    CorruptBlobError
        If something else is there under the name.
    """
    if not (source.is_local and target.is_local):
        raise NotImplementedError("both must be folders")
    there = local_source(target, reference)
    if there is not None:
        try:
            require_intact(there, reference)
        finally:
            there.close()
        return
    old, new = _path(source, reference.key), _path(target, reference.key)
    os.makedirs(os.path.dirname(new), exist_ok=True)
    with suppress(FileExistsError):
        if is_symbolic:
            os.symlink(os.path.realpath(old), new)
        else:
            os.link(old, new)


def list_links(source: Storage, target: Storage, references: list[Reference]) -> None:
    """Name links in ``_store.json`` of the target, before they are made: no reader follows others.

    Raises
    ------
    CorruptRecordError
        If what says which store the target is cannot be read.
    """
    layout.store_id(target)
    body = descriptors.from_bytes(target.read(layout.STORE), "store", layout.STORE)
    links = body.setdefault("links", {})
    if not isinstance(links, dict):
        raise CorruptRecordError(f"{layout.STORE} of {target.url} has links that cannot be read.")
    for reference in references:
        place = os.path.realpath(_path(source, reference.key))
        links[reference.key] = {"target": place, "digest": reference.digest}
    kept = {name: value for name, value in body.items() if name not in ("format", "version")}
    data = descriptors.to_bytes("store", kept)
    target.put(layout.STORE, [data], size=len(data), replace=True)


def _path(storage: Storage, key: str) -> str:
    return os.path.join(path_from(storage.url), *key.split("/"))
