"""The tables of the index.  Every index here serves a query in this package; a test reads the query plans.

These are Core tables because importing ``sqlalchemy.orm`` costs a quarter of importing SQLAlchemy, and a persist needs
none of it; `mltraq_ds.orm.models` maps the same tables to typed classes for queries of users.
"""

from __future__ import annotations

import sqlalchemy as sa

from mltraq_ds.orm.column_types import JsonText, UtcDateTime

__all__ = [
    "CURRENT",
    "DELETED",
    "artifacts",
    "blobs",
    "documents",
    "experiments",
    "metadata",
    "names",
    "records",
    "runs",
    "schema_version",
    "stores",
]

metadata = sa.MetaData()

CURRENT = "current"
#: A deleted experiment keeps its row without runs and blobs, so that a late writer's older version stays out.
DELETED = "deleted"

# Bounds because MariaDB indexes bounded text only; `validate_rows` refuses longer ids before anything is written.
STORE_ID = sa.String(64)
ID_EXPERIMENT = sa.String(500)
NAME_KEY = sa.String(255)
DIGEST = sa.String(64)  # MariaDB's keys end at 3,072 bytes, four for each character

schema_version = sa.Table(
    "mltraq_schema_version",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

stores = sa.Table(
    "mltraq_stores",
    metadata,
    sa.Column("store_id", STORE_ID, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    # NULL: some experiments have rows, but nobody has read in the whole store.
    sa.Column("indexed_at", UtcDateTime),
)

experiments = sa.Table(
    "mltraq_experiments",
    metadata,
    sa.Column("store_id", STORE_ID, sa.ForeignKey(stores.c.store_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("id_experiment", ID_EXPERIMENT, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("name_key", NAME_KEY, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("persisted_at", UtcDateTime, nullable=False),
    sa.Column("n_runs", sa.BigInteger, nullable=False),
    sa.Column("n_blobs", sa.BigInteger, nullable=False),
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("fields", JsonText, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Index("mltraq_experiments_by_name", "name_key", "state"),
    sa.Index("mltraq_experiments_by_time", "state", "created_at", "id_experiment"),
    sa.Index("mltraq_experiments_by_store_and_time", "store_id", "state", "created_at", "id_experiment"),
)


def _part_of_experiment(name: str, primary_key: tuple[str, str, str], *columns: sa.Column[object]) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("store_id", STORE_ID, nullable=False),
        sa.Column("id_experiment", ID_EXPERIMENT, nullable=False),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        *columns,
        sa.PrimaryKeyConstraint(*primary_key),
        sa.ForeignKeyConstraint(
            ["store_id", "id_experiment"], [experiments.c.store_id, experiments.c.id_experiment], ondelete="CASCADE"
        ),
    )


runs = _part_of_experiment(
    "mltraq_runs",
    # Not the store first: people ask for the runs of an experiment without naming its store.
    ("id_experiment", "store_id", "position"),
    sa.Column("id_run", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("params", JsonText, nullable=False),
    sa.Column("config", JsonText, nullable=False),
    sa.Column("fields", JsonText, nullable=False),
    sa.Column("exception", sa.Text),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
)

blobs = _part_of_experiment(
    "mltraq_blobs",
    ("store_id", "id_experiment", "position"),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
)

names = sa.Table(
    "mltraq_names",
    metadata,
    sa.Column("name_key", NAME_KEY, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("store_id", STORE_ID, sa.ForeignKey(stores.c.store_id, ondelete="CASCADE"), nullable=False),
    # Who has the name.
    sa.Column("id_experiment", ID_EXPERIMENT),
    # Who is at work on it.
    sa.Column("claimed_by", ID_EXPERIMENT),
    sa.Column("claim_intent", sa.Text),
    sa.Column("claimed_at", UtcDateTime),
    sa.Index("mltraq_names_by_owner", "store_id", "id_experiment"),
    sa.Index("mltraq_names_by_claim", "store_id", "claimed_by"),
)

# One row for each version of a saved artifact, those deleted too: their numbers are never given again.
artifacts = sa.Table(
    "mltraq_artifacts",
    metadata,
    sa.Column("store_id", STORE_ID, sa.ForeignKey(stores.c.store_id, ondelete="CASCADE"), primary_key=True),
    # The escaped name stands for the name: any string, in ASCII, and different ones differ also without their case.
    sa.Column("folder", NAME_KEY, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("storage_backend", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text),
    sa.Column("details", JsonText, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
)


def _beside_experiment(name: str, *columns: sa.Column[object] | sa.Index) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("store_id", STORE_ID, primary_key=True),
        sa.Column("id_experiment", ID_EXPERIMENT, primary_key=True),
        *columns,
        sa.ForeignKeyConstraint(
            ["store_id", "id_experiment"], [experiments.c.store_id, experiments.c.id_experiment], ondelete="CASCADE"
        ),
    )


# What is known of a record that was put alone, beside its row among the runs: there its position is negative.
records = _beside_experiment(
    "mltraq_records",
    sa.Column("run_key", DIGEST, primary_key=True),
    sa.Column("id_run", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("put_id", sa.Text, nullable=False),
    # Size and time of its file, and the generation: a row for which they are others is not served.
    sa.Column("stamp", sa.Text, nullable=False),
    # What the record says, as JSON; empty: the run is gone, also from the generation.  MySQL's TEXT ends at 64 KiB.
    sa.Column("record", sa.Text().with_variant(sa.Text(2**24 - 1), "mysql", "mariadb"), nullable=False),
    sa.Index("mltraq_records_by_position", "store_id", "id_experiment", "position"),
    sa.Index("mltraq_records_by_run", "store_id", "run_key"),
)

# Derived metrics and manifests.
documents = _beside_experiment(
    "mltraq_documents",
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("doc_key", DIGEST, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("stamp", sa.Text, nullable=False),
    sa.Column("body", JsonText, nullable=False),
)
