"""Column types: JSON given as text, and instants in UTC."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

from mltraq_ds.orm.mariadb import is_mariadb

__all__ = ["WRITERS", "JsonText", "UtcDateTime", "read_time"]


def _to_json_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    # NaN is not JSON: PostgreSQL refuses it and SQLite would keep a text that no other tool reads.
    return json.dumps(value, allow_nan=False)


class JsonText(TypeDecorator[Any]):
    """JSON (JSONB on PostgreSQL); a ``str`` bound to it *is* JSON text already, so that records are serialised once.

    Reading gives Python objects.  Columns of this type hold objects, so a ``str`` is never meant as a JSON string.
    """

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use JSONB where there is one."""
        if dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import JSONB

            return dialect.type_descriptor(JSONB())
        return dialect.type_descriptor(sa.JSON())

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Pass text on as it is."""
        # Not `process_bind_param`: what it returns is handed to the JSON type of the dialect, which would encode the
        # text a second time.
        return _to_json_text

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:
        """Compare ``fields["x"] == "a"`` with the JSON value ``"a"``: there a ``str`` is a value, not a text."""
        return _JsonOperand()


class _JsonOperand(JsonText):
    """A Python value that is compared with JSON."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Serialise everything, but texts for MariaDB: it compares what is in the quotes with what is without."""
        serialise = partial(json.dumps, allow_nan=False)
        if is_mariadb(dialect):
            return lambda value: value if isinstance(value, str) else serialise(value)
        return serialise


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware ``datetime`` in and out, kept in UTC also where the database knows no time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse times without a zone: nobody would know which instant was meant."""
        return None if value is None else _in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give every time its zone back."""
        return None if value is None else _with_zone(value)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError(f"The time {value} has no time zone; use datetime.now(UTC).")
    return value.astimezone(UTC)


def _with_zone(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _to_time_text(value: datetime | None) -> str | None:
    return None if value is None else _in_utc(value).replace(tzinfo=None).isoformat(" ", "microseconds")


def read_time(value: datetime | str | None) -> datetime | None:
    """Return an instant from what a statement run as text gave: SQLite keeps times as text."""
    return _with_zone(datetime.fromisoformat(value)) if isinstance(value, str) else value


#: What is made of a value for SQLite, by the type of its column, as SQLAlchemy would.
WRITERS: dict[type, Callable[[Any], Any]] = {JsonText: _to_json_text, UtcDateTime: _to_time_text}
