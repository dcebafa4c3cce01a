"""Requests to a remote: a few at a time, repeated while that can help, never for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TypeVar

from mltraq_ds.errors import StorageError
from mltraq_ds.storage.access import Access, RemoteFailing

__all__ = ["CONCURRENCY", "DEADLINE_S", "Guard", "Requests"]

T = TypeVar("T")

#: Requests of one storage that are under way at a time, in one process.
CONCURRENCY = 16
#: When a request is given up, its repetitions included (s).
DEADLINE_S = 120.0

#: For services that have never answered: a wrong address is found out soon (s).
_FIRST_ANSWER_S = 15.0
#: Attempts at a service that was asked in vain until the deadline, until it answers again: who has waited so long need
#: not wait again for each of the requests that clean up.
_ATTEMPTS_AT_SILENT = 2

_ATTEMPTS: int | None = None  # as many as there is time for
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
        self._has_answered = False
        self._is_down = False
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

    def ask(self, verb: str, key: str, request: Callable[[float], T], *, takes_room: bool = True) -> T:
        """Send one request, again with growing pauses while the service is busy or the connection breaks.

        Parameters
        ----------
        verb, key : str
            For messages.
        request : callable
            Takes the time that is left (s) and sends the request; it is one that may be repeated.
        takes_room : bool
            Whether it takes one of the places; not one that waits for other requests.

        Raises
        ------
        StorageError
            What the service says at last, in our words and without secrets.
        """
        import stamina  # heavy, and of no use to local stores

        # It logs each repetition as a warning, which Python prints if nobody has set up logging.
        logging.getLogger("stamina").addHandler(_SILENT)
        begins = time.monotonic()
        ends = begins + self.deadline_s
        said: list[StorageError] = []

        def may_repeat(error: Exception) -> bool:
            if isinstance(error, StorageError) and not _is_silence(error):
                self._has_answered = True
                said[:] = [error]
            patience_s = self.deadline_s if self._has_answered else _FIRST_ANSWER_S
            return _is_transient(error) and time.monotonic() < begins + patience_s

        try:
            for attempt in stamina.retry_context(
                on=may_repeat,
                attempts=_ATTEMPTS_AT_SILENT if self._is_down else _ATTEMPTS,
                timeout=self.deadline_s,
                wait_initial=_FIRST_PAUSE_S,
                wait_max=_LONGEST_PAUSE_S,
                wait_jitter=_JITTER_S,
            ):
                with attempt, self.room(verb, key) if takes_room else self.failing(verb, key):
                    answer = request(max(0.5, ends - time.monotonic()))
            self._has_answered, self._is_down = True, False
        except StorageError as error:
            self._is_down = _is_transient(error)
            if said and _is_silence(error):
                raise said[0] from error  # the last attempt had no time for an answer; this is what was answered before
            raise
        return answer

    @contextmanager
    def room(self, verb: str, key: str) -> Iterator[None]:
        """Take one of the places for requests, connected again where that is needed; for what cannot be repeated.

        Nothing that may itself send requests belongs inside: where there is one place it would wait for ever.
        """
        with self._room, self.failing(verb, key):
            self.prepare()
            yield


class Guard:
    """A context for each call of a transfer that cannot be repeated, since its bytes are not kept.

    Each takes a place for requests while it lasts, and none between two calls, where others may need it.  The whole has
    the deadline, and a second for each MiB.
    """

    def __init__(self, requests: Requests, verb: str, key: str, size: int) -> None:
        self._requests = requests
        self._verb, self._key = verb, key
        self._ends = time.monotonic() + requests.deadline_s + size / 2**20
        self._held: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        room = self._requests.room(self._verb, self._key)
        room.__enter__()
        self._held.append(room)
        if time.monotonic() > self._ends:
            late = TimeoutError("the deadline has passed")
            self.__exit__(TimeoutError, late, None)
            raise late

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.pop().__exit__(kind, error, traceback)


_SILENT = logging.NullHandler()


def _nothing() -> None:
    pass


def _is_silence(error: StorageError) -> bool:
    return bool(vars(error).get("is_silence"))


def _is_transient(error: Exception) -> bool:
    return isinstance(error, StorageError) and bool(vars(error).get("is_transient"))
