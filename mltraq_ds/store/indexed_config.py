"""Configurations of stores with an index: files, and a database that finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from mltraq_ds.errors import UsageError
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.urls import URL, check_schema, parse_url
from mltraq_ds.store.config import StoreConfig
from mltraq_ds.store.file_config import FileStoreConfig, root_of
from mltraq_ds.store.indexed import IndexedStore, PostgresStore
from mltraq_ds.store.locator_parts import LocatorInfo, refuse_dots, without_parameters
from mltraq_ds.store.secrets import is_reference

__all__ = ["IndexedStoreConfig", "MysqlStoreConfig", "PostgresStoreConfig", "SqliteStoreConfig"]

#: Parameters of a URL that are ours; all others are the driver's.
_OURS = frozenset(("experiment_id", "file_root", "schema"))


@dataclass(frozen=True, kw_only=True)
class IndexedStoreConfig(StoreConfig):
    """Where the files and the index of a store are.

    Parameters
    ----------
    connection_string : str
        URL of the database; parameters after ``?`` are the driver's (``sslmode=require``).
    file_root : str or path
        Root of the files, as `FileStoreConfig` takes it.
    storage_options : mapping, optional
        Of the files, as fsspec and pandas take them.
    connect_timeout_s : float
        Longest wait for a database that does not answer (s); waited for once, not in every call.
    experiment_id : str, optional
        The experiment that the store is scoped to.
    """

    connection_string: str = ""
    file_root: str = ""
    storage_options: Mapping[str, Any] | None = field(default=None, hash=False)
    connect_timeout_s: float = 10.0

    #: Databases, by SQLAlchemy's names, that the class is for; none means any.
    backends: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.connection_string:
            raise UsageError(f"{type(self).__name__} needs a connection_string, such as '{self.scheme}://…'.")
        if not self.file_root:
            raise UsageError(
                f"A store of the scheme {self.scheme!r} needs file_root: where records, artifacts and logs are kept, "
                "since the database only finds them. Pass file_root=…, or write ?file_root=/path into the URL."
            )
        object.__setattr__(self, "file_root", root_of(self.file_root))
        if not is_reference(self.connection_string):
            self._check(self._url(self.connection_string))

    def _url(self, connection_string: str) -> URL:
        url = parse_url(connection_string)
        if self.backends and url.get_backend_name() not in self.backends:
            raise UsageError(
                f"A {type(self).__name__} cannot have a connection_string for {url.get_backend_name()!r}. Write "
                f"'{self.scheme}://…', or use create_store(), which finds the class by the scheme."
            )
        return url

    def _check(self, url: URL) -> None:
        """Refuse what is wrong beside the kind of database."""

    @property
    def files(self) -> FileStoreConfig:
        """The same store without its index."""
        return FileStoreConfig(
            root=self.file_root, storage_options=self.storage_options, experiment_id=self.experiment_id
        )

    def database(self) -> Database:
        """Return the database of the index, not connected yet."""
        return Database(self._url(self.resolved("connection_string")), timeout_s=self.connect_timeout_s)

    def connect(self) -> IndexedStore:
        """Return the store.  The database is asked when it is first needed."""
        return IndexedStore.over(self.files.connect(), self.database(), config=self)

    @classmethod
    def from_locator(cls, info: LocatorInfo, **kwargs: Any) -> Self:
        """Return the configuration of a database URL with ``file_root``; other parameters are the driver's."""
        ours = {name: value for name, value in info.params.items() if name in _OURS}
        for name, value in ours.items():
            if not isinstance(value, str):
                raise UsageError(f"The URL is refused because {name} is in it {len(value)} times. Write it once.")
        if file_root := ours.get("file_root"):
            refuse_dots(f"file://{file_root}")  # like the URL itself it may come from elsewhere
        url = without_parameters(info.raw, _OURS)
        if not (ours.get("file_root") or kwargs.get("file_root")):
            kwargs["file_root"] = ""  # the class says what is missing
        return cls.from_fields({"connection_string": url, **ours, **kwargs})


@dataclass(frozen=True, kw_only=True)
class PostgresStoreConfig(IndexedStoreConfig):
    """A store with its index in PostgreSQL.

    Parameters
    ----------
    connection_string : str
        ``postgresql://user@host/database`` (psycopg 3).
    schema : str, optional
        Schema of the tables, any name of at most 63 bytes; made if it is missing.
    file_root, storage_options, connect_timeout_s, experiment_id
        As `IndexedStoreConfig`.
    """

    scheme: ClassVar[str] = "postgresql"

    schema: str | None = None

    backends = frozenset(("postgresql",))

    def _check(self, url: URL) -> None:
        check_schema(url, self.schema)

    def database(self) -> Database:
        # docstring inherited
        url = self._url(self.resolved("connection_string"))
        return Database(url, timeout_s=self.connect_timeout_s, schema=self.schema)

    def connect(self) -> PostgresStore:
        # docstring inherited
        return PostgresStore.over(self.files.connect(), self.database(), config=self)


@dataclass(frozen=True, kw_only=True)
class SqliteStoreConfig(IndexedStoreConfig):
    """A store with its index in a file of SQLite; parameters as `IndexedStoreConfig`."""

    scheme: ClassVar[str] = "sqlite"

    backends = frozenset(("sqlite",))

    def _check(self, url: URL) -> None:
        # A relative file would follow the working directory.
        object.__setattr__(self, "connection_string", url.render_as_string(hide_password=False))


@dataclass(frozen=True, kw_only=True)
class MysqlStoreConfig(IndexedStoreConfig):
    """A store with its index in MySQL or MariaDB; parameters as `IndexedStoreConfig`."""

    scheme: ClassVar[str] = "mysql"
    backends = frozenset(("mariadb", "mysql"))
