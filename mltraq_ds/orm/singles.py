"""The index of what is put one by one: run records, derived metrics and manifests of experiments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mltraq_ds.orm import statements
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import ExperimentRow
from mltraq_ds.orm.single_rows import DocumentRow, SingleRow, digest_key
from mltraq_ds.orm.tables import CURRENT, DELETED, documents, experiments, records, runs

__all__ = ["SingleIndex", "Stamps"]

#: Size and time of the file of each run (or document), by its id (or name).
Stamps = dict[str, str]

_r, _c, _d, _e = runs.c, records.c, documents.c, experiments.c
_RUN_COLUMNS = statements.RUN_COLUMNS


def _of(table: sa.Table) -> sa.ColumnElement[bool]:
    return (table.c.store_id == sa.bindparam("of_store")) & (table.c.id_experiment == sa.bindparam("id"))


_STATE: sa.Select[Any] = sa.select(_e.state, _e.generation).where(_of(experiments))
_HIDE = runs.delete().where(_of(runs), _r.position >= 0, _r.id_run == sa.bindparam("run"))
_FEWER = experiments.update().where(_of(experiments)).values(n_runs=_e.n_runs - 1)
_REVIVE = experiments.update().where(_of(experiments))
_POSITION: sa.Select[Any] = sa.select(_c.position).where(_of(records), _c.run_key == sa.bindparam("key"))
_UPDATE_RUN = runs.update().where(_of(runs), _r.position == sa.bindparam("at"))
_UPDATE_RECORD = records.update().where(_of(records), _c.run_key == sa.bindparam("key"))
_DELETE_RUN = runs.delete().where(_of(runs), _r.position == sa.bindparam("at"))
_DELETE_RECORD = records.delete().where(_of(records), _c.run_key == sa.bindparam("key"))
_DELETE_DOCUMENT = documents.delete().where(
    _of(documents), _d.kind == sa.bindparam("of_kind"), _d.doc_key == sa.bindparam("key")
)
_STAMPS: sa.Select[Any] = sa.select(_c.id_run, _c.stamp).where(_of(records))
_DOCUMENT_STAMPS: sa.Select[Any] = sa.select(_d.name, _d.stamp).where(
    _of(documents), _d.kind == sa.bindparam("of_kind")
)
_ONE: sa.Select[Any] = sa.select(_c.id_experiment, _c.stamp, _c.record).where(
    _c.store_id == sa.bindparam("of_store"), _c.run_key == sa.bindparam("key")
)
_LISTED: sa.Select[Any] = (
    sa.select(_r.id_experiment, _r.id_run, _r.position, _c.stamp, _c.record)
    .select_from(
        runs.outerjoin(
            records,
            (_r.store_id == _c.store_id) & (_r.id_experiment == _c.id_experiment) & (_r.position == _c.position),
        )
    )
    .where(_r.store_id == sa.bindparam("of_store"))
    .order_by(_r.id_experiment, _r.position)
)
_VALUES: sa.Select[Any] = sa.select(_r.params, _r.fields).where(_r.store_id == sa.bindparam("of_store"))


class SingleIndex:
    """The rows of one store that do not come with a generation.

    Parameters
    ----------
    index : Index
        Of the store.
    """

    def __init__(self, index: Index) -> None:
        self.database = index.database
        self.store_id = index.store_id

    def put(self, experiment: ExperimentRow, rows: Sequence[SingleRow]) -> None:
        """Write the rows of records, in place of earlier ones; `experiment` is used if it has no row yet."""
        attempt = iter(range(1000))

        def work(connection: Connection) -> None:
            salt = next(attempt)
            has_generation = self._ensure_experiment(connection, experiment)
            for row in rows:
                self._put(connection, experiment.id_experiment, row, salt)
                if has_generation:
                    # What was put alone stands in the place of the run of the generation.
                    of = {"of_store": self.store_id, "id": experiment.id_experiment}
                    if connection.execute(_HIDE, {**of, "run": row.id_run}).rowcount:
                        connection.execute(_FEWER, of)

        self.database.transact(work)

    def _put(self, connection: Connection, id_experiment: str, row: SingleRow, salt: int) -> None:
        run = {name: getattr(row, name) for name in _RUN_COLUMNS}
        record = {"put_id": row.put_id, "stamp": row.stamp, "record": row.record, "id_run": row.id_run}
        of = {"of_store": self.store_id, "id": id_experiment}
        key = digest_key(row.id_run)
        position = connection.execute(_POSITION, {**of, "key": key}).scalar()
        common = {"store_id": self.store_id, "id_experiment": id_experiment}
        if position is None:
            position = place(row.id_run, salt)
            connection.execute(records.insert(), {**common, **record, "run_key": key, "position": position})
        else:
            connection.execute(_UPDATE_RECORD, {**of, "key": key, **record})
            if row.record and connection.execute(_UPDATE_RUN, {**of, "at": position, **run}).rowcount:
                return
            connection.execute(_DELETE_RUN, {**of, "at": position})
        if row.record:
            connection.execute(runs.insert(), {**common, **run, "position": position})

    def _ensure_experiment(self, connection: Connection, experiment: ExperimentRow) -> bool:
        """Have a row for the experiment; tell whether it has a generation."""
        statements.ensure_store(connection, self.store_id)
        of = {"of_store": self.store_id, "id": experiment.id_experiment}
        row = connection.execute(_STATE, of).one_or_none()
        values = statements.experiment_values(self.store_id, experiment)
        if row is None:
            connection.execute(experiments.insert(), values)
        elif row.state == DELETED:
            connection.execute(_REVIVE, {**of, **values, "state": CURRENT})
        return row is not None and row.state == CURRENT and row.generation > 0

    def put_document(self, experiment: ExperimentRow, row: DocumentRow) -> None:
        """Write the row of derived metrics or of a manifest, in place of an earlier one."""

        def work(connection: Connection) -> None:
            self._ensure_experiment(connection, experiment)
            of = {"of_store": self.store_id, "id": experiment.id_experiment, "of_kind": row.kind}
            connection.execute(_DELETE_DOCUMENT, {**of, "key": digest_key(row.name)})
            values = statements.document_values(self.store_id, experiment.id_experiment, row)
            connection.execute(documents.insert(), values)

        self.database.transact(work)

    def remove(self, id_experiment: str, id_runs: Iterable[str]) -> None:
        """Remove the rows of records that are gone."""

        def work(connection: Connection) -> None:
            for id_run in gone:
                of = {"of_store": self.store_id, "id": id_experiment}
                position = connection.execute(_POSITION, {**of, "key": digest_key(id_run)}).scalar()
                if position is not None:
                    connection.execute(_DELETE_RECORD, {**of, "key": digest_key(id_run)})
                    connection.execute(_DELETE_RUN, {**of, "at": position})

        gone = list(id_runs)
        if gone:
            self.database.transact(work)

    def remove_documents(self, id_experiment: str, kind: str, names: Iterable[str]) -> None:
        """Remove the rows of documents that are gone."""
        gone = [
            {"of_store": self.store_id, "id": id_experiment, "of_kind": kind, "key": digest_key(name)} for name in names
        ]
        if gone:
            self.database.transact(lambda connection: connection.execute(_DELETE_DOCUMENT, gone))

    def stamps(self, id_experiment: str) -> Stamps:
        """Return the stamp of every record of an experiment."""
        return self._pairs(_STAMPS, {"of_store": self.store_id, "id": id_experiment})

    def document_stamps(self, id_experiment: str, kind: str) -> Stamps:
        """Return the stamp of every document of a kind."""
        return self._pairs(_DOCUMENT_STAMPS, {"of_store": self.store_id, "id": id_experiment, "of_kind": kind})

    def _pairs(self, query: sa.Select[Any], parameters: Mapping[str, Any]) -> Stamps:
        with self.database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query, parameters)}

    def get(self, id_run: str, id_experiment: str | None = None) -> list[tuple[str, str, str]]:
        """Return experiment, stamp and text of the records of a run."""
        query = _ONE if id_experiment is None else _ONE.where(_c.id_experiment == id_experiment)
        with self.database.read() as connection:
            found = connection.execute(query, {"of_store": self.store_id, "key": digest_key(id_run)})
            return [(row[0], row[1], row[2]) for row in found]

    def listed(
        self,
        id_experiment: str | None = None,
        *,
        status: str | None = None,
        values: Mapping[str, Any] | None = None,
        page_size: int = 1000,
    ) -> Iterator[tuple[str, str, int, str | None, str | None]]:
        """Yield experiment, id, position, stamp and text of every run that may match, a page at a time.

        Parameters
        ----------
        id_experiment, status : str, optional
            Only these.
        values : mapping, optional
            Fields and what they have to be equal to.  Some that do not match may be among what is given.
        page_size : int
            Rows that are read at a time, so that no transaction stays open.
        """
        query = _LISTED.limit(page_size)
        for condition in _conditions(id_experiment, status, values or {}):
            query = query.where(condition)
        after: tuple[str, int] | None = None
        while True:
            page_query = query if after is None else query.where(_after(*after))
            with self.database.read() as connection:
                page = [tuple(row) for row in connection.execute(page_query, {"of_store": self.store_id})]
            yield from ((row[0], row[1], row[2], row[3], row[4]) for row in page)
            if len(page) < page_size:
                return
            after = (page[-1][0], page[-1][2])

    def values(self, id_experiment: str | None = None) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Yield params and fields of every run, as plain JSON."""
        query = _VALUES if id_experiment is None else _VALUES.where(_r.id_experiment == id_experiment)
        with self.database.read() as connection:
            found = connection.execution_options(yield_per=1000).execute(query, {"of_store": self.store_id})
            for row in found:
                yield row[0], row[1]


