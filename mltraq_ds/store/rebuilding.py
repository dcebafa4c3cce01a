"""Rebuilding: make the index what the files say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from mltraq_ds.errors import CorruptRecordError, DamageError, FormatError, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rebuild import Entry
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout, reading
from mltraq_ds.store.artifact_rows import rebuild_artifacts
from mltraq_ds.store.generations import Generation, Ident
from mltraq_ds.store.recovery import recover
from mltraq_ds.store.report import Notebook, RebuildReport
from mltraq_ds.store.rows import stored_rows

__all__ = ["Progress", "each", "is_replaced", "pins", "rebuild_index", "without_progress"]

T = TypeVar("T")
R = TypeVar("R")

#: Shows how far a loop has come: gets what to loop over and its length, gives the same items.
Progress = Callable[[Iterable[T], int], Iterable[T]]
#: A generation and its rows, what keeps them from being read, or None if it has ended meanwhile.
Read = tuple[Generation, Entry | Exception | None]
#: Versions that count as deleted, by id of the experiment.
Pins = dict[str, set[Ident]]

_THREADS = 16
_UNREADABLE = (DamageError, FormatError, UsageError)


def rebuild_index(
    objects: Objects,
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
    objects : Objects
        Of the store.
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
    scan = _Scan(objects.storage, id_experiment, progress or without_progress)
    if id_experiment is None:
        _rebuild_artifacts(objects.storage, index, scan.seen)
    done = index.rebuild(scan, url=objects.storage.url, replace_scope=id_experiment, damaged=scan.damaged)
    try:
        recover(objects, index)
    except _UNREADABLE as error:
        scan.seen.add("unreadable intent", layout.PENDING, detail=str(error))
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
        results: Iterable[Read] = each(self.storage, partial(_read, self.storage), living)
        for generation, entry in self.progress(results, len(living)):
            if isinstance(entry, Exception):
                self._note_record(generation, entry)
            elif entry is not None:
                self.n_experiments += 1
                self.n_runs += len(entry[1])
                self.n_blobs += len(entry[2])
                yield entry

    def _living(self) -> Iterator[Generation]:
        """Yield the current generations of all experiments that have not ended, or that of the one."""
        current = self._current()
        pinned = pins(current)
        for generation in current:
            if generation.deleted or self.id_experiment not in (None, generation.id_experiment):
                continue
            if is_replaced(generation, pinned):
                self.seen.note("replaced", layout.folder_of(generation.id_experiment), generation.id_experiment)
            else:
                yield generation

    def _current(self) -> list[Generation]:
        """Return the current generations of all experiments; of the one too, since another may have replaced it."""
        current: list[Generation] = []
        folders = layout.experiment_folders(self.storage)
        for folder, found in each(self.storage, partial(_current, self.storage), folders):
            if isinstance(found, Exception):
                self._note_generation(folder, found)
            elif found is not None:
                current.append(found)
        return current

    def _note_generation(self, folder: str, error: Exception) -> None:
        self.damaged.add(folder)
        if self.id_experiment is None or folder == layout.folder_of(self.id_experiment):
            self.seen.add("unreadable generation", f"{folder}/generations", detail=str(error))

    def _note_record(self, generation: Generation, error: Exception) -> None:
        folder = layout.folder_of(generation.id_experiment)
        self.damaged.add(folder)
        key = layout.generation_key(folder, generation.number)
        self.seen.add("unreadable record", key, generation.id_experiment, detail=str(error))


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


def _read(storage: Storage, generation: Generation) -> Read:
    """Return the rows of one experiment, looking again if it is replaced meanwhile; None if it ended."""
    while True:
        try:
            return generation, _rows(storage, generation)
        except _UNREADABLE as error:
            _, now = _current(storage, layout.folder_of(generation.id_experiment))
            if now is None or (isinstance(now, Generation) and now.deleted):
                return generation, None
            if isinstance(now, Exception) or now.ident == generation.ident:
                return generation, error
            generation = now


def _rows(storage: Storage, generation: Generation) -> Entry:
    if not generation.records:
        raise CorruptRecordError(f"Generation {generation.number} has no record of the experiment.")
    files = reading.read_records(storage, generation)
    try:
        entry = stored_rows(files, generation)
    except (LookupError, TypeError, ValueError) as error:
        raise CorruptRecordError(
            f"The records of generation {generation.number} cannot be read because a value in them is not of its form: "
            f"{error!r:.120}"
        ) from error
    Index.validate_rows(*entry[:2])  # what this database could not hold must not stop the others
    return entry


def pins(current: Iterable[Generation]) -> Pins:
    """Return the versions, by id, that count as deleted because a generation has taken their place."""
    pinned: Pins = {}
    for one in current:
        for pin in one.replaces:
            pinned.setdefault(pin.id_experiment, set()).add((pin.number, pin.writer))
    return pinned


def is_replaced(generation: Generation, pinned: Pins) -> bool:
    """Tell whether exactly this version counts as deleted."""
    return any(generation.stands_on(ident) for ident in pinned.get(generation.id_experiment, ()))


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
