"""What a client of a remote does, and how it writes and reads what is large: in parts, several at a time."""

from __future__ import annotations

import builtins
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

from mltraq_ds.errors import CorruptBlobError, KeyExistsError, KeyMissingError
from mltraq_ds.storage.base import Stat
from mltraq_ds.storage.body import Body, parts_of
from mltraq_ds.storage.parallel import core_count, in_parallel
from mltraq_ds.storage.requests import Requests

__all__ = ["Client", "Progress", "told"]

#: Called with the number of bytes that have arrived since the last call.
Progress = Callable[[int], object]

#: Parts that are under way on a machine of any size: the way to a service is long, too.
_FEW_PARTS = 4


def _nothing(count: int) -> None:
    pass


def told(views: Iterable[memoryview], progress: Progress) -> Iterator[memoryview]:
    """Yield views, and tell of each when the next is asked for: it has been sent."""
    for view in views:
        yield view
        progress(view.nbytes)


class Client(ABC):
    """Requests to one root; made in the process that uses it, safe in threads.

    The underscored methods are one request each.  They take the time that is left (s), raise what the service says, and
    may be repeated.

    Parameters
    ----------
    filesystem : fsspec filesystem
        As the factory has made it.
    root : str
        Path of the root in it.
    requests : Requests
        Sends, repeats, translates errors.
    url : str
        For messages.
    """

    #: Whether there are folders that must exist before something is put into them.
    has_folders: bool = False
    #: Whether it can ask the service to create a key only if it is absent; whether that is honoured is another matter.
    asks_if_absent: bool = False
    #: How many requests may be under way at a time, whatever is asked for; None for any number.
    most_requests: ClassVar[int | None] = None
    #: Size of a part, and of one read (bytes).
    part_size: int = 8 * 2**20
    #: Up to here a key is written by one request (bytes).
    whole_up_to: ClassVar[int] = 16 * 2**20
    #: How many parts a key may have.
    max_parts: ClassVar[int] = 10_000

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        #: Whether the service has shown that it creates a key only if it is absent.
        self.creates = False
        self._ahead_s = 0.0  # clock of the service against ours
        self.filesystem = filesystem
        self.root = root
        self.requests = requests
        self.url = url

    @property
    def parts_at_a_time(self) -> int:
        """How many parts of one key are under way: more than twice as many as cores only wait for each other."""
        return min(self.requests.concurrency, max(_FEW_PARTS, 2 * core_count()))

    def path(self, key: str) -> str:
        """Return the path of a key in the filesystem."""
        return f"{self.root}/{key}" if key else self.root

    def put(
        self,
        key: str,
        views: Iterable[memoryview],
        size: int,
        *,
        replace: bool,
        parents: bool = False,
        before_publish: Callable[[], None] | None = None,
        progress: Progress = _nothing,
    ) -> None:
        """Write a key whole, in one request or in parts; without `replace` only if it is absent.

        That is decided by the service if it is known to (`creates`); otherwise we look first, as two writers can at
        once.  Parts go from the buffers as they are, as many at a time as requests may be under way.  With `parents`
        missing folders are made, where there are folders.
        """
        create = not replace and self.creates
        stamp = uuid.uuid4().hex

        def check() -> None:
            if not replace and not self.creates:
                self._refuse_existing(key)
            if before_publish is not None:
                before_publish()

        if size <= self.whole_up_to:
            body = Body(list(views))
            check()
            self._create(key, stamp, lambda left: self._put(key, body, stamp, create, left))
            progress(size)
            return
        if not replace:
            self._refuse_existing(key)  # before all bytes are sent; the last request decides
        self._put_in_parts(key, views, size, stamp, create, check, progress)

    def _put_in_parts(
        self,
        key: str,
        views: Iterable[memoryview],
        size: int,
        stamp: str,
        create: bool,
        check: Callable[[], None],
        progress: Progress,
    ) -> None:
        part_size = max(self.part_size, -(-size // self.max_parts))
        upload = self.requests.ask("put", key, lambda left: self._begin(key, stamp, left))

        def send(numbered: tuple[int, Body]) -> Any:
            number, body = numbered
            piece = self.requests.ask("put", key, lambda left: self._part(key, upload, number, body, left))
            progress(body.size)
            return piece

        try:
            bodies = enumerate(parts_of(views, part_size), start=1)
            pieces = list(in_parallel(send, bodies, self.parts_at_a_time))
            check()
            self._create(key, stamp, lambda left: self._finish(key, upload, pieces, stamp, create, left))
        except BaseException:
            # Another error is on its way.  What is left of the upload is found by `unfinished`, and removed by sweep.
            with suppress(Exception):
                self.requests.ask("put", key, lambda left: self._abort(key, upload, left))
            raise

    def _create(self, key: str, stamp: str, request: Callable[[float], object]) -> None:
        """Send what makes a key.  A repeated request meets what the first, whose answer was lost, has made."""
        try:
            self.requests.ask("put", key, request)
        except (KeyExistsError, KeyMissingError):
            if self.requests.ask("stat", key, lambda left: self._stamp_of(key, left)) != stamp:
                raise

    def _refuse_existing(self, key: str) -> None:
        try:
            self.stat(key)
        except KeyMissingError:
            return
        raise KeyExistsError(
            f"put {key!r} in {self.url} is refused because it exists; it was left as it is. Use a fresh key."
        )

    def read_into(self, key: str, offset: int, buffer: memoryview, size: int, progress: Progress = _nothing) -> None:
        """Fill `buffer` with the bytes from `offset`; `size` is that of the key (bytes), and compared.

        Raises
        ------
        CorruptBlobError
            If the key has another size.
        """
        starts = range(0, buffer.nbytes, self.part_size)

        def fetch(start: int) -> None:
            into = buffer[start : start + self.part_size]
            found = self.requests.ask("read", key, lambda left: self._get(key, offset + start, into, size, left))
            if found != size:
                raise CorruptBlobError(
                    f"read {key!r} in {self.url} failed because it has {found} bytes and {size} were written. It was "
                    "cut or changed: restore it from a copy."
                )
            progress(into.nbytes)

        if len(starts) == 1:
            fetch(0)
        else:
            for _ in in_parallel(fetch, iter(starts), self.parts_at_a_time):
                pass

    def unfinished(self, prefix: str) -> Iterator[Stat]:
        """Yield what uploads that were killed have left below a folder, other than keys."""
        return iter(())

    def delete_many(self, keys: builtins.list[str]) -> None:
        """Remove keys; those that are gone already are no error."""
        for _ in in_parallel(self.delete, iter(keys), self.requests.concurrency):
            pass

    def delete(self, key: str) -> None:
        """Remove one key; one that is gone already is no error."""
        with suppress(KeyMissingError):
            self.requests.ask("delete", key, lambda left: self._delete(key, left))

    def read(self, key: str) -> bytes:
        """Return all bytes of a small key."""
        return self.requests.ask("read", key, lambda left: self._read(key, left))

    def stat(self, key: str) -> Stat:
        """Return size and time of a key."""
        return self.requests.ask("stat", key, lambda left: self._stat(key, left))

    def make_folder(self, key: str) -> None:  # noqa: B027 - nothing to do where there are no folders
        """Make a folder that must be new."""

    def make_folders(self, key: str) -> None:  # noqa: B027
        """Make a folder and those above it, as far as they are missing."""

    def prune(self, key: str) -> None:  # noqa: B027
        """Remove a folder if it is empty."""

    def delete_folder(self, key: str) -> None:  # noqa: B027
        """Remove what is left of a folder whose keys are gone."""

    def now(self) -> float:
        """Return the time of the service, as its latest answer told it, else of this machine (s since 1970)."""
        return time.time() + self._ahead_s

    def note_clock(self, date: str | None) -> None:
        """Take the time of the service from the ``Date`` of an answer."""
        if date:
            self._ahead_s = parsedate_to_datetime(date).timestamp() - time.time()

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield every key below a folder, unfinished ones too."""

    @abstractmethod
    def folders(self, prefix: str) -> builtins.list[str]:
        """Return the names of the folders directly in a folder, sorted."""

    @abstractmethod
    def _put(self, key: str, body: Body, stamp: str, create: bool, left: float) -> None: ...

    @abstractmethod
    def _read(self, key: str, left: float) -> bytes: ...

    @abstractmethod
    def _get(self, key: str, start: int, into: memoryview, size: int, left: float) -> int:
        """Fill `into` from `start` and return the size of the key, as it is told or was expected (bytes)."""

    @abstractmethod
    def _stat(self, key: str, left: float) -> Stat: ...

    @abstractmethod
    def _delete(self, key: str, left: float) -> None: ...

    def _stamp_of(self, key: str, left: float) -> str:
        """Return the stamp that a key was written with, or ``""``."""
        return ""

    def _begin(self, key: str, stamp: str, left: float) -> Any:
        raise NotImplementedError

    def _part(self, key: str, upload: Any, number: int, body: Body, left: float) -> Any:
        raise NotImplementedError

    def _finish(self, key: str, upload: Any, pieces: builtins.list[Any], stamp: str, create: bool, left: float) -> None:
        raise NotImplementedError

    def _abort(self, key: str, upload: Any, left: float) -> None:
        raise NotImplementedError
