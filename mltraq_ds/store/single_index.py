"""Rows of what was put one by one, made from the files: for one put, for catching up, for a rebuild."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mltraq_ds.errors import MltraqDSError
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rebuild import Entry
from mltraq_ds.orm.rows import ExperimentRow, RunRow, validate_rows
from mltraq_ds.orm.single_rows import CollectedRow, SingleRow
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import document_rows, generations, layout, reading, records, run_mapping, single_records
from mltraq_ds.store.content import ExperimentContent
from mltraq_ds.store.document_rows import stamp_of
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.rows import index_rows, run_columns
from mltraq_ds.store.single_records import Single
from mltraq_ds.store.types import RunRecord

__all__ = ["bare_experiment", "collect", "refresh", "single_row", "validate"]

OnCorrupt = Callable[[MltraqDSError], None]


def bare_experiment(id_experiment: str) -> ExperimentRow:
    """Return the row of an experiment that has no generation."""
    now = datetime.now(UTC)
    return ExperimentRow(
        id_experiment=id_experiment,
        name=id_experiment,
        generation=0,
        folder=layout.folder_of(id_experiment),
        created_at=now,
        persisted_at=now,
    )


def single_row(single: Single, below: dict[str, Any] | None, stamp: str) -> SingleRow:
    """Return the row of a single record.

    Parameters
    ----------
    single : Single
        The record.
    below : dict or None
        What the generation says of the same run.
    stamp : str
        Of its file.
    """
    body = single_records.merged(below, single)
    if body is None:
        return SingleRow(id_run=single.id_run, status="", put_id=single.put_id, stamp=stamp, record="")
    row = run_columns(records.run_without_mappings(body), body)
    return SingleRow(**row, put_id=single.put_id, stamp=stamp, record=json.dumps(body, separators=(",", ":")))


def collect(storage: Storage, id_experiment: str, on_corrupt: OnCorrupt | None = None) -> Entry | None:
    """Return the rows of an experiment: of its generation, of single records over it, and of documents.

    Parameters
    ----------
    storage : Storage
        Of the store.
    id_experiment : str
        Of the experiment.
    on_corrupt : callable, optional
        Given the error of each single record or document that cannot be read; without it the first one is raised.

    Returns
    -------
    tuple or None
        None if there is no such experiment.

    Raises
    ------
    CorruptRecordError
        If generation or records cannot be read.
    """
    folder = layout.folder_of(id_experiment)
    generation = generations.current(storage, folder)
    living = None if generation is None or generation.deleted else generation
    stats = {stat.key: stat for stat in storage.list(f"{folder}/runs")}
    folds = generation.folds if generation else ()
    singles = list(single_records.unfolded(storage, folder, folds, on_corrupt))
    if living is None and not singles:
        return None
    head, bodies = reading.current_bodies(storage, living, ())
    below = {body["id_run"]: body for body in bodies}
    alone = [
        single_row(single, below.get(single.id_run), stamp_of(stats[single.key], generation))
        for single in singles
        if single.key in stats
    ]
    hidden = {single.id_run for single in singles}
    visible = [body for body in bodies if body["id_run"] not in hidden]
    experiment, runs, blobs = _generation_rows(id_experiment, living, head, visible)
    found = tuple(document_rows.read_all(storage, folder, on_corrupt))
    columns = {name: getattr(experiment, name) for name in ExperimentRow.__slots__}
    rows: list[RunRow] = [*runs, *alone]
    return CollectedRow(**columns, documents=found), rows, blobs


def _generation_rows(id_experiment: str, living: Generation | None, head: dict[str, Any], bodies: list[Any]) -> Entry:
    if living is None:
        return bare_experiment(id_experiment), [], []
    content = ExperimentContent(
        id_experiment=head["id_experiment"],
        name=head["name"],
        created=head["created"],
        runs=[records.run_without_mappings(body) for body in bodies],
    )
    return index_rows(content, [head, *bodies], living)


def refresh(index: Index, storage: Storage, id_experiment: str, on_corrupt: OnCorrupt | None = None) -> None:
    """Make the rows of one experiment what its files say; `on_corrupt` as for `collect`."""
    entry = collect(storage, id_experiment, on_corrupt)
    if entry is not None:
        validate_rows(*entry[:2])
    index.rebuild([] if entry is None else [entry], replace_scope=id_experiment)


def validate(record: RunRecord) -> None:
    """Refuse a record that some database could not hold, before anything is written.

    Raises
    ------
    UsageError, UnsupportedTypeError
        If a text has a NUL character, say.  Nothing was written.
    """
    body = run_mapping.record_to(record)
    row = RunRow(**run_columns(records.run_without_mappings(body), body))
    validate_rows(bare_experiment(record.experiment_id), [row])
