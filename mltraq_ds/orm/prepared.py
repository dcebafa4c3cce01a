"""Statements of every persist with their text for SQLite, which is run as it is.

SQLAlchemy compiles a statement in 0.2 to 0.7 ms, once in every process: more than SQLite takes to run all those of a
first persist.  A test compares each text with what SQLAlchemy makes of its statement, which other databases get.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, CursorResult

from mltraq_ds.orm.column_types import WRITERS

__all__ = ["Prepared", "insert"]

# Those that are Python's `sqlite3` and take named parameters.
_DRIVERS = ("pysqlite", "pysqlcipher")


class Prepared:
    """A statement, and its text for SQLite.

    Parameters
    ----------
    statement : Select, Insert or Update
        What other databases run.
    text : str
        The same for SQLite, with ``:name`` for parameters.  Values that it gives are SQLite's: times are texts.
    columns : sequence of str
        Columns that it sets; a value for each of them is given whenever it is run.
    """

    __slots__ = ("_writers", "columns", "statement", "text")

    def __init__(
        self, statement: sa.Select[Any] | sa.Insert | sa.Update, text: str, columns: Sequence[str] = ()
    ) -> None:
        self.statement = statement
        self.text = text
        self.columns = tuple(columns)
        table = () if isinstance(statement, sa.Select) else statement.table.c
        kinds = {column.name: type(column.type) for column in table if column.name in self.columns}
        self._writers = [(name, WRITERS[kind]) for name, kind in kinds.items() if kind in WRITERS]

    def run(
        self, connection: Connection, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> CursorResult[Any]:
        """Run it once, or for each mapping of a sequence."""
        dialect = connection.dialect
        if dialect.name != "sqlite" or dialect.driver not in _DRIVERS:
            return connection.execute(self.statement, parameters)
        if isinstance(parameters, Mapping):
            return connection.exec_driver_sql(self.text, self._written(parameters))
        return connection.exec_driver_sql(self.text, [self._written(row) for row in parameters])

    def _written(self, row: Mapping[str, Any]) -> dict[str, Any]:
        written = dict(row)
        try:
            for name, write in self._writers:
                written[name] = write(written[name])
        except (ArithmeticError, TypeError, ValueError) as error:
            # What SQLAlchemy makes of it, so that callers need not know who converts.
            text = f"({type(error).__name__}) {error}"
            raise sa.exc.StatementError(text, self.text, None, error, hide_parameters=True) from error
        return written


def insert(table: sa.Table) -> Prepared:
    """Return the statement that inserts rows with a value for every column."""
    columns = [column.name for column in table.c]
    names = ", ".join(f'"{name}"' if name == "key" else name for name in columns)  # a word of SQL's own
    text = f"INSERT INTO {table.name} ({names}) VALUES ({', '.join(f':{name}' for name in columns)})"
    return Prepared(table.insert(), text, columns)
