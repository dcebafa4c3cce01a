"""Lag: marks in the store that an index has not been told of everything, and catching up.

A mark ``_pending/index-<database>-<uuid>.behind`` is put *after* the file that the index was not told of, whoever
catches up removes the marks *before* looking at the files, and keeps one of its own until it has finished.  So whatever
happens in between, a mark is left as long as a row may be missing.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

from mltraq_ds.errors import DamageError, FormatError, IndexBehindWarning, StorageError
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.singles import SingleIndex
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.storage.failures import is_refusal
from mltraq_ds.store import collection, descriptors, document_rows, generations, layout, reading, single_records
from mltraq_ds.store.document_rows import stamp_of
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.single_index import bare_experiment, refresh, single_row
from mltraq_ds.store.survey import is_valid

__all__ = ["Drift", "catch_up", "compare", "marks_of", "put_mark", "synchronize"]

_SUFFIX = ".behind"
_CHUNK = 500


def marks_of(storage: Storage, index_url: str | None = None) -> list[str]:
    """Return the keys of the marks of an index, given by its URL without secrets, or of all."""
    begin = f"{layout.PENDING}/index-{'' if index_url is None else _name(index_url)}"
    keys = (stat.key for stat in storage.list(layout.PENDING))
    return sorted(key for key in keys if key.startswith(begin) and key.endswith(_SUFFIX))


def put_mark(storage: Storage, index_url: str) -> str:
    """Note that an index has not been told of everything; returns the key of the mark."""
    key = f"{layout.PENDING}/index-{_name(index_url)}-{uuid.uuid4().hex}{_SUFFIX}"
    data = descriptors.to_bytes("behind", {"database": index_url, "created": layout.now_text()})
    storage.put(key, [data], size=len(data), parents=True)
    return key


def _name(index_url: str) -> str:
    return hashlib.sha256(index_url.encode()).hexdigest()[:16]


def catch_up(storage: Storage, index: Index) -> int:
    """Make the rows what the files say if there is a mark that they may not be; returns how many rows were changed."""
    url = index.database.url
    marks = marks_of(storage, url)
    if not marks:
        return 0
    mine = _take(storage, url, marks)
    try:
        changed = _synchronize_all(storage, index)
    except (DamageError, FormatError) as error:
        warnings.warn(
            f"The index {url} is behind the store {storage.url} because a file that it was not told of cannot be read: "
            f"{error}",
            IndexBehindWarning,
            stacklevel=6,
        )
        return 0
    if mine is not None:
        storage.delete(mine)
    return changed


def _take(storage: Storage, url: str, marks: list[str]) -> str | None:
    """Put a mark of our own in place of those that are there; None, and they stay, where we may only read."""
    try:
        mine = put_mark(storage, url)
        storage.delete_many(marks)
    except StorageError as error:
        if not is_refusal(error):
            raise
        return None
    return mine


def _synchronize_all(storage: Storage, index: Index) -> int:
    there = set(collection.experiments(storage))
    gone = set(index.all_generations()) - there
    for id_experiment in gone:
        refresh(index, storage, id_experiment)
    return len(gone) + sum(synchronize(storage, index, id_experiment) for id_experiment in there)


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
    single = single_records.read(storage, stat.key)
    return single is not None and single.put_id in folds


def synchronize(storage: Storage, index: Index, id_experiment: str) -> int:
    """Make the rows of one experiment what its files say; returns how many differed.

    Raises
    ------
    CorruptRecordError
        If a record cannot be read.  The other rows are as they were.
    """
    drift = compare(storage, index, id_experiment)
    if drift.is_older or (drift.gone and drift.generation is not None):
        refresh(index, storage, id_experiment)  # a run of the generation may be visible again
        return drift.size
    singles = SingleIndex(index)
    singles.remove(id_experiment, drift.gone)
    below = _below(storage, drift)
    for start in range(0, len(drift.changed), _CHUNK):
        rows = []
        for stat in drift.changed[start : start + _CHUNK]:
            single = single_records.read(storage, stat.key)
            if single is not None:
                rows.append(single_row(single, below.get(single.id_run), stamp_of(stat, drift.generation)))
        singles.put(bare_experiment(id_experiment), rows)
    for kind, (changed, gone) in drift.documents.items():
        singles.remove_documents(id_experiment, kind, gone)
        for row in document_rows.read(storage, kind, changed):
            singles.put_document(bare_experiment(id_experiment), row)
    return drift.size


def _below(storage: Storage, drift: Drift) -> dict[str, dict[str, object]]:
    if not drift.changed or drift.generation is None or drift.generation.deleted:
        return {}
    _, bodies = reading.current_bodies(storage, drift.generation, ())
    return {body["id_run"]: body for body in bodies}
