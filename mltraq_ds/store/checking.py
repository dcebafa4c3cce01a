"""Checking: every reference against every blob, every file against every reference, the index against the files.

Nothing is changed, and nothing stops it but a store that cannot be listed.  Writers may be at work meanwhile: files are
listed first, then intents are read, then generations, and a folder with findings is looked at again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from mltraq_ds.errors import ConflictError, MltraqDSError
from mltraq_ds.objects import Objects, objects_of
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.schema import SCHEMA_VERSION
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout, outside
from mltraq_ds.store.artifact_check import check_artifacts
from mltraq_ds.store.experiment_check import Examined, examine
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.identity import original_of
from mltraq_ds.store.index_check import check_index
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.lease import Lease
from mltraq_ds.store.rebuilding import Progress, each, is_replaced, pins, without_progress
from mltraq_ds.store.report import Notebook, Report
from mltraq_ds.store.single_check import check_singles
from mltraq_ds.store.survey import (
    Folder,
    Survey,
    is_being_written,
    may_be_of_a_writer,
    read_intents,
    read_pending,
    seems_alive,
    survey,
)

__all__ = ["check"]

_LOOKS = 8


def check(
    store: Objects | Storage | str | os.PathLike[str],
    index: Index | None = None,
    deep: bool = False,
    *,
    progress: Progress[Examined] | None = None,
) -> Report:
    """Find damage and garbage in a store and its index; nothing in the store is changed.

    Parameters
    ----------
    store : Objects, Storage, URL or path
        The store.
    index : Index, optional
        Its rows; without it only the files are checked.
    deep : bool
        Read every byte of every blob and compare it with size, CRC-32 and SHA-256.
    progress : callable, optional
        Shows how far it has come.

    Returns
    -------
    Report
        ``len(report) == 0`` means clean.  A database that does not answer, or has no tables, is a finding; nothing is
        made there.

    Raises
    ------
    StorageError
        If the store cannot be listed.
    """
    storage = objects_of(store).storage
    found, seen = Notebook(), survey(storage)
    writers = read_intents(storage, seen.pending)
    for key, error in writers.unreadable.items():
        found.add("unreadable intent", key, detail=str(error))
    by_folder = writers.by_folder()
    _check_root(storage, seen, found)
    _check_pending(storage, seen, writers.found, found)
    managed = [folder for folder in seen.folders.values() if folder.is_marked or folder.name in by_folder]
    for folder in seen.folders.values():
        if not folder.is_marked and folder.name not in by_folder:
            found.note("self-managed", folder.name, size_bytes=folder.size_bytes, detail=f"{len(folder.stats)} files.")
    results = each(storage, partial(_examine, storage, writers.found, deep), managed)
    examined = list((progress or without_progress)(results, len(managed)))
    for one in examined:
        found.update(one)
    _check_unfinished(storage, seen, by_folder, found)
    _check_replaced(storage, examined, found)
    if index is not None and not _may_be_asked(index, seen, found):
        index = None
    rows = ArtifactIndex(index.database, index.store_id) if index is not None else None
    check_artifacts(storage, seen.artifacts, writers.found, rows, found, deep=deep)
    if index is not None:
        check_index(storage, index, examined, found)
        check_singles(storage, index, seen.folders.values(), found)
        _check_identity(storage, index, found)
    blobs = sum(len(one.generation.blobs) for one in examined if one.generation)
    living = sum(1 for one in examined if one.generation and not one.generation.deleted)
    return Report(**found.parts(), store=storage.url, experiments=living, blobs=blobs, is_deep=deep)


def _examine(storage: Storage, writers: Sequence[Intent], deep: bool, folder: Folder) -> Examined:
    """Check a folder, and again as long as somebody changes it."""
    found = examine(storage, folder, writers, deep=deep)
    for _ in range(_LOOKS):
        if not found.findings:
            return found
        before = found.generation.ident if found.generation else None
        listed = Folder(folder.name, list(storage.list(folder.name)))
        writers = read_intents(storage).found
        found = examine(storage, listed, writers, deep=deep) if listed.stats else Examined()
        if before == (found.generation.ident if found.generation else None):
            if found.generation and not _is_still(storage, folder.name, found.generation):
                continue  # replaced while it was looked at
            if before is None:  # its folder may just have been renamed away
                found.findings = [one for one in found.findings if not one.size_bytes or _is_there(storage, one.key)]
            return found
    busy = Examined(generation=found.generation)
    busy.note("at work", folder.name, found.id_experiment, detail="It is persisted all the time; check it again later.")
    return busy


def _check_root(storage: Storage, seen: Survey, found: Notebook) -> None:
    try:
        if layout.read_store_id(storage) is None and any(folder.is_marked for folder in seen.folders.values()):
            detail = "The file that says which store this is is gone; rebuild_index() makes a new one."
            found.add("unreadable descriptor", layout.STORE, detail=detail)
    except ConflictError as error:
        found.add("moved store", layout.STORE, detail=str(error))
    except MltraqDSError as error:
        found.add("unreadable descriptor", layout.STORE, detail=str(error))
    for stat in seen.files:
        if stat.key not in (layout.STORE, layout.CLONE, layout.VERIFIED, layout.MOVING):
            found.add("foreign file", stat.key, size_bytes=stat.size, detail="No part of a store.")
    if seen.artifacts:
        size = sum(stat.size for stat in seen.artifacts)
        found.note("artifacts", layout.ARTIFACTS, size_bytes=size, detail=f"{len(seen.artifacts)} files.")


def _check_pending(storage: Storage, seen: Survey, writers: Sequence[Intent], found: Notebook) -> None:
    living = set()
    for intent in writers:
        if seems_alive(storage, intent):
            living.add(intent.writer)
            detail = f"To {intent.action} {intent.name!r} since {intent.created}."
            found.note("at work", intent.key, intent.id_experiment, detail=detail)
        else:
            detail = f"Its writer died while it was to {intent.action} {intent.name!r} (since {intent.created})."
            if intent.storage_backend:
                detail += f" The storage backend {intent.storage_backend!a:.80} may keep the value{_at(intent.place)}."
                detail += _elsewhere(storage, intent)
            found.add("dead intent", intent.key, intent.id_experiment, detail=detail)
    pending = read_pending(seen.pending)
    known = {intent.writer for intent in writers}
    for owner, stat in pending.marks:
        if stat.key.endswith(".lease") and not Lease.is_expired(storage, stat):
            found.note("at work", stat.key, detail="A sweep.")
            living.add(stat.key)  # it removes folders too
        elif owner not in known and _is_there(storage, stat.key):
            found.add("leftover", stat.key, size_bytes=stat.size, detail="What it belongs to is gone.")
    for place, stats in pending.moved.items():
        size, key = sum(stat.size for stat in stats), stats[0].key
        if living:
            found.note("at work", place, size_bytes=size, detail="Being removed, or about to be.")
        elif any(_is_there(storage, stat.key) for stat in stats):
            found.add(
                "unfinished delete", place, size_bytes=size, detail=f"{len(stats)} files are left, such as {key}."
            )
    for stat in pending.foreign:
        found.add("foreign file", stat.key, size_bytes=stat.size, detail="No part of a store.")


def _elsewhere(storage: Storage, intent: Intent) -> str:
    if outside.is_of(storage, intent):
        return ""
    host, where = intent.machine.partition("/")[0], intent.store or "a place that was not noted"
    return (
        f" It was announced on {host!a:.80} in the store at {where!a:.200}, so only there does sweep() remove it. If "
        f"this is a copy, remove the intent. If it is that store, moved, first remove what is kept of {intent.writer}."
    )


def _at(place: str) -> str:
    return f" at {place!a:.200}" if place else ""


def _is_there(storage: Storage, key: str) -> bool:
    try:
        return storage.exists(key)
    except MltraqDSError:
        return True


def _check_unfinished(storage: Storage, seen: Survey, by_folder: dict[str, list[Intent]], found: Notebook) -> None:
    if not seen.unfinished:
        return
    alive = {name for name, writers in by_folder.items() if any(seems_alive(storage, intent) for intent in writers)}
    again = {stat.key for stat in storage.list_unfinished()}
    for stat in seen.unfinished:
        is_at_work = may_be_of_a_writer(stat, alive) or is_being_written(stat, seen.now)
        if stat.key in again and not is_at_work:
            found.add("unfinished write", stat.key, size_bytes=stat.size, detail="A write was killed, or is going on.")


def _check_replaced(storage: Storage, examined: Sequence[Examined], found: Notebook) -> None:
    current = [one.generation for one in examined if one.generation]
    pinned = pins(current)
    for generation in current:
        if not generation.deleted and is_replaced(generation, pinned):
            folder = layout.folder_of(generation.id_experiment)
            key = layout.generation_key(folder, generation.number)
            # Whoever has just taken its place may be about to end it.  Intents first: one that has gone has ended it.
            if any(seems_alive(storage, intent) for intent in read_intents(storage).found):
                found.note("at work", key, generation.id_experiment, detail="Another experiment is taking its place.")
            elif _is_still(storage, folder, generation):
                detail = "Another experiment has taken its place; delete_experiment(id_experiment=…) removes the rest."
                found.add("unfinished delete", key, generation.id_experiment, detail=detail)


def _is_still(storage: Storage, folder: str, generation: Generation) -> bool:
    try:
        now = generations.current(storage, folder)
    except MltraqDSError:
        return True
    return now is not None and now.ident == generation.ident


def _may_be_asked(index: Index, seen: Survey, found: Notebook) -> bool:
    """Tell whether the index answers and has its tables, which the first question would make; note it if not."""
    url = index.database.url
    try:
        version = index.database.tables_version()
    except (*INDEX_ERRORS, MltraqDSError) as error:
        found.add("unreachable database", detail=f"{url}: {error}")
        return False
    is_empty = not seen.artifacts and not any(folder.is_marked for folder in seen.folders.values())
    if version is not None and version < SCHEMA_VERSION:
        detail = f"The tables in {url} have version {version}; they get what {SCHEMA_VERSION} adds when they are used."
        found.add("index drift", detail=detail)
    elif version is None and not is_empty:
        detail = (
            f"There are no tables in {url}, so it has never read this store (id {index.store_id}), which is not empty. "
            "Look whether it is the database that is meant."
        )
        found.add("index drift", detail=detail)
    return version is not None and version >= SCHEMA_VERSION


def _check_identity(storage: Storage, index: Index, found: Notebook) -> None:
    try:
        original = original_of(storage, index)
    except (*INDEX_ERRORS, MltraqDSError):
        return  # the database is a finding already
    if original is not None:
        detail = f"The store at {original} has the same id {index.store_id}: one of them is a copy."
        found.add("store identity", layout.STORE, detail=detail)
