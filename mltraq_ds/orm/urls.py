"""Database URLs: what they mean, and how they are shown without secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL

from mltraq_ds.errors import UsageError

__all__ = [
    "URL",
    "check_schema",
    "hide_secrets",
    "is_in_memory",
    "is_new",
    "parse_url",
    "remove_secrets",
    "where_passwords_are",
]

# A name without a driver means the driver our extras install.
_DRIVERS = {
    "mariadb": "mariadb+pymysql",
    "mysql": "mysql+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
sa.make_url("sqlite://")  # compiles SQLAlchemy's expression for URLs: 2 ms, now and not within the first persist
_SECRET = re.compile(r"passw|passphrase|secret|token|credential|api_?key", re.IGNORECASE)


def parse_url(url: str | URL) -> URL:
    """Parse a database URL; a relative SQLite path becomes absolute now, so that it does not follow the working folder.

    Raises
    ------
    UsageError
        If it is not a URL.  The text is not repeated, since it may hold a password.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(
            "The database URL cannot be read because it is not of the form 'dialect://user:password@host/database' or "
            "'sqlite:///file.db' (characters such as '@' or '/' in a password are written '%40', '%2F')."
        ) from None
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.get_backend_name() != "sqlite" or is_in_memory(parsed) or str(parsed.database).startswith("file:"):
        return parsed
    return parsed.set(database=str(Path(str(parsed.database)).expanduser().absolute()))


def is_in_memory(url: URL) -> bool:
    """Tell whether the database lives in this process only."""
    database = url.database or ""
    return url.get_backend_name() == "sqlite" and (
        database in ("", ":memory:") or ":memory:" in database or url.query.get("mode") == "memory"
    )


def is_new(url: URL) -> bool:
    """Tell whether a database of SQLite has no file yet, as far as its URL says where that is."""
    path = str(url.database)
    is_sqlite = url.get_backend_name() == "sqlite"
    return is_sqlite and (is_in_memory(url) or not (path.startswith("file:") or os.path.lexists(path)))


def hide_secrets(url: URL) -> str:
    """Return the URL for people: passwords are ``***``."""
    shown = url.set(query={key: "***" if _SECRET.search(key) else value for key, value in url.query.items()})
    text = shown.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
    # SQLAlchemy 2.1 quotes the path of a file, which nobody could copy from a message then.
    return text.replace(quote(url.database, safe=" +/"), url.database) if url.database else text


def remove_secrets(url: URL) -> URL:
    """Return the URL without passwords, for what is written down."""
    kept = {key: value for key, value in url.query.items() if not _SECRET.search(key)}
    # `URL.set` takes None for "unchanged"
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database, kept)


def check_schema(url: URL, schema: str | None) -> None:
    """Refuse a schema that the database could not have under exactly this name."""
    if schema is None:
        return
    reason = ""
    if url.get_backend_name() != "postgresql":
        reason = "only PostgreSQL has schemas here"
    elif not schema or "\0" in schema:
        reason = "it is empty or has a NUL character"
    elif len(schema.encode("utf-8", "surrogatepass")) > 63:
        # PostgreSQL would cut it, and two long names be one.
        reason = "it is longer than 63 bytes"
    elif schema.lower().startswith("pg_"):
        reason = "PostgreSQL keeps names that start with 'pg_' for itself"
    if reason:
        raise UsageError(f"The schema {schema!r} is refused because {reason}. Use another name, or leave it out.")


def where_passwords_are(url: URL) -> str:
    """Return where a driver looks for a password that is not in the URL, as a remedy."""
    if url.get_backend_name() == "postgresql":
        return "set PGPASSWORD or use ~/.pgpass"
    return "name a file that has it in the URL, '?read_default_file=~/.my.cnf'"
