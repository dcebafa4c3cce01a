"""Sweeping a remote: remove what no given store refers to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from mltraq_ds.errors import CorruptRecordError, MltraqDSError, UsageError
from mltraq_ds.lake.naming import Store, Url, storage_of
from mltraq_ds.lake.remotes import GRACE_S, Remote
from mltraq_ds.lake.report import BlobRow, LakeReport
from mltraq_ds.lake.selection import require_store
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.storage.pointer import MAX_SIZE, SUFFIX, Pointer

__all__ = ["referred_names", "sweep", "sweep_remote"]

_POINTER = re.compile(rf"/[0-9a-f]{{32}}{re.escape(SUFFIX)}$")


def sweep(
    remote: Url,
    *,
    refs: Store | Iterable[Store],
    grace_s: float = GRACE_S,
    dry_run: bool = True,
    jobs: int | None = None,
) -> LakeReport:
    """Remove the objects of a remote that none of the stores `refs` refers to; see `sweep_remote`."""
    stores = refs if isinstance(refs, Iterable) and not isinstance(refs, str | os.PathLike) else [refs]
    return sweep_remote(
        Remote.open(remote), [storage_of(one) for one in stores], grace_s=grace_s, dry_run=dry_run, jobs=jobs
    )


def referred_names(storage: Storage) -> set[str]:
    """Return the names of all objects that the pointers of a store refer to.

    A file of a user whose name only ends like that of a pointer is one if it reads as one.

    Raises
    ------
    CorruptRecordError, FormatError
        If a pointer cannot be read: nobody knows what it refers to.
    """
    require_store(storage)
    keys = [stat.key for stat in storage.list() if stat.key.endswith(SUFFIX)]
    failures = Failures("read")

    def read(key: str) -> Pointer | None:
        try:
            return Pointer.from_bytes(storage.read(key, max_size=MAX_SIZE), key)
        except CorruptRecordError:
            if _POINTER.search(key):
                raise
            return None

    found: list[Pointer | None] = do(read, keys, str, failures)
    failures.raise_any(len(keys))
    return {pointer.name for pointer in found if pointer is not None}


def sweep_remote(
    remote: Remote, stores: Sequence[Storage], *, grace_s: float, dry_run: bool, jobs: int | None = None
) -> LakeReport:
    """Remove the objects of a remote that no pointer of the given stores refers to.

    The remote cannot know who else uses it: **all** stores that do must be given.  An object is removed only if it is
    older than the grace when it is looked at again right before: whoever relies on an old one makes it young first.
    What uploads that were killed have left goes at the same age.

    Raises
    ------
    UsageError
        If no store is given, or together they refer to nothing: that would remove everything.
    CorruptRecordError, FormatError, StorageError
        If a store or pointer cannot be read.  Nothing was removed.
    RemotesError
        If some could not be removed.  Run it again.
    """
    if not stores:
        raise UsageError("The sweep is refused because no store was named: all objects would go. Use refs=[…].")
    if grace_s < 0:
        raise UsageError(f"grace_s={grace_s!r} is refused because it is negative. Use 0 to spare nothing.")
    before = remote.require().storage.now() - grace_s
    listed = remote.objects()  # before the pointers are read: what is uploaded meanwhile is not in it
    names = _names(stores)
    if listed and not names:
        raise UsageError(
            f"The sweep of {remote.url} is refused because no pointer in the stores refers to anything, so all "
            f"{len(listed)} objects would go. Look whether these are the stores that use it."
        )
    going = [stat for name, stat in sorted(listed.items()) if name not in names and stat.modified <= before]
    left = [stat for stat in remote.unfinished() if stat.modified <= before]
    unfinished = {stat.key for stat in left}
    going += left
    failures = Failures("removed")

    def remove(stat: Stat) -> BlobRow | None:
        if stat.key not in unfinished:
            return _remove(remote, stat, before, dry_run)
        return _gone(remote, stat, dry_run)

    rows = do(remove, going, lambda stat: stat.key, failures, jobs)
    failures.raise_any(len(going))
    young = sum(name not in names and stat.modified > before for name, stat in listed.items())
    notes = (f"{young} objects are younger than the grace of {grace_s:.0f} s and stay.",) if young else ()
    return LakeReport("sweep", remote.url, tuple(row for row in rows if row), dry_run, notes)


def _names(stores: Iterable[Storage]) -> set[str]:
    names: set[str] = set()
    for storage in stores:
        try:
            names |= referred_names(storage)
        except MltraqDSError as error:
            raise type(error)(f"The sweep was stopped because it is not known what must be kept: {error}") from error
    return names


def _remove(remote: Remote, stat: Stat, before: float, dry_run: bool) -> BlobRow | None:
    now = remote.stat(stat.key)
    if now is None or now.modified > before:
        return None  # gone, or somebody relies on it
    return _gone(remote, stat, dry_run)


def _gone(remote: Remote, stat: Stat, dry_run: bool) -> BlobRow:
    if not dry_run:
        remote.storage.delete(stat.key)
    return BlobRow(stat.key, stat.size, "would go" if dry_run else "removed", (remote.url,))
