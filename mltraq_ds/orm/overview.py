"""What the index says of a store as a whole, for check, sweep and rebuild."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from mltraq_ds.orm.database import Database
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import NameClaim
from mltraq_ds.orm.tables import CURRENT, DELETED, experiments, names, records, runs, stores

__all__ = [
    "Summary",
    "claims",
    "count_deleted",
    "identity_of",
    "owners",
    "path_of",
    "remembered_url",
    "single_counts",
    "summaries",
]

_e = experiments.c
_n = names.c
_SUMMARIES = sa.select(_e.id_experiment, _e.generation, _e.name, _e.n_runs, _e.n_blobs).where(
    _e.store_id == sa.bindparam("of_store"), _e.state == CURRENT
)
_RUNS = (
    sa.select(runs.c.id_experiment, sa.func.count())
    .where(runs.c.store_id == sa.bindparam("of_store"), runs.c.position >= 0)
    .group_by(runs.c.id_experiment)
)
_ALONE = (
    sa.select(records.c.id_experiment, sa.func.count())
    .where(records.c.store_id == sa.bindparam("of_store"))
    .group_by(records.c.id_experiment)
)
_NAMES = sa.select(_n.name, _n.store_id, _n.id_experiment, _n.claimed_by, _n.claim_intent, _n.claimed_at)
_DELETED = sa.select(sa.func.count()).where(
    _e.store_id == sa.bindparam("of_store"), _e.state == DELETED, _e.persisted_at < sa.bindparam("before")
)
_URL = sa.select(stores.c.url).where(stores.c.store_id == sa.bindparam("of_store"))


@dataclass(frozen=True, slots=True)
class Summary:
    """What the rows say of one experiment; `run_rows` counts the rows that are there, `n_runs` is what should be."""

    generation: int
    name: str
    n_runs: int
    n_blobs: int
    run_rows: int


def summaries(index: Index) -> dict[str, Summary]:
    """Return what the index says of every experiment of its store, by id."""
    with index.database.read() as connection:
        found = connection.execute(_SUMMARIES, {"of_store": index.store_id}).all()
        counts = {row[0]: int(row[1]) for row in connection.execute(_RUNS, {"of_store": index.store_id})}
    return {row[0]: Summary(row[1], row[2], row[3], row[4], counts.get(row[0], 0)) for row in found}


def single_counts(index: Index) -> dict[str, int]:
    """Return how many rows of records that were put alone each experiment has, by id."""
    with index.database.read() as connection:
        return {row[0]: int(row[1]) for row in connection.execute(_ALONE, {"of_store": index.store_id})}


def owners(index: Index) -> dict[str, NameClaim]:
    """Return all rows of names, of all stores: names are unique per index."""
    with index.database.read() as connection:
        return {row[0]: NameClaim(*row) for row in connection.execute(_NAMES)}


def claims(index: Index) -> list[NameClaim]:
    """Return the names that writers of this store have claimed."""
    return [row for row in owners(index).values() if row.claim_intent is not None and row.store_id == index.store_id]


def count_deleted(index: Index, before: datetime) -> int:
    """Return how many rows `Index.forget_deleted` would drop."""
    with index.database.read() as connection:
        return int(connection.execute(_DELETED, {"of_store": index.store_id, "before": before}).scalar_one())


def identity_of(database: Database) -> tuple[str, str, bool]:
    """Return URL (without secrets) and schema of a database, and whether they mean another one on another machine."""
    # The settings are what a database takes along when it is pickled.
    settings = database.__getstate__()["settings"]
    is_of_machine = sa.make_url(database.url).host in (None, "", "localhost", "127.0.0.1", "::1")
    return database.url, settings["schema"] or "", is_of_machine


def path_of(index: Index) -> str | None:
    """Return the file that the database is, or None if it is in memory or a server."""
    url = sa.make_url(index.database.url)
    if url.get_backend_name() != "sqlite" or index.database.is_in_memory:
        return None
    return os.path.abspath(str(url.database))


def remembered_url(index: Index) -> str:
    """Return where the store was when it was last read in; empty if that is not known."""
    with index.database.read() as connection:
        return str(connection.execute(_URL, {"of_store": index.store_id}).scalar() or "")
