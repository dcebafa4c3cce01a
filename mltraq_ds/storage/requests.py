"""Requests to a remote: a few at a time, repeated while that can help, never for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from mltraq_ds.errors import StorageError
from mltraq_ds.storage.access import Access, RemoteFailing

__all__ = ["CONCURRENCY", "DEADLINE_S", "Requests"]

T = TypeVar("T")

#: Requests of one storage that are under way at a time, in one process.
CONCURRENCY = 16
#: When a request is given up, its repetitions included (s).
DEADLINE_S = 120.0

_ATTEMPTS = 6
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_JITTER_S = 0.5  # many workers that were throttled together must not come back together


class Requests:
    """Sends the requests of one storage; safe in threads, belongs to one process.

    Parameters
    ----------
    access : Access
        Names the storage and knows its secrets.
    concurrency : int
        How many are under way at a time.
    deadline_s : float
        When a request is given up (s).
    """

    def __init__(self, access: Access, *, concurrency: int = CONCURRENCY, deadline_s: float = DEADLINE_S) -> None:
        self._access = access
        self._room = threading.BoundedSemaphore(concurrency)
        self.concurrency = concurrency
        self.deadline_s = deadline_s
        #: Called before each request: a place to connect again.
        self.prepare: Callable[[], None] = _nothing

    @property
    def scheme(self) -> str:
        """Scheme of the storage's URL."""
        return self._access.scheme

    def failing(self, verb: str, key: str) -> RemoteFailing:
        """Return the context that turns what a client raises into a `StorageError`."""
        return RemoteFailing(verb, key, self._access)

    def ask(self, verb: str, key: str, request: Callable[[float], T]) -> T:
        """Send one request, again with growing pauses while the service is busy or the connection breaks.

        Parameters
        ----------
        verb, key : str
            For messages.
        request : callable
            Takes the time that is left (s) and sends the request; it is one that may be repeated.

        Raises
        ------
        StorageError
            What the service says at last, in our words and without secrets.
        """
        import stamina  # heavy, and of no use to local stores

        # It logs each repetition as a warning, which Python prints if nobody has set up logging.
        logging.getLogger("stamina").addHandler(_SILENT)
        ends = time.monotonic() + self.deadline_s
        for attempt in stamina.retry_context(
            on=_is_transient,
            attempts=_ATTEMPTS,
            timeout=self.deadline_s,
            wait_initial=_FIRST_PAUSE_S,
            wait_max=_LONGEST_PAUSE_S,
            wait_jitter=_JITTER_S,
        ):
            with attempt, self._room, self.failing(verb, key):
                self.prepare()
                return request(max(0.5, ends - time.monotonic()))
        raise AssertionError("unreachable")


_SILENT = logging.NullHandler()


def _nothing() -> None:
    pass


def _is_transient(error: Exception) -> bool:
    return isinstance(error, StorageError) and bool(vars(error).get("is_transient"))
