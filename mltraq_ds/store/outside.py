"""What lies outside of the store: a storage backend keeps it, and is asked to let go of what a killed writer has left.

Backends are in a layer above, which says here how they are asked.  A process that does not know it leaves the work to
one that does: the intent, or the tombstone that still has the notes of its backend, stays, and `check` names it.

A copy of a store has the intents of the original, and not what that has committed since.  So a save is taken back only
in the store that it was announced in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from mltraq_ds.errors import LeftoversWarning, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import intents, versions
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.versions import Version

__all__ = ["Backends", "is_of", "let_go", "set_backends", "take_back", "waiting", "waits"]


class Backends(Protocol):
    """Asks the storage backends; whatever these raise passes, a `UsageError` if this process cannot ask."""

    def let_go(self, version: Version, objects: Objects) -> None:
        """Have the backend remove what it keeps of a deleted version."""

    def take_back(self, intent: Intent, objects: Objects) -> None:
        """Have the backend remove what it keeps for a save that was killed."""


_backends: list[Backends] = []


def set_backends(backends: Backends) -> None:
    """Say who asks the backends; called once, by `artifacts`."""
    _backends[:] = [backends]


def is_of(storage: Storage, intent: Intent) -> bool:
    """Tell whether a save was announced in this store: neither in one that it was copied from nor before it moved.

    The URL of a folder means another one on another machine.
    """
    host, here = (machine.partition("/")[0] for machine in (intent.machine, intents.this_machine()))
    return intent.store == storage.url and (host == here or not storage.is_local)


def waits(version: Version) -> bool:
    """Tell whether a version was deleted and its backend has not let go of the value."""
    return version.deleted and bool(version.metadata)


def waiting(version: Version) -> str:
    """Say so."""
    return f"Deleted, but the storage backend {version.storage_backend!a:.80} has not let go of its value."


def let_go(version: Version, objects: Objects) -> bool:
    """Go on with a delete whose backend has not let go; False if it still has not, which is a warning."""

    def work(backends: Backends) -> None:
        backends.let_go(version, objects)
        versions.bury(objects.storage, replace(version, metadata={}))

    what = f"The {version.label} is deleted, but {version.storage_backend!a:.80} has not let go of its value"
    return _asked(work, what, "sweep(), or delete(),")


def take_back(intent: Intent, objects: Objects) -> bool:
    """Remove what a killed save has left with its backend; False if that could not be done, which is a warning."""
    what = f"A save of artifact {intent.name!a:.200} was killed, and {intent.storage_backend!a:.80} may keep its value"
    return _asked(lambda backends: backends.take_back(intent, objects), what, "The next save() to it, or sweep(),")


def _asked(work: Callable[[Backends], None], what: str, who: str) -> bool:
    if not _backends:
        return False
    try:
        work(_backends[0])
    except UsageError:
        return False  # no such backend here, or its options name another place: whoever has it goes on
    except Exception as error:  # noqa: BLE001 - of a foreign service: it must not keep anybody out of the store
        warnings.warn(f"{what}: {error} {who} goes on.", LeftoversWarning, stacklevel=7)
        return False
    return True
