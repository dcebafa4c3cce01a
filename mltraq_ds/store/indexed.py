"""IndexedStore: files, which are the truth, and an index that finds them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from mltraq_ds.errors import IndexBehindWarning, MltraqDSError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.singles import SingleIndex
from mltraq_ds.store import maintenance
from mltraq_ds.store.field_catalogue import FieldInfo, catalogue
from mltraq_ds.store.file_config import FileStoreConfig
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.index_link import IndexLink
from mltraq_ds.store.indexed_check import check_indexed
from mltraq_ds.store.indexed_puts import IndexedPuts
from mltraq_ds.store.indexed_reading import find, is_current
from mltraq_ds.store.run_filter import RunFilter
from mltraq_ds.store.transfer import export_store
from mltraq_ds.store.types import RunRecord

if TYPE_CHECKING:
    from mltraq_ds.store.config import StoreConfig
    from mltraq_ds.store.report import RebuildReport, Report

__all__ = ["IndexedStore", "PostgresStore"]


class IndexedStore(IndexedPuts):
    """A store of files whose records are also rows in a database, which lists and filters them fast.

    Every put goes to the files first, then to the index.  If the database does not answer, the put has happened all the
    same; a warning says by how much the index lags, it is not waited for again, and the next connection catches up.
    What is read is compared with the files: on a disk no row is served whose file has changed or is gone; on a remote
    storage none of another generation.

    Parameters
    ----------
    storage : Storage
        Of the collection's root.
    experiment_id : str or None
        The experiment that it is scoped to; None for the collection.
    root : str
        Path or URL of the root, as given, for people.
    link : IndexLink
        The way to the index.
    config : StoreConfig, optional
        What it was connected from.
    """

    @classmethod
    def over(cls, filestore: FileStore, database: Database, config: StoreConfig | None = None) -> Self:
        """Return the store that these files have together with a database."""
        link = IndexLink(filestore.storage, database)
        own = {"experiment_id": filestore.experiment_id, "root": filestore.root}
        return cls(filestore.storage, **own, link=link, config=config)  # type: ignore[arg-type]

    @classmethod
    def from_filestore(
        cls, connection_string: str, filestore: FileStore, *, schema: str | None = None, rebuild: bool = True
    ) -> Self:
        """Return the store that existing files have together with a database.

        Parameters
        ----------
        connection_string : str
            URL of the database.
        filestore : FileStore
            The files; if it is scoped, only that experiment is indexed.
        schema : str, optional
            Schema of the tables, in PostgreSQL.
        rebuild : bool
            Read the files in; otherwise the index finds what is put from now on, and lists come from the files.
        """
        store = cls.over(filestore, Database(connection_string, timeout_s=10.0, schema=schema))
        if rebuild:
            store.rebuild_index()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database; they are opened again when they are needed."""
        self.link.database.close()

    def iter_run_records(
        self, experiment_id: str | None = None, *, on_corrupt: Callable[[MltraqDSError], None] | None = None
    ) -> Iterator[RunRecord]:
        # docstring inherited
        return self.find_run_records(RunFilter(), experiment_id, on_corrupt=on_corrupt)

    def find_run_records(
        self,
        wanted: RunFilter,
        experiment_id: str | None = None,
        *,
        on_corrupt: Callable[[MltraqDSError], None] | None = None,
    ) -> Iterator[RunRecord]:
        """Yield the records that match, of all experiments or of one; they are filtered by the database.

        On a disk, what the files say otherwise than the rows comes last.

        Parameters
        ----------
        wanted : RunFilter
            What to look for.
        experiment_id : str, optional
            Only this experiment.
        on_corrupt : callable, optional
            Given the error of each record that cannot be read; without it the first one is raised.  The records come
            from the files then.

        Raises
        ------
        CorruptRecordError
            If a record cannot be read whose row is not that of its file, or that has none.
        """
        files, index = self.file_store, self.link.ask() if on_corrupt is None else None
        if index is None:
            yield from filter(wanted, files.iter_run_records(experiment_id, on_corrupt=on_corrupt))
            return
        if self.experiment_id is None:
            for id_ in files.list_experiments() if experiment_id is None else [experiment_id]:
                yield from find(files.scoped(id_), index, wanted, self.link)
        elif experiment_id in (None, self.experiment_id):
            yield from find(files, index, wanted, self.link)
        else:
            yield from files.iter_run_records(experiment_id)  # which says that it is another one

    def field_catalogue(self) -> list[FieldInfo]:
        """Return which params and fields there are over all runs, with type, count and range, by name."""
        return catalogue(self._values())

    def _values(self) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        files, index = self.file_store, self.link.ask()
        scopes = [files] if self.experiment_id is not None else [files.scoped(id_) for id_ in files.list_experiments()]
        for one in scopes:
            if index is not None and is_current(one, index, self.link):
                yield from SingleIndex(index).values(one.experiment_id)
            else:
                yield from ((record.params_resolved, record.metrics) for record in one.iter_run_records())

    def rebuild_index(self, progress: Callable[[str, int, int], None] | None = None) -> int:
        """Make the index what the files say: of this experiment if it is scoped, else of the whole store.

        Readers see the old rows or the new ones; what is put meanwhile is kept; rows of other experiments stay.

        Parameters
        ----------
        progress : callable, optional
            Called with ``"experiments"``, how many are done, and how many there are.

        Returns
        -------
        int
            How many runs were read.

        Raises
        ------
        DatabaseUnavailableError
            If the database does not answer.  No row was changed.

        Warns
        -----
        IndexBehindWarning
            If something could not be read; `check` says what.
        """
        report = self.rebuild(progress)
        if report:
            warnings.warn(
                f"The index lacks {len(report)} things that could not be read; check() lists them. The first: "
                f"{report.findings[0].detail}",
                IndexBehindWarning,
                stacklevel=2,
            )
        return report.runs if report is not None else 0

    def rebuild(self, progress: Callable[[str, int, int], None] | None = None) -> RebuildReport | None:
        """Do what `rebuild_index` does, and return what could not be read too; None if there is no store."""
        index = self.link.reconnect()
        if index is None:
            return None

        def shown(items: Iterable[Any], total: int) -> Iterator[Any]:
            for done, item in enumerate(items, 1):
                yield item
                if progress is not None:
                    progress("experiments", done, total)

        report = maintenance.rebuild_index(
            Objects(self.storage), index, id_experiment=self.experiment_id, progress=shown
        )
        if report:
            self.link.fall_behind(one.experiment for one in report if one.experiment)
        return report

    def check(self, deep: bool = False) -> Report:
        """Find damage in the files, and where the index says otherwise; nothing is changed.  See `Session.check`.

        The database is asked anew, also if it did not answer before; if it still does not, that is a finding.
        """
        return check_indexed(self.storage, self.link.database, deep=deep)

    def to_filestore(self, destination: str | os.PathLike[str] | None = None) -> FileStore:
        """Return the store without its index: its own files, or a complete copy of them.

        Parameters
        ----------
        destination : str or path, optional
            Where to copy them; see `export_store`.
        """
        if destination is None:
            return self.file_store
        own = FileStoreConfig(root=os.fspath(destination), experiment_id=self.experiment_id)
        export_store(self.file_store, own)
        return own.connect()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None}


class PostgresStore(IndexedStore):
    """A store whose index is in PostgreSQL; see `IndexedStore`."""
