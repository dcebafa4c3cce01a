"""Moving: a whole store to another place, where it is the same store.

In order: copy everything and compare it; mark ``_store.json`` of the source, which refuses all writers that look after
that (they look when their intent, or their file, is there); wait for those before; copy what they have committed; put
``_store.json`` at the target; mark that of the source as moved.  Killed after the first mark, the source can be read,
nothing can be written, and the same call goes on; killed after the second, the target is the store, and the same call
tells the database.  The source keeps its files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mltraq_ds.errors import ConflictError, KeyMissingError, MltraqDSError, UsageError
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import descriptors, intents, layout
from mltraq_ds.store.lease import Lease
from mltraq_ds.store.transfer_copy import copy
from mltraq_ds.store.transfer_plan import Item

__all__ = ["is_copied", "move"]

_THREADS = 8
#: How long writers may take to end once the store is marked (s).
_WAIT_S = 10.0


def move(
    source: Storage, target: Storage, index: Index, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Move a store; every byte is read back and compared.

    Parameters
    ----------
    source, target : Storage
        From where, and to where.  The target is empty, or has what an interrupted call has left.
    index : Index
        Of the source; it is told where the store is afterwards.
    progress : callable, optional
        Called with how many files are done, and how many there are.

    Returns
    -------
    dict
        ``files`` and ``bytes`` that were copied.

    Raises
    ------
    UsageError
        If the target has other files, lies inside the source or around it, or the source has links to other folders.
    ConflictError
        If somebody is writing, sweeping or moving.  The source is the store as before.
    StorageError
        If one of the storages refuses.  The source is the store as before, and the same call goes on.
    """
    with Lease(source) as lease:
        work = _Move(source, target, progress, lease)
        if is_copied(source, target):  # a call was killed in the last steps: others may have gone on at the target
            _put(source, {**_body(source), "moved_to": target.url})
        else:
            body = _accepted(source, target, index)
            while changed := work.changed():
                work.copy(changed)
            _refuse_writers(source)
            _switch(work, body)
    index.register_store(target.url)
    target.delete(layout.MOVING)
    return work.counts


def is_copied(source: Storage, target: Storage) -> bool:
    """Tell whether a call that was killed has copied everything, so that the target is the store already.

    Raises
    ------
    ConflictError
        If the source has moved, or is being moved, elsewhere.
    """
    said = descriptors.from_bytes(source.read(layout.STORE), "store", layout.STORE)
    place = said.get("moved_to", said.get("moving_to"))
    if place not in (None, target.url):
        raise ConflictError(
            f"The store {source.url} was not moved to {target.url} because it has moved, or is being moved, to "
            f"{place!s:.500}. Call move_store() with that place, then move it on from there."
        )
    is_there = place is not None and layout.read_store_id(target) == said.get("store_id")
    if "moved_to" in said and not is_there:
        raise ConflictError(
            f"The store that was at {source.url} has moved to {target.url}, and is not there any more. Look for it "
            "where it was moved from there, or restore that place from a copy."
        )
    return is_there


def _body(source: Storage) -> dict[str, object]:
    said = descriptors.from_bytes(source.read(layout.STORE), "store", layout.STORE)
    return {name: value for name, value in said.items() if name not in ("format", "version", "moving_to", "moved_to")}


def _switch(work: _Move, body: dict[str, object]) -> None:
    """Refuse writers, copy what those before have committed, and make the target the store; undone if it fails."""
    source, target = work.source, work.target
    try:
        _put(source, {**body, "moving_to": target.url})
        _wait_for_writers(source)
        work.copy(work.changed())
        work.remove_extra()
        _put(target, body)
        _put(source, {**body, "moved_to": target.url})
    except BaseException:
        with suppress(OSError, MltraqDSError):  # else the source stays marked, and the same call goes on
            target.delete(layout.STORE)
            _put(source, body)
        raise


