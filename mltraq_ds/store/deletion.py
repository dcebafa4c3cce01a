"""Deletion: commit the end of an experiment, then the index, then remove the bytes."""

from __future__ import annotations

import uuid
import warnings

from mltraq_ds.errors import (
    ConflictError,
    ExperimentNotFoundError,
    IndexBehindWarning,
    LeftoversWarning,
    MltraqDSError,
)
from mltraq_ds.objects import Objects
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.orm.index import Index
from mltraq_ds.store import generations, layout, single_records
from mltraq_ds.store.follow_up import remove_intent
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.intents import Intent, refuse_others
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.store.retire import end_experiment, remove_beside, remove_files

__all__ = ["delete"]


def delete(objects: Objects, index: Index | None, id_experiment: str) -> Generation:
    """Delete an experiment.

    Returns
    -------
    Generation
        Its last one, with ``deleted``.

    Raises
    ------
    ExperimentNotFoundError
        If it is not there, or somebody else deleted it first.
    ConflictError
        If the store moves.  Nothing was changed.
    ConcurrentPersistError
        If another writer is at work on it, where the storage does not decide between two.  Nothing was changed.
    StorageError
        If the end could not be committed.  Nothing was changed.

    Warns
    -----
    IndexBehindWarning, LeftoversWarning
        If it is deleted, but the database could not be told or not all bytes are removed; the next session goes on.
    """
    storage = objects.storage
    folder = layout.folder_of(id_experiment)
    current = generations.current(storage, folder)
    is_alive = current is not None and not current.deleted
    if not is_alive and not any(single_records.unfolded(storage, folder, current.folds if current else (), _ignore)):
        raise ExperimentNotFoundError(
            f"No experiment with id {id_experiment!r} is in {storage.url}, so none was deleted."
        )
    intent = Intent(
        writer=str(uuid.uuid4()),
        action="delete",
        id_experiment=id_experiment,
        name=current.name if current else id_experiment,
        parent=current.number if current else 0,
        number=current.number + 1 if current else 1,
    )
    with Keeper(storage, intent) as keeper:
        try:
            layout.refuse_moved(storage)
            refuse_others(storage, intent)
            ended = end_experiment(storage, id_experiment, intent.writer)
            if ended is None or ended.writer != intent.writer:
                raise ExperimentNotFoundError(
                    f"Experiment {intent.name!r} (id {id_experiment}) was deleted by another process meanwhile."
                )
        except (ConflictError, ExperimentNotFoundError):
            remove_intent(storage, intent, f"Experiment {intent.name!r} is deleted")
            raise
        except BaseException:
            keeper.leave()  # the end may have been committed although its answer was lost: the next session finds out
            raise
        try:
            finished = _follow_up(objects, index, ended)
        except BaseException:
            keeper.leave()
            raise
        if not finished:
            keeper.leave()
    if finished:
        remove_intent(storage, intent, f"Experiment {ended.name!r} is deleted")
    return ended


def _ignore(error: MltraqDSError) -> None:
    """Let what cannot be read be deleted with the rest."""


def _follow_up(objects: Objects, index: Index | None, ended: Generation) -> bool:
    """Do what follows from the end; a failure here is a warning, since the experiment is deleted."""
    try:
        if index is not None:
            index.remove(ended.id_experiment, ended.number)
    except INDEX_ERRORS as error:
        warnings.warn(
            f"Experiment {ended.name!r} is deleted, but the database could not be told: {error} The next session "
            "catches "
            "up.",
            IndexBehindWarning,
            stacklevel=5,
        )
        return False
    try:
        remove_files(objects.storage, ended)
        if not objects.storage.is_local:
            remove_beside(objects.storage, ended)
    except OSError as error:
        warnings.warn(
            f"Experiment {ended.name!r} is deleted, but not all of its files are removed: {error} The next session "
            "goes on.",
            LeftoversWarning,
            stacklevel=5,
        )
        return False
    return True
