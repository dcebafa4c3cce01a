"""Listing: what experiments a store has, by its files alone."""

from __future__ import annotations

from typing import NamedTuple

from mltraq_ds.storage.base import Storage
from mltraq_ds.store import collection, layout, streaming

__all__ = ["Listed", "experiments"]


class Listed(NamedTuple):
    """One experiment of a store; one that has only records that were put alone has generation 0.

    The size is that of the blobs and the records (bytes).
    """

    id_experiment: str
    name: str
    generation: int
    runs: int
    blobs: int
    size_bytes: int


def experiments(storage: Storage) -> list[Listed]:
    """Return the experiments of a store, by id.

    Raises
    ------
    CorruptRecordError
        If a generation, or a record of a run, cannot be read.
    FormatError
        If a newer version of the library wrote the store.
    """
    layout.read_store_id(storage)
    rows = []
    for id_experiment, generation in sorted(collection.experiments(storage).items()):
        blobs = generation.blobs if generation else ()
        name = generation.name if generation else id_experiment
        number = generation.number if generation else 0
        runs = sum(1 for _ in streaming.bodies(storage, id_experiment))
        records = sum(stat.size for stat in storage.list(f"{layout.folder_of(id_experiment)}/runs"))
        size = records + sum(blob.size for blob in blobs)
        rows.append(Listed(id_experiment, name, number, runs, len(blobs), size))
    return rows
