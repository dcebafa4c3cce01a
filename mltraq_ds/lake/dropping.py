"""Dropping: remove local bytes that remotes have; and the reverse, fetch them back.  Forget remotes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mltraq_ds.errors import MltraqDSError, RemotesError, UsageError
from mltraq_ds.lake.bytes import is_here, is_intact, pointer_of, put_blob, put_from_places
from mltraq_ds.lake.holding import Guard, require_same
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.uploading import Uploaded, replace_pointer
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import Pointer, pointer_key

__all__ = ["drop_blob", "drop_seen", "forget", "pull_blob"]


def drop_seen(storage: Storage, uploaded: Uploaded, remotes: Sequence[Remote], guard: Guard) -> None:
    """Remove the local bytes of a blob whose pointer is durable and whose objects were put or verified now.

    Each remote is looked at again.

    Raises
    ------
    RemotesError, ConflictError
        If one does not have it, the pointer is another one, or somebody else may decide now.  The bytes stay.
    """
    pointer = pointer_of(storage, uploaded.reference)
    if pointer is None or not {remote.url for remote in remotes} <= set(pointer.remotes):
        raise RemotesError("Its bytes stay because its pointer was changed meanwhile. Run it again.")
    for remote in remotes:
        remote.require_seen(pointer.name, pointer.size)
        if not uploaded.is_new:
            remote.require_index(pointer)
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
    if not is_here(storage, reference):
        return None
    pointer = pointer_of(storage, reference)
    intact: set[str] = set()  # by the id of the remote: two URLs may lead to one place
    causes: list[str] = []
    for url in pointer.remotes if pointer else ():
        if pointer and len(intact) < num_copies:
            try:
                intact.add(_identity_if_intact(open_one(url), pointer))
            except (MltraqDSError, OSError) as error:
                causes.append(f"{url}: {error}")
    if pointer is None or len(intact) < num_copies:
        raise RemotesError(
            f"Its bytes stay because {len(intact)} verified copies are on remotes, and {num_copies} are asked for. "
            f"Upload it to more remotes. {' '.join(causes)}".strip()
        )
    storage.flush([pointer_key(reference.key)])
    guard()
    require_same(storage, reference, pointer)
    storage.delete(reference.key)
    return BlobRow(reference.key, reference.size, "dropped", pointer.remotes)


def _identity_if_intact(remote: Remote, pointer: Pointer) -> str:
    """Read an object whole, and return the id of the remote; raise if it is missing or wrong."""
    if not remote.is_intact(pointer.name, pointer.size):
        raise RemotesError("Its object is missing, or its bytes are wrong.")
    remote.require_index(pointer)
    return remote.identity


def pull_blob(storage: Storage, reference: Reference, down: set[str]) -> BlobRow | None:
    """Fetch the bytes of one blob, verified; its pointer stays.

    What is here already is compared if there is a pointer, and replaced in one step if it is damaged.  Remotes
    in `down` are asked last.

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
    has_some = is_here(storage, reference)
    if has_some and (pointer is None or is_intact(storage, reference)):
        return None
    if pointer is None:
        raise RemotesError(f"Blob {reference.key} is gone, and no pointer says where it is. Restore it from a copy.")
    put_from_places(
        pointer,
        lambda buffers: put_blob(storage, reference, buffers, is_damaged=has_some, parents=False),
        down=down,
    )
    action = "repaired" if has_some else "pulled"
    return BlobRow(reference.key, reference.size, action, pointer.remotes, is_local=True)


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
    left = pointer
    for url in urls:
        left = left.without(url)
    is_local = is_here(storage, reference)
    if not left.remotes and not (is_local and is_intact(storage, reference)):
        raise UsageError(
            "Its last remote is not forgotten because its bytes are nowhere else. Use 'mltraq-ds remote pull' first."
        )
    guard()
    if left.remotes:
        replace_pointer(storage, reference, pointer, left)
    else:
        storage.delete(pointer_key(reference.key))
    return BlobRow(reference.key, reference.size, "forgotten", left.remotes, is_local)
