"""Which errors of a driver mean "this database cannot be used", in words and with the remedy."""

from __future__ import annotations

import sqlalchemy as sa

from mltraq_ds.errors import DatabaseUnavailableError
from mltraq_ds.orm import mariadb

__all__ = ["DATABASE_ERRORS", "INDEX_ERRORS", "explain", "first_line", "is_missing_table", "is_race"]

#: What may go wrong with the index after a commit, which it must not turn into a failure.
INDEX_ERRORS = (sa.exc.SQLAlchemyError, OSError)
#: What may go wrong with the database alone.
DATABASE_ERRORS = (sa.exc.SQLAlchemyError, DatabaseUnavailableError)

# Extended names (SQLITE_READONLY_DIRECTORY) start with those of the table.
_SQLITE = {
    "SQLITE_AUTH": ("access is denied", "Give this user access to the file and its folder."),
    "SQLITE_BUSY": ("another program holds it", "End that program, or wait and try again."),
    "SQLITE_CANTOPEN": ("its file cannot be opened", "Create its folder, or give access to the file and its folder."),
    "SQLITE_CORRUPT": ("its file is damaged", "Move it away, then use rebuild_index(): the store has everything."),
    "SQLITE_FULL": ("the disk is full", "Free some space, then try again."),
    "SQLITE_IOERR": ("its file cannot be read or written", "Look at the disk, then try again."),
    "SQLITE_LOCKED": ("another connection holds it", "Wait and try again."),
    "SQLITE_NOTADB": ("its file is not a SQLite database", "Choose another; or move it away and use rebuild_index()."),
    "SQLITE_PERM": ("access is denied", "Give this user access to the file and its folder."),
    "SQLITE_READONLY": ("it is read-only", "Give this user write access to the file and its folder."),
}
# Codes or classes of codes (the first two characters) of PostgreSQL, appendix A of its manual.
_POSTGRESQL = {
    "08": ("the connection is lost", "Start the server or look at the network, then try again."),
    "25006": ("it is read-only", "Connect to the primary server."),
    "28": ("it refuses the user or the password", "Look at user and password in the database URL."),
    "3D": ("there is no such database", "Create it with 'createdb', or look at the database URL."),
    "42501": ("the user may not do this", "Grant the user CREATE on the schema and rights on the tables mltraq_*."),
    "53100": ("the disk of the server is full", "Free some space there, then try again."),
    "53300": ("the server has too many connections", "Close some, or raise its 'max_connections'."),
    "55P03": ("another program holds its rows", "End that program, or wait and try again."),
    "57P": ("the server is stopping or starting", "Wait until it has started, then try again."),
}
_REFUSED = (
    "the server refuses the connection",
    "Look at user, password and database in the URL; 'createdb' makes a missing database.",
)
_UNKNOWN_PARAMETER = (
    "its URL has a parameter that the driver does not know",
    "Look at what follows '?' there; file_root, schema and experiment_id are ours, all others the driver's.",
)
_UNREACHABLE = ("the server does not answer", "Start the server, or look at host and port in the database URL.")


def explain(error: BaseException) -> tuple[str, str] | None:
    """Return reason and remedy if `error` means that the database cannot be used; None for any other error."""
    if isinstance(error, sa.exc.TimeoutError):
        return "all its connections are in use", "Use fewer threads, or wait and try again."
    if not isinstance(error, sa.exc.DBAPIError):
        return None
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return next((told for prefix, told in _SQLITE.items() if name.startswith(prefix)), None)
    number = mariadb.number_of(error)
    if number is not None:
        return mariadb.REASONS.get(number)
    state = _sqlstate(error)
    if state:
        return next((told for prefix, told in _POSTGRESQL.items() if state.startswith(prefix)), None)
    # psycopg gives a failed connect no code; what the server itself says there begins with FATAL.
    if "FATAL:" in str(error.orig):
        return _REFUSED
    if "connection option" in str(error.orig):
        return _UNKNOWN_PARAMETER
    return _UNREACHABLE if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated else None


def first_line(error: sa.exc.SQLAlchemyError) -> str:
    """Return what the driver says, without what it adds."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def is_missing_table(error: sa.exc.DBAPIError) -> bool:
    """Tell whether a table does not exist (yet)."""
    if mariadb.number_of(error) == mariadb.MISSING_TABLE:
        return True
    return _sqlstate(error) == "42P01" or str(error.orig).startswith("no such table")


def is_race(error: sa.exc.DBAPIError) -> bool:
    """Tell whether a transaction failed only because another one was faster, so that it may be tried again."""
    is_deadlock = _sqlstate(error) in ("40001", "40P01") or mariadb.number_of(error) == mariadb.DEADLOCK
    return isinstance(error, sa.exc.IntegrityError) or is_deadlock


def _sqlstate(error: sa.exc.DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
