"""Modes: what stands for a blob in a clone, and how it gets there."""

from __future__ import annotations

from enum import StrEnum

from mltraq_ds.errors import MltraqDSError, RemotesError, UsageError
from mltraq_ds.lake import linking, relying
from mltraq_ds.lake.bytes import (
    Bytes,
    Unverified,
    Verified,
    is_here,
    is_intact,
    local_source,
    pointer_of,
    put_blob,
    put_from_places,
    require_intact,
)
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.uploading import write_pointer
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import Pointer

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


def clone_blob(
    source: Storage,
    target: Storage,
    reference: Reference,
    mode: Mode,
    *,
    fallback: bool,
    down: set[str] | None = None,
) -> BlobRow:
    """Get one blob into another store; remotes in `down` are asked last.

    Raises
    ------
    UsageError
        If the mode cannot work here; the text names those that can.  Nothing was changed.
    CorruptBlobError, RemotesError
        If its bytes are wrong, or no remote delivers them.  Nothing was changed.
    """
    while True:
        try:
            return _clone_blob(source, target, reference, mode, set() if down is None else down)
        except NotPossible as error:
            if not fallback or mode not in FALLBACKS:
                raise UsageError(str(error)) from error
            mode = FALLBACKS[mode]


def _clone_blob(source: Storage, target: Storage, reference: Reference, mode: Mode, down: set[str]) -> BlobRow:
    pointer = pointer_of(source, reference)
    if mode is Mode.REMOTE_FILE:
        if pointer is None:
            raise NotPossible(
                "Mode REMOTE_FILE is not possible: no remote has it. Use 'mltraq-ds remote upload' first, or DEEP_COPY."
            )
        relying.rely_on(source, reference, pointer)
    elif mode in (Mode.HARD_LINK, Mode.SYM_LINK):
        _link(source, target, reference, mode, has_pointer=pointer is not None)
    else:
        _copy_bytes(source, target, reference, pointer, down)
    if pointer is not None and mode is not Mode.CREATE_NEW_FILE:
        write_pointer(target, reference, pointer, parents=True)
    remotes = pointer.remotes if pointer is not None and mode is not Mode.CREATE_NEW_FILE else ()
    return BlobRow(reference.key, reference.size, _ACTIONS[mode], remotes, mode is not Mode.REMOTE_FILE)


def _link(source: Storage, target: Storage, reference: Reference, mode: Mode, *, has_pointer: bool) -> None:
    if not is_here(source, reference):
        if not has_pointer:
            raise _gone(source, reference)
        raise NotPossible(
            f"Mode {mode} is not possible: its bytes are on remotes only. Use DEEP_COPY "
            "or CREATE_NEW_FILE, or 'mltraq-ds remote pull' first."
        )
    try:
        linking.link(source, target, reference, is_symbolic=mode is Mode.SYM_LINK)
    except MltraqDSError:
        raise
    except (OSError, NotImplementedError) as error:
        raise NotPossible(
            f"Mode {mode} is not possible from {source.url} to {target.url}: {error}. Use DEEP_COPY or CREATE_NEW_FILE."
        ) from error


def _copy_bytes(
    source: Storage, target: Storage, reference: Reference, pointer: Pointer | None, down: set[str]
) -> None:
    """Copy the bytes of a blob, from wherever they are; what is there already is compared, and replaced if damaged."""
    has_some = is_here(target, reference)
    if has_some and is_intact(target, reference):
        return

    def put(buffers: Bytes) -> None:
        put_blob(target, reference, buffers, is_damaged=has_some, parents=True)

    here = local_source(source, reference, pointer)
    try:
        if pointer is not None:
            put_from_places(pointer, put, None if here is None else Verified(here, pointer.digest), down)
        elif here is None:
            raise _gone(source, reference)
        else:
            require_intact(here, reference)
            put(Unverified(here))
    finally:
        if here is not None:
            here.close()


def _gone(source: Storage, reference: Reference) -> RemotesError:
    return RemotesError(f"Blob {reference.key} is gone from {source.url}. Restore it from a copy.")
