"""The rows of saved artifacts: one for each version, those deleted too, so that no number is given twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mltraq_ds.orm import statements
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.tables import CURRENT, DELETED, artifacts

__all__ = ["ArtifactIndex", "ArtifactRow", "stores_of"]

_a = artifacts.c
_OF_STORE = _a.store_id == sa.bindparam("of_store")
_THIS = _OF_STORE & (_a.folder == sa.bindparam("of_folder")) & (_a.version == sa.bindparam("number"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRow:
    """One version of a saved artifact.

    Parameters
    ----------
    folder : str
        Where it is; stands for the name.
    version : int
        1, 2, …
    name, storage_backend, type : str
        For people and queries.
    created_at : datetime
        With time zone.
    n_bytes : int
        Size of what the store keeps (bytes).
    digest : str or None
        Of the value, if the backend tells one.
    details : str
        JSON text of an object: plain values, no NaN.
    is_deleted : bool
        Whether only its number is left.
    """

    folder: str
    version: int
    name: str
    storage_backend: str
    type: str
    created_at: datetime
    n_bytes: int = 0
    digest: str | None = None
    details: str = "{}"
    is_deleted: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Folder and number."""
        return (self.folder, self.version)


_COLUMNS = (_a.folder, _a.version, _a.name, _a.storage_backend, _a.type, _a.created_at, _a.n_bytes, _a.digest, _a.state)
_ALL: sa.Select[Any] = sa.select(*_COLUMNS).where(_OF_STORE)
_SORTED = _ALL.order_by(_a.folder, _a.version)
_OF_FOLDER = _SORTED.where(_a.folder == sa.bindparam("of_folder"))
_HIGHEST = sa.select(sa.func.max(_a.version)).where(_OF_STORE, _a.folder == sa.bindparam("of_folder"))
_STORES = sa.select(_a.store_id).where(_a.folder == sa.bindparam("of_folder"), _a.state == CURRENT).distinct()
_STATE: sa.Select[Any] = sa.select(_a.state).where(_THIS).with_for_update()
_INSERT = artifacts.insert()
_UPDATE = artifacts.update().where(_THIS)
_DELETE = artifacts.delete().where(_THIS)


class ArtifactIndex:
    """The artifacts of one store in a database that may hold those of others; safe in threads.

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

    def highest(self, folder: str) -> int:
        """Return the highest number that was ever given to a version of an artifact, 0 for none."""
        with self.database.read() as connection:
            found = connection.execute(_HIGHEST, {"of_store": self.store_id, "of_folder": folder}).scalar()
        return int(found or 0)

    def rows(self, folder: str | None = None) -> list[ArtifactRow]:
        """Return all rows of the store or of one artifact, by folder and number."""
        query, values = (_SORTED, {}) if folder is None else (_OF_FOLDER, {"of_folder": folder})
        with self.database.read() as connection:
            found = connection.execute(query, {"of_store": self.store_id, **values}).all()
        return [_row(*columns) for columns in found]

    def write(self, rows: Iterable[ArtifactRow]) -> None:
        """Make rows what is given, in one transaction; a deleted version stays deleted, whoever comes late.

        Raises
        ------
        DatabaseUnavailableError
            If the database cannot be used.  Nothing was changed.
        """
        wanted = sorted(rows, key=lambda row: row.key)  # writers that lock in one order cannot wait for each other

        def work(connection: Connection) -> None:
            statements.ensure_store(connection, self.store_id)
            for row in wanted:
                self._write(connection, row)

        if wanted:
            self.database.transact(work)

    def rebuild(self, before: Collection[ArtifactRow], scanned: Iterable[ArtifactRow]) -> None:
        """Make the rows what the files say, in one transaction; what was written during the scan is kept.

        A version that the files do not have counts as deleted.

        Parameters
        ----------
        before : collection of ArtifactRow
            The rows as they were before the scan.
        scanned : iterable of ArtifactRow
            What the files say.
        """
        wanted = sorted(scanned, key=lambda row: row.key)
        known = {row.key: row for row in before}
        # Their numbers stay taken: somebody may have noted "version 7" where there is no version 7 any more.
        gone = [replace(row, is_deleted=True) for key, row in known.items() if key not in {row.key for row in wanted}]

        def work(connection: Connection) -> None:
            statements.ensure_store(connection, self.store_id)
            for row in sorted((*wanted, *gone), key=lambda row: row.key):
                self._write(connection, row, since=known.get(row.key))

        if gone or wanted:
            self.database.transact(work)

    def _write(self, connection: Connection, row: ArtifactRow, since: ArtifactRow | None = None) -> None:
        """Write a row; a deletion is final, unless the row is as it was `since` the files were looked at."""
        state = connection.execute(_STATE, self._key(*row.key)).scalar()
        is_unchanged = since is not None and since.is_deleted == (state == DELETED)
        values = {
            "store_id": self.store_id,
            "folder": row.folder,
            "version": row.version,
            "name": row.name,
            "storage_backend": row.storage_backend,
            "type": row.type,
            "created_at": row.created_at,
            "n_bytes": row.n_bytes,
            "digest": row.digest,
            "details": row.details,
            "state": DELETED if row.is_deleted else CURRENT,
        }
        if state is None:
            connection.execute(_INSERT, values)
        elif state != DELETED or row.is_deleted or is_unchanged:
            connection.execute(_UPDATE, {**values, **self._key(*row.key)})

    def _key(self, folder: str, number: int) -> dict[str, Any]:
        return {"of_store": self.store_id, "of_folder": folder, "number": number}


def _row(
    folder: str,
    version: int,
    name: str,
    storage_backend: str,
    kind: str,
    created_at: datetime,
    n_bytes: int,
    digest: str | None,
    state: str,
) -> ArtifactRow:
    return ArtifactRow(
        folder=folder,
        version=version,
        name=name,
        storage_backend=storage_backend,
        type=kind,
        created_at=created_at,
        n_bytes=n_bytes,
        digest=digest,
        is_deleted=state == DELETED,
    )


def stores_of(database: Database, folder: str) -> list[str]:
    """Return the ids of all stores that have a living version of an artifact, by the rows."""
    with database.read() as connection:
        return sorted(connection.execute(_STORES, {"of_folder": folder}).scalars())
