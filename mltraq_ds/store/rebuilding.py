"""Rebuilding: make the index what the files say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from mltraq_ds.errors import CorruptRecordError, DamageError, FormatError, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rebuild import Entry
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout, reading
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
    storage = objects.storage
    seen, entries, damaged = Notebook(), list[tuple[int, int]](), set[str]()

    def scan() -> Iterator[Entry]:
        found = _living(storage, seen, id_experiment, damaged)
        results: Iterable[Read] = each(storage, partial(_read, storage), found)
        for generation, entry in (progress or without_progress)(results, len(found)):
            if isinstance(entry, Exception):
                folder = layout.folder_of(generation.id_experiment)
                damaged.add(folder)
                key = layout.generation_key(folder, generation.number)
                seen.add("unreadable record", key, generation.id_experiment, detail=str(entry))
            elif entry is not None:
                entries.append((len(entry[1]), len(entry[2])))
                yield entry

    done = index.rebuild(scan(), url=storage.url, replace_scope=id_experiment, damaged=damaged)
    try:
        recover(objects, index)
    except _UNREADABLE as error:
        seen.add("unreadable intent", layout.PENDING, detail=str(error))
    return RebuildReport(
        **seen.parts(),
        store=storage.url,
        experiments=len(entries),
        runs=sum(runs for runs, _ in entries),
        blobs=sum(blobs for _, blobs in entries),
        written=done.written,
        removed=done.removed,
        kept=done.kept,
    )


def _living(storage: Storage, seen: Notebook, id_experiment: str | None, damaged: set[str]) -> list[Generation]:
    """Return the current generations of all experiments that have not ended, or of the one; notes damaged folders."""
    current: list[Generation] = []
    folders = layout.experiment_folders(storage)
    for folder, found in each(storage, partial(_current, storage), folders):
        if isinstance(found, Exception):
            damaged.add(folder)
            if id_experiment is None or folder == layout.folder_of(id_experiment):
                seen.add("unreadable generation", f"{folder}/generations", detail=str(found))
        elif found is not None:
            current.append(found)
    pinned = pins(current)
    living = []
    for generation in current:
        if generation.deleted or id_experiment not in (None, generation.id_experiment):
            continue
        if is_replaced(generation, pinned):
            seen.note("replaced", layout.folder_of(generation.id_experiment), generation.id_experiment)
        else:
            living.append(generation)
    return living


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
