"""Create the tables once, by whoever comes first; look at one number ever after."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.schema import CreateIndex, CreateTable

from mltraq_ds.errors import FormatError
from mltraq_ds.orm import tables
from mltraq_ds.orm.ddl import SQLITE
from mltraq_ds.orm.failures import is_missing_table
from mltraq_ds.orm.mariadb import is_mariadb, lock_schema, table_text
from mltraq_ds.orm.prepared import insert
from mltraq_ds.orm.urls import is_new

__all__ = ["SCHEMA_VERSION", "ensure_schema", "read_version"]

SCHEMA_VERSION = 3  # 2: mltraq_artifacts; 3: mltraq_records, mltraq_documents

# A table and not SQLite's `user_version`: a database shared with other programs has one of those, and it is theirs.
_READ = "SELECT version FROM mltraq_schema_version"
_INSERT = insert(tables.schema_version)
_LOCK_NUMBER = 0x6D6C7472  # "mltr": the lock is shared with nobody else in the database


def ensure_schema(reader: Engine, writer: Engine) -> None:
    """Create the tables that are missing; safe when several processes do so at once.

    Parameters
    ----------
    reader, writer : Engine
        The same database; transactions of `writer` take the write lock at their start.

    Raises
    ------
    FormatError
        If the tables were made by a newer version of the library.  Nothing was changed.
    """
    version = None if is_new(reader.url) else read_version(reader)  # an error of SQLAlchemy's takes a millisecond
    if version is None or version < SCHEMA_VERSION:  # each version has only added tables to the one before
        with writer.begin() as connection:
            _refuse_newer(_create(connection), reader)  # inside: what was made is undone
    else:
        _refuse_newer(version, reader)


def _refuse_newer(version: int, reader: Engine) -> None:
    if version > SCHEMA_VERSION:
        raise FormatError(
            f"The database {reader.url.database!r} cannot be used because its tables have version {version} and this "
            f"library knows {SCHEMA_VERSION}. Upgrade mltraq-ds, or use another database and rebuild_index()."
        )


def read_version(reader: Engine) -> int | None:
    """Return the version of the tables, or None if they are not there."""
    with reader.connect() as connection:
        try:
            version: int | None = connection.exec_driver_sql(_READ).scalar()
        except sa.exc.DBAPIError as error:
            if not is_missing_table(error):
                raise
            return None
    return version


def _create(connection: Connection) -> int:
    if connection.dialect.name == "postgresql":
        # "IF NOT EXISTS" alone races in PostgreSQL: both see nothing, the second fails on a unique system index.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})")
    elif is_mariadb(connection.dialect):
        lock_schema(connection)
    is_sqlite = connection.dialect.name == "sqlite"
    for statement in SQLITE if is_sqlite else _render(connection.dialect):
        connection.exec_driver_sql(statement)
    version: int | None = connection.exec_driver_sql(_READ).scalar()
    if version is None:
        version = SCHEMA_VERSION
        _INSERT.run(connection, {"version": version})
    elif version < SCHEMA_VERSION:
        version = SCHEMA_VERSION
        connection.execute(tables.schema_version.update(), {"version": version})
    return version


def _render(dialect: Dialect) -> list[str]:
    statements: list[str] = []
    for table in tables.metadata.sorted_tables:
        created = str(CreateTable(table, if_not_exists=True).compile(dialect=dialect))
        if is_mariadb(dialect):
            statements.append(table_text(created, table, dialect))
            continue
        statements.append(created)
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements.extend(str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect)) for index in indexes)
    return statements
