"""Probing: what is found in a database, and whether it can be written."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from mltraq_ds.errors import DatabaseUnavailableError
from mltraq_ds.orm.schema import read_version
from mltraq_ds.orm.tables import CURRENT, experiments, stores

__all__ = ["DatabaseReport", "found_in", "write_probe"]

_VERSION = {"sqlite": "SELECT sqlite_version()", "postgresql": "SHOW server_version"}
_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """What was found in a database.

    Parameters
    ----------
    url : str
        URL in use, secrets hidden.
    server : str
        Kind and version of the server, or of SQLite.
    tables_version : int or None
        Version of our tables; None if they are not there yet.
    stores, experiments : int
        How many stores the database knows, and how many experiments of theirs.
    """

    url: str
    server: str
    tables_version: int | None
    stores: int = 0
    experiments: int = 0

    def __str__(self) -> str:
        if self.tables_version is None:
            return f"{self.url} answers: {self.server}, no tables of mltraq_ds yet; they are made when it is first used"
        return (
            f"{self.url} answers: {self.server}, tables of version {self.tables_version}, stores: {self.stores}, "
            f"experiments: {self.experiments}"
        )


def found_in(engine: Engine, url: str) -> DatabaseReport:
    """Connect and look; nothing is changed."""
    kind = engine.dialect.name
    with engine.connect() as connection:
        version = str(connection.exec_driver_sql(_VERSION.get(kind, "SELECT VERSION()")).scalar())
    name = "MariaDB" if "MariaDB" in version else _NAMES.get(kind, kind)
    server = f"{name} {version.partition('-')[0]}"
    tables_version = read_version(engine)
    if tables_version is None:
        return DatabaseReport(url, server, None)
    with engine.connect() as connection:
        n_stores = connection.execute(sa.select(sa.func.count()).select_from(stores)).scalar_one()
        current = sa.select(sa.func.count()).select_from(experiments).where(experiments.c.state == CURRENT)
        n_experiments = connection.execute(current).scalar_one()
    return DatabaseReport(url, server, tables_version, int(n_stores), int(n_experiments))


def write_probe(connection: Connection, url: str) -> None:
    """Write a row, read it and delete it, in one transaction, so that a kill leaves nothing.

    Raises
    ------
    DatabaseUnavailableError
        If what was read is not what was written.
    """
    probe = f"probe-{uuid.uuid4()}"
    is_probe = stores.c.store_id == probe
    connection.execute(stores.insert(), {"store_id": probe, "url": probe, "seen_at": datetime.now(UTC)})
    read = connection.execute(sa.select(stores.c.url).where(is_probe)).scalars().all()
    deleted = connection.execute(stores.delete().where(is_probe)).rowcount
    if read != [probe] or deleted != 1:
        raise DatabaseUnavailableError(
            f"The database {url} cannot be used because a row that was written came back as {len(read)} rows. Look at "
            "its triggers and rules, or use another database."
        )
