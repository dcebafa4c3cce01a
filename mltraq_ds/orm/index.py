"""The index of one store: what makes its experiments findable.

The files are the truth.  Every write here says "set to generation n if the row is older", so that a late writer, a
second roll-forward and a rebuild may come in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.engine import Connection

from mltraq_ds.orm import names, queries, statements
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.rebuild import Entry, Rebuilt, rebuild
from mltraq_ds.orm.rows import BlobRow, EndedVersion, ExperimentRow, IndexedExperiment, NameClaim, RunRow, validate_rows

__all__ = ["Index"]


class Index:
    """The rows of one store in a database that may hold those of other stores.

    Holds no connection; safe in threads; pickles as its `Database` does.

    Parameters
    ----------
    database : Database
        Where the rows are.
    store_id : str
        The id in ``_store.json``.
    """

    def __init__(self, database: Database, store_id: str) -> None:
        self.database = database
        self.store_id = store_id

    def __repr__(self) -> str:
        return f"Index({self.database.url!r}, store_id={self.store_id!r})"

    @staticmethod
    def validate_rows(experiment: ExperimentRow, runs: Sequence[RunRow]) -> None:
        """Refuse what some database could not hold; see `mltraq_ds.orm.rows.validate_rows`."""
        validate_rows(experiment, runs)

    def claim(
        self,
        name: str,
        id_experiment: str,
        intent: str,
        *,
        replacing: str | None = None,
        is_alive: Callable[[NameClaim], bool],
    ) -> None:
        """Take a name before anything is written under it; of several writers exactly one gets it.

        Parameters
        ----------
        name, id_experiment : str
            The name, and the experiment to be persisted under it (an owner may claim its own name again).
        intent : str
            Key of the writer's intent; it tells this claim from any other.
        replacing : str, optional
            Id of the experiment whose place is taken.  It keeps the name until `write`.
        is_alive : callable
            Asked, outside of any transaction, about another writer's claim: False if its experiment has no generation
            and its intent is not living, so that the name is free again.

        Raises
        ------
        ExperimentExistsError
            If another experiment has the name.  Nothing was changed.
        ConcurrentPersistError
            If another living writer has claimed it.  Nothing was changed.
        """
        wanted = NameClaim(name, self.store_id, None, id_experiment, intent, None)

        def attempt(dead: NameClaim | None) -> NameClaim | None:
            def work(connection: Connection) -> NameClaim | None:
                statements.ensure_store(connection, self.store_id)
                return names.try_claim(connection, wanted, replacing, dead)

            return self.database.transact(work)

        names.claim(attempt, is_alive)

    def release(self, name: str, intent: str) -> None:
        """Give up a claim that led to nothing; one that is not ours (any more) is left alone."""
        self.database.transact(lambda connection: names.release(connection, name, intent))

    def owner(self, name: str) -> NameClaim | None:
        """Return who has a name and who has claimed it, or None."""
        with self.database.read() as connection:
            return names.find(connection, name)

    def write(
        self,
        experiment: ExperimentRow,
        runs: Iterable[RunRow] = (),
        blobs: Iterable[BlobRow] = (),
        *,
        intent: str | None = None,
        replaces: Iterable[str | EndedVersion] = (),
        folds: Iterable[str] = (),
    ) -> bool:
        """Set an experiment to a generation if its row is older, in one transaction; end the claim of `intent`.

        Parameters
        ----------
        experiment : ExperimentRow
            The committed version.
        runs, blobs : iterable of rows
            All runs, in order, and all blobs; they take the place of those of an earlier version.
        intent : str, optional
            The claim that this write fulfils.  It ends whether or not the row was older.
        replaces : iterable of str or EndedVersion
            Experiments that count as deleted from now on: an id means whatever their generation, a version means that
            one and those before it.
        folds : iterable of str
            Put ids of the single records that this version has taken in; rows of others stay.

        Returns
        -------
        bool
            Whether the row was older.

        Raises
        ------
        DatabaseUnavailableError
            If the database cannot be used.  Nothing was changed.
        """
        # Lists, because a transaction may be tried again.
        return self.database.transact(
            partial(
                statements.write,
                store_id=self.store_id,
                experiment=experiment,
                runs=list(runs),
                blobs=list(blobs),
                intent=intent,
                replaces=dict(_pinned(replaced) for replaced in replaces),
                folds=frozenset(folds),
            )
        )

    def remove(self, id_experiment: str, generation: int) -> bool:
        """Note that an experiment ended with `generation`; its names are free.  Tell whether its row was older."""

        def work(connection: Connection) -> bool:
            statements.ensure_store(connection, self.store_id)
            return statements.bury(connection, self.store_id, id_experiment, generation)

        return self.database.transact(work)

    def forget_deleted(self, before: datetime) -> int:
        """Drop the rows of experiments deleted before a time, when no late writer is expected; return how many."""
        return self.database.transact(lambda connection: statements.forget_deleted(connection, self.store_id, before))

    def register_store(self, url: str, *, is_durable: bool = True) -> None:
        """Note that everything in the store is indexed: it is new and empty, or it was just read in.

        Parameters
        ----------
        url : str
            Where it is, without secrets, for people.
        is_durable : bool
            Whether a power cut must not make it forgotten before the next write does.
        """
        now = datetime.now(UTC)
        self.database.transact(
            lambda connection: statements.ensure_store(connection, self.store_id, url=url, indexed_at=now),
            is_durable=is_durable,
        )

    def knows_store(self) -> bool:
        """Tell whether the store has been indexed as a whole; if not, and it is not empty, `rebuild` reads it in."""
        with self.database.read() as connection:
            return queries.is_indexed(connection, self.store_id)

    def rebuild(
        self,
        scanned: Iterable[Entry],
        *,
        url: str | None = None,
        replace_scope: str | None = None,
        damaged: Container[str] = (),
    ) -> Rebuilt:
        """Make the rows what the files say, in one short transaction; see `mltraq_ds.orm.rebuild.rebuild`.

        Parameters
        ----------
        scanned : iterable of (ExperimentRow, sequence of RunRow, sequence of BlobRow)
            What the files say: of the whole store, or of the one experiment `replace_scope` (nothing if it is gone).
            Pass a generator that scans: the rows are looked at before its first entry is asked for, so that what is
            committed during the scan is kept.
        url : str, optional
            URL of the store without secrets, for `register_store`; without it and on first sight it stays empty.
        replace_scope : str, optional
            Id of the only experiment whose rows are touched.
        damaged : container of str
            Folders of experiments that are there but cannot be read, filled during the scan: their rows stay, since
            they may be all that is left of params and fields.
        """
        return rebuild(self.database, self.store_id, scanned, url=url, replace_scope=replace_scope, damaged=damaged)

    def lookup(self, name: str) -> list[IndexedExperiment]:
        """Return all experiments of a name, those of this store first; more than one makes the name ambiguous."""
        with self.database.read() as connection:
            found = queries.by_name(connection, name)
        return sorted(found, key=lambda experiment: experiment.store_id != self.store_id)

    def get(self, id_experiment: str) -> IndexedExperiment | None:
        """Return what is known of an experiment of this store, or None."""
        with self.database.read() as connection:
            return queries.by_id(connection, self.store_id, id_experiment)

    def ls(self, *, all_stores: bool = False, limit: int | None = None, offset: int = 0) -> list[IndexedExperiment]:
        """Return the experiments of this store, or of all, in the order in which they were created."""
        with self.database.read() as connection:
            return queries.listed(connection, None if all_stores else self.store_id, limit, offset)

    def experiments_iter(self, page_size: int = 1000) -> Iterator[IndexedExperiment]:
        """Yield the experiments of this store by id, a page at a time, so that no transaction stays open."""
        after: str | None = None
        while True:
            with self.database.read() as connection:
                page = queries.page(connection, self.store_id, after, page_size)
            yield from page
            if len(page) < page_size:
                return
            after = page[-1].id_experiment

    def blob_references(self, page_size: int = 10_000) -> Iterator[tuple[str, BlobRow]]:
        """Yield id of experiment and blob for every blob that a row of this store refers to."""
        after: tuple[str, int] | None = None
        while True:
            with self.database.read() as connection:
                page = queries.blob_page(connection, self.store_id, after, page_size)
            yield from ((id_experiment, blob) for id_experiment, _, blob in page)
            if len(page) < page_size:
                return
            after = page[-1][:2]

    def all_generations(self) -> dict[str, int]:
        """Return id and generation of every experiment of this store."""
        with self.database.read() as connection:
            return queries.generations(connection, self.store_id)


def _pinned(replaced: str | EndedVersion) -> tuple[str, int]:
    return (replaced, statements.BEYOND_ALL) if isinstance(replaced, str) else (replaced.id_experiment, replaced.number)
