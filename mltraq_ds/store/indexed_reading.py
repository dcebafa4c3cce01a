"""Reading by way of the index: it says which runs may match, and what it says is compared with the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mltraq_ds.errors import KeyMissingError
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.singles import SingleIndex
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout, run_mapping
from mltraq_ds.store.document_rows import stamp_of
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.run_filter import RunFilter
from mltraq_ds.store.types import RunRecord

__all__ = ["find"]


def find(files: FileStore, index: Index, wanted: RunFilter) -> Iterator[RunRecord]:
    """Yield the records of one experiment that match.

    Parameters
    ----------
    files : FileStore
        Scoped to the experiment.
    index : Index
        Of the store; an experiment that it has in another version is read from the files.
    wanted : RunFilter
        What to look for.
    """
    id_experiment = str(files.experiment_id)
    folder = layout.folder_of(id_experiment)
    generation = generations.current(files.storage, folder)
    living = None if generation is None or generation.deleted else generation
    known = index.get(id_experiment)
    if (known.generation if known else 0) != (living.number if living else 0):
        yield from filter(wanted, files.iter_run_records())
        return
    status = None if wanted.status is None else str(wanted.status)
    rows = SingleIndex(index).listed(id_experiment, status=status, values=wanted.metrics)
    for _, id_run, _, stamp, text in rows:
        record: RunRecord | None
        if text is not None and _is_present(files.storage, folder, id_run, str(stamp), generation):
            body: dict[str, Any] = json.loads(text)
            record = run_mapping.record_from(body, id_experiment, folder)
        else:
            record = files.get_run_record(id_run)
        if record is not None and wanted(record):
            yield record


def _is_present(storage: Storage, folder: str, id_run: str, stamp: str, generation: Generation | None) -> bool:
    """Tell whether a row is still that of its file; on remote storages only the generation is compared."""
    if not storage.is_local:
        return stamp.rpartition(":")[2] == str(generation.number if generation else 0)
    try:
        return stamp_of(storage.stat(layout.run_record_key(folder, id_run)), generation) == stamp
    except KeyMissingError:
        return False
