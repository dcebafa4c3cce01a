"""Collection: which experiments a store has, by its files alone."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress

from mltraq_ds.errors import (
    DamageError,
    ExperimentNotFoundError,
    FormatError,
    KeyExistsError,
    KeyMissingError,
    MltraqDSError,
)
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, generations, layout, single_records
from mltraq_ds.store.generations import Generation, Ident
from mltraq_ds.store.no_place import refuse_file

__all__ = [
    "Pins",
    "exists",
    "experiments",
    "has_any",
    "id_by_records",
    "is_replaced",
    "mark_anew",
    "pins",
    "require",
    "unlisted",
]

#: Versions that count as deleted, by id of the experiment.
Pins = dict[str, set[Ident]]


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


def experiments(
    storage: Storage, on_corrupt: Callable[[str, MltraqDSError], None] | None = None
) -> dict[str, Generation | None]:
    """Return every experiment of a store by id: its current generation, or None if there are single records only.

    Parameters
    ----------
    storage : Storage
        Of the store.
    on_corrupt : callable, optional
        Given folder and error of each experiment that cannot be told; without it the first one is raised.

    Raises
    ------
    CorruptRecordError, FormatError
        If a generation or the mark of a folder cannot be read.
    """
    found: dict[str, Generation | None] = {}
    current: list[Generation] = []
    for folder in layout.experiment_folders(storage):
        try:
            generation = generations.current(storage, folder)
            if generation is not None:
                current.append(generation)
            if generation is not None and not generation.deleted:
                found[generation.id_experiment] = generation
            elif (id_experiment := id_by_records(storage, folder, generation)) is not None:
                found[id_experiment] = None
        except (DamageError, FormatError) as error:
            if on_corrupt is None:
                raise
            on_corrupt(folder, error)
    pinned = pins(current)
    replaced = [id_ for id_, one in found.items() if one is not None and is_replaced(one, pinned)]
    return {id_: one for id_, one in found.items() if id_ not in replaced or _has_records(storage, one)}


def exists(storage: Storage, id_experiment: str) -> bool:
    """Tell whether there is an experiment, by its folder alone.

    Raises
    ------
    CorruptRecordError, FormatError
        If its generation or its mark cannot be read.
    """
    folder = layout.folder_of(id_experiment)
    generation = generations.current(storage, folder)
    if generation is not None and not generation.deleted:
        return True
    return id_by_records(storage, folder, generation) == id_experiment


def has_any(storage: Storage) -> bool:
    """Tell whether there is an experiment, looking at no more folders than needed; one that is damaged counts too."""
    for folder in layout.experiment_folders(storage):
        try:
            generation = generations.current(storage, folder)
            if (generation and not generation.deleted) or id_by_records(storage, folder, generation) is not None:
                return True
        except (DamageError, FormatError):
            return True  # whoever reads it is told
    return False


def require(storage: Storage, id_experiment: str | None) -> None:
    """Refuse an experiment, or a collection, that is not there: nothing found at a mistyped path looks like no runs.

    Raises
    ------
    ExperimentNotFoundError
        If there is no such experiment; None means any.
    CorruptRecordError, FormatError
        If the generation or the mark of this experiment cannot be read; others are looked at for a hint only.
    UsageError
        If the place is a file.
    """
    refuse_file(storage)
    if id_experiment is None:
        if not has_any(storage):
            raise ExperimentNotFoundError(
                f"There are no experiments in {storage.url}. Look at the path: it is that of the collection, which "
                "holds a folder for each experiment."
            )
    elif not exists(storage, id_experiment):
        known = experiments(storage, on_corrupt=lambda folder, error: None)
        near = difflib.get_close_matches(id_experiment, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ExperimentNotFoundError(
            f"No experiment with id {id_experiment!r:.80} is in {storage.url}.{hint} Use list_experiments() to see all."
        )


def _has_records(storage: Storage, generation: Generation | None) -> bool:
    return generation is not None and any(True for _ in _unfolded(storage, generation))


def _unfolded(storage: Storage, generation: Generation) -> Iterator[object]:
    return single_records.unfolded(storage, layout.folder_of(generation.id_experiment), generation.folds)


def id_by_records(storage: Storage, folder: str, ended: Generation | None) -> str | None:
    """Return the id of an experiment that has single records only; None if there is none in this folder."""
    if not single_records.keys(storage, folder):
        return None
    if ended is not None:
        return ended.id_experiment if any(True for _ in _unfolded(storage, ended)) else None
    try:
        body = descriptors.from_bytes(storage.read(layout.meta_key(folder)), "folder", layout.meta_key(folder))
    except KeyMissingError:
        return _id_in_records(storage, folder)
    return str(body["id_experiment"]) if body.get("kind") == "experiment" else None


def unlisted(storage: Storage, known: Container[str]) -> dict[str, int]:
    """Return id and number of runs of the experiments that have records only and whose folder is not known."""
    found = {}
    for folder in layout.experiment_folders(storage):
        if folder not in known and (numbered := single_records.keys(storage, folder)):
            current = generations.current(storage, folder)
            if current is None or current.deleted:
                id_experiment = id_by_records(storage, folder, current)
                found.update({id_experiment: len(numbered)} if id_experiment is not None else {})
    return found


def mark_anew(storage: Storage, folder: str) -> None:
    """Mark a folder that has records of runs and no mark: somebody was killed who was to put it back."""
    id_experiment = _id_in_records(storage, folder)
    if id_experiment is not None:
        data = layout.meta_bytes(id_experiment, id_experiment, 0)
        with suppress(KeyExistsError):
            storage.put(layout.meta_key(folder), [data], size=len(data))


def _id_in_records(storage: Storage, folder: str) -> str | None:
    """Return the id in the records of a folder without a mark; None if it is one of the user's own."""
    for key in single_records.keys(storage, folder):
        with suppress(MltraqDSError, KeyMissingError):
            body = descriptors.from_bytes(storage.read(key, max_size=descriptors.RECORD_SIZE), "run", key)
            if layout.folder_of(str(body.get("id_experiment"))) == folder:
                return str(body["id_experiment"])
    return None
