"""Session: one store and one database, where experiments are made, persisted, found and loaded."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mltraq_ds import ids
from mltraq_ds.errors import UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.place import Place
from mltraq_ds.settings import Settings, resolve
from mltraq_ds.storage import Storage
from mltraq_ds.store import layout
from mltraq_ds.store.commit import Persist
from mltraq_ds.store.deletion import delete
from mltraq_ds.store.index_lag import catch_up
from mltraq_ds.store.no_place import refuse_no_place
from mltraq_ds.store.recovery import recover, warn_left
from mltraq_ds.tracking.bound_io import BoundIO
from mltraq_ds.tracking.experiment import Experiment
from mltraq_ds.tracking.finding import answering, find, is_known, listed, load_by_id, load_named
from mltraq_ds.tracking.opening import objects_at, opened
from mltraq_ds.tracking.upkeep import Upkeep

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Session"]


class Session(Upkeep):
    """One store and one database.  Nothing is opened or made before it is used; safe in threads.

    Environment and configuration file are read when it is made.  It keeps its store and database, whatever options say
    later.

    Parameters
    ----------
    url : str, optional
        Of the database; by default option ``database.url``.
    store : str, path or Storage, optional
        Of the store; by default option ``datastore.url``.  A relative folder is made absolute now.
    storage_options : mapping, optional
        As pandas and fsspec take them; by default option ``datastore.storage_options``.

    Raises
    ------
    UsageError
        If an option, variable or line of the configuration file cannot be used; the text says which.

    Warns
    -----
    SecretInOptionsWarning
        If option ``datastore.storage_options`` holds a secret.
    """

    def __init__(
        self,
        url: str | None = None,
        store: str | os.PathLike[str] | Storage | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.storage, self.database = opened(url, store, storage_options)
        self._lock = threading.RLock()
        self._index: Index | None = None
        self._place: tuple[Settings, Place] | None = None
        self._is_known = False

    def __repr__(self) -> str:
        return f"Session(database={self.database.url!r}, store={self.storage.url!r})"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database; they are opened again when they are needed."""
        self.database.close()

    @property
    def place(self) -> Place:
        """The store as DataStoreIO means it, under the present options."""
        settings = resolve()
        known = self._place
        if known is None or known[0] is not settings:  # every run asks
            known = self._place = (settings, Place(self.objects(), self.new_uuid))
        return known[1]

    @property
    def new_uuid(self) -> Callable[[], uuid.UUID]:
        """Where ids of experiments, runs and blobs come from under the present options."""
        return ids.next_uuid if resolve()["reproducibility.sequential_uuids"] else ids.new_uuid

    def objects(self, allow_pickle: bool | None = None) -> Objects:
        """Return the objects of the store under the present options."""
        return objects_at(self.storage, resolve({"serialization.allow_pickle": allow_pickle}))

    @cached_property
    def io(self) -> BoundIO:
        """`DataStoreIO` with this session's store."""
        return BoundIO(lambda: self.place)

    def _open_index(self) -> Index | None:
        """Return the index if the store exists, after finishing what killed writers have left."""
        with self._lock:
            if self._index is None:
                store_id = layout.read_store_id(self.storage)
                if store_id is None:
                    refuse_no_place(self.storage)
                    return None
                index = Index(self.database, store_id)
                self._refuse_copy(index)
                recover(self.objects(), index, warn_left)
                catch_up(self.storage, index)
                self._index = index
            return self._index

    def _use_storage(self, storage: Storage) -> None:
        with self._lock:
            self.storage, self._index, self._place, self._is_known = storage, None, None, False

    def _make_index(self) -> Index:
        """Return the index, making the store if it is new."""
        with self._lock:
            if self._index is not None:
                layout.read_store_id(self.storage)  # it may have moved since
            index = self._open_index()
            if index is None:
                self.database.ping()  # a database that does not answer is refused before anything is made
                index = self._index = Index(self.database, layout.store_id(self.storage))
            self._is_known = self._is_known or index.knows_store()
            if not self._is_known and not layout.has_experiments(self.storage):
                index.register_store(self.storage.url, is_durable=False)  # new, or its maker was killed before this
                self._is_known = True
            return index

    def _known_index(self) -> Index | None:
        """Return the index for a query, which must not answer for a store that it has never seen.

        Raises
        ------
        UnknownStoreError
            If the store has experiments and the index does not know it.
        """
        index = self._open_index()
        if index is None and not self.database.is_absent():
            self.database.check()  # looking makes nothing; a database that does not answer is no empty store
        if not self._is_known:
            self._is_known = is_known(index, self.storage, self.database.url)
        return index

    def create_experiment(self, name: str | None = None, **fields: Any) -> Experiment:
        """Return a new experiment, in memory until it is persisted.

        Parameters
        ----------
        name : str, optional
            Any string; by default one is derived from the id.
        **fields
            Values of the experiment as a whole.

        Raises
        ------
        UsageError
            If the name is not a string.
        """
        if name is not None and not isinstance(name, str):
            raise UsageError(f"The name of an experiment is a string, not {type(name).__name__}. Use str(...).")
        new_uuid = self.new_uuid
        is_taken = self._is_taken if new_uuid is ids.next_uuid else lambda candidate: False
        return Experiment(self, str(ids.fresh_uuid(new_uuid, is_taken)), name, fields)

    def _is_taken(self, candidate: uuid.UUID) -> bool:
        # Only predictable ids meet those of earlier processes; asking costs a look at the storage.
        return self.storage.exists(layout.meta_key(layout.folder_of(str(candidate))))

    def load_experiment(
        self,
        name: str | None = None,
        id_experiment: str | uuid.UUID | None = None,
        allow_pickle: bool | None = None,
    ) -> Experiment:
        """Load an experiment; its values are read when they are asked for.

        Parameters
        ----------
        name : str, optional
            Found in the index.
        id_experiment : str or UUID, optional
            Found in the store; needs no index.
        allow_pickle : bool, optional
            Whether pickled values may run code; by default option ``serialization.allow_pickle``.

        Raises
        ------
        ExperimentNotFoundError
            If there is none.
        AmbiguousNameError
            If several have this name; the text has their ids.
        UnknownStoreError
            If the index does not know this store.
        """
        if (name is None) == (id_experiment is None):
            raise UsageError("load_experiment() takes a name or an id_experiment, and one of them only.")
        objects = self.objects(allow_pickle)
        if id_experiment is None:
            generation, content = load_named(objects, lambda: self._find(str(name)))
        else:
            generation, content = load_by_id(objects, str(id_experiment))
        return Experiment.from_content(self, content, generation)

    def _find(self, name: str) -> tuple[str, int]:
        return find(self._known_index(), name, self.storage.url, self.database)

    def persist_experiment(
        self, experiment: Experiment, name: str | None = None, if_exists: str = "fail"
    ) -> Experiment:
        """Persist an experiment here: itself if it belongs to this session, otherwise (or with a name) a copy."""
        if not isinstance(experiment, Experiment):
            raise UsageError(f"An Experiment is persisted, not {type(experiment).__name__}. Use create_experiment().")
        if experiment.session is self and name is None:
            return experiment.persist(if_exists=if_exists)
        return experiment.copy_to(name=name, session=self, if_exists=if_exists)

    def commit(self, experiment: Experiment, if_exists: str = "fail") -> None:
        """Persist an experiment of this session; see `Experiment.persist`."""
        index, content = self._make_index(), experiment.to_content()
        if not (self._is_known or experiment.base[0] or content.folds):  # whether a new name is free is a question, too
            self._is_known = is_known(index, self.storage, self.database.url)
        persist = Persist(
            objects=self.objects(),
            index=index,
            content=content,
            base=experiment.base,
            if_exists=if_exists,
            new_uuid=self.new_uuid,
        )
        experiment.stand_on(persist.run().generation)

    def delete_experiment(
        self,
        name: str | None = None,
        id_experiment: str | uuid.UUID | None = None,
    ) -> None:
        """Remove an experiment from store and index.

        Raises
        ------
        ExperimentNotFoundError, DatabaseUnavailableError
            If there is none; if the database does not answer.  Nothing was changed.
        """
        if (name is None) == (id_experiment is None):
            raise UsageError("delete_experiment() takes a name or an id_experiment, and one of them only.")
        identity = str(id_experiment) if id_experiment is not None else self._find(str(name))[0]
        delete(self.objects(), answering(self._open_index()), identity)

    def end(self, experiment: Experiment) -> None:
        """Delete an experiment of this session; see `Experiment.delete`."""
        experiment.stand_on(delete(self.objects(), answering(self._open_index()), experiment.id_experiment))

    def ls(self) -> pd.DataFrame:
        """Return a table of the experiments in this store.

        Returns
        -------
        DataFrame
            ``id_experiment``, ``name``, ``runs``, ``created``, ``persisted`` (UTC), ``bytes``, ``generation``.

        Raises
        ------
        UnknownStoreError
            If the index does not know this store.
        """
        return listed(self._known_index(), self.storage)

    def query(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Run SQL and return its rows.

        Parameters
        ----------
        statement : str or sqlalchemy Select
            Tables are ``mltraq_experiments``, ``mltraq_runs``, ``mltraq_blobs``; see the reference of the index.
        parameters : mapping, optional
            Values of ``:name`` in the text.

        Raises
        ------
        UnknownStoreError
            If the index does not know this store.
        """
        self._known_index()
        return self.database.query(statement, parameters)
