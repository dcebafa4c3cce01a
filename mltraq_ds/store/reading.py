"""Reading: from a generation to the experiment it describes.  Values stay in their blobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from mltraq_ds.store import descriptors, generations, layout, records, single_records
from mltraq_ds.store.generations import Generation, Ident
from mltraq_ds.store.records import ExperimentContent
from mltraq_ds.store.single_records import Single

__all__ = ["Snapshot", "Watch", "current_bodies", "load", "read_records", "snapshot"]


@dataclass(frozen=True, slots=True)
class Watch:
    """Tells why a blob is gone: replaced by another writer (stale), or lost (dangling).

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : str
        Of the experiment.
    ident : (int, str)
        Number and writer of the generation that the reader holds; (0, "") if it read single records only.
    """

    storage: Storage
    folder: str
    ident: Ident

    def __call__(self, reference: Reference) -> MltraqDSError | None:
        """Return `StaleReferenceError` if the generation is no longer current, else None."""
        current = generations.current(self.storage, self.folder)
        if self.ident == (0, "") if current is None else current.stands_on(self.ident):
            return None
        if current is None or current.deleted:
            became = "was deleted. What has been read is still in memory; copy_to(name) cannot bring the rest back."
        else:
            became = f"is now at generation {current.number}. Use reload() to continue from the present state."
        return StaleReferenceError(
            f"Blob {reference.key} is gone because it belongs to generation {self.ident[0]} of an experiment that "
            f"{became}"
        )


def load(
    objects: Objects, id_experiment: str, at_least: int = 0
) -> tuple[Generation | None, ExperimentContent, Objects]:
    """Load the current version of an experiment, with the single records that it has not folded.

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
        The generation (None if there are single records only), what the records say (lazily), and the objects that its
        values are read by.

    Raises
    ------
    ExperimentNotFoundError
        If it does not exist or was deleted.
    CorruptRecordError, DanglingReferenceError
        If a record is damaged or gone.
    """
    found = snapshot(objects.storage, id_experiment, at_least)
    ident = found.generation.ident if found.generation else (0, "")
    watched = objects.watched(Watch(objects.storage, layout.folder_of(id_experiment), ident))
    content = ExperimentContent(
        id_experiment=id_experiment,
        name=found.head.get("name", id_experiment),
        created=found.head.get("created"),
        fields=records.values_of(found.head.get("fields", {}), watched),
        runs=[records.run_content(body, watched) for body in found.bodies],
        folds=tuple(single.put_id for single in found.singles),
    )
    return found.generation, content, watched


class Snapshot(NamedTuple):
    """What the records of an experiment say at one moment, as JSON.

    `generation` is None, and `head` (the record of the experiment) empty, if there are single records only: then
    nothing is known of the experiment but its id.  `bodies` are those of the runs, `singles` those merged into them.
    """

    generation: Generation | None
    singles: list[Single]
    head: dict[str, Any]
    bodies: list[dict[str, Any]]


def snapshot(
    storage: Storage,
    id_experiment: str,
    at_least: int = 0,
    on_corrupt: Callable[[MltraqDSError], None] | None = None,
) -> Snapshot:
    """Read the current generation of an experiment and the single records that it has not folded.

    Parameters
    ----------
    storage : Storage
        Of the store.
    id_experiment : str
        Id of the experiment.
    at_least : int
        A generation known from the index, which saves a listing.
    on_corrupt : callable, optional
        Given the error of each single record that cannot be read; without it the first one is raised.

    Raises
    ------
    ExperimentNotFoundError, CorruptRecordError, DanglingReferenceError
        As `load`.
    """
    folder = layout.folder_of(id_experiment)
    while True:
        current = generations.current(storage, folder, at_least)
        corrupt: list[MltraqDSError] = []
        folds = current.folds if current else ()
        singles = list(single_records.unfolded(storage, folder, folds, corrupt.append if on_corrupt else None))
        living = None if current is None or current.deleted else current
        if living is None and not singles and not corrupt:
            raise ExperimentNotFoundError(
                f"No experiment with id {id_experiment!r} is in {storage.url}. Use ls() to see what is there."
            )
        try:
            found = Snapshot(living, singles, *current_bodies(storage, living, singles))
        except DanglingReferenceError:
            # Replaced between the two reads?  Then read the new one; otherwise the record is lost.
            if generations.current(storage, folder) == current:
                raise
            continue
        if living is not None and found.head.get("id_experiment") != id_experiment:
            raise CorruptRecordError(
                f"Generation {living.number} of experiment {id_experiment!r} has no record of the experiment. Restore "
                "the store from a copy."
            )
        for error in corrupt if on_corrupt else ():
            on_corrupt(error)  # type: ignore[misc]  # it is there
        return found


def current_bodies(
    storage: Storage, generation: Generation | None, singles: Iterable[Single]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the record of an experiment and those of its runs, as JSON: the generation's, then the single ones.

    The first is empty without a generation, since nothing is known of the experiment but its id.
    """
    head: dict[str, Any] = {}
    runs: dict[str, dict[str, Any]] = {}
    for key, data in read_records(storage, generation) if generation else ():
        first, bodies = records.parse_json(data, key)
        head = head or first
        runs.update((body["id_run"], body) for body in bodies)
    for single in singles:
        body = single_records.merged(runs.get(single.id_run), single)
        if body is None:
            runs.pop(single.id_run, None)
        else:
            runs[single.id_run] = body
    return head, list(runs.values())


def read_records(storage: Storage, generation: Generation) -> list[tuple[str, bytes]]:
    """Return key and bytes of every record file of a generation, each verified against its digest."""
    return [(reference.key, _read_record(storage, reference)) for reference in generation.records]


def _read_record(storage: Storage, reference: Reference) -> bytes:
    try:
        data = storage.read(reference.key, max_size=max(reference.size, descriptors.RECORD_SIZE))
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
