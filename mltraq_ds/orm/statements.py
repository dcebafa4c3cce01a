"""What the index does inside one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mltraq_ds.orm import names
from mltraq_ds.orm.prepared import Prepared, insert
from mltraq_ds.orm.queries import STORE
from mltraq_ds.orm.rows import BlobRow, ExperimentRow, RunRow, name_key
from mltraq_ds.orm.single_rows import CollectedRow, DocumentRow, SingleRow, digest_key
from mltraq_ds.orm.tables import CURRENT, DELETED, blobs, documents, experiments, records, runs, stores

__all__ = [
    "BEYOND_ALL",
    "RUN_COLUMNS",
    "bury",
    "document_values",
    "ensure_store",
    "experiment_values",
    "forget_deleted",
    "insert_documents",
    "insert_parts",
    "write",
]

#: No generation comes after this one.
BEYOND_ALL = 2**62
_CHUNK = 5000

_e = experiments.c
_THIS = (_e.store_id == sa.bindparam("of_store")) & (_e.id_experiment == sa.bindparam("id"))
_STATE = Prepared(
    sa.select(_e.generation, _e.state, _e.name_key).where(_THIS).with_for_update(),
    "SELECT mltraq_experiments.generation, mltraq_experiments.state, mltraq_experiments.name_key "
    "FROM mltraq_experiments WHERE mltraq_experiments.store_id = :of_store AND mltraq_experiments.id_experiment = :id",
)
_INSERT = insert(experiments)
_UPDATE = experiments.update().where(_THIS)
_PARTS = tuple(
    part.delete().where(part.c.store_id == sa.bindparam("of_store"), part.c.id_experiment == sa.bindparam("id"))
    for part in (runs, blobs, records, documents)
)
# Records that were put alone stay beside a new version, but for those that it has taken in.
_PARTS_OF_VERSION = (_PARTS[0].where(runs.c.position >= 0), _PARTS[1])
_SINGLES: sa.Select[Any] = sa.select(records.c.run_key, records.c.position, records.c.put_id).where(
    records.c.store_id == sa.bindparam("of_store"), records.c.id_experiment == sa.bindparam("id")
)
_DROP_SINGLE = _PARTS[2].where(records.c.run_key == sa.bindparam("key"))
_DROP_RUN = _PARTS[0].where(runs.c.position == sa.bindparam("at"))
_INSERT_RUNS = insert(runs)
_INSERT_BLOBS = insert(blobs)
_INSERT_RECORDS = records.insert()
_INSERT_DOCUMENTS = documents.insert()
_FORGET = experiments.delete().where(
    _e.store_id == sa.bindparam("of_store"), _e.state == DELETED, _e.persisted_at < sa.bindparam("before")
)
_INSERT_STORE = insert(stores)
_UPDATE_STORE = stores.update().where(stores.c.store_id == sa.bindparam("of_store"))

_EXPERIMENT_COLUMNS = ExperimentRow.__slots__
#: Columns of a run besides where it belongs.
RUN_COLUMNS = RunRow.__slots__
_BLOB_COLUMNS = BlobRow.__slots__
_experiment_fields = attrgetter(*_EXPERIMENT_COLUMNS)
_run_fields = attrgetter(*RUN_COLUMNS)
_blob_fields = attrgetter(*_BLOB_COLUMNS)


def ensure_store(
    connection: Connection, store_id: str, *, url: str | None = None, indexed_at: datetime | None = None
) -> None:
    """Have a row for the store; set its URL and the time at which it was read in if given."""
    is_known = STORE.run(connection, {"of_store": store_id}).one_or_none() is not None
    if not is_known:
        row = {"store_id": store_id, "url": url or "", "seen_at": datetime.now(UTC), "indexed_at": indexed_at}
        _INSERT_STORE.run(connection, row)
    elif indexed_at is not None:
        values: dict[str, Any] = {"of_store": store_id, "seen_at": indexed_at, "indexed_at": indexed_at}
        connection.execute(_UPDATE_STORE, values if url is None else {**values, "url": url})


def experiment_values(store_id: str, experiment: ExperimentRow) -> dict[str, Any]:
    """Return the columns of an experiment."""
    values = dict(zip(_EXPERIMENT_COLUMNS, _experiment_fields(experiment), strict=True))
    return {**values, "store_id": store_id, "name_key": name_key(experiment.name), "state": CURRENT}


def insert_parts(
    connection: Connection, store_id: str, entries: Iterable[tuple[str, Sequence[RunRow], Sequence[BlobRow]]]
) -> None:
    """Insert runs and blobs of experiments (given by id) whose earlier ones are gone."""
    run_values: list[dict[str, Any]] = []
    record_values: list[dict[str, Any]] = []
    blob_values: list[dict[str, Any]] = []
    for id_experiment, run_rows, blob_rows in entries:
        common = {"store_id": store_id, "id_experiment": id_experiment}
        for position, run in enumerate(run_rows):
            fields = zip(RUN_COLUMNS, _run_fields(run), strict=True)
            if isinstance(run, SingleRow):
                position -= len(run_rows)  # negative: see `mltraq_ds.orm.tables.records`
                single = {"id_run": run.id_run, "put_id": run.put_id, "stamp": run.stamp, "record": run.record}
                record_values.append({**common, **single, "position": position, "run_key": digest_key(run.id_run)})
                if not run.record:
                    continue
            run_values.append({**common, "position": position, **dict(fields)})
            # Chunks bound the memory of the dictionaries; the texts in them are the caller's.
            if len(run_values) >= _CHUNK:
                _INSERT_RUNS.run(connection, run_values)
                run_values = []
            if len(record_values) >= _CHUNK:
                connection.execute(_INSERT_RECORDS, record_values)
                record_values = []
        for position, blob in enumerate(blob_rows):
            fields = zip(_BLOB_COLUMNS, _blob_fields(blob), strict=True)
            blob_values.append({**common, "position": position, **dict(fields)})
        if len(blob_values) >= _CHUNK:
            _INSERT_BLOBS.run(connection, blob_values)
            blob_values = []
    if run_values:
        _INSERT_RUNS.run(connection, run_values)
    if record_values:
        connection.execute(_INSERT_RECORDS, record_values)
    if blob_values:
        _INSERT_BLOBS.run(connection, blob_values)


def write(
    connection: Connection,
    *,
    store_id: str,
    experiment: ExperimentRow,
    runs: Sequence[RunRow],
    blobs: Sequence[BlobRow],
    intent: str | None,
    replaces: Mapping[str, int],
    folds: Collection[str] = (),
) -> bool:
    """Set an experiment to a generation if its row is older; see `mltraq_ds.orm.index.Index.write`."""
    id_experiment = experiment.id_experiment
    ensure_store(connection, store_id)
    # Experiments by id, then names, in every transaction: writers that lock in one order cannot wait for each other.
    found = {id_: _state(connection, store_id, id_) for id_ in sorted({id_experiment, *replaces})}
    row = found[id_experiment]
    met = names.find(connection, experiment.name, lock=True)
    holds = met is not None and intent is not None and (met.claim_intent, met.claimed_by) == (intent, id_experiment)
    # `bury` voids all claims, so a claim is younger than the deletion: the experiment was made anew.
    is_reborn = row is not None and row.state == DELETED and holds
    if row is not None and row.generation >= experiment.generation and not is_reborn:
        if holds:
            names.release(connection, experiment.name, str(intent))
        for id_replaced, number in replaces.items():  # whoever was faster does not know of these
            bury(connection, store_id, id_replaced, number)
        if row.generation == experiment.generation and row.state != DELETED:
            # Written before by somebody who did not know whose name it takes.
            met = names.find(connection, experiment.name, lock=True)
            names.give(connection, met, experiment.name, store_id, id_experiment, holds=False)
        return False
    values = experiment_values(store_id, experiment)
    if row is None:
        _INSERT.run(connection, values)
    else:
        for statement in _PARTS_OF_VERSION:
            connection.execute(statement, {"of_store": store_id, "id": id_experiment})
        _drop_folded(connection, store_id, id_experiment, folds)
        connection.execute(_UPDATE, {**values, "of_store": store_id, "id": id_experiment})
        if row.name_key != values["name_key"]:
            names.free(connection, store_id, id_experiment)
    insert_parts(connection, store_id, [(id_experiment, runs, blobs)])
    for id_replaced, number in replaces.items():
        bury(connection, store_id, id_replaced, number)
    if replaces:
        met = names.find(connection, experiment.name, lock=True)
    names.give(connection, met, experiment.name, store_id, id_experiment, holds=holds)
    return True


def bury(connection: Connection, store_id: str, id_experiment: str, generation: int) -> bool:
    """Note that an experiment ended with `generation`, free its names and void the claims of its writers.

    An unknown one gets a row too: its late writers are kept out by nothing else.
    """
    row = _state(connection, store_id, id_experiment)
    if row is not None and (row.generation > generation or (row.generation == generation and row.state == DELETED)):
        return False
    now = datetime.now(UTC)
    end = ExperimentRow(
        id_experiment=id_experiment, name="", generation=generation, folder="", created_at=now, persisted_at=now
    )
    values = {**experiment_values(store_id, end), "state": DELETED}
    if row is None:
        _INSERT.run(connection, values)
    else:
        _drop_parts(connection, store_id, id_experiment)
        connection.execute(_UPDATE, {**values, "of_store": store_id, "id": id_experiment})
    names.free(connection, store_id, id_experiment)
    names.void_claims(connection, store_id, id_experiment)
    return True


def forget_deleted(connection: Connection, store_id: str, before: datetime) -> int:
    """Drop the rows of experiments deleted before a time."""
    return connection.execute(_FORGET, {"of_store": store_id, "before": before}).rowcount


def _state(connection: Connection, store_id: str, id_experiment: str) -> sa.Row[Any] | None:
    return _STATE.run(connection, {"of_store": store_id, "id": id_experiment}).one_or_none()


def _drop_parts(connection: Connection, store_id: str, id_experiment: str) -> None:
    for statement in _PARTS:
        connection.execute(statement, {"of_store": store_id, "id": id_experiment})


def _drop_folded(connection: Connection, store_id: str, id_experiment: str, folds: Collection[str]) -> None:
    of = {"of_store": store_id, "id": id_experiment}
    if folds:
        for row in connection.execute(_SINGLES, of).all():
            if row.put_id in folds:
                connection.execute(_DROP_SINGLE, {**of, "key": row.run_key})
                connection.execute(_DROP_RUN, {**of, "at": row.position})


def document_values(store_id: str, id_experiment: str, row: DocumentRow) -> dict[str, Any]:
    """Return the columns of derived metrics or of a manifest."""
    common = {"store_id": store_id, "id_experiment": id_experiment, "kind": row.kind, "doc_key": digest_key(row.name)}
    return {**common, "name": row.name, "stamp": row.stamp, "body": row.body}


def insert_documents(connection: Connection, store_id: str, rows: Iterable[ExperimentRow]) -> None:
    """Insert the documents of experiments whose earlier ones are gone."""
    values = [
        document_values(store_id, row.id_experiment, document)
        for row in rows
        if isinstance(row, CollectedRow)
        for document in row.documents
    ]
    for start in range(0, len(values), _CHUNK):
        connection.execute(_INSERT_DOCUMENTS, values[start : start + _CHUNK])
