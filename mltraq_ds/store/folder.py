"""The folder of an experiment: made by its first persist, unmade if that comes to nothing."""

from __future__ import annotations

from contextlib import suppress

from mltraq_ds.errors import KeyExistsError, KeyMissingError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout

__all__ = ["make_folder", "unmake_folder"]

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


def unmake_folder(storage: Storage, id_experiment: str, *, is_marked: bool) -> None:
    """Remove the folder of an experiment that came to nothing, as far as nobody else has put anything into it.

    Parameters
    ----------
    storage : Storage
        Of the store.
    id_experiment : str
        Of the experiment.
    is_marked : bool
        Whether `make_folder` made the mark.  It is put back if another first writer has committed meanwhile.
    """
    folder = layout.folder_of(id_experiment)
    if is_marked:
        storage.delete(layout.meta_key(folder))
        there = generations.current(storage, folder)
        if there is not None:
            data = layout.meta_bytes(there.id_experiment, there.name, there.number)
        elif any(True for _ in storage.list(folder)):  # a record, a log …, put beside us; whoever puts looks again too
            data = layout.meta_bytes(id_experiment, id_experiment, 0)
        else:
            data = b""
        if data:
            with suppress(KeyExistsError, KeyMissingError):
                storage.put(layout.meta_key(folder), [data], size=len(data))
    for part in reversed(_PARTS):
        storage.prune(folder + part)
