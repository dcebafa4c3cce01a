"""Holding: the lease of whoever decides which bytes stay, renewed for as long as the work takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mltraq_ds.errors import MltraqDSError, RemotesError
from mltraq_ds.lake.bytes import pointer_of
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import Pointer
from mltraq_ds.store.lease import Lease

__all__ = ["Guard", "held", "require_same"]

#: One at a time decides which bytes stay: two would rely on each other.
_WORK = "drop"
_RENEW_S = 60.0

#: Raises unless the lease is held now; called right before a removal.
Guard = Callable[[], None]


@contextmanager
def held(storage: Storage) -> Iterator[Guard]:
    """Hold the lease of a store.  A thread renews it, since one large blob alone may take longer than a lease.

    Raises
    ------
    ConflictError
        On entering, if somebody else decides; from the guard, if somebody else may have begun to.
    """
    is_done = threading.Event()
    with Lease(storage, _WORK) as lease:

        def renew() -> None:
            while not is_done.wait(_RENEW_S):
                with suppress(MltraqDSError, OSError):  # the guard tells, where it matters
                    lease.keep()

        renewal = threading.Thread(target=renew, name="mltraq_ds lease", daemon=True)
        renewal.start()
        try:
            yield lease.require
        finally:
            is_done.set()
            renewal.join()


def require_same(storage: Storage, reference: Reference, pointer: Pointer) -> None:
    """Raise `RemotesError` if the pointer is not the one that a decision was made on."""
    if pointer_of(storage, reference) != pointer:
        raise RemotesError("Its bytes stay because its pointer was changed meanwhile. Run it again.")
