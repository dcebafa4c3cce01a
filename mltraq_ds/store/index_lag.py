"""Lag: an index that has not been told of everything catches up with the files.

Whoever catches up has a mark of its own, removes the others of its name *before* looking at the files, and keeps its
own until it has finished.  So whatever happens in between, a mark is left as long as a row may be missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from mltraq_ds.errors import DamageError, FormatError, IndexBehindWarning, MltraqDSError, StorageError, UsageError
from mltraq_ds.ids import unescape_name
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.singles import SingleIndex
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.storage.failures import is_refusal
from mltraq_ds.store import collection, document_rows, generations, layout, reading, single_records
from mltraq_ds.store.document_rows import stamp_of
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.index_marks import is_own, marks_of, note_seen, put_mark
from mltraq_ds.store.single_index import bare_experiment, refresh, single_row
from mltraq_ds.store.survey import is_valid

__all__ = ["Caught", "Drift", "catch_up", "compare", "synchronize"]

_CHUNK = 500
#: A file that cannot be read, or that says what no database could hold.
_UNREADABLE = (DamageError, FormatError, UsageError)

OnCorrupt = Callable[[MltraqDSError], None]


class Caught(NamedTuple):
    """How far an index has caught up: how many rows were changed, and the experiments of which it is still behind."""

    changed: int = 0
    behind: frozenset[str] = frozenset()


def catch_up(storage: Storage, index: Index) -> Caught:
    """Make the rows what the files say if there is a mark that they may not be.

    A file that cannot be read keeps nothing else from it; the mark stays then, and the next connection tries again.

    Warns
    -----
    IndexBehindWarning
        If something cannot be read.
    """
    marks = marks_of(storage, index.database)
    if not marks:
        return Caught()
    mine = _take(storage, index.database, marks)
    errors: dict[str, MltraqDSError] = {}
    changed = _synchronize_all(storage, index, errors)
    if errors:
        warnings.warn(
            f"The index {index.database.url} is behind the store {storage.url} because files that it was not told of "
            f"cannot be read, in {len(errors)} experiments: {next(iter(errors.values()))} The others have caught up; "
            "these are read from the files.",
            IndexBehindWarning,
            stacklevel=6,
        )
        return Caught(changed, frozenset(errors))
    if mine is not None:
        note_seen(storage, index.database, marks)
        storage.delete(mine)
    return Caught(changed)


def _take(storage: Storage, database: Database, marks: list[str]) -> str | None:
    """Put a mark of our own in place of those that are ours; None, and they stay, where we may only read."""
    try:
        mine = put_mark(storage, database)
        storage.delete_many([key for key in marks if is_own(key, database)])
    except StorageError as error:
        if not is_refusal(error):
            raise
        return None
    return mine


def _synchronize_all(storage: Storage, index: Index, errors: dict[str, MltraqDSError]) -> int:
    damaged: set[str] = set()

    def note_folder(folder: str, error: MltraqDSError) -> None:
        damaged.add(folder)
        errors.setdefault(unescape_name(folder) or folder, error)

    def note(id_experiment: str, error: MltraqDSError) -> None:
        errors.setdefault(id_experiment, error)

    there = collection.experiments(storage, note_folder)
    known = index.all_generations()
    gone = {id_ for id_ in known if id_ not in there and layout.folder_of(id_) not in damaged}
    changed = len(gone)
    for id_experiment in [*gone, *there]:
        try:
            if id_experiment in gone:
                refresh(index, storage, id_experiment, partial(note, id_experiment))
            else:
                changed += synchronize(storage, index, id_experiment, partial(note, id_experiment))
        except _UNREADABLE as error:
            note(id_experiment, error)
    return changed


@dataclass
class Drift:
    """What the rows of an experiment say otherwise than its files.

    Parameters
    ----------
    generation : Generation or None
        The current one.
    changed : list of Stat
        Files of records whose row is another one's, or missing.
    gone : list of str
        Runs whose row has no file.
    documents : dict
        For each kind, changed files and the names of rows without one.
    is_older : bool
        Whether the row of the experiment is that of another generation.
    """

    generation: Generation | None = None
    changed: list[Stat] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    documents: dict[str, tuple[list[Stat], list[str]]] = field(default_factory=dict)
    is_older: bool = False

    @property
    def size(self) -> int:
        """How many rows differ."""
        documents = sum(len(changed) + len(gone) for changed, gone in self.documents.values())
        return len(self.changed) + len(self.gone) + documents + self.is_older


def compare(storage: Storage, index: Index, id_experiment: str, listed: Iterable[Stat] | None = None) -> Drift:
    """Compare the rows of single records and documents with their files, by size and time.

    Parameters
    ----------
    storage : Storage
        Of the store.
    index : Index
        Its rows.
    id_experiment : str
        Of the experiment.
    listed : iterable of Stat, optional
        The files of its folder, as far as they have been listed already.
    """
    folder, singles = layout.folder_of(id_experiment), SingleIndex(index)
    stats = list(storage.list(folder) if listed is None else listed)
    generation = generations.current(storage, folder)
    found = Drift(generation=generation)
    known = index.get(id_experiment)
    number = 0 if generation is None or generation.deleted else generation.number
    stamps = singles.stamps(id_experiment)
    at = {layout.run_record_key(folder, id_run): (id_run, stamp) for id_run, stamp in stamps.items()}
    there = _inside(stats, f"{folder}/runs/")
    found.is_older = (known is not None and known.generation != number) or (known is None and number > 0)
    found.gone = [id_run for key, (id_run, _) in at.items() if key not in there]
    found.changed = [stat for key, stat in there.items() if key not in at or at[key][1] != stamp_of(stat, generation)]
    folds = generation.folds if generation else ()
    if folds:
        found.changed = [stat for stat in found.changed if not _is_folded(storage, stat, folds)]
    for kind, place in document_rows.KINDS.items():
        rows = singles.document_stamps(id_experiment, kind)
        files = _inside(stats, f"{folder}/{place}/")
        keys = {document_rows.key_of(kind, folder, name): (name, stamp) for name, stamp in rows.items()}
        changed = [stat for key, stat in files.items() if key not in keys or keys[key][1] != stamp_of(stat, None)]
        found.documents[kind] = (changed, [name for key, (name, _) in keys.items() if key not in files])
    return found


def _inside(stats: Iterable[Stat], begin: str) -> dict[str, Stat]:
    skip = len(begin)
    return {
        stat.key: stat
        for stat in stats
        if stat.key.startswith(begin)
        and stat.key.endswith(".json")
        and "/" not in stat.key[skip:]
        and is_valid(stat.key)
    }


def _is_folded(storage: Storage, stat: Stat, folds: tuple[str, ...]) -> bool:
    try:
        single = single_records.read(storage, stat.key)
    except (DamageError, FormatError):
        return False  # whoever reads it is told
    return single is not None and single.put_id in folds


def synchronize(storage: Storage, index: Index, id_experiment: str, on_corrupt: OnCorrupt | None = None) -> int:
    """Make the rows of one experiment what its files say; returns how many differed.

    Parameters
    ----------
    storage : Storage
        Of the store.
    index : Index
        Its rows.
    id_experiment : str
        Of the experiment.
    on_corrupt : callable, optional
        Given the error of each file that cannot be read, whose row stays as it was; without it the first one is raised.

    Raises
    ------
    CorruptRecordError
        If something cannot be read.
    """
    drift = compare(storage, index, id_experiment)
    if drift.is_older or (drift.gone and drift.generation is not None):
        refresh(index, storage, id_experiment, on_corrupt)  # a run of the generation may be visible again
        return drift.size
    singles = SingleIndex(index)
    singles.remove(id_experiment, drift.gone)
    below = _below(storage, drift)
    for start in range(0, len(drift.changed), _CHUNK):
        rows = []
        for stat in drift.changed[start : start + _CHUNK]:
            try:
                single = single_records.read(storage, stat.key)
                if single is None:
                    continue
                row = single_row(single, below.get(single.id_run), stamp_of(stat, drift.generation))
                Index.validate_rows(bare_experiment(id_experiment), [row])
                rows.append(row)
            except _UNREADABLE as error:
                if on_corrupt is None:
                    raise
                on_corrupt(error)
        singles.put(bare_experiment(id_experiment), rows)
    for kind, (changed, gone) in drift.documents.items():
        singles.remove_documents(id_experiment, kind, gone)
        for document in document_rows.read(storage, kind, changed, on_corrupt):
            singles.put_document(bare_experiment(id_experiment), document)
    return drift.size


def _below(storage: Storage, drift: Drift) -> dict[str, dict[str, object]]:
    if not drift.changed or drift.generation is None or drift.generation.deleted:
        return {}
    _, bodies = reading.current_bodies(storage, drift.generation, ())
    return {body["id_run"]: body for body in bodies}
