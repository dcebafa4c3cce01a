"""Relying: a new pointer to objects that others have uploaded."""

from __future__ import annotations

from mltraq_ds.errors import MltraqDSError, RemotesError
from mltraq_ds.lake.bytes import Verified, local_source, put_from_places
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import Pointer

__all__ = ["rely_on"]


def rely_on(storage: Storage, reference: Reference, pointer: Pointer) -> None:
    """Look whether a remote has a blob, and make old objects young, so that a sweep under way does not take them.

    Raises
    ------
    RemotesError
        If no remote has it.
    """
    causes: list[str] = []
    for url in pointer.remotes:
        try:
            remote = Remote.open(url)
            remote.require_seen(pointer.name, pointer.size)
            if remote.is_old(pointer.name):
                _refresh(storage, reference, pointer, remote)
        except (MltraqDSError, OSError) as error:
            causes.append(f"{url}: {error}")
    if len(causes) == len(pointer.remotes):
        raise RemotesError(f"No remote has it, so that nothing but a pointer would be there. {' '.join(causes)}")


def _refresh(storage: Storage, reference: Reference, pointer: Pointer, remote: Remote) -> None:
    source = local_source(storage, reference, pointer)
    try:
        put_from_places(
            pointer,
            lambda buffers: remote.put(pointer.name, buffers, pointer.size),
            None if source is None else Verified(source, pointer.digest),
        )
        remote.storage.flush([pointer.name])
    finally:
        if source is not None:
            source.close()
