"""Uploading: blobs to remotes, byte for byte, and the pointers that say where they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mltraq_ds.errors import DanglingReferenceError
from mltraq_ds.lake import verified
from mltraq_ds.lake.bytes import (
    Bytes,
    Held,
    Verified,
    is_here,
    local_source,
    pointer_of,
    put_from_places,
    require_intact,
)
from mltraq_ds.lake.remotes import GRACE_S, Remote, pieces, sha256_of
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Source, Stat, Storage
from mltraq_ds.storage.pointer import Pointer, pointer_key
from mltraq_ds.storage.sources import check_range

__all__ = ["Uploaded", "Uploader", "replace_pointer", "write_pointer"]

#: Blobs that are uploaded before their pointers are written: folders are flushed once for all of them.
_BATCH = 256
#: From so many blobs on, a remote is listed once instead of asked for each.
_LIST_FROM = 64
#: How telling an action is, when remotes differ.
_ORDER = ("repaired", "uploaded", "refreshed", "found")
#: Up to this size (bytes) a new blob is read once, compared, hashed and sent from memory; a larger one is read thrice.
_HELD = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A blob that every remote has.

    Parameters
    ----------
    reference : Reference
        The blob.
    pointer : Pointer
        That names all of them.
    action : str
        What was done.
    is_local : bool
        Whether the store has something under its key.
    is_new : bool
        Whether it had no pointer before.
    is_written : bool
        Whether its pointer in the store says the same already.
    """

    reference: Reference
    pointer: Pointer
    action: str
    is_local: bool
    is_new: bool
    is_written: bool

    def row(self, *, is_local: bool | None = None) -> BlobRow:
        """Return the row of a report."""
        local = self.is_local if is_local is None else is_local
        return BlobRow(self.reference.key, self.pointer.size, self.action, self.pointer.remotes, local)


class Uploader:
    """Uploads the blobs of one store; safe in threads.

    An object that is there already is relied on only if its bytes are right.  Those that a pointer of this store names
    were verified when it was written; others, those that the last `verify` found wrong, and all where the local bytes
    are to go are read whole.  Wrong ones are repaired.  One that is old is put again, so that a sweep of the remote
    under way does not take it for garbage.

    Parameters
    ----------
    storage : Storage
        Of the store.
    remotes : list of Remote
        Where each blob goes.
    is_trusting : bool
        Whether a pointer of the store is enough where the store has the bytes, too.
    """

    def __init__(self, storage: Storage, remotes: Sequence[Remote], *, is_trusting: bool) -> None:
        self.storage = storage
        self.remotes = remotes
        self._is_trusting = is_trusting
        self._wrong = verified.wrong_names(storage)
        self._down: set[str] = set()
        self._comparing = threading.Lock()
        self._seen: dict[str, dict[str, Stat]] = {}

    def upload(
        self,
        blobs: Sequence[Reference],
        after: Callable[[list[Uploaded]], None],
        failures: Failures,
        jobs: int | None = None,
    ) -> list[Uploaded]:
        """Upload blobs in batches; `after` is called with those of each batch that every remote has, durably."""
        if len(blobs) >= _LIST_FROM:
            self._seen = {remote.url: remote.objects() for remote in self.remotes}
        done: list[Uploaded] = []
        for start in range(0, len(blobs), _BATCH):
            batch = do(self._upload, blobs[start : start + _BATCH], lambda blob: blob.key, failures, jobs)
            for remote in self.remotes:
                remote.storage.flush(one.pointer.name for one in batch)
            after(batch)
            done += batch
        return done

    def _upload(self, reference: Reference) -> Uploaded:
        before = pointer_of(self.storage, reference)
        source = local_source(self.storage, reference, before)
        try:
            here: Bytes | None = None
            if before is None:
                pointer, here = self._new_pointer(reference, source)
            else:
                pointer = before
                here = None if source is None else Verified(source, before.digest)
            is_local = source is not None or is_here(self.storage, reference)
            is_trusting = self._is_trusting or not is_local
            actions = {remote.url: self._ensure(remote, pointer, here, is_trusting) for remote in self.remotes}
        finally:
            if source is not None:
                source.close()
        found = pointer.with_remotes(remote.url for remote in self.remotes)
        told = next(one for one in _ORDER if one in actions.values())
        return Uploaded(reference, found, told, is_local, before is None, found == before)

    def _new_pointer(self, reference: Reference, source: Source | None) -> tuple[Pointer, Bytes]:
        """Return a pointer to an intact blob, and its bytes."""
        if source is None:
            raise DanglingReferenceError(f"Blob {reference.key} is gone from {self.storage.url}: nothing is to upload.")
        if source.size <= _HELD:
            view = source.read(0, source.size)
            digest = f"sha256:{sha256_of([view])}"  # first: what is not in memory yet is read by all threads
            # One at a time: of a pack it is thousands of small steps, and threads that do such steps together spend
            # more time on handing the interpreter's lock around than on them.  Others hash and write meanwhile.
            with self._comparing:
                require_intact(_InMemory(reference.key, view), reference)
            return Pointer(digest, reference.size, reference.digest, ()), Held(view)
        require_intact(source, reference)
        digest = f"sha256:{sha256_of(pieces(source))}"
        return Pointer(digest, reference.size, reference.digest, ()), Verified(source, digest)

    def _ensure(self, remote: Remote, pointer: Pointer, here: Bytes | None, is_trusting: bool) -> str:
        """Make sure that a remote has a blob; `pointer` names those that are known to have it."""
        name = pointer.name
        stat = self._seen[remote.url].get(name) if remote.url in self._seen else remote.stat(name)
        is_known = remote.url in pointer.remotes and is_trusting and name not in self._wrong.get(remote.url, ())
        if stat is None:
            action = "uploaded"
        elif stat.size != pointer.size or not (is_known or remote.is_intact(name, pointer.size)):
            action = "repaired"
        elif remote.storage.now() - stat.modified > GRACE_S / 2:
            action = "refreshed"
        else:
            return "found"
        put_from_places(pointer, lambda buffers: remote.put(name, buffers, pointer.size), here, self._down)
        return action


class _InMemory(Source):
    """A blob that was read whole."""

    def __init__(self, key: str, view: memoryview) -> None:
        self.key = key
        self.size = view.nbytes
        self._view = view

    def read(self, offset: int, size: int) -> memoryview:
        # docstring inherited; only compared, so it need not be private
        check_range(self.key, offset, size, self.size)
        return self._view[offset : offset + size]

    def close(self) -> None:
        # docstring inherited
        self._view = memoryview(b"")


def write_pointer(storage: Storage, reference: Reference, pointer: Pointer, *, parents: bool = False) -> None:
    """Write the pointer of a blob; it names what the one that is there names, too, which somebody may have added.

    Without `parents` the folder must be there: that of an experiment which was deleted meanwhile must not come back.
    """
    there = pointer_of(storage, reference)
    replace_pointer(
        storage, reference, there, pointer if there is None else there.with_remotes(pointer.remotes), parents=parents
    )


def replace_pointer(
    storage: Storage, reference: Reference, there: Pointer | None, pointer: Pointer, *, parents: bool = False
) -> None:
    """Write the pointer of a blob in place of the one that is `there`, unless they are the same."""
    if there != pointer:
        data = pointer.to_bytes()
        storage.put(pointer_key(reference.key), [data], size=len(data), replace=True, parents=parents, flush=False)
