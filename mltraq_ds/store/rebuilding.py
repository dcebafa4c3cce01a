"""Rebuilding: make the index what the files say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from mltraq_ds.errors import CorruptRecordError, DamageError, FormatError, MltraqDSError, UsageError
from mltraq_ds.objects import Objects, objects_of
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rebuild import Entry
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import collection, generations, layout
from mltraq_ds.store.artifact_rows import rebuild_artifacts
from mltraq_ds.store.collection import is_replaced, pins
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.recovery import recover, warn_left
from mltraq_ds.store.report import Notebook, RebuildReport
from mltraq_ds.store.single_index import collect

__all__ = ["Progress", "each", "is_replaced", "pins", "rebuild_index", "without_progress"]

T = TypeVar("T")
R = TypeVar("R")

#: Shows how far a loop has come: gets what to loop over and its length, gives the same items.
Progress = Callable[[Iterable[T], int], Iterable[T]]
#: A generation, or the id of an experiment without one; its rows, what keeps them from being read, or None if it has
#: ended meanwhile.
Read = tuple[Generation | str, Entry | Exception | None]

_THREADS = 16
_UNREADABLE = (DamageError, FormatError, UsageError)


def rebuild_index(
    store: Objects | Storage | str | os.PathLike[str],
    index: Index,
    *,
    id_experiment: str | None = None,
    progress: Progress[Read] | None = None,
) -> RebuildReport:
    """Make the rows of a store, or of one experiment, what its files say; everything else in the database stays.

    The files are read first; then one short transaction changes the rows.  Readers see the old rows or the new ones,
    and what is persisted meanwhile is kept.  May be repeated.

    Parameters
    ----------
    store : Objects, Storage, URL or path
        The store.
    index : Index
        Its rows; the tables are made if they are missing.
    id_experiment : str, optional
        Only this experiment.
    progress : callable, optional
        Shows how far it has come.

    Returns
    -------
    RebuildReport
        Counts, and what could not be read: such experiments keep the rows that they have.

    Raises
    ------
    StorageError, DatabaseUnavailableError
        If store or database do not answer.  No row was changed.
    """
    objects = objects_of(store)
    scan = _Scan(objects.storage, id_experiment, progress or without_progress)
    if id_experiment is None:
        _rebuild_artifacts(objects.storage, index, scan.seen)
    done = index.rebuild(scan, url=objects.storage.url, replace_scope=id_experiment, damaged=scan.damaged)

    def left(error: MltraqDSError) -> None:
        if isinstance(error, _UNREADABLE):
            scan.seen.add("unreadable intent", layout.PENDING, detail=str(error))
        else:
            warn_left(error)

    try:
        recover(objects, index, left)
    except _UNREADABLE as error:
        left(error)
    return RebuildReport(
        **scan.seen.parts(),
        store=objects.storage.url,
        experiments=scan.n_experiments,
        runs=scan.n_runs,
        blobs=scan.n_blobs,
        written=done.written,
        removed=done.removed,
        kept=done.kept,
    )


def _rebuild_artifacts(storage: Storage, index: Index, seen: Notebook) -> None:
    def note(key: str, error: Exception) -> None:
        seen.add("unreadable record", key, detail=str(error))

    living = rebuild_artifacts(storage, ArtifactIndex(index.database, index.store_id), note)
    if living:
        seen.note("artifacts", layout.ARTIFACTS, detail=f"{len(living)} versions of saved artifacts were read.")


class _Scan:
    """What the files say: iterating reads them, counts what could be read and notes what could not."""

    def __init__(self, storage: Storage, id_experiment: str | None, progress: Progress[Read]) -> None:
        self.storage, self.id_experiment, self.progress = storage, id_experiment, progress
        self.seen = Notebook()
        self.damaged: set[str] = set()
        self.n_experiments = self.n_runs = self.n_blobs = 0

    def __iter__(self) -> Iterator[Entry]:
        living = list(self._living())
        results: Iterable[Read] = each(self.storage, partial(_read, self.storage, self._note_single), living)
        for one, entry in self.progress(results, len(living)):
            if isinstance(entry, Exception):
                self._note_record(one, entry)
            elif entry is not None:
                self.n_experiments += 1
                self.n_runs += sum(1 for row in entry[1] if row.status)  # a deleted one has none
                self.n_blobs += len(entry[2])
                yield entry

    def _living(self) -> Iterator[Generation | str]:
        """Yield the current generations of all experiments that have not ended, or that of the one.

        Of an experiment that has only records that were put alone, its id.
        """
        current = self._current()
        pinned = pins(one for one in current.values() if one is not None)
        for folder, generation in current.items():
            if generation is None or generation.deleted or is_replaced(generation, pinned):
                id_experiment = self._id_by_records(folder, generation)
                if generation is not None and not generation.deleted and id_experiment is None:
                    self.seen.note("replaced", folder, generation.id_experiment)
                if id_experiment is not None and self.id_experiment in (None, id_experiment):
                    yield id_experiment
            elif self.id_experiment in (None, generation.id_experiment):
                yield generation

    def _id_by_records(self, folder: str, ended: Generation | None) -> str | None:
        try:
            return collection.id_by_records(self.storage, folder, ended)
        except _UNREADABLE as error:
            self.damaged.add(folder)
            self.seen.add("unreadable record", f"{folder}/runs", detail=str(error))
            return None

    def _current(self) -> dict[str, Generation | None]:
        """Return the current generations by folder; all of them, since another experiment may have replaced the one."""
        current: dict[str, Generation | None] = {}
        folders = layout.experiment_folders(self.storage)
        for folder, found in each(self.storage, partial(_current, self.storage), folders):
            if isinstance(found, Exception):
                self._note_generation(folder, found)
            else:
                current[folder] = found
        return current

    def _note_single(self, id_experiment: str, error: MltraqDSError) -> None:
        """Note a record that was put alone and cannot be read: it has no row, the others have theirs."""
        self.seen.add("unreadable record", f"{layout.folder_of(id_experiment)}/runs", id_experiment, detail=str(error))

    def _note_generation(self, folder: str, error: Exception) -> None:
        self.damaged.add(folder)
        if self.id_experiment is None or folder == layout.folder_of(self.id_experiment):
            self.seen.add("unreadable generation", f"{folder}/generations", detail=str(error))

    def _note_record(self, one: Generation | str, error: Exception) -> None:
        id_experiment = one if isinstance(one, str) else one.id_experiment
        folder = layout.folder_of(id_experiment)
        self.damaged.add(folder)
        key = f"{folder}/runs" if isinstance(one, str) else layout.generation_key(folder, one.number)
        self.seen.add("unreadable record", key, id_experiment, detail=str(error))


def _current(storage: Storage, folder: str) -> tuple[str, Generation | Exception | None]:
    try:
        current = generations.current(storage, folder)
        if current is None and layout.names_generation(storage, folder):
            return folder, CorruptRecordError(
                f"{folder}/generations is gone, and {folder}/{layout.META} says it was there."
            )
        return folder, current
    except _UNREADABLE as error:
        return folder, error


def _read(storage: Storage, note: Callable[[str, MltraqDSError], None], one: Generation | str) -> Read:
    """Return the rows of one experiment, looking again if it is replaced meanwhile; None if it ended."""
    id_experiment = one if isinstance(one, str) else one.id_experiment
    while True:
        try:
            return one, _rows(storage, one, partial(note, id_experiment))
        except _UNREADABLE as error:
            _, now = _current(storage, layout.folder_of(id_experiment))
            if isinstance(one, str) or isinstance(now, Exception):
                return one, error
            if now is None or now.deleted:
                return one, None
            if now.ident == one.ident:
                return one, error
            one = now


def _rows(storage: Storage, one: Generation | str, on_corrupt: Callable[[MltraqDSError], None]) -> Entry | None:
    if isinstance(one, Generation) and not one.records:
        raise CorruptRecordError(f"Generation {one.number} has no record of the experiment.")
    id_experiment = one if isinstance(one, str) else one.id_experiment
    try:
        entry = collect(storage, id_experiment, on_corrupt)
    except (LookupError, TypeError, ValueError) as error:
        raise CorruptRecordError(
            f"The records of experiment {id_experiment!r:.80} cannot be read because a value in them is not of its "
            f"form: {error!r:.120}"
        ) from error
    if entry is not None:
        Index.validate_rows(*entry[:2])  # what this database could not hold must not stop the others
    return entry


def each(storage: Storage, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what `work` makes of every item, in order; several at a time where each costs a request."""
    if storage.is_local:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(work, items)


def without_progress(items: Iterable[T], total: int) -> Iterable[T]:
    """Show nothing."""
    return items
