"""Reading: from a generation to the experiment it describes.  Values stay in their blobs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mltraq_ds.errors import (
    CorruptRecordError,
    DanglingReferenceError,
    ExperimentNotFoundError,
    KeyMissingError,
    MltraqDSError,
    StaleReferenceError,
)
from mltraq_ds.objects import Objects
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout, records
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.records import ExperimentContent

__all__ = ["Watch", "load", "read_content", "read_records"]


@dataclass(frozen=True, slots=True)
class Watch:
    """Tells why a blob is gone: replaced by another writer (stale), or lost (dangling).

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : str
        Of the experiment.
    number : int
        The generation that the reader holds.
    """

    storage: Storage
    folder: str
    number: int

    def __call__(self, reference: Reference) -> MltraqDSError | None:
        """Return `StaleReferenceError` if the generation is no longer current, else None."""
        current = generations.current(self.storage, self.folder)
        if current is not None and current.number == self.number:
            return None
        if current is None or current.deleted:
            became = "was deleted. What has been read is still in memory; copy_to(name) cannot bring the rest back."
        else:
            became = f"is now at generation {current.number}. Use reload() to continue from the present state."
        return StaleReferenceError(
            f"Blob {reference.key} is gone because it belongs to generation {self.number} of an experiment that "
            f"{became}"
        )


def load(objects: Objects, id_experiment: str, at_least: int = 0) -> tuple[Generation, ExperimentContent, Objects]:
    """Load the current version of an experiment.

    Parameters
    ----------
    objects : Objects
        Of the store.
    id_experiment : str
        Id of the experiment.
    at_least : int
        A generation known from the index, which saves a listing.

    Returns
    -------
    tuple
        The generation, what its records say (lazily), and the objects that its values are read by.

    Raises
    ------
    ExperimentNotFoundError
        If it does not exist or was deleted.
    CorruptRecordError, DanglingReferenceError
        If a record file is damaged or gone.
    """
    folder = layout.folder_of(id_experiment)
    while True:
        generation = generations.current(objects.storage, folder, at_least)
        if generation is None or generation.deleted:
            raise ExperimentNotFoundError(
                f"No experiment with id {id_experiment!r} is in {objects.storage.url}. Use ls() to see what is there."
            )
        try:
            return generation, *read_content(objects, generation)
        except DanglingReferenceError:
            # Replaced between the two reads?  Then read the new one; otherwise the record is lost.
            if generations.current(objects.storage, folder) == generation:
                raise


def read_content(objects: Objects, generation: Generation) -> tuple[ExperimentContent, Objects]:
    """Read the records of one generation, each verified against its digest."""
    storage = objects.storage
    folder = layout.folder_of(generation.id_experiment)
    watched = objects.watched(Watch(storage, folder, generation.number))
    content: ExperimentContent | None = None
    for key, data in read_records(storage, generation):
        part = records.parse(data, key, watched)
        if content is None:
            content = part
        else:
            content.runs += part.runs
    if content is None or content.id_experiment != generation.id_experiment:
        raise CorruptRecordError(
            f"Generation {generation.number} of experiment {generation.id_experiment!r} has no record of the "
            "experiment. "
            "Restore the store from a copy."
        )
    return content, watched


def read_records(storage: Storage, generation: Generation) -> list[tuple[str, bytes]]:
    """Return key and bytes of every record file of a generation, each verified against its digest."""
    return [(reference.key, _read_record(storage, reference)) for reference in generation.records]


def _read_record(storage: Storage, reference: Reference) -> bytes:
    try:
        data = storage.read(reference.key)
    except KeyMissingError as error:
        raise DanglingReferenceError(
            f"Record file {reference.key} is gone from {storage.url}. Restore it from a copy; 'mltraq-ds check' "
            "lists what "
            "else is missing."
        ) from error
    if len(data) != reference.size or f"sha256:{hashlib.sha256(data).hexdigest()}" != reference.digest:
        raise CorruptRecordError(
            f"Record file {reference.key} does not verify: its bytes differ from those that were written. Restore it "
            "from "
            "a copy."
        )
    return data