def place(id_run: str, salt: int = 0) -> int:
    """Return the position of a record that was put alone: negative, so that it never meets one of a generation."""
    digest = hashlib.sha256(f"{salt}:".encode() + id_run.encode("utf-8", "surrogatepass")).digest()
    return -1 - (int.from_bytes(digest[:4]) >> 1)


def _after(id_experiment: str, position: int) -> sa.ColumnElement[bool]:
    # Not a comparison of tuples: SQLite uses its index for this one too, and every database reads it alike.
    return (_r.id_experiment > id_experiment) | ((_r.id_experiment == id_experiment) & (_r.position > position))


def _conditions(
    id_experiment: str | None, status: str | None, values: Mapping[str, Any]
) -> Iterator[sa.ColumnElement[bool]]:
    if id_experiment is not None:
        yield _r.id_experiment == id_experiment
    if status is not None:
        yield _r.status == status
    for name, value in values.items():
        if not name.isidentifier():
            continue  # databases quote other names in many ways; whoever asked looks again
        field = _r.fields[name]
        if isinstance(value, bool):
            yield field.as_boolean() == value
        elif isinstance(value, str):
            yield field.as_string() == value
        elif isinstance(value, int | float) and value == value and abs(value) < 2**53:
            yield field.as_float() == float(value)
