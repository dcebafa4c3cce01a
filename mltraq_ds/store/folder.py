"""The folder of an experiment: made by its first persist, unmade if that comes to nothing."""

from __future__ import annotations

from contextlib import suppress

from mltraq_ds.errors import KeyExistsError, KeyMissingError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import layout

__all__ = ["make_folder", "mark_again", "remove_mark", "unmake_folder"]

_PARTS = ("", "/generations", "/runs")


def make_folder(storage: Storage, id_experiment: str, name: str) -> bool:
    """Make the folder of a new experiment and mark it as ours; tell whether the mark was made here.

    Only the first persist of an experiment makes its folder, so that a late writer cannot revive a deleted one.
    """
    folder = layout.folder_of(id_experiment)
    for part in _PARTS:
        with suppress(KeyExistsError):  # another first writer is at work or was killed: the generation decides
            storage.make_folder(folder + part)
    data = layout.meta_bytes(id_experiment, name, 0)
    try:
        storage.put(layout.meta_key(folder), [data], size=len(data), flush=False)
    except KeyExistsError:
        return False
    return True


def mark_again(storage: Storage, id_experiment: str, name: str) -> None:
    """Put the mark back into a folder that has files and no mark, which a power cut may leave of a first persist.

    The mark is flushed with the blobs, not before them, and the disk keeps in any order what was not flushed.  Without
    a mark sweep would take the blobs for the user's own as soon as the intent is gone.
    """
    folder, key = layout.folder_of(id_experiment), layout.meta_key(layout.folder_of(id_experiment))
    if not storage.exists(key) and any(True for _ in storage.list(folder)):
        data = layout.meta_bytes(id_experiment, name, 0)
        with suppress(KeyExistsError, KeyMissingError):  # another one was faster, or removed the folder
            storage.put(key, [data], size=len(data))


def unmake_folder(storage: Storage, id_experiment: str, *, is_marked: bool) -> None:
    """Remove the folder of an experiment that came to nothing, as far as nobody else has put anything into it.

    Parameters
    ----------
    storage : Storage
        Of the store.
    id_experiment : str
        Of the experiment.
    is_marked : bool
        Whether `make_folder` made the mark.
    """
    folder = layout.folder_of(id_experiment)
    if is_marked:
        remove_mark(storage, folder)
    for part in reversed(_PARTS):
        storage.prune(folder + part)


def remove_mark(storage: Storage, folder: str) -> None:
    """Remove `_meta.json`, and put it back if anything else is there: a commit, a record, a log of somebody else.

    Whoever puts something looks for the mark after that; so one of the two sees the other.
    """
    key = layout.meta_key(folder)
    with suppress(KeyMissingError):
        data = storage.read(key)
        storage.delete(key)
        if any(True for _ in storage.list(folder)):
            with suppress(KeyExistsError):
                storage.put(key, [data], size=len(data))
