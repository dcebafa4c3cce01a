"""The tables of the index as typed classes, for queries in SQLAlchemy's words.

>>> import sqlalchemy as sa
>>> query = sa.select(Run.id_run).where(Run.fields["accuracy"].as_float() > 0.9)

Say ``as_float()``, ``as_integer()`` or ``as_string()`` to compare by size; ``==`` works without.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import DeclarativeBase, Mapped, relationship

from mltraq_ds.orm import tables

__all__ = ["Artifact", "Base", "Blob", "Document", "Experiment", "Name", "Record", "Run", "Store"]


class Base(DeclarativeBase):
    """Base of the models; its metadata is that of the tables."""

    metadata = tables.metadata


class Store(Base):
    """One store whose experiments have rows here."""

    __table__ = tables.stores

    store_id: Mapped[str]
    url: Mapped[str]
    seen_at: Mapped[datetime]
    indexed_at: Mapped[datetime | None]


class Experiment(Base):
    """One experiment; ``state`` is ``current``, or ``deleted`` for one whose late writers are kept out."""

    __table__ = tables.experiments

    store_id: Mapped[str]
    id_experiment: Mapped[str]
    name: Mapped[str]
    name_key: Mapped[str]
    generation: Mapped[int]
    folder: Mapped[str]
    created_at: Mapped[datetime]
    persisted_at: Mapped[datetime]
    n_runs: Mapped[int]
    n_blobs: Mapped[int]
    n_bytes: Mapped[int]
    fields: Mapped[dict[str, Any]]
    state: Mapped[str]

    runs: Mapped[list[Run]] = relationship(order_by=tables.runs.c.position, viewonly=True)
    blobs: Mapped[list[Blob]] = relationship(order_by=tables.blobs.c.position, viewonly=True)


class Run(Base):
    """One run of the current version of an experiment."""

    __table__ = tables.runs

    store_id: Mapped[str]
    id_experiment: Mapped[str]
    position: Mapped[int]
    id_run: Mapped[str]
    status: Mapped[str]
    params: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any]]
    fields: Mapped[dict[str, Any]]
    exception: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    experiment: Mapped[Experiment] = relationship(viewonly=True)


class Blob(Base):
    """One blob that the current version of an experiment refers to."""

    __table__ = tables.blobs

    store_id: Mapped[str]
    id_experiment: Mapped[str]
    position: Mapped[int]
    key: Mapped[str]
    size: Mapped[int]
    digest: Mapped[str]


class Name(Base):
    """One name: who has it, and who is at work on it."""

    __table__ = tables.names

    name_key: Mapped[str]
    name: Mapped[str]
    store_id: Mapped[str]
    id_experiment: Mapped[str | None]
    claimed_by: Mapped[str | None]
    claim_intent: Mapped[str | None]
    claimed_at: Mapped[datetime | None]


class Artifact(Base):
    """One version of a saved artifact; ``state`` is ``current``, or ``deleted``: such a number is not given again."""

    __table__ = tables.artifacts

    store_id: Mapped[str]
    folder: Mapped[str]
    version: Mapped[int]
    name: Mapped[str]
    storage_backend: Mapped[str]
    type: Mapped[str]
    created_at: Mapped[datetime]
    n_bytes: Mapped[int]
    digest: Mapped[str | None]
    details: Mapped[dict[str, Any]]
    state: Mapped[str]


class Record(Base):
    """What is known of a record that was put alone; its row among the runs has the same, negative, position."""

    __table__ = tables.records

    store_id: Mapped[str]
    id_experiment: Mapped[str]
    run_key: Mapped[str]
    id_run: Mapped[str]
    position: Mapped[int]
    put_id: Mapped[str]
    stamp: Mapped[str]
    record: Mapped[str]


class Document(Base):
    """Derived metrics of a run (``derived``, by id of the run) or a manifest (``manifest``, by key of its file)."""

    __table__ = tables.documents

    store_id: Mapped[str]
    id_experiment: Mapped[str]
    kind: Mapped[str]
    doc_key: Mapped[str]
    name: Mapped[str]
    stamp: Mapped[str]
    body: Mapped[dict[str, Any]]
