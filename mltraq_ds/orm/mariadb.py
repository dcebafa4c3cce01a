"""What MariaDB and MySQL need: their words for a failure, a strict session, and tables that keep every text."""

from __future__ import annotations

import math
import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["DEADLOCK", "MISSING_TABLE", "REASONS", "is_mariadb", "lock_schema", "number_of", "set_up", "table_text"]

DEADLOCK = 1213
MISSING_TABLE = 1146

_RIGHTS = ("the user may not do this", "Grant the user all rights on the database: GRANT ALL ON <database>.* TO …")
_REFUSES = ("it refuses the user or the password", "Look at user and password in the database URL.")
_FULL = ("the disk of the server is full", "Free some space there, then try again.")
_LOST = ("the connection is lost", "Start the server or look at the network, then try again.")
_READ_ONLY = ("it is read-only", "Connect to the primary server.")
_STOPS = ("the server is stopping or starting", "Wait until it has started, then try again.")
_TOO_LARGE = ("a row is larger than it takes", "Raise 'max_allowed_packet' of the server.")
_UNREACHABLE = ("the server does not answer", "Start the server, or look at host and port in the database URL.")

#: Number of an error, of the server or of its client, to reason and remedy.
REASONS = {
    1021: _FULL,
    1040: ("the server has too many connections", "Close some, or raise its 'max_connections'."),
    1044: _RIGHTS,
    1045: _REFUSES,
    1046: ("the URL names no database", "Add its name to the URL: mysql://user@host/database."),
    1049: ("there is no such database", "Create it with CREATE DATABASE, or look at the database URL."),
    1053: _STOPS,
    1114: _FULL,
    1142: _RIGHTS,
    1153: _TOO_LARGE,
    1205: ("another program holds its rows", "End that program, or wait and try again."),
    1227: _RIGHTS,
    1290: _READ_ONLY,
    1698: _REFUSES,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
    1927: _LOST,
    2002: _UNREACHABLE,
    2003: _UNREACHABLE,
    2005: _UNREACHABLE,
    2006: _LOST,
    2013: _LOST,
    2020: _TOO_LARGE,
}


def is_mariadb(dialect: Dialect) -> bool:
    """Tell whether a dialect is that of MariaDB or MySQL."""
    return dialect.name in ("mariadb", "mysql")


def number_of(error: sa.exc.DBAPIError) -> int | None:
    """Return the number of an error of these servers; None for others."""
    number = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return number if isinstance(number, int) else None


def set_up(engine: Engine, timeout_s: float) -> None:
    """Have every connection wait for locks no longer than `timeout_s` (s), and refuse what it cannot keep."""
    wait_s = max(1, math.ceil(timeout_s))

    def connected(connection: Any, _: ConnectionPoolEntry) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {wait_s}, SESSION lock_wait_timeout = {wait_s}")
            # Otherwise a server may be configured to cut texts that are too long, with a warning that nobody reads.
            cursor.execute("SET SESSION sql_mode = CONCAT_WS(',', @@sql_mode, 'STRICT_TRANS_TABLES')")
        connection.commit()
        # The handshake is waited for as long as the connection; a query of a user may take its time.
        connection._read_timeout = connection._write_timeout = None

    sa.event.listen(engine, "connect", connected)


def lock_schema(connection: Connection) -> None:
    """Let one connection at a time make the tables, which no transaction does here.

    The lock ends with the connection, which is not used again.
    """
    connection.detach()
    connection.exec_driver_sql("SELECT GET_LOCK(CONCAT('mltraq_ds.', SHA1(DATABASE())), 30)")


def table_text(created: str, table: sa.Table, dialect: Dialect) -> str:
    """Return the statement that makes a table and its indexes in one step.

    Texts are told apart byte by byte, trailing blanks too, have no length, and times have microseconds.  JSON is kept
    as text: the type of that name refuses documents nested more than 32 deep.
    """
    # pymysql is the only driver of ours; with another one the dialect says what it is just the same.
    collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    body = re.sub(r"\b(?:TEXT|JSON)\b(?:\(\d+\))?", "LONGTEXT", created.strip().removesuffix(")").rstrip())
    body = re.sub(r"\bDATETIME\b", "DATETIME(6)", body)
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    for index in indexes:
        body += f",\n\tINDEX {index.name} ({', '.join(column.name for column in index.columns)})"
    return f"{body}\n) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {collation}"
