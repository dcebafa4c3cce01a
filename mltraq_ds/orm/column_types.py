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

__all__ = ["JsonText", "UtcDateTime"]


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
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"The time {value} has no time zone; use datetime.now(UTC).")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give every time its zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
