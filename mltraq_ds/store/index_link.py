"""IndexLink: the way from a store to its index, which may be down while the files go on."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from mltraq_ds.errors import DamageError, FormatError, IndexBehindWarning, StorageError, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.failures import DATABASE_ERRORS
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import layout
from mltraq_ds.store.identity import refuse_copy
from mltraq_ds.store.index_lag import catch_up
from mltraq_ds.store.index_marks import is_own, marks_of, put_mark
from mltraq_ds.store.recovery import recover, warn_left

__all__ = ["IndexLink"]

T = TypeVar("T")


class IndexLink:
    """The index of a store, opened on first use; after a failure it is left alone until the next connection.

    Safe in threads.  Pickles as its `Database` does; a copy connects anew.

    Parameters
    ----------
    storage : Storage
        Of the store.
    database : Database
        Where the rows are.
    """

    def __init__(self, storage: Storage, database: Database) -> None:
        self.storage = storage
        self.database = database
        self._start()

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._index: Index | None = None
        self._is_known = self._is_new = False
        self._failure: BaseException | None = None
        self._mark = ""
        self.lag = 0
        #: Experiments whose rows are not what their files say, because something in these cannot be read.
        self.behind: frozenset[str] = frozenset()
        #: Stamps of files of records that a generation has taken in, by key: they are no longer read.
        self.folded: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "database": self.database}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def is_down(self) -> bool:
        """Whether the database did not answer."""
        return self._failure is not None

    def prepare(self) -> None:
        """Connect before something is written; a database that does not answer is no error.

        Raises
        ------
        ConflictError
            If the store is a copy of one that the database knows.  Nothing was changed.
        """
        if self._try(lambda: self._open(make=False)) is None and not self.is_down:
            # Looked at before the first file is written: an index that has seen a store from its begin knows it whole.
            self._is_new = not layout.has_experiments(self.storage)

    def tell(self, what: str, work: Callable[[Index], object]) -> None:
        """Tell the index of what has been written; if it does not answer, a mark is left and a warning given.

        Warns
        -----
        IndexBehindWarning
            At the first failure, and when the index lags by ten, a hundred … puts.
        """

        def attempt() -> bool:
            index = self._open(make=True)
            if index is not None:
                work(index)
            return True

        try:
            is_told = self._try(attempt)
            reason = self._failure
        except (StorageError, DamageError, FormatError, UsageError) as error:
            # It is written, and could not be read back, or is nothing that every database could hold.
            is_told, reason = False, error
        if not is_told:
            self._lag(what, reason)

    def ask(self) -> Index | None:
        """Return the index if it may be asked: it answers, has seen the whole store, and was told of all since.

        What is in `behind` it may not be asked about all the same.
        """
        index = self._try(lambda: self._open(make=False))
        if index is not None and not self._is_known:
            self._is_known = bool(self._try(index.knows_store))
        return index if self._is_known and not self.is_down and not self._mark else None

    def index_or_none(self) -> Index | None:
        """Return the index for writing, or None if the database does not answer."""
        return self._try(lambda: self._open(make=True))

    def reconnect(self) -> Index | None:
        """Connect again, also after a failure; None if the store does not exist yet.

        Raises
        ------
        DatabaseUnavailableError
            If the database still does not answer.
        """
        with self._lock:
            self._failure, self._index, self._mark, self.lag = None, None, "", 0
            return self._open(make=False)

    def fall_behind(self, id_experiments: Iterable[str]) -> None:
        """Read these experiments from their files from now on, and have the next connection try again."""
        with self._lock:
            self.behind |= frozenset(id_experiments)
            if not any(is_own(key, self.database) for key in marks_of(self.storage, self.database)):
                put_mark(self.storage, self.database)

    def _try(self, work: Callable[[], T]) -> T | None:
        if self.is_down:
            return None
        try:
            return work()
        except DATABASE_ERRORS as error:
            with self._lock:
                self._failure = error
            return None

    def _open(self, *, make: bool) -> Index | None:
        with self._lock:
            if self._index is None:
                store_id = layout.read_store_id(self.storage)
                if store_id is None and not make:
                    return None
                self.database.ping()
                is_new = self._is_new or not layout.has_experiments(self.storage)
                index = Index(self.database, store_id or layout.store_id(self.storage))
                refuse_copy(self.storage, index)
                recover(Objects(self.storage), index, warn_left)
                self.behind = catch_up(self.storage, index).behind
                if is_new and not index.knows_store():
                    index.register_store(self.storage.url)
                self._index = index
            return self._index

    def _lag(self, what: str, reason: BaseException | None) -> None:
        with self._lock:
            self.lag += 1
            lag = self.lag
            # A fresh one, after the file: whoever has met the former one has not seen this file.
            former, self._mark = self._mark, put_mark(self.storage, self.database)
            if former:
                self.storage.delete(former)
        if str(lag).strip("0") == "1":
            puts = "1 put" if lag == 1 else f"{lag:,} puts"
            warnings.warn(
                f"{what} is written, but the index could not be told: {reason} It lags by {puts}; the files go "
                "on without it, and the next connection, or rebuild_index(), catches up.",
                IndexBehindWarning,
                stacklevel=4,
            )
