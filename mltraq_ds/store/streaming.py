"""Streaming: the records of the runs of an experiment one after another, of which few are in memory at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from mltraq_ds.errors import CorruptRecordError, DanglingReferenceError, MltraqDSError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout, reading, records, single_records
from mltraq_ds.store.generations import Generation

__all__ = ["bodies"]

_CHUNK = 256  # records that were put alone, read at a time: several at once where each costs a request

OnCorrupt = Callable[[MltraqDSError], None]


def bodies(storage: Storage, id_experiment: str, on_corrupt: OnCorrupt | None = None) -> Iterator[dict[str, Any]]:
    """Yield the record of every run as JSON: those of the generation, each as it was put since, then the others.

    Parameters
    ----------
    storage : Storage
        Of the store.
    id_experiment : str
        Of the experiment; if there is none, there are no runs.
    on_corrupt : callable, optional
        Given the error of each record that was put alone and cannot be read; without it the first one is raised.

    Raises
    ------
    CorruptRecordError, DanglingReferenceError
        If a record is damaged or gone.
    """
    folder = layout.folder_of(id_experiment)
    generation, lines = _lines(storage, folder)
    alone = dict.fromkeys(single_records.keys(storage, folder))
    folds = frozenset(generation.folds if generation else ())
    committed = _committed(lines, id_experiment)
    while chunk := list(itertools.islice(committed, _CHUNK)):
        keys = {layout.run_record_key(folder, body["id_run"]): body for body in chunk}
        over = [key for key in keys if key in alone]
        singles = {one.key: one for one in single_records.read_many(storage, over, folds, on_corrupt)}
        for key, body in keys.items():
            alone.pop(key, None)
            merged = single_records.merged(body, singles[key]) if key in singles else body
            if merged is not None:
                yield merged
    others = iter(alone)
    while more := list(itertools.islice(others, _CHUNK)):
        for single in single_records.read_many(storage, more, folds, on_corrupt):
            if single.body is not None:
                yield single.body


def _lines(storage: Storage, folder: str) -> tuple[Generation | None, list[tuple[str, bytes]]]:
    """Return the current generation and the bytes of its record files, each verified."""
    while True:
        current = generations.current(storage, folder)
        try:
            if current is None or current.deleted:
                return current, []
            if not current.records:
                raise CorruptRecordError(
                    f"Generation {current.number} in {folder} has no record of the experiment. Restore the store from "
                    "a copy."
                )
            return current, reading.read_records(storage, current)
        except DanglingReferenceError:
            # Replaced between the two reads?  Then read the new one; otherwise the record is lost.
            if generations.current(storage, folder) == current:
                raise


def _committed(files: list[tuple[str, bytes]], id_experiment: str) -> Iterator[dict[str, Any]]:
    for key, data in files:
        first, _, rest = data.partition(b"\n")
        head, _ = records.parse_json(first, key)  # the record of the experiment
        if head["id_experiment"] != id_experiment:
            raise CorruptRecordError(
                f"{key} is of experiment {head['id_experiment']!r:.80}, so it was moved here from elsewhere. Move it "
                "back."
            )
        start = 0
        while start < len(rest):
            end = rest.find(b"\n", start)
            end = len(rest) if end < 0 else end
            yield records.parse_line(rest[start:end], key)
            start = end + 1
