"""Whether a database of another program answers, before that program is let loose on it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from mltraq_ds.errors import DatabaseUnavailableError, MissingExtraError, UsageError
from mltraq_ds.orm.failures import explain
from mltraq_ds.orm.urls import hide_secrets, is_in_memory

__all__ = ["check_connects"]

#: Drivers that take how long to wait for a connection (s).
_TIMED = ("mysqldb", "psycopg", "psycopg2", "pymysql")


def check_connects(url: str, timeout_s: float) -> None:
    """Connect once and change nothing; of SQLite look only whether a file could be there.

    Parameters
    ----------
    url : str
        As SQLAlchemy takes it: without a driver in it, SQLAlchemy's own choice.
    timeout_s : float
        Longest wait (s), where the driver takes one.

    Raises
    ------
    UsageError
        If it is no URL, or SQLAlchemy knows no such kind of database.
    MissingExtraError
        If its driver is not installed.
    DatabaseUnavailableError
        If it does not answer, or refuses.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError("it is not of the form 'dialect://user:password@host/database'") from None
    if parsed.get_backend_name() == "sqlite":
        if not is_in_memory(parsed) and not Path(str(parsed.database)).absolute().parent.is_dir():
            raise DatabaseUnavailableError(f"there is no folder {str(Path(str(parsed.database)).parent)!a}")
        return
    try:
        waits = {"connect_timeout": round(timeout_s)} if parsed.get_driver_name() in _TIMED else {}
        engine = sa.create_engine(parsed, poolclass=sa.NullPool, hide_parameters=True, connect_args=waits)
    except ImportError as error:
        raise MissingExtraError(f"the driver of {hide_secrets(parsed)} cannot be imported ({error})") from error
    except sa.exc.NoSuchModuleError:
        raise UsageError(f"SQLAlchemy knows no {parsed.drivername!r}") from None
    try:
        engine.connect().close()
    except sa.exc.SQLAlchemyError as error:
        told = explain(error)
        raise DatabaseUnavailableError(f"{told[0]}" if told else str(error).partition("\n")[0]) from None
    finally:
        engine.dispose()
