"""Retire: remove what a commit has replaced, always by name and always after the commit.

Everything here may be repeated: a killed persist or delete is finished by the next session (`recovery`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from mltraq_ds.errors import KeyExistsError, KeyMissingError
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import pointer_key
from mltraq_ds.store import generations, layout, single_records, slots
from mltraq_ds.store.generations import Generation, Ident

__all__ = ["end_experiment", "is_last", "remove_beside", "remove_files", "remove_moved", "retire", "with_pointers"]


def retire(storage: Storage, parent: Generation | None, new: Generation) -> None:
    """Remove the files that `parent` refers to and `new` does not, then renew the copy in `_meta.json`.

    By name, never by listing: a file that is not in `parent` may belong to a writer at work.
    """
    if parent is not None:
        storage.delete_many(with_pointers(parent.keys - new.keys))
    folder = layout.folder_of(new.id_experiment)
    data = layout.meta_bytes(new.id_experiment, new.name, new.number)
    with suppress(KeyMissingError):  # replaced or deleted since the index knows it: the folder is somebody else's now
        storage.put(layout.meta_key(folder), [data], size=len(data), replace=True, flush=False)


def with_pointers(keys: Iterable[str]) -> list[str]:
    """Return the keys of blobs and records, each blob with the pointer that may stand beside it or in its place."""
    found = sorted(keys)
    return [*found, *(pointer_key(key) for key in found if "/runs/" not in key)]


def end_experiment(storage: Storage, id_experiment: str, writer: str, only: Ident | None = None) -> Generation | None:
    """Commit the end of an experiment: a generation with ``deleted``, one above the highest.

    Parameters
    ----------
    storage : Storage
        Of the store.
    id_experiment : str
        The experiment that ends.
    writer : str
        Id of the writer, so that a repetition finds its own commit.
    only : (int, str), optional
        Number and writer of the generation that is meant: if there is another by now, the experiment lives on.

    Returns
    -------
    Generation or None
        The last generation, whoever made it; None if the experiment is gone, or lives on.
    """
    folder = layout.folder_of(id_experiment)
    while True:
        # Before the look at what is current: a version that is committed in between must have taken this number.
        number = max(generations.numbers(storage, folder), default=0) + 1
        last = generations.current(storage, folder)
        # What another one replaces ends as it was persisted: records put alone beside it were not meant.
        alone = single_records.put_ids(storage, folder) if only is None else frozenset()
        folds = alone | frozenset(last.folds if last else ())
        if (last is None or last.deleted) and not alone - frozenset(last.folds if last else ()):
            return last
        if only is not None and (last is None or not last.stands_on(only)):
            return None
        end = _end_of(last, id_experiment, number, writer, folds)
        if last is None:
            with suppress(KeyExistsError, KeyMissingError):
                storage.make_folder(f"{folder}/generations")
        try:
            slots.create(storage, end, verify=partial(slots.require_next, storage, end))
        except slots.SlotTaken:
            continue  # somebody committed meanwhile: look again
        except KeyMissingError:
            if generations.current(storage, folder) is None:
                return None  # somebody else has removed the folder
            continue  # only the unfinished file is gone, which somebody took for garbage
        return end


def _end_of(last: Generation | None, id_experiment: str, number: int, writer: str, folds: Iterable[str]) -> Generation:
    return Generation(
        id_experiment=id_experiment,
        name=last.name if last else id_experiment,
        number=number,
        parent=last.number if last else 0,
        parent_writer=last.writer if last else "",
        writer=writer,
        deleted=True,
        folds=tuple(sorted(folds)),
        retires=tuple(sorted(last.keys)) if last else (),
    )


def is_last(storage: Storage, end: Generation) -> bool:
    """Tell whether an experiment still ends with `end`, so that whoever made it has to follow up."""
    current = generations.current(storage, layout.folder_of(end.id_experiment))
    return current is not None and current.ident == end.ident


def remove_files(storage: Storage, end: Generation) -> None:
    """Remove the bytes of an experiment that has ended.

    Where folders can be renamed, the whole folder disappears in one step before anything in it is removed, so that a
    reader never sees half of it and a late writer fails.  Elsewhere the files go by name and the last generation stays,
    so that a late writer still meets it; a listing might name the files of somebody who makes the experiment anew.
    """
    folder = layout.folder_of(end.id_experiment)
    target = f"{layout.PENDING}/deleted-{uuid.uuid4()}"
    if storage.is_local and not is_last(storage, end):
        return  # removed by somebody else, and perhaps made anew: not even for a moment may that be away
    try:
        is_moved = storage.move_folder(folder, target)
    except KeyMissingError:
        return  # somebody else has finished
    if is_moved:
        remove_moved(storage, target, folder)
    else:
        storage.delete_many(with_pointers(end.retires))


def remove_beside(storage: Storage, end: Generation) -> None:
    """Remove what others have put beside an experiment that has just ended, where its folder cannot be renamed away.

    Only for whoever ends it: their names are used again, so that a recovery, later, could meet those of a new life.
    """
    folder = layout.folder_of(end.id_experiment)
    places = (f"{folder}/{name}" for name in layout.BESIDE)
    beside = [stat.key for place in places for stat in storage.list(place)]
    folded = [one.key for one in single_records.all_of(storage, folder) if one.put_id in end.folds]
    storage.delete_many([*beside, *folded])


def remove_moved(storage: Storage, target: str, folder: str | None = None) -> None:
    """Remove a folder that was renamed away, after a look whether it is the ended one.

    If the experiment was made anew just before the renaming, its folder is put back.  The end is removed last of all
    generations: killed in between, the next look must not take an older one for an experiment that lives.
    """
    last = generations.last_in(storage, target)
    if last is not None and not last.deleted:
        with suppress(KeyExistsError):  # made anew twice: this one stays where it is, and `check` shows it
            storage.move_folder(target, folder or layout.folder_of(last.id_experiment))
        return
    older = [number for number in generations.numbers(storage, target) if last is not None and number < last.number]
    if older:
        keys = [layout.generation_key(target, number) for number in older]
        storage.delete_many(keys)
        storage.flush(keys[:1])
    storage.delete_folder(target)
