"""Uploading: blobs to remotes, byte for byte, and the pointers that say where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mltraq_ds.errors import DanglingReferenceError
from mltraq_ds.lake.bytes import Verified, local_source, pointer_of, put_from_remotes, require_intact
from mltraq_ds.lake.remotes import GRACE_S, Remote, pieces, sha256_of
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Source, Stat, Storage
from mltraq_ds.storage.pointer import Pointer, pointer_key

__all__ = ["Uploaded", "Uploader", "write_pointer"]

#: Blobs that are uploaded before their pointers are written: folders are flushed once for all of them.
_BATCH = 256
#: From so many blobs on, a remote is listed once instead of asked for each.
_LIST_FROM = 64
#: How telling an action is, when remotes differ.
_ORDER = ("repaired", "uploaded", "refreshed", "found")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A blob that every remote has; `fresh` names those that it was put to now."""

    reference: Reference
    pointer: Pointer
    action: str
    is_local: bool
    fresh: frozenset[str]

    def row(self, *, is_local: bool | None = None) -> BlobRow:
        """Return the row of a report."""
        local = self.is_local if is_local is None else is_local
        return BlobRow(self.reference.key, self.pointer.size, self.action, self.pointer.remotes, local)


class Uploader:
    """Uploads the blobs of one store; safe in threads.

    An object that is there already is relied on only if its bytes are right: those that a pointer of this store names
    were verified when it was written, others are read whole.  Wrong ones are repaired.  One that is old is put again,
    so that a sweep of the remote under way does not take it for garbage.

    Parameters
    ----------
    storage : Storage
        Of the store.
    remotes : list of Remote
        Where each blob goes.
    """

    def __init__(self, storage: Storage, remotes: Sequence[Remote]) -> None:
        self.storage = storage
        self.remotes = remotes
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
        pointer = pointer_of(self.storage, reference)
        source = local_source(self.storage, reference)
        try:
            pointer = pointer or self._new_pointer(reference, source)
            actions = {remote.url: self._ensure(remote, pointer, source) for remote in self.remotes}
        finally:
            if source is not None:
                source.close()
        found = pointer.with_remotes(remote.url for remote in self.remotes)
        fresh = frozenset(url for url, action in actions.items() if action != "found")
        told = next(one for one in _ORDER if one in actions.values())
        return Uploaded(reference, found, told, source is not None, fresh)

    def _new_pointer(self, reference: Reference, source: Source | None) -> Pointer:
        if source is None:
            raise DanglingReferenceError(f"Blob {reference.key} is gone from {self.storage.url}: nothing is to upload.")
        require_intact(source, reference)
        return Pointer(f"sha256:{sha256_of(pieces(source))}", reference.size, reference.digest, ())

    def _ensure(self, remote: Remote, pointer: Pointer, source: Source | None) -> str:
        """Make sure that a remote has a blob; `pointer` names those that are known to have it."""
        name = pointer.name
        stat = self._seen[remote.url].get(name) if remote.url in self._seen else remote.stat(name)
        if stat is None:
            action = "uploaded"
        elif stat.size != pointer.size or not (remote.url in pointer.remotes or remote.is_intact(name, pointer.size)):
            action = "repaired"
        elif remote.storage.now() - stat.modified > GRACE_S / 2:
            action = "refreshed"
        else:
            return "found"
        if source is not None:
            remote.put(name, Verified(source, pointer.digest), pointer.size)
        else:
            put_from_remotes(pointer, lambda verified: remote.put(name, verified, pointer.size))
        return action


def write_pointer(storage: Storage, reference: Reference, pointer: Pointer, *, parents: bool = False) -> None:
    """Write the pointer of a blob; one that says the same already is left alone.

    Without `parents` the folder must be there: that of an experiment which was deleted meanwhile must not come back.
    """
    if pointer_of(storage, reference) != pointer:
        data = pointer.to_bytes()
        storage.put(pointer_key(reference.key), [data], size=len(data), replace=True, parents=parents, flush=False)
