"""Follow up: what a commit entails beyond its own experiment; done by the writer, or by recovery if it was killed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from mltraq_ds.errors import IndexBehindWarning, LeftoversWarning
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import intents, layout
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.retire import end_experiment, is_last, remove_files, retire
from mltraq_ds.store.rows import Rows

__all__ = ["after_persist", "end_replaced", "remove_intent"]


def after_persist(
    storage: Storage,
    index: Index | None,
    generation: Generation,
    parent: Generation | None,
    *,
    rows: Callable[[], Rows],
    intent: str,
    on_seam: Callable[[str], None],
) -> bool:
    """Do what follows from a commit: end what it replaces, tell the index, remove the old bytes.

    Parameters
    ----------
    storage : Storage
        Of the store.
    index : Index or None
        The SQL side, if there is one.
    generation, parent : Generation
        What was committed, and what it stands on.
    rows : callable
        Gives the rows for the index.
    intent : str
        Key of the writer's intent.
    on_seam : callable
        Called with the name of each step before it.

    Returns
    -------
    bool
        Whether all is done; otherwise the next session goes on.

    Warns
    -----
    IndexBehindWarning, LeftoversWarning
        If it is not: the persist has happened, so that is no error.
    """
    label = f"Experiment {generation.name!r} is persisted as generation {generation.number}"
    try:
        on_seam("end_replaced")
        ended = end_replaced(storage, generation)
        on_seam("index")
        # One that is not there any more was seen to by whoever took this writer for dead; its id may live again.
        ended = [end for end in ended if is_last(storage, end)]
        if index is not None and not _tell(index, rows(), intent, ended, label, generation.folds):
            return False
        on_seam("retire")
        for end in ended:  # first, since nobody else knows of them if somebody replaces us meanwhile
            remove_files(storage, end)
        retire(storage, parent, generation)
    except OSError as error:
        warnings.warn(
            f"{label}, but what it replaced is not all removed: {error} The next session goes on.",
            LeftoversWarning,
            stacklevel=6,
        )
        return False
    return True


def _tell(index: Index, rows: Rows, intent: str, ended: list[Generation], label: str, folds: tuple[str, ...]) -> bool:
    try:
        index.write(*rows, intent=intent, replaces=ended, folds=folds)
    except INDEX_ERRORS as error:
        warnings.warn(
            f"{label}, but the database could not be told: {error} Loading by id works; the next session, or "
            "rebuild_index(), catches up.",
            IndexBehindWarning,
            stacklevel=7,
        )
        return False
    return True


def remove_intent(storage: Storage, intent: Intent, label: str) -> None:
    """Remove the intent of work that is done; a failure is a warning, since the work is done."""
    try:
        intents.remove_intent(storage, intent)
    except OSError as error:
        warnings.warn(
            f"{label}, but its intent {intent.key} could not be removed: {error} The next session goes on.",
            LeftoversWarning,
            stacklevel=5,
        )


def end_replaced(storage: Storage, generation: Generation) -> list[Generation]:
    """End the experiments that a generation replaces; returns their last generations.

    Warns
    -----
    LeftoversWarning
        If somebody has persisted such an experiment after it was looked at.  Both live: nothing that was committed is
        lost, and loading by the name tells that it is ambiguous.
    """
    ended = []
    for replaced in generation.replaces:
        end = end_experiment(
            storage, replaced.id_experiment, generation.writer, only=(replaced.number, replaced.writer)
        )
        if end is not None:
            ended.append(end)
        elif storage.exists(layout.meta_key(layout.folder_of(replaced.id_experiment))):
            warnings.warn(
                f"Experiment {generation.name!r} (id {replaced.id_experiment}) was persisted by somebody else while "
                "it was "
                "replaced. Both are kept. Load by id, and delete the one that is not wanted.",
                LeftoversWarning,
                stacklevel=6,
            )
    return ended
