"""Finding: from the name of an experiment to its id."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from mltraq_ds.errors import (
    AmbiguousNameError,
    CorruptRecordError,
    ExperimentNotFoundError,
    UnknownStoreError,
)
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.overview import remembered_url
from mltraq_ds.storage import Storage
from mltraq_ds.store import collection, layout, reading
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.records import ExperimentContent
from mltraq_ds.tracking.database import Database

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["answering", "find", "is_known", "listed", "load_by_id", "load_named", "refuse_unknown"]

#: How long to wait before each further look for an experiment that was replaced a moment ago (s).
_WAITS_S = (0.01, 0.05, 0.2, 0.5)


def find(index: Index | None, name: str, store_url: str, database: Database) -> tuple[str, int]:
    """Return id and generation of the experiment of a name.

    Parameters
    ----------
    index : Index or None
        Of the store; None if there is no store yet.
    name : str
        Name of the experiment.
    store_url : str
        For messages.
    database : Database
        Where the names of other stores are.

    Raises
    ------
    ExperimentNotFoundError
        If there is none in this store; names the nearest, or the other store that has it.
    AmbiguousNameError
        If there are several; names their ids.
    """
    if index is not None:
        found = index.lookup(name)
    else:  # no store here yet, perhaps because its URL is not the one that was meant
        found = [] if database.is_absent() else Index(database, "").lookup(name)
    ours = [row for row in found if index is not None and row.store_id == index.store_id]
    if len(ours) > 1:
        ids = ", ".join(row.id_experiment for row in ours)
        raise AmbiguousNameError(
            f"Several experiments are named {name!r}: {ids}. Use load_experiment(id_experiment=…)."
        )
    if ours:
        return ours[0].id_experiment, ours[0].generation
    if found:
        there = remembered_url(Index(database, found[0].store_id)) or "at an unknown place"
        raise ExperimentNotFoundError(
            f"Experiment {name!r} is in another store ({there}, id {found[0].store_id}), not in {store_url}. "
            "Were database and store changed hand in hand? Make a session with create_session(store=…) for that one."
        )
    if index is not None and index.get(name) is not None:
        raise ExperimentNotFoundError(
            f"No experiment is named {name!r}, but one has this id. Use load_experiment(id_experiment=…)."
        )
    raise ExperimentNotFoundError(
        f"No experiment is named {name!r} in {database.url}.{_nearest(index, name)} Use ls() or 'mltraq-ds ls' to "
        "see all."
    )


def load_named(objects: Objects, look: Callable[[], tuple[str, int]]) -> tuple[Generation | None, ExperimentContent]:
    """Load the experiment that `look` finds by its name.

    Whoever replaces it ends the former one before the name leads to the new one.  In between the name leads to an end,
    so it is looked up again, for less than a second.

    Raises
    ------
    ExperimentNotFoundError
        If there is none.
    """
    for wait_s in _WAITS_S:
        found = look()  # a name that nobody has is no reason to wait
        try:
            return reading.load(objects, *found)[:2]
        except ExperimentNotFoundError:
            time.sleep(wait_s)
    return reading.load(objects, *look())[:2]


def load_by_id(objects: Objects, id_experiment: str) -> tuple[Generation | None, ExperimentContent]:
    """Load the experiment of an id, without an index.

    Raises
    ------
    ExperimentNotFoundError
        If there is none.
    FormatError
        If the store has a newer layout.
    ConflictError
        If the store has moved: what is left here is a copy of before.
    """
    with suppress(CorruptRecordError):  # what can be saved from a damaged store must not depend on its mark
        layout.read_store_id(objects.storage)
    return reading.load(objects, id_experiment)[:2]


def is_known(index: Index | None, storage: Storage, database_url: str) -> bool:
    """Tell whether queries of a store may be answered; False if it is empty and nothing is known of it.

    Raises
    ------
    UnknownStoreError
        If the store has experiments and the index does not know it.
    """
    if index is not None and index.knows_store():
        return True
    refuse_unknown(storage, database_url, index.store_id if index is not None else None)
    return False


def refuse_unknown(storage: Storage, database_url: str, store_id: str | None) -> None:
    """Raise if a store that the database does not know has experiments.

    Raises
    ------
    UnknownStoreError
        If it has.
    """
    if not layout.has_experiments(storage):
        return
    if store_id is None:
        raise UnknownStoreError(
            f"The store {storage.url} has experiments but no {layout.STORE}, so nobody knows which store it is. "
            "Restore that file from a copy, or use session.rebuild_index() to give the store a new id."
        )
    raise UnknownStoreError(
        f"The database {database_url} does not know the store {storage.url} (id {store_id}), which is not empty. "
        "Use session.rebuild_index() to read it in; loading by id works without."
    )


def answering(index: Index | None) -> Index | None:
    """Return the index of what is about to be changed, after it has answered; None if there is no store.

    Raises
    ------
    DatabaseUnavailableError
        If the database does not answer.  Nothing was changed.
    """
    if index is not None:
        index.database.ping()
    return index


def _nearest(index: Index | None, name: str) -> str:
    names = [row.name for row in index.ls(limit=1000)] if index is not None else []
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def listed(index: Index | None, storage: Storage) -> pd.DataFrame:
    """Return the table of `Session.ls`; experiments that have records only and are in no row are looked for."""
    import pandas as pd

    rows = index.ls() if index is not None else []
    alone = collection.unlisted(storage, {row.folder for row in rows})
    ids = list(alone)
    nothing = [pd.NaT] * len(ids)
    table = {
        "id_experiment": [*(row.id_experiment for row in rows), *ids],
        "name": [*(row.name for row in rows), *ids],
        "runs": [*(row.n_runs for row in rows), *alone.values()],
        "created": [*(row.created_at for row in rows), *nothing],
        "persisted": [*(row.persisted_at for row in rows), *nothing],
        "bytes": [*(row.n_bytes for row in rows), *(0 for _ in ids)],
        "generation": [*(row.generation for row in rows), *(0 for _ in ids)],
    }
    return pd.DataFrame(table)
