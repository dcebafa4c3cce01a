"""Slots: the numbers of generations.  Creating one is the commit; exactly one writer gets each.

What makes it safe is written in ``tests/model`` and was found there: a parent is number *and* writer, it is looked at
again at the last moment, and an answer that was lost is asked for again, never guessed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mltraq_ds.errors import ConflictError, KeyExistsError, KeyMissingError, UnknownOutcomeError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout
from mltraq_ds.store.generations import Generation, TornGeneration

__all__ = ["SlotTaken", "create", "is_committed", "leaves_no_gap", "put_once", "require_next"]

_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.1


class SlotTaken(ConflictError):  # noqa: N818 - an answer inside this package
    """Another writer has the number; `there` is its generation, None if it is still being written."""

    def __init__(self, message: str = "", there: Generation | None = None) -> None:
        super().__init__(message)
        self.there = there


def create(storage: Storage, generation: Generation, verify: Callable[[], None] | None = None) -> None:
    """Create a generation if its number is free; afterwards it is known who has it.

    Parameters
    ----------
    storage : Storage
        Of the store.
    generation : Generation
        To be committed.
    verify : callable, optional
        Called when everything is written but the name; what it raises stops the commit.

    Raises
    ------
    SlotTaken
        If another writer has the number.
    KeyMissingError
        If the folder is gone: the experiment was deleted.
    UnknownOutcomeError
        If the answer was lost and cannot be asked for.  It may have happened.
    """
    folder = layout.folder_of(generation.id_experiment)
    key = layout.generation_key(folder, generation.number)
    data = generation.to_bytes()
    generations.check_readable(generation, data)
    what = f"generation {generation.number} of experiment {generation.name!r}"
    try:
        put_once(storage, key, data, what, verify)
    except KeyExistsError as error:
        there = _read(storage, folder, generation.number)
        if there is None or there.writer != generation.writer:
            raise SlotTaken(f"{key} exists", there) from error
        # else the answer to an earlier attempt was lost


def leaves_no_gap(storage: Storage, folder: str, number: int, parent: int) -> bool:
    """Tell whether a number is above that of a parent, and none between the two is free (some may be torn).

    A number that was looked up in a former life of the id may lie above one that another writer takes in this life;
    its version would be passed over.
    """
    if number <= parent + 1:
        return number == parent + 1
    between = [other for other in generations.numbers(storage, folder) if parent < other < number]
    return len(between) == number - parent - 1


def require_next(storage: Storage, generation: Generation) -> None:
    """Look at the last moment whether a generation follows what is current: for `create`, as `verify`.

    Whoever takes the number after this look is met by `create`; whoever makes the folder anew takes the unfinished file
    away with the former one.

    Raises
    ------
    SlotTaken
        If something else is current, or a number below is free.
    """
    folder = layout.folder_of(generation.id_experiment)
    if leaves_no_gap(storage, folder, generation.number, generation.parent):
        there = generations.current(storage, folder)
        if (there.ident if there else (0, "")) == generation.parent_ident:
            return
    raise SlotTaken(f"generation {generation.number} does not follow what is current in {folder}")


def put_once(storage: Storage, key: str, data: bytes, what: str, verify: Callable[[], None] | None = None) -> None:
    """Create a key if it is absent; afterwards it is known whether there is one.

    Parameters
    ----------
    storage : Storage
        Of the store.
    key : str
        Store-relative name.
    data : bytes
        Its content.
    what : str
        What is committed, for messages.
    verify : callable, optional
        Called when everything is written but the name; what it raises stops the commit.  Once it has passed, a
        repetition of the request does not call it again: it would find what the first one has created, and take that
        for somebody else's.

    Raises
    ------
    KeyExistsError
        If it exists: read back whose it is, since the answer to an earlier attempt may have been lost.
    KeyMissingError
        If its folder is gone.
    UnknownOutcomeError
        If the answer was lost and cannot be asked for.  It may have happened.
    """
    pending = [] if verify is None else [verify]

    def verify_once() -> None:
        if pending:
            pending[0]()
            pending.clear()

    for attempt in range(_ATTEMPTS):
        try:
            storage.put(key, [data], size=len(data), before_publish=verify_once)
        except (KeyExistsError, KeyMissingError):
            raise
        except OSError as error:
            if storage.is_local:
                raise
            # It may still arrive.  Absence is no answer either; only the same conditional request, repeated, is.
            if attempt + 1 == _ATTEMPTS:
                raise UnknownOutcomeError(
                    f"It is not known whether {what} was committed, because {storage.url} does not answer: {error} "
                    "Nothing was undone; the next session that reaches it finds out."
                ) from error
            time.sleep(_FIRST_PAUSE_S * 4**attempt)
        else:
            return


def is_committed(storage: Storage, generation: Generation) -> bool:
    """Tell whether a generation is there, or may be: True unless it is certain that it is not."""
    if not storage.is_local:
        return True
    try:
        there = _read(storage, layout.folder_of(generation.id_experiment), generation.number)
    except KeyMissingError:
        return False
    except OSError:
        return True
    return there is None or there.writer == generation.writer


def _read(storage: Storage, folder: str, number: int) -> Generation | None:
    try:
        return generations.read(storage, folder, number)
    except TornGeneration:
        return None
