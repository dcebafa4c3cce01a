"""A database: a URL, opened on first use."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, Row

from mltraq_ds.errors import DatabaseUnavailableError, UsageError
from mltraq_ds.orm.engines import make_engine
from mltraq_ds.orm.failures import explain, first_line, is_race
from mltraq_ds.orm.looking import find_version
from mltraq_ds.orm.schema import SCHEMA_VERSION, ensure_schema
from mltraq_ds.orm.urls import check_schema, hide_secrets, is_in_memory, parse_url, remove_secrets, where_passwords_are

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Database"]

T = TypeVar("T")
_ATTEMPTS = 10


class _Opened:
    """What belongs to one process: an engine with its connections, and a lock."""

    def __init__(self, url: URL, **settings: Any) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.reader = make_engine(url, **settings)
        self.writer = self.reader.execution_options(mltraq_write=True)
        self.later_writer = self.reader.execution_options(mltraq_write=True, mltraq_later=True)
        self.file_id: tuple[int, int] | None = None
        self.is_ready = False


class Database:
    """A database that may hold the index of several stores.

    Nothing is opened, read or written before the first use.  Safe in threads; a forked child opens its own
    connections.  Pickles without connections and *without the password*, which must not be written down: an unpickled
    one takes it from where the driver looks (``PGPASSWORD``, ``~/.pgpass``).

    Parameters
    ----------
    url : str or sqlalchemy.URL
        ``sqlite:///file.db``, ``sqlite://`` (in memory, this process only), ``postgresql://…`` (psycopg 3).
    echo : bool
        Log every statement.
    timeout_s : float
        Longest wait for another writer or for a connection (s); at most 10 s of it for a server that does not answer.
    durability : {"full", "relaxed"}
        With ``relaxed`` SQLite does not wait for the disk; a server decides for itself.
    schema : str, optional
        Schema of PostgreSQL that the tables are in, any name of at most 63 bytes; made if it is missing.  By default
        what the server's ``search_path`` says.

    Raises
    ------
    UsageError
        If the URL cannot be read, or this database cannot have such a schema.

    Examples
    --------
    >>> Database("postgresql://ada:secret@db.example/lab").url
    'postgresql+psycopg://ada:***@db.example/lab'
    """

    def __init__(
        self,
        url: str | URL,
        *,
        echo: bool = False,
        timeout_s: float = 30.0,
        durability: Literal["full", "relaxed"] = "full",
        schema: str | None = None,
    ) -> None:
        self._url = parse_url(url)
        check_schema(self._url, schema)
        self._settings = dict[str, Any](echo=echo, timeout_s=timeout_s, durability=durability, schema=schema)
        self._is_copy = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._closer: weakref.finalize[..., Any] | None = None
        self._inherited: list[_Opened] = []

    @property
    def url(self) -> str:
        """The URL in use, with secrets hidden."""
        return hide_secrets(self._url)

    @property
    def is_in_memory(self) -> bool:
        """Whether the database lives in this process only."""
        return is_in_memory(self._url)

    def __repr__(self) -> str:
        return f"Database({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"url": remove_secrets(self._url), "settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._url = state["url"]
        self._settings = state["settings"]
        self._is_copy = True
        self._start()

    def __deepcopy__(self, memo: object) -> Database:
        return self  # a handle, not the rows behind it

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection in a transaction that sees one state of the database and changes nothing.

        Raises
        ------
        DatabaseUnavailableError
            If the database cannot be used.  Other errors of SQLAlchemy pass unchanged.
        """
        with self._translating():
            opened = self._open()
            with self._alone(opened) if self.is_in_memory else nullcontext(), opened.reader.connect() as connection:
                yield connection  # closing rolls back

    @contextmanager
    def write(self, *, is_durable: bool = True) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed at the end, or rolled back on any error.

        Do nothing slow inside: other writers wait.  One that need not be durable at once is with the next that is.

        Raises
        ------
        DatabaseUnavailableError
            If the database cannot be used.  Nothing was changed.
        """
        with self._translating():
            opened = self._open()
            engine = opened.writer if is_durable else opened.later_writer
            # Threads of one process queue here: SQLite itself only polls, and the unlucky one starves.
            with self._alone(opened) if self._is_sqlite else nullcontext(), engine.begin() as connection:
                yield connection

    def transact(self, work: Callable[[Connection], T], *, is_durable: bool = True) -> T:
        """Run `work` in one transaction, and again from the start where another writer was faster."""
        for _ in range(_ATTEMPTS - 1):
            try:
                with self.write(is_durable=is_durable) as connection:
                    return work(connection)
            except sa.exc.DBAPIError as error:
                if not is_race(error):
                    raise
        with self.write(is_durable=is_durable) as connection:
            return work(connection)

    def ping(self) -> None:
        """Connect and ask for an answer, making the tables if they are missing; raise `DatabaseUnavailableError`."""
        with self.read() as connection:
            connection.exec_driver_sql("SELECT 1")

    def tables_version(self) -> int | None:
        """Return the version of our tables, or None without them; unlike any other use, looking makes nothing."""
        if (opened := self._opened) is not None and opened.is_ready and opened.file_id == self._file_id():
            return SCHEMA_VERSION
        with self._translating():
            return find_version(self._url, self._settings)

    def rows(
        self, statement: str | sa.Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> tuple[list[str], list[Row[Any]]]:
        r"""Run a query and return column names and rows.

        Parameters
        ----------
        statement : str or Select
            SQL with ``:name`` for parameters (a literal colon is ``\:``), or a statement made with
            `mltraq_ds.orm.models`, whose JSON columns and times come back as Python objects on every database.
        parameters : mapping, optional
            Values of the parameters; they are bound, never pasted into the text.

        Raises
        ------
        UsageError
            If the statement gives no rows.  Whatever it did was rolled back: the index follows the files.
        """
        executable = sa.text(statement) if isinstance(statement, str) else statement
        with self.read() as connection:
            result = connection.execute(executable, dict(parameters or {}))
            if not result.returns_rows:
                raise UsageError(
                    "The statement was rolled back because it gives no rows, and query() only reads: the index follows "
                    "the files. Use a SELECT, or a connection of your own for tables of your own."
                )
            return list(result.keys()), list(result.all())

    def query(self, statement: str | sa.Select[Any], parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Run a query as `rows` does, and return a DataFrame of shape ``(rows, columns)``."""
        import pandas as pd

        columns, found = self.rows(statement, parameters)
        return pd.DataFrame([tuple(row) for row in found], columns=columns)

    def close(self) -> None:
        """Close all connections; the next use opens new ones.  An in-memory database is gone."""
        with self._lock:
            self._close_now()

    def _close_now(self) -> None:
        if self._closer is not None:
            self._closer()
        self._opened = self._closer = None

    def _open(self) -> _Opened:
        if self._pid != os.getpid():
            self._leave_parent()
        opened = self._opened
        if opened is None or not opened.is_ready or opened.file_id != self._file_id():
            opened = self._open_now()
        return opened

    def _open_now(self) -> _Opened:
        if self.is_in_memory and self._is_copy:
            raise DatabaseUnavailableError(
                f"The database {self.url} cannot be used here because it lives in the memory of another process. Set "
                "'database.url' to a file ('sqlite:///mltraq.db') or to a server to share it."
            )
        with self._lock:
            opened = self._opened
            if opened is not None and opened.is_ready and opened.file_id != self._file_id():
                self._close_now()  # the file was removed or replaced: connections would go on in one without a name
                opened = None
            if opened is None:
                opened = self._opened = _Opened(self._url, **self._settings)
                self._closer = weakref.finalize(self, _close, opened.reader, opened.pid)
            if not opened.is_ready:
                ensure_schema(opened.reader, opened.later_writer)
                opened.file_id = self._file_id()
                opened.is_ready = True
            return opened

    def _leave_parent(self) -> None:
        # After a fork: the parent's connections are kept, unused and unclosed, because closing would end its
        # conversation; its lock may be held for ever by a thread that does not exist here.
        inherited = [*self._inherited, *([self._opened] if self._opened else [])]
        self._is_copy = True
        self._start()
        self._inherited = inherited

    def _file_id(self) -> tuple[int, int] | None:
        if not self._is_sqlite or self.is_in_memory:
            return None
        try:
            status = os.stat(str(self._url.database))
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @contextmanager
    def _alone(self, opened: _Opened) -> Iterator[None]:
        timeout_s: float = self._settings["timeout_s"]
        if not opened.lock.acquire(timeout=timeout_s):
            raise DatabaseUnavailableError(
                f"The database {self.url} cannot be used because another thread has held it for {timeout_s:g} s. Wait "
                "for that thread, or raise 'timeout_s'."
            )
        try:
            yield
        finally:
            opened.lock.release()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            told = explain(error)
            if told is None:
                raise
            reason, remedy = told
            if self._is_copy and not self._url.password:
                remedy += f" A password does not travel to other processes: {where_passwords_are(self._url)}."
            text = f"The database {self.url} cannot be used because {reason} ({first_line(error)}). {remedy}"
            raise DatabaseUnavailableError(text) from error


def _close(engine: Engine, pid: int) -> None:
    if pid == os.getpid():
        engine.dispose()
