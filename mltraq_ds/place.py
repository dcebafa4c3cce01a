"""Place: the store that DataStoreIO and `from_url` mean when none is named."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mltraq_ds import ids
from mltraq_ds.errors import UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.storage import Storage, open_storage

__all__ = ["CURRENT", "Place", "Unreachable", "place_of", "set_default", "shareable"]


@dataclass(frozen=True, slots=True)
class Place:
    """A store's objects, and where the names of new blobs come from."""

    objects: Objects
    new_uuid: Callable[[], uuid.UUID] = ids.new_uuid


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A store that exists only in the process that the run was sent from."""

    url: str


#: The place of the run whose steps or ``with`` block is executing; set by `tracking` and by nobody else.
CURRENT: ContextVar[Place | Unreachable | None] = ContextVar("mltraq_ds_place", default=None)

_default: list[Callable[[], Place]] = []
_open: list[Callable[[str], Storage]] = [open_storage]


def set_default(provider: Callable[[], Place], opener: Callable[[str], Storage]) -> None:
    """Name the functions that give the default place, and the storage at a URL; called once, by `tracking`."""
    _default[:] = [provider]
    _open[:] = [opener]


def place_of(store: Any) -> Place:
    """Return the place that a `store` argument means.

    Parameters
    ----------
    store : Session, Place, Unreachable, Objects, Storage, str, os.PathLike or None
        None is the store of the run that is executing, else of the default session.
    """
    if store is None and CURRENT.get() is not None:
        store = CURRENT.get()
    if isinstance(store, Unreachable):
        # The default session would be another store, and the value lost there.
        raise UsageError(
            f"The store {store.url} cannot be reached from this process because it exists in one process only, or its "
            "options hold a secret. Use n_jobs=1 or backend='threading', or name the secret in the environment or a "
            "profile."
        )
    if store is None:
        if not _default:
            raise UsageError("No store is known here. Pass store=…, or make a session with create_session() first.")
        return _default[0]()
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


def shareable(place: Place | Unreachable) -> Place | Unreachable:
    """Return what may be sent to another process in place of `place`."""
    if isinstance(place, Unreachable) or place.objects.storage.is_shareable:
        return place
    return Unreachable(place.objects.storage.url)
