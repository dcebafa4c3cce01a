"""The verbs of a storage: bytes at a URL.  A storage interprets nothing."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from mltraq_ds.errors import InvalidNameError, UsageError
from mltraq_ds.ids import validate_key
from mltraq_ds.storage.sizes import check_size

__all__ = ["TEMPORARY", "Buffer", "Source", "Stat", "Storage", "check_new_key", "is_temporary"]

#: Anything that `memoryview` takes and that is contiguous.
Buffer: TypeAlias = bytes | bytearray | memoryview

#: How the last segment of an unfinished write begins.  Such names are never listed and cannot be put.
TEMPORARY = ".tmp-"


def is_temporary(key: str) -> bool:
    """Tell whether a key names an unfinished write.

    Examples
    --------
    >>> is_temporary("a/.tmp-0f"), is_temporary("a/x.tmp-0f")
    (True, False)
    """
    return key.rpartition("/")[2].startswith(TEMPORARY)


def check_new_key(key: str) -> str:
    """Return `key` if it may be put; raise `InvalidNameError` if it is no key or would never be listed."""
    if is_temporary(validate_key(key)):
        raise InvalidNameError(
            f"The key {key!r} is refused because names that start with {TEMPORARY!r} are unfinished writes. Use "
            "another name."
        )
    return key


@dataclass(frozen=True, slots=True)
class Stat:
    """What a storage knows of one key.

    Parameters
    ----------
    key : str
        Store-relative name.
    size : int
        Size (bytes).
    modified : float
        Newer of modification and change time, on the clock of the storage (s since 1970): `rsync -a` keeps mtimes.
    """

    key: str
    size: int
    modified: float


class Source(ABC):
    """Random access to the bytes of one key."""

    key: str
    size: int

    @abstractmethod
    def read(self, offset: int, size: int) -> memoryview:
        """Return `size` bytes from `offset`; a mapped source copies nothing, and the view keeps the mapping alive.

        The view is writable and private: what is written into it reaches neither the key nor another view, also not
        one of the same range.

        Raises
        ------
        CorruptBlobError
            If the key has fewer bytes than that, also when it was cut since it was opened.
        StorageError
            If the storage does not answer.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the handle.  Views handed out stay valid."""

    @property
    def home(self) -> Storage | None:
        """The storage to open the key in again, where another process can; a copy must not share the handle."""
        return None

    def spare(self, error: Exception) -> Source | None:
        """Return another place of the same bytes, if there is one: `error` tells what is wrong with these."""
        return None

    def __reduce__(self) -> tuple[object, ...]:
        # Never the state itself: a copied file descriptor is closed twice, and then it is another file's.
        home = self.home
        if home is None or not home.is_shareable:
            raise UsageError(
                f"What is stored in {self.key!r} cannot be pickled because another process could not reach it. Send "
                "the DataStore, or the bytes, in its place."
            )
        return (SourceCopy, (home, self.key, self.size))


class SourceCopy(Source):
    """A source that was pickled: the key is opened anew, in the process that first reads it."""

    def __init__(self, storage: Storage, key: str, size: int) -> None:
        self.key = key
        self.size = size
        self._storage = storage
        self._opened: Source | None = None

    @property
    def home(self) -> Storage:
        # docstring inherited
        return self._storage

    def read(self, offset: int, size: int) -> memoryview:
        # docstring inherited
        if self._opened is None:
            self._opened = self._storage.open(self.key, size=self.size)  # opened by two threads, one is forgotten
        return self._opened.read(offset, size)

    def close(self) -> None:
        # docstring inherited
        if self._opened is not None:
            self._opened.close()


class Storage(ABC):
    """Bytes at a URL.  Implementations pickle, hold a URL and open on first use; all methods are safe in threads.

    Keys are validated by every verb (`mltraq_ds.ids.validate_key`).  The optional verbs have a default that works with
    the abstract ones, so that an old implementation does not break when a verb is added.
    """

    #: The URL as given, without secrets.
    url: str

    @abstractmethod
    def put(
        self,
        key: str,
        buffers: Iterable[Buffer],
        *,
        size: int,
        replace: bool = False,
        parents: bool = False,
        flush: bool = True,
        before_publish: Callable[[], None] | None = None,
    ) -> None:
        """Write one key whole: afterwards it holds all bytes, or what it held before.

        Parameters
        ----------
        key : str
            Store-relative name.
        buffers : iterable of buffers
            The bytes, in order.  Iterated again from the start when an attempt is repeated, so it must not be a
            one-shot iterator.  They are not joined, and several are written at a time: one that was yielded must
            not be filled again before `put` returns.
        size : int
            Sum of the sizes (bytes), known beforehand to preallocate.
        replace : bool
            Allow the key to exist; it is replaced in one step.
        parents : bool
            Make missing folders.  Otherwise a missing folder is an error: a late writer must not revive a deleted
            experiment.  Object stores have no folders and ignore this.
        before_publish : callable, optional
            Called when all is written but the name, as late as the storage can; what it raises stops the write.  If
            the folder is renamed or removed after the call began, nothing appears in one made anew under its name.
        flush : bool
            Make the *name* durable too.  With False, `flush` must be called before the key is relied on: one folder
            fsync serves many keys.

        Raises
        ------
        KeyExistsError
            If the key exists and `replace` is False.  It is left as it is.
        KeyMissingError
            If its folder does not exist and `parents` is False.
        ValueChangedError
            If `buffers` do not sum up to `size`; nothing of the key is visible.
        StorageError
            If the storage refuses or does not answer; no part of the key is visible.  What the system says (disk
            full) is in ``errno``.  Errors raised by `buffers` pass unchanged.  If the answer is lost after the key
            was made (its folder cannot be flushed, a connection breaks), the whole key is visible: read back.
        """

    @abstractmethod
    def open(self, key: str, *, size: int | None = None) -> Source:
        """Open one key for random access.

        Parameters
        ----------
        key : str
            Store-relative name.
        size : int, optional
            Its size if known (bytes): saves a request, and a different size is `CorruptBlobError`.

        Raises
        ------
        KeyMissingError
            If there is no such key.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove one key; one that is gone already is no error, since a sweep that was killed is run again."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether the key exists; an error is raised, never taken for "no"."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Stat]:
        """Yield all keys below folder `prefix` (all keys if empty), in any order; unfinished writes are not listed."""

    @abstractmethod
    def stat(self, key: str) -> Stat:
        """Return size and time of one key, or raise `KeyMissingError`."""

    @property
    @abstractmethod
    def creates_if_absent(self) -> bool:
        """Whether `put(replace=False)` is decided by the storage itself, so that of two writers exactly one wins."""

    @property
    def is_shareable(self) -> bool:
        """Whether another process reaches the same bytes through a pickled copy of this storage."""
        return False

    @property
    def is_local(self) -> bool:
        """Whether reading back at once shows what a failed verb has done: no request is still on its way."""
        return False

    @property
    def scheme(self) -> str:
        """Scheme of the URL, for the URLs of keys."""
        return self.url.partition("://")[0] if "://" in self.url else "file"

    def read(self, key: str, *, max_size: int | None = None) -> bytes:
        """Return all bytes of a small key; one of more than `max_size` (bytes) is `CorruptRecordError`, unread."""
        source = self.open(key)
        try:
            check_size(key, source.size, max_size)
            return bytes(source.read(0, source.size))
        finally:
            source.close()

    def flush(self, keys: Iterable[str]) -> None:  # noqa: B027 - nothing to do where a put is durable at once
        """Make the names of `keys`, written with ``flush=False``, durable."""

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove many keys; stops at the first that cannot be removed."""
        for key in keys:
            self.delete(key)

    def list_unfinished(self, prefix: str = "") -> Iterator[Stat]:
        """Yield what killed writes left below folder `prefix`, for `delete`; one going on differs by its age only."""
        return iter(())

    def folders(self, prefix: str = "") -> builtins.list[str]:
        """Return the names of the folders directly below `prefix`, sorted."""
        skip = len(prefix) + 1 if prefix else 0
        return sorted({stat.key[skip:].partition("/")[0] for stat in self.list(prefix) if "/" in stat.key[skip:]})

    def make_folder(self, key: str) -> None:
        """Make a folder that must be new (`KeyExistsError`); nothing to do where there are no folders."""
        validate_key(key)

    def prune(self, key: str) -> None:
        """Remove a folder if it is empty; otherwise, or if it is gone, nothing is done."""
        validate_key(key)

    def move_folder(self, key: str, to: str) -> bool:
        """Rename a folder in one step; False where that is not possible, and then nothing was done."""
        validate_key(key)
        validate_key(to)
        return False

    def holding(self, key: str) -> AbstractContextManager[Callable[[str], None]]:
        """Give a `delete` for files in the folder that is there now, never in one that took its place since."""
        return nullcontext(self.delete)

    def delete_folder(self, key: str) -> None:
        """Remove all keys below a folder, and the folder; one that is gone already is no error."""
        validate_key(key)  # the empty one would be everything
        self.delete_many([stat.key for found in (self.list, self.list_unfinished) for stat in found(key)])

    def now(self) -> float:
        """Return the time on the clock that `Stat.modified` is taken from (s since 1970)."""
        raise NotImplementedError(f"{type(self).__name__} has no clock")
