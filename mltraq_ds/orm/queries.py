"""What the index is asked.  Each query uses an SQL index; none reads the JSON columns."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mltraq_ds.orm.prepared import Prepared
from mltraq_ds.orm.rows import BlobRow, IndexedExperiment, name_key
from mltraq_ds.orm.tables import CURRENT, blobs, experiments, runs, stores

__all__ = ["STORE", "blob_page", "by_id", "by_name", "generations", "is_indexed", "listed", "page"]

_e = experiments.c
_b = blobs.c
_OF_STORE = _e.store_id == sa.bindparam("of_store")
# Records that were put alone have negative positions: a range of the primary key.
_SINGLES = (
    sa.select(sa.func.count())
    .where(runs.c.store_id == _e.store_id, runs.c.id_experiment == _e.id_experiment, runs.c.position < 0)
    .correlate(experiments)
    .scalar_subquery()
)
_ALL: sa.Select[Any] = sa.select(
    _e.store_id,
    _e.id_experiment,
    _e.name,
    _e.generation,
    _e.folder,
    _e.created_at,
    _e.persisted_at,
    _e.n_runs + _SINGLES,
    _e.n_blobs,
    _e.n_bytes,
).where(_e.state == CURRENT)

_BY_ID = _ALL.where(_OF_STORE, _e.id_experiment == sa.bindparam("id"))
_BY_NAME = _ALL.where(_e.name_key == sa.bindparam("key"))
_LISTED = _ALL.order_by(_e.created_at, _e.id_experiment)
_LISTED_OF_STORE = _ALL.where(_OF_STORE).order_by(_e.created_at, _e.id_experiment)
_PAGE = (
    _ALL.where(_OF_STORE, _e.id_experiment > sa.bindparam("after"))
    .order_by(_e.id_experiment)
    .limit(sa.bindparam("n", type_=sa.Integer))
)
_BLOB_PAGE = (
    sa.select(_b.id_experiment, _b.position, _b.key, _b.size, _b.digest)
    .where(
        _b.store_id == sa.bindparam("of_store"),
        sa.tuple_(_b.id_experiment, _b.position) > sa.tuple_(sa.bindparam("after"), sa.bindparam("after_position")),
    )
    .order_by(_b.id_experiment, _b.position)
    .limit(sa.bindparam("n", type_=sa.Integer))
)
_GENERATIONS = sa.select(_e.id_experiment, _e.generation).where(_OF_STORE, _e.state == CURRENT)
#: The row of a store: one statement for all who ask, since compiling one takes longer than asking.
STORE = Prepared(
    sa.select(stores.c.indexed_at).where(stores.c.store_id == sa.bindparam("of_store")),
    "SELECT mltraq_stores.indexed_at FROM mltraq_stores WHERE mltraq_stores.store_id = :of_store",
)


def is_indexed(connection: Connection, store_id: str) -> bool:
    """Tell whether somebody has read in the whole store."""
    return STORE.run(connection, {"of_store": store_id}).scalar() is not None


def by_id(connection: Connection, store_id: str, id_experiment: str) -> IndexedExperiment | None:
    """Return one experiment or None."""
    row = connection.execute(_BY_ID, {"of_store": store_id, "id": id_experiment}).one_or_none()
    return None if row is None else IndexedExperiment(*row)


def by_name(connection: Connection, name: str) -> list[IndexedExperiment]:
    """Return all experiments of a name, in all stores."""
    found = connection.execute(_BY_NAME, {"key": name_key(name)})
    return [IndexedExperiment(*row) for row in found]


def listed(connection: Connection, store_id: str | None, limit: int | None, offset: int) -> list[IndexedExperiment]:
    """Return experiments of one store or all, in order of creation."""
    query = _LISTED if store_id is None else _LISTED_OF_STORE
    parameters: dict[str, Any] = {} if store_id is None else {"of_store": store_id}
    if limit is not None or offset:
        query = query.limit(limit).offset(offset)
    return [IndexedExperiment(*row) for row in connection.execute(query, parameters)]


def page(connection: Connection, store_id: str, after: str | None, n: int) -> list[IndexedExperiment]:
    """Return the `n` experiments that follow `after` by id."""
    found = connection.execute(_PAGE, {"of_store": store_id, "after": after or "", "n": n})
    return [IndexedExperiment(*row) for row in found]


def blob_page(
    connection: Connection, store_id: str, after: tuple[str, int] | None, n: int
) -> list[tuple[str, int, BlobRow]]:
    """Return the `n` blobs that follow `after` (id of experiment, position)."""
    id_experiment, position = after or ("", -1)
    parameters = {"of_store": store_id, "after": id_experiment, "after_position": position, "n": n}
    return [(row[0], row[1], BlobRow(*row[2:])) for row in connection.execute(_BLOB_PAGE, parameters)]


def generations(connection: Connection, store_id: str) -> dict[str, int]:
    """Return id and generation of every experiment of a store."""
    return {row[0]: row[1] for row in connection.execute(_GENERATIONS, {"of_store": store_id})}
