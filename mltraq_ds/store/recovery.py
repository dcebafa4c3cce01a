"""Recovery: finish what a killed writer has left, from its intent.

A persist that committed is finished (index, removal of what it replaced); one that did not has changed nothing that
anybody sees, and its files are orphans for sweep.
"""

from __future__ import annotations

from mltraq_ds.errors import CorruptRecordError, KeyMissingError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, intents, layout, reading
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.retire import end_experiment, remove_files, retire
from mltraq_ds.store.rows import stored_rows

__all__ = ["recover"]


def recover(objects: Objects, index: Index | None) -> list[Intent]:
    """Finish the work of all writers that died.

    Safe to run by many at once, and beside living writers: it touches no intent that lives, and every step of it may be
    repeated.

    Returns
    -------
    list of Intent
        Those that were finished.
    """
    storage = objects.storage
    finished = []
    for intent in intents.list_intents(storage):
        if not intents.is_alive(storage, intent):
            _finish(objects, index, intent)
            intents.remove_intent(storage, intent)
            finished.append(intent)
    _finish_deletions(storage)
    return finished


def _finish(objects: Objects, index: Index | None, intent: Intent) -> None:
    storage = objects.storage
    folder = layout.folder_of(intent.id_experiment)
    committed = _committed_by(storage, folder, intent)
    if committed is None:
        if index is not None:
            index.release(intent.name, intent.key)
        return
    if committed.deleted:
        if index is not None:
            index.remove(intent.id_experiment, committed.number)
        remove_files(storage, intent.id_experiment)
        return
    for id_replaced in committed.replaces:
        end_experiment(storage, id_replaced, intent.writer)
    current = generations.current(storage, folder)
    if current is not None and not current.deleted and index is not None:
        rows = stored_rows(reading.read_records(storage, current), current)
        index.write(*rows, intent=intent.key, replaces=committed.replaces)
    if current == committed:
        # Superseded meanwhile?  Then the writer that did so has retired what was left, by its own parent's names.
        retire(storage, _parent(storage, folder, committed), committed)
    for id_replaced in committed.replaces:
        remove_files(storage, id_replaced)


def _committed_by(storage: Storage, folder: str, intent: Intent) -> Generation | None:
    try:
        generation = generations.read(storage, folder, intent.number)
    except (KeyMissingError, CorruptRecordError):
        return None
    return generation if generation.writer == intent.writer else None


def _parent(storage: Storage, folder: str, generation: Generation) -> Generation | None:
    if not generation.parent:
        return None
    try:
        return generations.read(storage, folder, generation.parent)
    except KeyMissingError:
        return None  # pruned: sweep has seen to its files


def _finish_deletions(storage: Storage) -> None:
    for name in storage.folders(layout.PENDING):
        if name.startswith("deleted-"):
            storage.delete_folder(f"{layout.PENDING}/{name}")
