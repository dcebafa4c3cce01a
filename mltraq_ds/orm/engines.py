"""Make engines: what each kind of database needs before its first statement."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.dialects.sqlite  # where most indexes are; not within the first persist
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from mltraq_ds.errors import DatabaseUnavailableError, MissingExtraError, UsageError
from mltraq_ds.orm import mariadb
from mltraq_ds.orm.urls import hide_secrets, is_in_memory
from mltraq_ds.storage.mounts import filesystem_type

__all__ = ["is_network_folder", "make_engine"]

_EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
_CONNECT_TIMEOUT_S = 10.0
_SCHEMA_LOCK = 0x6D6C7473  # "mlts"
_NETWORK_KINDS = re.compile("9p|afs|beegfs|ceph|cifs|glusterfs|gpfs|lustre|ncpfs|nfs4?|orangefs|smb2|smb3|smbfs")
# Others of the FUSE family are local disks.
_NETWORK_FUSES = ("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.glusterfs", "fuse.blobfuse")


def make_engine(url: URL, *, echo: bool, timeout_s: float, durability: str, schema: str | None = None) -> Engine:
    """Return an engine that has not connected yet; `schema` is one of PostgreSQL, made if it is missing.

    Raises
    ------
    MissingExtraError
        If the driver is not installed.
    UsageError
        If SQLAlchemy knows no such kind of database.
    DatabaseUnavailableError
        If a SQLite file is on a network file system.
    """
    kind = url.get_backend_name()
    try:
        if kind == "sqlite":
            return _make_sqlite(url, echo=echo, timeout_s=timeout_s, durability=durability)
        return _make_server(url, echo=echo, timeout_s=timeout_s, schema=schema)
    except ImportError as error:
        extra = _EXTRAS.get(kind)
        remedy = f'pip install "mltraq-ds[{extra}]"' if extra else f"install the driver of {url.drivername!r}"
        raise MissingExtraError(
            f"The database {hide_secrets(url)} cannot be used because its driver cannot be imported ({error}). "
            f"Remedy: {remedy}"
        ) from error
    except sa.exc.NoSuchModuleError as error:
        raise UsageError(
            f"The database {hide_secrets(url)} cannot be used because SQLAlchemy knows no {url.drivername!r}. Use "
            "sqlite:///, postgresql:// or mysql://, or install the package that brings it."
        ) from error


def _make_sqlite(url: URL, *, echo: bool, timeout_s: float, durability: str) -> Engine:
    # Isolation level None: the driver starts no transactions of its own, see `_begin`.
    arguments: dict[str, Any] = {"timeout": timeout_s, "isolation_level": None, "check_same_thread": False}
    # Parameters are hidden everywhere: an error or a log line must not print the values of a run.
    if is_in_memory(url):
        engine = sa.create_engine(url, echo=echo, hide_parameters=True, poolclass=StaticPool, connect_args=arguments)
    else:
        _refuse_network_folder(url)
        engine = sa.create_engine(
            url, echo=echo, hide_parameters=True, poolclass=sa.QueuePool, pool_timeout=timeout_s, connect_args=arguments
        )
    # OFF keeps the promise of "relaxed": no fsync at all.  NORMAL: a power cut may undo the last commits, each whole,
    # and in order, so that the next FULL one makes those durable too: https://sqlite.org/pragma.html#pragma_synchronous
    at_once, later = ("FULL", "NORMAL") if durability == "full" else ("OFF", "OFF")

    def set_up(connection: Any, entry: ConnectionPoolEntry) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA synchronous={at_once}")
        if not is_in_memory(url):
            _use_wal(connection, timeout_s, later)
        entry.info["synchronous"] = None  # set anew before the first write

    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        is_write = options.get("mltraq_write", False)
        wanted = later if options.get("mltraq_later", False) else at_once
        if is_write and connection.info["synchronous"] != wanted:
            connection.info["synchronous"] = None  # an interrupt in between must not leave it in doubt
            connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
            connection.info["synchronous"] = wanted
        # A deferred transaction that writes after it has read fails with "database is locked" without waiting when
        # another one wrote in between; one that takes the write lock first waits its turn.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    sa.event.listen(engine, "connect", set_up)
    sa.event.listen(engine, "begin", begin)
    return engine


def _use_wal(connection: Any, timeout_s: float, synchronous: str) -> None:
    # The mode is kept in the file.  Changing it does not wait for other connections (SQLite does not call its busy
    # handler there), so that two processes opening a new file would fail.
    import sqlite3

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                if connection.execute("PRAGMA page_count").fetchone()[0] == 0:  # nothing that a power cut could damage
                    connection.execute(f"PRAGMA synchronous={synchronous}")
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def _refuse_network_folder(url: URL) -> None:
    folder = Path(str(url.database)).parent
    if not str(url.database).startswith("file:") and is_network_folder(folder):
        raise DatabaseUnavailableError(
            f"The database {hide_secrets(url)} cannot be used because its folder is on a network file system, where "
            "SQLite's write-ahead log loses data. Set 'database.url' to a file on a local disk or to a PostgreSQL "
            "server; the store itself may stay where it is."
        )


def is_network_folder(folder: Path) -> bool:
    """Tell whether a folder is on a network file system; False where that is not known."""
    try:
        resolved = folder.resolve()
        kind = filesystem_type(resolved.stat().st_dev, str(resolved)) or ""
    except OSError:
        return False  # no such folder: SQLite says so
    return _NETWORK_KINDS.fullmatch(kind) is not None or kind.startswith(_NETWORK_FUSES)


def _make_server(url: URL, *, echo: bool, timeout_s: float, schema: str | None) -> Engine:
    arguments: dict[str, Any] = {}
    if url.drivername in ("postgresql+psycopg", "postgresql+psycopg2"):
        arguments = {
            "application_name": "mltraq_ds",
            "connect_timeout": max(2, round(min(timeout_s, _CONNECT_TIMEOUT_S))),
            # A server that vanished in mid-sentence is noticed too, not only one that never answered.
            "tcp_user_timeout": round(timeout_s * 1000),
        }
    is_mariadb = url.drivername in ("mysql+pymysql", "mariadb+pymysql")
    if is_mariadb:
        wait_s = max(2, round(min(timeout_s, _CONNECT_TIMEOUT_S)))
        arguments = {"connect_timeout": wait_s, "read_timeout": wait_s, "write_timeout": wait_s}
    arguments = {key: value for key, value in arguments.items() if key not in url.query}
    engine = sa.create_engine(
        url,
        echo=echo,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_timeout=timeout_s,
        connect_args=arguments,
        **({"isolation_level": "READ COMMITTED"} if is_mariadb else {}),
    )
    if is_mariadb:
        mariadb.set_up(engine, timeout_s)
    if url.get_backend_name() == "postgresql":
        quoted = None if schema is None else engine.dialect.identifier_preparer.quote_identifier(schema)

        def set_up(connection: Any, _: ConnectionPoolEntry) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {round(timeout_s * 1000)}")
                if quoted is not None:
                    _use_schema(cursor, str(schema), quoted)
            connection.commit()

        sa.event.listen(engine, "connect", set_up)
    return engine


def _use_schema(cursor: Any, schema: str, quoted: str) -> None:
    cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
    if cursor.fetchone() is None:
        # "IF NOT EXISTS" alone races: both see nothing, and the second fails.
        cursor.execute(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
    cursor.execute(f"SET search_path = {quoted}")
