"""What killed saves and stopped deletes have left with storage backends, and who has them remove it.

Backends may take their time, so readers do not wait for them: `sweep` asks, and the next save to such a backend.
"""

from __future__ import annotations

import warnings
from weakref import WeakSet

from mltraq_ds.artifacts.backends import KeepsOutside, backend_of
from mltraq_ds.errors import LeftoversWarning
from mltraq_ds.objects import Objects
from mltraq_ds.settings import resolve
from mltraq_ds.store import outside, recovery
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.versions import Version
from mltraq_ds.tracking import Session

__all__ = ["remove"]

_done: WeakSet[Session] = WeakSet()


class _Backends:
    def let_go(self, version: Version, objects: Objects) -> None:
        # docstring inherited
        backend_of(version.storage_backend).delete(version, objects, resolve())

    def take_back(self, intent: Intent, objects: Objects) -> None:
        # docstring inherited
        backend = backend_of(intent.storage_backend)
        if isinstance(backend, KeepsOutside):
            backend.take_back(intent.name, intent.writer, intent.place, resolve())
            return
        warnings.warn(
            f"A save of artifact {intent.name!a:.200} was killed (since {intent.created}, writer {intent.writer}), and "
            f"the storage backend {intent.storage_backend!a:.80} does not say what it keeps of it. Look there.",
            LeftoversWarning,
            stacklevel=9,
        )


def remove(session: Session | None) -> None:
    """Have the backends remove it, once in a session, if its database knows the store; a copy's does not at first."""
    if session is None or session in _done:
        return
    index = session._open_index()
    if index is not None and index.knows_store():
        _done.add(session)
        recovery.recover(session.objects(), index, recovery.warn_left, asks_backends=True)


outside.set_backends(_Backends())
