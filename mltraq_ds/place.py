"""Place: the store that DataStoreIO and `from_url` mean when none is named."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from mltraq_ds import ids
from mltraq_ds.errors import UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.storage import Storage, open_storage

__all__ = ["Active", "Place", "Unreachable", "is_executing", "place_of", "refuse_mix_up", "set_default", "shareable"]


@dataclass(frozen=True, slots=True)
class Place:
    """A store's objects, and where the names of new blobs come from."""

    objects: Objects
    new_uuid: Callable[[], uuid.UUID] = ids.new_uuid


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A store that exists only in the process that the run was sent from."""

    url: str


_CURRENT: ContextVar[Place | Unreachable | None] = ContextVar("mltraq_ds_place", default=None)

# Those of all runs that are executing in this process.  Threads that a step starts have no context variables of the
# step, so without this what they write would go to the default session's store, and be missed later.
_active: list[Place | Unreachable] = []

_default: list[Callable[[], Place]] = []
_open: list[Callable[[str], Storage]] = [open_storage]


def set_default(provider: Callable[[], Place], opener: Callable[[str], Storage]) -> None:
    """Name what gives the default session's place, and the storage at a URL; called once, by `tracking`."""
    _default[:] = [provider]
    _open[:] = [opener]


class Active:
    """Makes a place that of the run whose steps or ``with`` block is executing; for `tracking` and nobody else."""

    __slots__ = ("_place", "_token")

    def __init__(self, place: Place | Unreachable) -> None:
        self._place = place
        self._token: Token[Place | Unreachable | None] | None = None

    def __enter__(self) -> None:
        _active.append(self._place)
        self._token = _CURRENT.set(self._place)

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):  # interrupted before it was there
            _active.remove(self._place)
        token, self._token = self._token, None
        if token is not None:
            _CURRENT.reset(token)


def place_of(store: Any) -> Place:
    """Return the place that a `store` argument means.

    Parameters
    ----------
    store : Session, Place, Unreachable, Objects, Storage, str, os.PathLike or None
        None is the store of the run that is executing, else of the default session.

    Raises
    ------
    UsageError
        If it is no store; or if it is None in a thread without a run while runs execute in others, and the default
        session has another store than they.
    """
    if store is None:
        store = _CURRENT.get()
    if isinstance(store, Unreachable):
        # The default session would be another store, and the value lost there.
        raise UsageError(
            f"The store {store.url} cannot be reached from this process because it exists in one process only, or its "
            "options hold a secret. Use n_jobs=1 or backend='threading', or name the secret in the environment or a "
            "profile."
        )
    if store is None:
        return _default_place()
    if isinstance(store, Place):
        return store
    if isinstance(store, Objects):
        return Place(store)
    if isinstance(store, Storage):
        return Place(Objects(store))
    if isinstance(store, str | os.PathLike):
        return Place(Objects(_open[0](os.fspath(store))))
    place = getattr(store, "place", None)
    if isinstance(place, Place):
        return place
    # Not its repr: options with a secret may have been passed by mistake.
    raise UsageError(f"A value of type {type(store).__name__} is not a store. Pass a Session, a URL or a folder.")


def _default_place() -> Place:
    if not _default:
        raise UsageError("No store is known here. Pass store=…, or make a session with create_session() first.")
    place = _default[0]()
    refuse_mix_up(place.objects.storage.url)
    return place


def is_executing() -> bool:
    """Tell whether steps or a ``with`` block of a run are executing here: in this thread, or with its context."""
    return _CURRENT.get() is not None


def refuse_mix_up(url: str) -> None:
    """Raise `UsageError` if a run with another store than the default session's, at `url`, executes elsewhere."""
    for other in tuple(_active):
        other_url = other.url if isinstance(other, Unreachable) else other.objects.storage.url
        if other_url != url:
            raise UsageError(
                f"Which store is meant cannot be told because a run with the store {other_url} executes, but not in "
                f"this thread, and the default session has the store {url}. Pass store=…, or run the thread in "
                "contextvars.copy_context(), made by the step that starts it."
            )


def shareable(place: Place | Unreachable) -> Place | Unreachable:
    """Return what may be sent to another process in place of `place`."""
    if isinstance(place, Unreachable) or place.objects.storage.is_shareable:
        return place
    return Unreachable(place.objects.storage.url)
