"""Retire: remove what a commit has replaced, always by name and always after the commit.

Everything here may be repeated: a killed persist or delete is finished by the next session (`recovery`).
"""

from __future__ import annotations

import uuid

from mltraq_ds.errors import KeyExistsError, KeyMissingError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout
from mltraq_ds.store.generations import Generation

__all__ = ["end_experiment", "remove_files", "retire"]


def retire(storage: Storage, parent: Generation | None, new: Generation) -> None:
    """Remove the files that `parent` refers to and `new` does not, then renew the copy in `_meta.json`.

    By name, never by listing: a file that is not in `parent` may belong to a writer at work.
    """
    if parent is not None:
        storage.delete_many(sorted(parent.keys - new.keys))
    write_meta(storage, new)


def write_meta(storage: Storage, generation: Generation) -> None:
    """Keep a copy of the newest generation in `_meta.json`, for people and listings; no writer decides by it."""
    folder = layout.folder_of(generation.id_experiment)
    data = layout.dump_meta(generation.id_experiment, generation.name, generation.number)
    storage.put(layout.meta_key(folder), [data], size=len(data), replace=True, flush=False)


def end_experiment(
    storage: Storage, id_experiment: str, writer: str, replaced_by: str | None = None
) -> Generation | None:
    """Commit the end of an experiment: a generation with ``deleted``, one above the highest.

    Parameters
    ----------
    storage : Storage
        Of the store.
    id_experiment : str
        The experiment that ends.
    writer : str
        Id of the writer, so that a repetition finds its own commit.
    replaced_by : str, optional
        The experiment that takes its place, for people.

    Returns
    -------
    Generation or None
        The last generation; None if the experiment is gone already.
    """
    folder = layout.folder_of(id_experiment)
    while True:
        last = generations.current(storage, folder)
        if last is None or last.deleted:
            return last
        highest = generations.numbers(storage, folder)[0]
        end = Generation(
            id_experiment=id_experiment,
            name=last.name,
            number=highest + 1,
            parent=last.number,
            writer=writer,
            deleted=True,
            replaces=(),
        )
        data = end.dump()
        try:
            storage.put(layout.generation_key(folder, end.number), [data], size=len(data))
        except KeyExistsError:
            continue  # somebody committed meanwhile: look again, the end comes after theirs
        except KeyMissingError:
            return None  # somebody else has removed the folder
        return end


def remove_files(storage: Storage, id_experiment: str) -> None:
    """Remove the bytes of an ended experiment.

    Where folders can be renamed, the whole folder disappears in one step before anything in it is removed, so that a
    reader never sees half of it and a late writer fails.  Elsewhere only the blobs and records go; the last generation
    stays until sweep, so that a late writer still meets it.
    """
    folder = layout.folder_of(id_experiment)
    target = f"{layout.PENDING}/deleted-{uuid.uuid4()}"
    if storage.move_folder(folder, target):
        storage.delete_folder(target)
        return
    keep = f"{folder}/generations/"
    storage.delete_many([stat.key for stat in storage.list(folder) if not stat.key.startswith(keep)])
