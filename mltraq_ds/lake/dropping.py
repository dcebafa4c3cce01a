"""Dropping: remove local bytes that remotes have; and the reverse, fetch them back.  Forget remotes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mltraq_ds.errors import RemotesError, UsageError
from mltraq_ds.lake.bytes import local_source, pointer_of, put_from_remotes
from mltraq_ds.lake.holding import Guard, require_same
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.uploading import Uploaded, write_pointer
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import pointer_key

__all__ = ["drop_blob", "drop_seen", "forget", "pull_blob"]


def drop_seen(storage: Storage, uploaded: Uploaded, remotes: Sequence[Remote], guard: Guard) -> None:
    """Remove the local bytes of a blob whose pointer is durable, after another look at each remote.

    What was put there just now must be there; what was found there is read whole.

    Raises
    ------
    RemotesError, ConflictError
        If one does not have it, the pointer is another one, or somebody else may decide now.  The bytes stay.
    """
    pointer = uploaded.pointer
    for remote in remotes:
        remote.require_seen(pointer.name, pointer.size)
        if remote.url not in uploaded.fresh and not remote.is_intact(pointer.name, pointer.size):
            raise RemotesError(f"Its bytes stay because those of object {pointer.name} of {remote.url} are wrong.")
    guard()
    require_same(storage, uploaded.reference, pointer)
    storage.delete(uploaded.reference.key)


def drop_blob(
    storage: Storage, reference: Reference, num_copies: int, open_one: Callable[[str], Remote], guard: Guard
) -> BlobRow | None:
    """Remove the local bytes of one blob if enough remotes have it, read whole and verified.

    Returns
    -------
    BlobRow or None
        None if there were no local bytes.

    Raises
    ------
    RemotesError, ConflictError
        If fewer than `num_copies` remotes have it, or as `drop_seen`.  The bytes stay.
    """
    source = local_source(storage, reference)
    if source is None:
        return None
    source.close()
    pointer = pointer_of(storage, reference)
    intact: set[str] = set()  # by the id of the remote: two URLs may lead to one place
    for url in pointer.remotes if pointer else ():
        remote = open_one(url)
        if pointer and len(intact) < num_copies and remote.is_intact(pointer.name, pointer.size):
            intact.add(remote.identity)
    if pointer is None or len(intact) < num_copies:
        raise RemotesError(
            f"Its bytes stay because {len(intact)} verified copies are on remotes, and {num_copies} are asked for. "
            "Upload it to more remotes."
        )
    storage.flush([pointer_key(reference.key)])
    guard()
    require_same(storage, reference, pointer)
    storage.delete(reference.key)
    return BlobRow(reference.key, reference.size, "dropped", pointer.remotes)


def pull_blob(storage: Storage, reference: Reference) -> BlobRow | None:
    """Fetch the bytes of one blob, verified; its pointer stays.

    Returns
    -------
    BlobRow or None
        None if the bytes are here.

    Raises
    ------
    RemotesError
        If no remote delivers them.  Nothing was changed.
    """
    pointer = pointer_of(storage, reference)
    source = local_source(storage, reference)
    if source is not None:
        source.close()
        return None
    if pointer is None:
        raise RemotesError(f"Blob {reference.key} is gone, and no pointer says where it is. Restore it from a copy.")
    put_from_remotes(pointer, lambda verified: storage.put(reference.key, verified, size=reference.size, flush=False))
    return BlobRow(reference.key, reference.size, "pulled", pointer.remotes, is_local=True)


def forget(storage: Storage, reference: Reference, urls: Sequence[str], guard: Guard) -> BlobRow | None:
    """Take remotes out of one pointer; nothing is done on the remotes.

    Returns
    -------
    BlobRow or None
        None if the pointer names none of them.

    Raises
    ------
    UsageError, ConflictError
        If no source would be left, or somebody else may decide now.  The pointer stays.
    """
    pointer = pointer_of(storage, reference)
    if pointer is None or not set(urls) & set(pointer.remotes):
        return None
    guard()
    left = pointer
    for url in urls:
        left = left.without(url)
    source = local_source(storage, reference)
    if source is not None:
        source.close()
    elif not left.remotes:
        raise UsageError(
            "Its last remote is not forgotten because its bytes are nowhere else. Use 'mltraq-ds remote pull' first."
        )
    if left.remotes:
        write_pointer(storage, reference, left)
    else:
        storage.delete(pointer_key(reference.key))
    return BlobRow(reference.key, reference.size, "forgotten", left.remotes, source is not None)