def _accepted(source: Storage, target: Storage, index: Index) -> dict[str, object]:
    """Return what `_store.json` says, after marking the target as the one that the store is being moved to."""
    paths = [os.path.realpath(path_from(one.url)) for one in (source, target) if one.is_local]
    if source.url == target.url or (len(paths) == 2 and os.path.commonpath(paths) in paths):
        raise UsageError(f"The store {source.url} cannot be moved to {target.url} because one lies inside the other.")
    body = descriptors.from_bytes(source.read(layout.STORE), "store", layout.STORE)
    if body.get("links"):
        raise UsageError(
            f"The store {source.url} cannot be moved because it was cloned with links to files elsewhere. Clone it "
            "again with copies."
        )
    mark = descriptors.to_bytes("moving", {"store_id": index.store_id})
    try:
        is_ours = target.read(layout.MOVING) == mark
    except KeyMissingError:
        is_ours = False
        if next(iter(target.list()), None) is None:
            target.put(layout.MOVING, [mark], size=len(mark), parents=True)
            is_ours = True
    if not is_ours:
        raise UsageError(
            f"The store {source.url} cannot be moved to {target.url} because there are other files. Give an empty "
            "place; export_store() copies experiments into a store that exists."
        )
    return _body(source)


def _put(storage: Storage, body: dict[str, object]) -> None:
    data = descriptors.to_bytes("store", body)
    storage.put(layout.STORE, [data], size=len(data), replace=True)


def _wait_for_writers(source: Storage) -> None:
    """Wait a moment for those that looked before the mark was there."""
    until = time.monotonic() + _WAIT_S
    while intents.list_intents(source) and time.monotonic() < until:
        time.sleep(0.1)
    _refuse_writers(source)


def _refuse_writers(source: Storage) -> None:
    working = intents.list_intents(source)
    if working:
        raise ConflictError(
            f"The store {source.url} was not moved because {len(working)} writers are at work, one of them on "
            f"{working[0].name!r:.80}. Let them finish, or use sweep() if they have died, and call again: what was "
            "copied stays."
        )


class _Move:
    def __init__(
        self, source: Storage, target: Storage, progress: Callable[[int, int], None] | None, lease: Lease
    ) -> None:
        self.source, self.target, self.progress, self.lease = source, target, progress, lease
        self.counts = {"files": 0, "bytes": 0}
        self._seen: dict[str, Stat] = {}

    def _all(self) -> dict[str, Stat]:
        # What is pending concerns work at the former place.
        skipped = (f"{layout.PENDING}/", layout.MOVING)
        return {s.key: s for s in self.source.list() if s.key != layout.STORE and not s.key.startswith(skipped)}

    def changed(self) -> list[Stat]:
        """Return what is new or other than it was when it was last copied."""
        found = self._all()
        return [stat for key, stat in found.items() if self._seen.get(key) != stat]

    def copy(self, stats: Iterable[Stat]) -> None:
        listed = list(stats)
        with ThreadPoolExecutor(2 if self.source.is_local and self.target.is_local else _THREADS) as pool:
            for done, (stat, is_copied) in enumerate(zip(listed, pool.map(self._copy, listed), strict=True), 1):
                self._seen[stat.key] = stat
                self.counts["files"] += is_copied
                self.counts["bytes"] += stat.size if is_copied else 0
                self.lease.keep()
                if self.progress is not None:
                    self.progress(done, len(listed))

    def _copy(self, stat: Stat) -> bool:
        try:
            return copy(self.source, self.target, Item(stat.key, stat.size, "others"), overwrite=True)
        except KeyMissingError:
            if self.source.exists(stat.key):
                raise
            return False  # it was retired meanwhile

    def remove_extra(self) -> None:
        """Remove from the target what an interrupted call has copied and the source does not have any more."""
        kept = {*self._all(), layout.MOVING, layout.STORE}
        self.target.delete_many([stat.key for stat in self.target.list() if stat.key not in kept])
