"""Checking the rows of what was put one by one against its files, in both directions."""

from __future__ import annotations

from collections.abc import Iterable

from mltraq_ds.errors import MltraqDSError
from mltraq_ds.ids import unescape_name
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import descriptors, document_rows, layout, single_records
from mltraq_ds.store.index_lag import Drift, compare
from mltraq_ds.store.index_marks import marks_of
from mltraq_ds.store.report import Notebook
from mltraq_ds.store.survey import Folder

__all__ = ["check_singles"]


def check_singles(storage: Storage, index: Index, folders: Iterable[Folder], found: Notebook) -> None:
    """Add what the rows of single records and documents say otherwise than their files; by size and time of these."""
    try:
        for key in marks_of(storage, index.database):
            detail = "The index has not been told of everything; the next connection catches up."
            found.add("index drift", key, detail=detail)
        if not index.knows_store():
            return  # a finding already, or a store without experiments
        for folder in folders:
            if folder.is_marked:
                _check_folder(storage, index, folder, found)
    except INDEX_ERRORS as error:
        if not isinstance(error, MltraqDSError):
            found.add("unreachable database", detail=f"{index.database.url}: {error}")


def _check_folder(storage: Storage, index: Index, folder: Folder, found: Notebook) -> None:
    id_experiment = _id_of(storage, folder)
    if id_experiment is None:
        return
    try:
        drift = compare(storage, index, id_experiment, folder.stats)
        if drift.size and not drift.is_older:  # somebody may have put something since the files were listed
            drift = compare(storage, index, id_experiment)
    except MltraqDSError:
        return  # what cannot be read is a finding of its own
    drift.changed = [stat for stat in drift.changed if _is_readable(storage, stat)]
    if drift.is_older:
        return  # of the whole experiment, which is a finding already
    for key in _lost(folder.name, drift):
        found.add("index drift", key, id_experiment, detail="The index has it, and there is no such file.")
    changed = [stat.key for stat in drift.changed]
    changed += [stat.key for files, _ in drift.documents.values() for stat in files]
    if changed:
        more = f", and {len(changed) - 1} others are not either" if len(changed) > 1 else ""
        found.add("index drift", min(changed), id_experiment, detail=f"The index does not have it as it is{more}.")


def _lost(folder: str, drift: Drift) -> list[str]:
    """Return the keys of the files that the index knows and that are gone."""
    gone = [layout.run_record_key(folder, id_run) for id_run in drift.gone]
    gone += [document_rows.key_of(kind, folder, name) for kind, (_, names) in drift.documents.items() for name in names]
    return sorted(gone)


def _is_readable(storage: Storage, stat: Stat) -> bool:
    try:
        return single_records.read(storage, stat.key) is not None
    except MltraqDSError:
        return False  # that is a finding of its own


def _id_of(storage: Storage, folder: Folder) -> str | None:
    known = unescape_name(folder.name)
    if known is not None and layout.folder_of(known) == folder.name:
        return known
    try:
        body = descriptors.from_bytes(
            storage.read(layout.meta_key(folder.name)), "folder", layout.meta_key(folder.name)
        )
    except MltraqDSError:
        return None
    return str(body.get("id_experiment"))
