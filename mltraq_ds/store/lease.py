"""Lease: one sweeper at a time, for as long as it renews."""

from __future__ import annotations

import re
import time
import uuid
from contextlib import suppress
from types import TracebackType

from mltraq_ds.errors import ConflictError, KeyExistsError, KeyMissingError, StorageError
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import descriptors, intents, layout

__all__ = ["LEASE_S", "Lease"]

#: A lease that was not renewed for so long is over (s).
LEASE_S = 600.0
_RENEW_S = 60.0


class Lease:
    """Held as a context.  Two sweepers would do no harm, only the same work: a sweep is safe beside any other.

    Each lease has a number of its own, created if absent, so that of two who find the last one expired exactly one gets
    the next.

    Parameters
    ----------
    storage : Storage
        Of the store.
    work : str
        What is done, one at a time: ``sweep``, or ``drop`` for what decides which bytes stay.

    Raises
    ------
    ConflictError
        On entering, if another sweep is at work; later, by `keep` and `require`, if another one took over.
    """

    def __init__(self, storage: Storage, work: str = "sweep") -> None:
        self._storage = storage
        self._work = work
        self._pattern = re.compile(rf"{layout.PENDING}/{work}-([1-9][0-9]{{0,17}})\.lease")
        self._key = ""
        self._renewed = 0.0
        self._owner = str(uuid.uuid4())

    @staticmethod
    def is_expired(storage: Storage, stat: Stat) -> bool:
        """Tell whether a lease was not renewed in time, by the storage's clock."""
        return storage.now() - stat.modified >= LEASE_S

    def __enter__(self) -> Lease:
        found = self._numbered()
        for stat in found.values():
            if not self.is_expired(self._storage, stat) and not self._has_ended(stat.key):
                raise self._refusal(stat.key)
        self._key = f"{layout.PENDING}/{self._work}-{max(found, default=0) + 1}.lease"
        try:
            self._write(replace=False)
        except KeyExistsError as error:
            raise self._refusal(self._key) from error
        except StorageError:
            with suppress(StorageError):  # it may be there all the same, and would keep this process out
                self._storage.delete(self._key)
            raise
        self._storage.delete_many(stat.key for stat in found.values())
        return self

    def _has_ended(self, key: str) -> bool:
        """Tell whether whoever holds a lease was killed, as far as this machine can tell."""
        try:
            body = descriptors.from_bytes(self._storage.read(key), "lease", key)
        except KeyMissingError:
            return True
        return intents.has_ended(str(body.get("machine", "")), str(body.get("process", "")))

    def keep(self) -> None:
        """Renew the lease if it is time to."""
        if time.monotonic() - self._renewed < _RENEW_S:
            return
        try:
            body = descriptors.from_bytes(self._storage.read(self._key), "lease", self._key)
        except KeyMissingError:
            body = {}
        if body.get("owner") != self._owner:
            raise self._refusal(self._key)
        self._write(replace=True)

    def require(self) -> None:
        """Raise `ConflictError` unless the lease is held now: right before what cannot be undone.

        A process that was stopped for a while has not noticed that its lease is over.
        """
        found = self._numbered()
        newest = found[max(found)] if found else None
        if newest is not None and newest.key == self._key and not self.is_expired(self._storage, newest):
            with suppress(KeyMissingError):
                body = descriptors.from_bytes(self._storage.read(self._key), "lease", self._key)
                if body.get("owner") == self._owner:
                    return
        raise ConflictError(
            f"The {self._work} of {self._storage.url} was stopped because its lease was not renewed in time, so "
            "another one may be at work. Run it again."
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._storage.delete(self._key)

    def _write(self, *, replace: bool) -> None:
        data = descriptors.to_bytes("lease", self._body())
        self._storage.put(self._key, [data], size=len(data), parents=True, replace=replace)
        self._renewed = time.monotonic()

    def _body(self) -> dict[str, str]:
        here = intents.Intent(writer="", action="", id_experiment="", name="", parent=0, number=0)
        return {"owner": self._owner, "renewed": here.created, "machine": here.machine, "process": here.process}

    def _numbered(self) -> dict[int, Stat]:
        found = ((self._pattern.fullmatch(stat.key), stat) for stat in self._storage.list(layout.PENDING))
        return {int(match.group(1)): stat for match, stat in found if match}

    def _refusal(self, key: str) -> ConflictError:
        return ConflictError(
            f"The {self._work} of {self._storage.url} was stopped because another one is at work ({key}). Wait until "
            f"it has ended; if it was killed, its lease is over after {LEASE_S:.0f} s."
        )
