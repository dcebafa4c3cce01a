"""Make the index what the files say."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mltraq_ds.ids import escape_name
from mltraq_ds.orm import statements
from mltraq_ds.orm.database import Database
from mltraq_ds.orm.mariadb import is_mariadb
from mltraq_ds.orm.prepared import insert
from mltraq_ds.orm.rows import BlobRow, ExperimentRow, RunRow, name_key
from mltraq_ds.orm.tables import CURRENT, experiments, names

__all__ = ["Entry", "Rebuilt", "rebuild"]

Entry: TypeAlias = tuple[ExperimentRow, Sequence[RunRow], Sequence[BlobRow]]
_Version: TypeAlias = tuple[int, str, datetime]

_e = experiments.c
_OF_STORE = _e.store_id == sa.bindparam("of_store")
_VERSIONS = sa.select(_e.id_experiment, _e.generation, _e.state, _e.persisted_at).where(_OF_STORE)
_VERSION = _VERSIONS.where(_e.id_experiment == sa.bindparam("id"))
_DELETE = experiments.delete().where(_OF_STORE, _e.id_experiment == sa.bindparam("id"))
_INSERT = insert(experiments)
_n = names.c
_NAMES: sa.Select[Any] = sa.select(_n.name_key, _n.store_id, _n.id_experiment, _n.claim_intent)
_NAMES_OWNED = _NAMES.where(_n.store_id == sa.bindparam("of_store"), _n.id_experiment == sa.bindparam("owner"))
_NAMES_OF_KEY = _NAMES.where(_n.name_key == sa.bindparam("key"))
_LOCK_EXPERIMENTS = sa.select(_e.id_experiment).with_for_update()
_LOCK_NAMES = sa.select(_n.name_key).with_for_update()
_DROP_NAME = names.delete().where(_n.name_key == sa.bindparam("key"))
_CHANGE_NAME = names.update().where(_n.name_key == sa.bindparam("key"))
_ADD_NAME = names.insert()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did, in numbers of experiments.

    Parameters
    ----------
    written : int
        Rows made what the files say.
    removed : int
        Rows of experiments that the files do not have.
    kept : int
        Rows left alone because a writer changed them during the scan.
    """

    written: int
    removed: int
    kept: int


def rebuild(
    database: Database,
    store_id: str,
    scanned: Iterable[Entry],
    *,
    url: str | None,
    replace_scope: str | None,
    damaged: Container[str] = (),
) -> Rebuilt:
    """Make the rows of a store, or of one experiment, what the files say; see `mltraq_ds.orm.index.Index.rebuild`.

    Where a row has not changed since before the scan, the files win, whatever its generation: they are the truth, and
    a store that was restored from a copy is older than its index.  Where it has changed, the higher generation wins.
    Readers see the rows before or after; writers wait for one transaction.
    """
    with database.read() as connection:
        before = _versions(connection, store_id, replace_scope)
    entries = [entry for entry in scanned if replace_scope in (None, entry[0].id_experiment)]
    started_at = datetime.now(UTC)

    def work(connection: Connection) -> Rebuilt:
        done = _replace(connection, store_id, before, entries, replace_scope, damaged)
        indexed_at = started_at if replace_scope is None else None
        statements.ensure_store(connection, store_id, url=url, indexed_at=indexed_at)
        return done

    return database.transact(work)


def _versions(connection: Connection, store_id: str, scope: str | None) -> dict[str, _Version]:
    query, parameters = (_VERSIONS, {"of_store": store_id})
    if scope is not None:
        query, parameters = _VERSION, {"of_store": store_id, "id": scope}
    return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query, parameters)}


def _replace(
    connection: Connection,
    store_id: str,
    before: dict[str, _Version],
    entries: list[Entry],
    scope: str | None,
    damaged: Container[str],
) -> Rebuilt:
    if connection.dialect.name == "postgresql":
        # Writers wait, as they do in SQLite; readers do not.  A weaker mode lets a writer lock rows that we delete next
        # while it waits for our table lock.
        connection.exec_driver_sql("LOCK TABLE mltraq_experiments, mltraq_names IN EXCLUSIVE MODE")
    elif is_mariadb(connection.dialect):
        # LOCK TABLES ends the transaction there.  A row that somebody adds all the same makes our own a duplicate, and
        # `Database.transact` begins again.
        for locked in (_LOCK_EXPERIMENTS, _LOCK_NAMES):
            connection.execute(locked).all()
    statements.ensure_store(connection, store_id)
    now = _versions(connection, store_id, scope)

    def is_ours(experiment: ExperimentRow) -> bool:
        row = now.get(experiment.id_experiment)
        return row is None or row == before.get(experiment.id_experiment) or row[0] < experiment.generation

    written = [entry for entry in entries if is_ours(entry[0])]
    scanned = {entry[0].id_experiment for entry in entries}
    # Rows of deleted experiments are no experiments; they keep late writers out.
    gone = [
        id_
        for id_, row in now.items()
        if id_ not in scanned and row == before.get(id_) and row[1] == CURRENT and escape_name(id_) not in damaged
    ]
    drop = [{"of_store": store_id, "id": id_} for id_ in (*gone, *(e[0].id_experiment for e in written))]
    if drop:
        connection.execute(_DELETE, drop)
    if written:
        _INSERT.run(connection, [statements.experiment_values(store_id, entry[0]) for entry in written])
        statements.insert_parts(connection, store_id, ((e.id_experiment, runs, blobs) for e, runs, blobs in written))
        statements.insert_documents(connection, store_id, (entry[0] for entry in written))
    _give_names(connection, store_id, [entry[0] for entry in written], gone, now, scope)
    return Rebuilt(len(written), len(gone), len(entries) - len(written))


def _give_names(
    connection: Connection,
    store_id: str,
    written: list[ExperimentRow],
    gone: list[str],
    known: Container[str],
    scope: str | None,
) -> None:
    # The newest of several experiments of one name has it.
    newest = sorted(written, key=lambda experiment: (experiment.persisted_at, experiment.id_experiment))
    winners = {name_key(experiment.name): experiment for experiment in newest}
    touched = {*gone, *(experiment.id_experiment for experiment in written)}
    drop: list[dict[str, object]] = []
    change: list[dict[str, object]] = []
    for key, row_store, owner, intent in _name_rows(connection, store_id, winners, scope):
        winner = winners.pop(key, None)
        if row_store != store_id or (owner is not None and owner not in touched and owner in known):
            continue  # a name of another store, or of an experiment that is not ours to change
        if winner is not None:
            change.append({"key": key, "id_experiment": winner.id_experiment})
        elif owner is not None and intent is None:
            drop.append({"key": key})
        elif owner is not None:
            change.append({"key": key, "id_experiment": None})
    add = [
        {"name_key": key, "name": winner.name, "store_id": store_id, "id_experiment": winner.id_experiment}
        for key, winner in winners.items()
    ]
    for statement, values in ((_DROP_NAME, drop), (_CHANGE_NAME, change), (_ADD_NAME, add)):
        if values:
            connection.execute(statement, values)


def _name_rows(
    connection: Connection, store_id: str, keys: Iterable[str], scope: str | None
) -> list[tuple[str, str, str | None, str | None]]:
    if scope is None:
        return [(row[0], row[1], row[2], row[3]) for row in connection.execute(_NAMES)]
    found = {row.name_key: row for row in connection.execute(_NAMES_OWNED, {"of_store": store_id, "owner": scope})}
    for key in keys:
        found.update({row.name_key: row for row in connection.execute(_NAMES_OF_KEY, {"key": key})})
    return [(row[0], row[1], row[2], row[3]) for row in found.values()]
