"""Marks in the store that an index has not been told of everything.

A mark ``_pending/index-<name>-<uuid>.behind`` is put *after* the file that the index was not told of, and a fresh one
after each further file.  Its name is that of the index as whoever puts it knows it: URL, schema, and the machine where
the URL means one.  An index may have several such names, so a mark under another one counts too; but only who has the
name removes it, and others note in ``_pending/index-<name>.seen`` that they have met it.
"""

from __future__ import annotations

import hashlib
import platform
import uuid
from collections.abc import Iterable

from mltraq_ds.errors import DamageError, FormatError, KeyMissingError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.overview import identity_of
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, layout

__all__ = ["is_own", "marks_of", "note_seen", "put_mark"]

_BEGIN = f"{layout.PENDING}/index-"
_SUFFIX = ".behind"


def marks_of(storage: Storage, database: Database) -> list[str]:
    """Return the keys of the marks that an index has not caught up with: its own, and others that it has not met."""
    marks = _all(storage)
    seen = _seen(storage, database) if marks else set()
    return [key for key in marks if key not in seen]


def is_own(key: str, database: Database) -> bool:
    """Tell whether a mark is under the name that the index has here."""
    return key.startswith(f"{_BEGIN}{_name(database)}-")


def put_mark(storage: Storage, database: Database) -> str:
    """Note that an index has not been told of everything; returns the key of the mark."""
    key = f"{_BEGIN}{_name(database)}-{uuid.uuid4().hex}{_SUFFIX}"
    body = {"database": database.url, "schema": identity_of(database)[1], "created": layout.now_text()}
    data = descriptors.to_bytes("behind", body)
    storage.put(key, [data], size=len(data), parents=True)
    return key


def note_seen(storage: Storage, database: Database, marks: Iterable[str]) -> None:
    """Note that the index has met marks under other names; those that are gone are forgotten."""
    before = _seen(storage, database)
    met = before | {key for key in marks if not is_own(key, database)}
    now = met & set(_all(storage)) if met else met
    key = _seen_key(database)
    if now and now != before:
        data = descriptors.to_bytes("seen", {"marks": sorted(now)})
        storage.put(key, [data], size=len(data), replace=True, parents=True)
    elif before and not now:
        storage.delete(key)


def _all(storage: Storage) -> list[str]:
    keys = (stat.key for stat in storage.list(layout.PENDING))
    return sorted(key for key in keys if key.startswith(_BEGIN) and key.endswith(_SUFFIX))


def _seen(storage: Storage, database: Database) -> set[str]:
    key = _seen_key(database)
    try:
        found = descriptors.from_bytes(storage.read(key), "seen", key).get("marks")
    except (KeyMissingError, DamageError, FormatError):
        return set()  # then it catches up once more
    return {str(mark) for mark in found} if isinstance(found, list) else set()


def _seen_key(database: Database) -> str:
    return f"{_BEGIN}{_name(database)}.seen"


def _name(database: Database) -> str:
    # "localhost" and the path of a file are other databases on other machines.
    url, schema, is_of_machine = identity_of(database)
    parts = (url, schema, platform.node() if is_of_machine else "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
