"""The database that options name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mltraq_ds.errors import DatabaseUnavailableError, UsageError
from mltraq_ds.orm import database
from mltraq_ds.orm.engines import make_engine
from mltraq_ds.orm.probing import DatabaseReport, found_in, write_probe
from mltraq_ds.settings import Settings, options, resolve

__all__ = ["Database", "told_where"]

# Origins that whoever makes the call knows.
_NEAR = ("argument", "default")


class Database(database.Database):
    """A database that may hold the index of several stores.

    Nothing is opened, read or written before the first use.  Safe in threads; a forked child opens its own
    connections.  Pickles without connections and without the password.

    Parameters
    ----------
    url : str or sqlalchemy.URL
        ``sqlite:///file.db``, ``sqlite://`` (in memory, this process only), ``postgresql://…`` or ``postgres://…``
        (psycopg 3), ``mariadb://…`` or ``mysql://…`` (pymysql).
    echo : bool
        Log every statement.
    timeout_s : float
        Longest wait for another writer or for a connection (s); at most 10 s of it for a server that does not answer.
    durability : {"full", "relaxed"}
        With ``relaxed`` SQLite does not wait for the disk; a server decides for itself.

    Raises
    ------
    UsageError
        If the URL cannot be read.
    """

    #: Which variable, or file and line, its URL is from, for messages; empty if the caller knows.
    _origin = ""

    @classmethod
    def from_environment(cls) -> Database:
        """Return the database that a session made now would use; neither driver nor server is needed.

        Everything has its say as usual: `options.ctx`, `options.set`, the command line, the environment
        (``MLTRAQ_DS_DATABASE_URL``), the configuration file.

        Raises
        ------
        UsageError
            If the URL cannot be read, or an option, variable or line of the file cannot be used.

        Examples
        --------
        >>> with options.ctx({"database.url": "postgres://ada:secret@db.example/lab"}):
        ...     print(Database.from_environment().url)
        postgresql+psycopg://ada:***@db.example/lab
        """
        options.reload()
        return cls.from_settings(resolve())

    @classmethod
    def from_settings(cls, settings: Settings) -> Database:
        """Return the database that resolved options name; nothing is opened until it is used."""
        with told_where(settings, "database.url"):
            found = cls(
                settings["database.url"], echo=settings["database.echo"], durability=settings["datastore.durability"]
            )
        found._origin = _told(settings, "database.url")
        return found

    @contextmanager
    def _translating(self) -> Iterator[None]:
        was_open = self._opened is not None
        try:
            with super()._translating():
                yield
        except (DatabaseUnavailableError, UsageError) as error:
            # Of an open database it is about the statement; what is unusable only shows when it is opened.
            is_about_us = isinstance(error, DatabaseUnavailableError) or not was_open
            if not (self._origin and is_about_us) or self._origin in str(error):
                raise
            raise type(error)(f"{error} {self._origin}") from error.__cause__

    def check(self) -> DatabaseReport:
        """Connect and say what is there; nothing is made or changed, and nothing else is tried in its place.

        Returns
        -------
        DatabaseReport
            Server, tables, numbers of stores and experiments; its text is one sentence.

        Raises
        ------
        DatabaseUnavailableError
            If it cannot be reached or used; the text says why and what to do.
        MissingExtraError
            If the driver is not installed; the text has the pip command.
        """
        if self.is_absent():
            return DatabaseReport(self.url, "SQLite, no file yet", None)
        with self._translating():
            engine = make_engine(self._url, **self._settings)
            try:
                return found_in(engine, self.url)
            finally:
                engine.dispose()

    def is_absent(self) -> bool:
        """Tell whether it is a file of SQLite that the first use would make; looking does not make it."""
        # In a folder that is missing too, connecting says what is wrong.
        path = None if self.is_in_memory or self._url.get_backend_name() != "sqlite" else str(self._url.database)
        return path is not None and not os.path.exists(path) and os.path.isdir(os.path.dirname(path))

    def write_probe(self) -> None:
        """Write a row, read it and delete it; the tables are made if they are missing.

        Raises
        ------
        DatabaseUnavailableError
            If that is not possible.  Nothing is left.
        """
        with self.write() as connection:
            write_probe(connection, self.url)


@contextmanager
def told_where(settings: Settings, *names: str) -> Iterator[None]:
    """Add to an error of usage where the options are from, unless the caller knows."""
    try:
        yield
    except UsageError as error:
        told = _told(settings, *names)
        if not told:
            raise
        raise type(error)(f"{error} {told}") from error.__cause__


def _told(settings: Settings, *names: str) -> str:
    origins = {name: settings.origin(name) for name in names}
    return " ".join(f"Option {name!r} is from: {origin}." for name, origin in origins.items() if origin not in _NEAR)
