"""Modes: what stands for a blob in a clone, and how it gets there."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum

from mltraq_ds.errors import KeyExistsError, RemotesError, UsageError
from mltraq_ds.lake import linking
from mltraq_ds.lake.bytes import (
    Bytes,
    Unverified,
    Verified,
    local_source,
    pointer_of,
    put_from_remotes,
    require_intact,
)
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.uploading import write_pointer
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage

__all__ = ["FALLBACKS", "Mode", "clone_blob"]


class Mode(StrEnum):
    """What stands for a blob in a clone."""

    #: Its bytes in a new file; no pointer.
    CREATE_NEW_FILE = "CREATE_NEW_FILE"
    #: Its bytes in a new file, and its pointer beside it if it has one.
    DEEP_COPY = "DEEP_COPY"
    #: A second name of the same file; both stores on one file system.
    HARD_LINK = "HARD_LINK"
    #: A symbolic link to the file, which must stay where it is.
    SYM_LINK = "SYM_LINK"
    #: Its pointer alone.
    REMOTE_FILE = "REMOTE_FILE"


#: What `fallback` tries next when a mode cannot work.
FALLBACKS = {
    Mode.SYM_LINK: Mode.HARD_LINK,
    Mode.HARD_LINK: Mode.DEEP_COPY,
    Mode.REMOTE_FILE: Mode.DEEP_COPY,
}

_ACTIONS = {
    Mode.CREATE_NEW_FILE: "copied",
    Mode.DEEP_COPY: "copied",
    Mode.HARD_LINK: "hard-linked",
    Mode.SYM_LINK: "sym-linked",
    Mode.REMOTE_FILE: "pointed",
}


class NotPossible(Exception):  # noqa: N818 - an answer inside this module
    """A mode cannot work for this blob; another one may."""


def clone_blob(source: Storage, target: Storage, reference: Reference, mode: Mode, *, fallback: bool) -> BlobRow:
    """Get one blob into another store.

    Raises
    ------
    UsageError
        If the mode cannot work here; the text names those that can.  Nothing was changed.
    CorruptBlobError, RemotesError
        If its bytes are wrong, or no remote delivers them.  Nothing was changed.
    """
    while True:
        try:
            return _clone_blob(source, target, reference, mode)
        except NotPossible as error:
            if not fallback or mode not in FALLBACKS:
                raise UsageError(str(error)) from error
            mode = FALLBACKS[mode]


def _clone_blob(source: Storage, target: Storage, reference: Reference, mode: Mode) -> BlobRow:
    pointer = pointer_of(source, reference)
    bytes_here = local_source(source, reference)
    if bytes_here is not None:
        bytes_here.close()
    if mode is Mode.REMOTE_FILE:
        if pointer is None:
            raise NotPossible(
                "Mode REMOTE_FILE is not possible: no remote has it. Use 'mltraq-ds remote upload' first, or DEEP_COPY."
            )
    elif mode in (Mode.HARD_LINK, Mode.SYM_LINK):
        if bytes_here is None:
            raise NotPossible(
                f"Mode {mode} is not possible: its bytes are on remotes only. Use DEEP_COPY "
                "or CREATE_NEW_FILE, or 'mltraq-ds remote pull' first."
            )
        try:
            linking.link(source, target, reference, is_symbolic=mode is Mode.SYM_LINK)
        except (OSError, NotImplementedError) as error:
            raise NotPossible(
                f"Mode {mode} is not possible from {source.url} to {target.url}: {error}. Use DEEP_COPY or "
                "CREATE_NEW_FILE."
            ) from error
    else:
        _copy_bytes(source, target, reference)
    if pointer is not None and mode is not Mode.CREATE_NEW_FILE:
        write_pointer(target, reference, pointer, parents=True)
    remotes = pointer.remotes if pointer is not None and mode is not Mode.CREATE_NEW_FILE else ()
    return BlobRow(reference.key, reference.size, _ACTIONS[mode], remotes, mode is not Mode.REMOTE_FILE)


def _copy_bytes(source: Storage, target: Storage, reference: Reference) -> None:
    """Copy the bytes of a blob, from wherever they are; those that are there already are verified."""
    there = local_source(target, reference)
    if there is not None:
        try:
            return require_intact(there, reference)
        finally:
            there.close()
    here = local_source(source, reference)
    pointer = pointer_of(source, reference)
    if here is None:
        if pointer is None:
            raise RemotesError(f"Blob {reference.key} is gone from {source.url}. Restore it from a copy.")
        put_from_remotes(pointer, lambda verified: _put(target, reference, verified))
        return None
    try:
        require_intact(here, reference)
        _put(target, reference, Verified(here, pointer.digest) if pointer else Unverified(here))
    finally:
        here.close()


def _put(target: Storage, reference: Reference, buffers: Bytes) -> None:
    with suppress(KeyExistsError):  # another clone was first: names are never reused, so it is the same blob
        target.put(reference.key, buffers, size=reference.size, parents=True, flush=False)
