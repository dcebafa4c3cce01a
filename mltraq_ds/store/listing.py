"""Listing: what experiments a store has, by its files alone."""

from __future__ import annotations

from typing import NamedTuple

from mltraq_ds.storage.base import Storage
from mltraq_ds.store import collection

__all__ = ["Listed", "experiments"]


class Listed(NamedTuple):
    """One experiment of a store; one that has only records that were put alone has generation 0."""

    id_experiment: str
    name: str
    generation: int
    blobs: int
    size_bytes: int


def experiments(storage: Storage) -> list[Listed]:
    """Return the experiments of a store, by id.

    Raises
    ------
    CorruptRecordError
        If a generation cannot be read.
    """
    rows = []
    for id_experiment, generation in sorted(collection.experiments(storage).items()):
        blobs = generation.blobs if generation else ()
        name = generation.name if generation else id_experiment
        number = generation.number if generation else 0
        rows.append(Listed(id_experiment, name, number, len(blobs), sum(blob.size for blob in blobs)))
    return rows
