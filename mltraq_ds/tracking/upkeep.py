"""Upkeep: check, sweep and rebuild the store of a session."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from mltraq_ds.objects import Objects
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.settings import resolve
from mltraq_ds.storage import Storage
from mltraq_ds.store import layout, maintenance
from mltraq_ds.store.report import RebuildReport, Report, SweepReport

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
        StorageError, DatabaseUnavailableError
            If store or database do not answer.  No row was changed.
        """
        if layout.read_store_id(self.storage) is None and not layout.has_experiments(self.storage):
            return RebuildReport(store=self.storage.url)
        return maintenance.rebuild_index(
            self.objects(),
            Index(self.database, layout.store_id(self.storage)),
            id_experiment=None if id_experiment is None else str(id_experiment),
            progress=None if resolve()["tqdm.disable"] else _bar,
        )

    def check(self, deep: bool = False) -> Report:
        """Find damage and garbage in store and database; nothing in the store is changed.

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
        raise NotImplementedError

    def sweep(self, dry_run: bool = True, grace_s: float = 86400.0) -> SweepReport:
        raise NotImplementedError


def _bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    from tqdm.auto import tqdm

    return tqdm(items, total=total, desc="experiments", unit="experiment")
