"""Looking into a database without making or changing anything: no file, schema, table or journal mode."""

from __future__ import annotations

import os
import sqlite3
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from mltraq_ds.orm.engines import make_engine
from mltraq_ds.orm.schema import SCHEMA_VERSION, read_version
from mltraq_ds.orm.urls import is_in_memory

__all__ = ["find_version"]

_MAGIC = b"SQLite format 3\0"
# Bytes 18 and 19 of a file, see "Database File Format" of SQLite; an engine of ours would set them.
_WAL = b"\2\2"
_SCHEMA = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name")


def find_version(url: URL, settings: dict[str, Any]) -> int | None:
    """Return the version of the tables, or None if they, or the file of the database, are not there (yet).

    Parameters
    ----------
    url : URL
        Of the database.  One in memory has whatever is asked of it, and nobody else sees that.
    settings : dict
        Of `make_engine`.

    Raises
    ------
    SQLAlchemyError, DatabaseUnavailableError
        If it does not answer.
    """
    if url.get_backend_name() == "sqlite":
        return SCHEMA_VERSION if is_in_memory(url) else _find_in_file(str(url.database), url, settings)
    if settings.get("schema") is not None and not _has_schema(url, settings):
        return None
    return _read(make_engine(url, **settings))


def _find_in_file(path: str, url: URL, settings: dict[str, Any]) -> int | None:
    if path.startswith("file:"):
        return _read(make_engine(url, **settings))
    if not os.path.exists(path) and os.path.isdir(os.path.dirname(os.path.abspath(path))):
        return None
    try:
        with open(path, "rb") as file:
            begin = file.read(20)
    except OSError:
        return _read(make_engine(url, **settings))  # SQLite says what is wrong
    if not begin:
        return None  # SQLite takes it for a database, and would begin to fill it
    if begin.startswith(_MAGIC) and begin[18:20] != _WAL:
        uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
        return _read(sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True)))
    return _read(make_engine(url, **settings))


def _has_schema(url: URL, settings: dict[str, Any]) -> bool:
    engine = make_engine(url, **{**settings, "schema": None})  # with it, connecting makes it
    try:
        with engine.connect() as connection:
            return connection.execute(_SCHEMA, {"name": settings["schema"]}).scalar() is not None
    finally:
        engine.dispose()


def _read(engine: Engine) -> int | None:
    try:
        return read_version(engine)
    finally:
        engine.dispose()
