"""Upkeep: check, sweep and rebuild the store of a session."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from mltraq_ds.errors import DatabaseUnavailableError, ExperimentNotFoundError, MltraqDSError, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.settings import resolve
from mltraq_ds.storage import Storage
from mltraq_ds.store import layout, maintenance
from mltraq_ds.store.identity import refuse_copy
from mltraq_ds.store.moving import is_copied, move
from mltraq_ds.store.report import RebuildReport, Report, SweepReport
from mltraq_ds.store.sweeping import GRACE_S
from mltraq_ds.tracking.database import Database
from mltraq_ds.tracking.finding import is_known, refuse_unknown
from mltraq_ds.tracking.opening import opened_at

__all__ = ["Upkeep"]


class Upkeep:
    """What a session does to keep its store and its rows healthy.

    None of it finishes the work of dead writers on the way in, as other methods do: a store can be looked at as it is.
    """

    storage: Storage
    database: Database

    def objects(self, allow_pickle: bool | None = None) -> Objects:
        """Return the objects of the store under the present options."""
        raise NotImplementedError

    def rebuild_index(self, id_experiment: str | uuid.UUID | None = None) -> RebuildReport:
        """Make the database say what the files say: after it was lost, damaged or left behind.

        Parameters
        ----------
        id_experiment : str or UUID, optional
            Only this experiment; by default the whole store.

        Returns
        -------
        RebuildReport
            Counts, and what could not be read.

        Raises
        ------
        ExperimentNotFoundError
            If neither files nor database have an experiment of this id.
        ConflictError
            If the store is a copy of one that the database knows.  No row was changed.
        StorageError, DatabaseUnavailableError
            If store or database do not answer.  No row was changed.
        """
        report = RebuildReport(store=self.storage.url)
        if layout.read_store_id(self.storage) is not None or layout.has_experiments(self.storage):
            index = Index(self.database, layout.store_id(self.storage))
            refuse_copy(self.storage, index)
            report = maintenance.rebuild_index(
                self.objects(),
                index,
                id_experiment=None if id_experiment is None else str(id_experiment),
                progress=self._progress(),
            )
        if id_experiment is not None and not (report.experiments or report.removed or report.kept or report.findings):
            raise ExperimentNotFoundError(
                f"No experiment has the id {str(id_experiment)!r:.80} in {report.store}. Without an id the whole store "
                "is read in."
            )
        return report

    def check(self, deep: bool = False) -> Report:
        """Find damage and garbage in store and database; nothing is changed or made, neither files nor tables.

        Parameters
        ----------
        deep : bool
            Read and verify every byte of every blob too.

        Returns
        -------
        Report
            ``len(report) == 0`` means clean; ``df()`` has one row per finding.

        Raises
        ------
        StorageError
            If the store cannot be listed.
        """
        try:
            store_id = layout.read_store_id(self.storage)
        except MltraqDSError:
            store_id = None  # the check finds that too
        index = Index(self.database, store_id) if store_id else None
        return maintenance.check(self.storage, index, deep=deep, progress=self._progress())

    def sweep(self, dry_run: bool = True, grace_s: float = GRACE_S) -> SweepReport:
        """Remove what nothing refers to, or say what would be removed.

        Files written with `DataStoreIO` are never touched.

        Parameters
        ----------
        dry_run : bool
            Remove nothing.  Work of writers that died is finished, as opening a session does.
        grace_s : float
            What was changed more recently stays (s).

        Returns
        -------
        SweepReport
            One finding for each file; ``df()`` has one row for each.

        Raises
        ------
        UsageError
            If `grace_s` is no number of seconds.  Nothing was removed.
        UnknownStoreError
            If the database does not know this store, so that what it refers to is not known.  Nothing was removed.
        ConflictError
            If another sweep is at work, or the store is a copy.  Nothing was removed.
        DamageError, FormatError
            If something that may refer to files cannot be read.  Nothing was removed; `check` lists what it is.
        StorageError, DatabaseUnavailableError
            If store or database do not answer.
        """
        store_id = layout.read_store_id(self.storage)
        if store_id is None and not layout.has_experiments(self.storage):
            return SweepReport(store=self.storage.url, dry_run=dry_run)
        if self.database.tables_version() is None:
            refuse_unknown(self.storage, self.database.url, store_id)  # before the first question makes the tables
        index = Index(self.database, layout.store_id(self.storage))
        refuse_copy(self.storage, index)
        is_known(index, self.storage, self.database.url)
        return maintenance.sweep(self.objects(), index, dry_run=dry_run, grace_s=grace_s)

    def move_store(
        self, new_url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
    ) -> dict[str, int]:
        """Move the store to another place: copy everything, compare it, and use it from there.

        The store keeps its id, so the database finds it there; this session uses the new place at once, others are
        refused until they name it.  The former place keeps its files, marked as moved; remove them when you like.
        Killed at any point, one of the two is the store, and the same call goes on.

        Parameters
        ----------
        new_url : str or path
            An empty place: a folder or any URL of fsspec.
        storage_options : mapping, optional
            For the new place; none by default.

        Returns
        -------
        dict
            ``files`` and ``bytes`` that were copied.

        Raises
        ------
        UsageError
            If there is no store yet, the place has other files, or is inside the store.  Nothing was changed.
        ConflictError
            If somebody writes or sweeps.  The store is where it was; what was copied stays.
        StorageError
            If one of the places refuses.  As before.
        """
        target = opened_at(new_url, storage_options)
        index = self._index_to_move(target)
        if index is None:
            raise UsageError(
                f"There is no store at {self.storage.url} yet, so nothing was moved. Make a session with the new place."
            )
        counts = move(self.storage, target, index)
        self._use_storage(target)
        return counts

    def _index_to_move(self, target: Storage) -> Index | None:
        # The source of a move that was killed at its end cannot be opened any more.
        if self.storage.exists(layout.STORE) and is_copied(self.storage, target):
            return Index(self.database, layout.store_id(target))
        return self._open_index()

    def _open_index(self) -> Index | None:
        raise NotImplementedError

    def _use_storage(self, storage: Storage) -> None:
        raise NotImplementedError

    def _refuse_copy(self, index: Index) -> None:
        with suppress(DatabaseUnavailableError):  # loading by id works without
            refuse_copy(self.storage, index)

    @staticmethod
    def _progress() -> Any:
        return None if resolve()["tqdm.disable"] else _bar


def _bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    from tqdm.auto import tqdm

    return tqdm(items, total=total, desc="experiments", unit="experiment")
