"""Recovery: finish what a killed writer has left, from its intent.

A persist that committed is finished (index, removal of what it replaced).  One that did not has changed nothing that
anybody sees; its number is taken away if it may still be alive somewhere, and its files are orphans for sweep.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from mltraq_ds.errors import (
    DanglingReferenceError,
    KeyExistsError,
    KeyMissingError,
    LeftoversWarning,
    MltraqDSError,
    StorageError,
)
from mltraq_ds.objects import Objects
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import EndedVersion
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.failures import is_refusal
from mltraq_ds.store import follow_up, generations, intents, layout, reading, slots, version_deletion
from mltraq_ds.store.artifact_rows import update_rows
from mltraq_ds.store.folder import mark_again
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.retire import remove_files, remove_moved, retire
from mltraq_ds.store.rows import stored_rows

__all__ = ["finish", "recover", "update_index", "warn_left"]

#: Who leaves a work as it is, and goes on.
OnLeft = Callable[[MltraqDSError], None]


def recover(
    objects: Objects,
    index: Index | None,
    on_left: OnLeft | None = None,
    *,
    asks_backends: bool = False,
) -> list[Intent]:
    """Finish the work of all writers that died.

    Safe to run by many at once, and beside living writers: every step may be repeated, and a writer that was taken for
    dead by mistake cannot commit any more.

    Parameters
    ----------
    objects : Objects
        Of the store.
    index : Index or None
        The SQL side.
    on_left : callable, optional
        Given the error of each work that is left as it is, because its intent cannot be read or because the storage
        does not permit to write or delete: who may only read must not be kept out by it.  Without it the first such
        error is raised.
    asks_backends : bool
        Whether storage backends are asked to remove what they keep for dead writers.  They may take their time, so no
        reader asks; and only who knows that this store is no copy of another one may ask.

    Returns
    -------
    list of Intent
        Those that were finished.
    """
    storage = objects.storage
    dead = [intent for intent in intents.list_intents(storage, on_left) if not intents.is_alive(storage, intent)]
    finished = []

    def go_on(intent: Intent) -> None:
        if finish(objects, index, intent, asks_backends=asks_backends):
            finished.append(intent)

    for intent in dead:
        if not _unless_refused(intent.key, on_left, partial(go_on, intent)):
            _show(objects, index, intent)
    for name in storage.folders(layout.PENDING):
        if name.startswith("deleted-"):
            place = f"{layout.PENDING}/{name}"
            _unless_refused(place, on_left, partial(remove_moved, storage, place))
    return finished


def _unless_refused(key: str, on_left: OnLeft | None, work: Callable[[], object]) -> bool:
    """Do a work that anybody may do again; False if the storage does not permit it and `on_left` was told."""
    try:
        work()
    except StorageError as error:
        if on_left is None or not is_refusal(error):
            raise
        on_left(StorageError(f"{key} stays, since this storage does not let us finish it: {error}"))
        return False
    return True


def _show(objects: Objects, index: Index | None, intent: Intent) -> None:
    """Make the rows what the files say of a work that must stay as it is, so that what it committed is found.

    What it did not commit is seen by nobody, and its claim stays: unfenced, the writer may still come back.
    """
    if index is None:
        return
    storage = objects.storage
    if intent.is_of_artifact:
        rows = ArtifactIndex(index.database, index.store_id)
        update_rows(storage, rows, layout.artifact_folder(intent.name), lambda key, error: None)
        return
    committed = _committed_by(storage, layout.folder_of(intent.id_experiment), intent)
    if committed is not None:
        update_index(objects, index, intent.id_experiment, intent.key, replaces=committed.replaces)


def warn_left(error: MltraqDSError) -> None:
    """Warn of a work that is left: it must not keep everybody out; sweep, which could remove its files, stops."""
    warnings.warn(f"The work of a writer was left as it is: {error}", LeftoversWarning, stacklevel=6)


def finish(objects: Objects, index: Index | None, intent: Intent, *, asks_backends: bool = False) -> bool:
    """Finish the work of one dead writer, then remove its intent; False if it stays, for what a backend still keeps."""
    storage = objects.storage
    if intent.is_of_artifact:
        rows = ArtifactIndex(index.database, index.store_id) if index is not None else None
        return version_deletion.finish(objects, rows, intent, asks_backends=asks_backends)
    folder = layout.folder_of(intent.id_experiment)
    # A request of a writer that has ended may still be on its way to a remote storage.
    may_come = not (storage.is_local and intents.is_surely_dead(intent))
    if may_come:
        with suppress(KeyExistsError):
            storage.put(intent.fence_key, [b""], size=0)
    committed = _committed_by(storage, folder, intent)
    if committed is None and intent.action == "persist" and may_come:
        committed = _fence(storage, folder, intent)
    if committed is None:
        if intent.action == "persist" and generations.current(storage, folder) is None:
            mark_again(storage, intent.id_experiment, intent.name)
        if may_come:
            update_index(objects, index, intent.id_experiment, intent.key)  # the fence is a generation too
        if index is not None:
            if intent.action == "delete" and generations.current(storage, folder) is None:
                index.remove(intent.id_experiment, intent.number)  # removed by somebody who knows no index
            index.release(intent.name, intent.key)
    elif committed.deleted:
        update_index(objects, index, intent.id_experiment, intent.key)
        remove_files(storage, committed)
    else:
        _finish_persist(objects, index, intent, committed)
    intents.remove_intent(storage, intent)
    storage.delete(intent.fence_key)
    return True


def _finish_persist(objects: Objects, index: Index | None, intent: Intent, committed: Generation) -> None:
    storage = objects.storage
    folder = layout.folder_of(intent.id_experiment)
    ended = follow_up.end_replaced(storage, committed)
    update_index(objects, index, intent.id_experiment, intent.key, replaces=ended)
    if generations.current(storage, folder) == committed:
        # Superseded meanwhile?  Then the writer that did so has seen to what was left, by its own parent's names.
        retire(storage, _parent(storage, folder, committed), committed)
    for end in ended:
        remove_files(storage, end)


def update_index(
    objects: Objects,
    index: Index | None,
    id_experiment: str,
    intent: str | None = None,
    replaces: Iterable[EndedVersion] = (),
) -> None:
    """Make the rows of one experiment what its files say, looking again until they stay the same."""
    if index is None:
        return
    storage, folder = objects.storage, layout.folder_of(id_experiment)
    while True:
        current = generations.current(storage, folder)
        if current is None:
            return
        if current.deleted:
            index.remove(id_experiment, current.number)
        else:
            try:
                rows = stored_rows(reading.read_records(storage, current), current)
            except DanglingReferenceError:
                after = generations.current(storage, folder)
                if after is not None and after.ident == current.ident:
                    raise
                continue  # replaced or removed while it was read
            index.write(*rows, intent=intent, replaces=replaces, folds=current.folds)
        after = generations.current(storage, folder)
        if after is None or after.ident == current.ident:
            return


def _fence(storage: Storage, folder: str, intent: Intent) -> Generation | None:
    """Take the number of a writer that may be asleep; returns its own generation if it was faster.

    For a new experiment the fence is an end, otherwise it repeats the parent.  There is none in a later life of the id,
    whose numbers are lower: the writer does not find there what it stands on, and others find every number free.
    """
    current = generations.current(storage, folder)
    if not slots.leaves_no_gap(storage, folder, intent.number, current.number if current else 0):
        return _committed_by(storage, folder, intent)
    mine = str(uuid.uuid4())
    if current is not None and not current.deleted:
        fence = replace(
            current,
            number=intent.number,
            parent=current.number,
            parent_writer=current.writer,
            writer=mine,
            fences=intent.writer,
            replaces=(),
        )
    else:
        for place in (folder, f"{folder}/generations"):
            with suppress(KeyExistsError):
                storage.make_folder(place)
        fence = Generation(
            id_experiment=intent.id_experiment,
            name=intent.name,
            number=intent.number,
            parent=current.number if current else 0,
            parent_writer=current.writer if current else "",
            writer=mine,
            deleted=True,
            fences=intent.writer,
        )
    try:
        slots.create(storage, fence, verify=partial(slots.require_next, storage, fence))
    except slots.SlotTaken:
        return _committed_by(storage, folder, intent)
    except KeyMissingError:
        return None  # deleted: nobody can commit there
    return None


def _committed_by(storage: Storage, folder: str, intent: Intent) -> Generation | None:
    if intent.action == "delete":
        # Its number is not the one announced if somebody persisted in between.
        last = generations.current(storage, folder)
        return last if last is not None and last.deleted else None
    try:
        generation = generations.read(storage, folder, intent.number)
    except (KeyMissingError, generations.TornGeneration):
        return None
    return generation if generation.writer == intent.writer else None


def _parent(storage: Storage, folder: str, generation: Generation) -> Generation | None:
    try:
        parent = generations.read(storage, folder, generation.parent)
    except KeyMissingError:
        return None  # there was none, or it was pruned after sweep had seen to its files
    return parent if parent.ident == generation.parent_ident else None
