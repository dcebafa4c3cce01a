"""Linking: a blob of one store under a second name in another, both folders."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from mltraq_ds.errors import CorruptRecordError
from mltraq_ds.lake.bytes import is_intact, require_intact
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import TEMPORARY, Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import descriptors, layout

__all__ = ["link", "list_links"]


def link(source: Storage, target: Storage, reference: Reference, *, is_symbolic: bool) -> None:
    """Give a blob a second name; what is there already is compared, and replaced in one step if it is damaged.

    Raises
    ------
    OSError, NotImplementedError
        If the file systems cannot.  Nothing was changed.
    CorruptBlobError
        If what is there is damaged, and the blob itself too.  Nothing was changed.
    """
    if not (source.is_local and target.is_local):
        raise NotImplementedError("both must be folders")
    old, new = _path(source, reference.key), _path(target, reference.key)
    if not os.path.lexists(new):
        os.makedirs(os.path.dirname(new), exist_ok=True)
        with suppress(FileExistsError):
            _make(old, new, is_symbolic)
    elif not is_intact(target, reference):
        here = source.open(reference.key, size=reference.size)
        try:
            require_intact(here, reference)  # also where both are names of one file: then there is nothing to repair by
        finally:
            here.close()
        temporary = os.path.join(os.path.dirname(new), f"{TEMPORARY}{uuid.uuid4().hex}")
        _make(old, temporary, is_symbolic)
        os.replace(temporary, new)


def _make(old: str, new: str, is_symbolic: bool) -> None:
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
