"""Whatever fsspec reaches: object stores, servers, memory."""

from __future__ import annotations

import builtins
import errno
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mltraq_ds.errors import CorruptBlobError, KeyExistsError, KeyMissingError, StorageError, UsageError
from mltraq_ds.ids import validate_key
from mltraq_ds.storage.access import Access, RemoteFailing
from mltraq_ds.storage.base import TEMPORARY, Buffer, Source, Stat, Storage, check_new_key, is_temporary
from mltraq_ds.storage.places import scheme_of
from mltraq_ds.storage.remote_listing import folders_in, stat_of, walk
from mltraq_ds.storage.remote_source import RemoteSource
from mltraq_ds.storage.remote_writing import CREATORS, FLAT, write_by_rename, write_whole
from mltraq_ds.storage.writing import counted

__all__ = ["RemoteStorage"]

_BATCH = 1000  # keys that S3 removes in one request
_GLOB = frozenset("*?[]")
_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


class RemoteStorage(Storage):
    """A place that fsspec reaches.  A filesystem is made in each process at the first verb.

    Nothing is flushed: a remote is durable when it has answered.  ``file://`` is taken too, so that a folder can be
    tried through fsspec; it is neither flushed nor mapped, so use `LocalStorage` for keeps.

    Parameters
    ----------
    url : str
        ``<scheme>://<bucket>/<prefix>``.  A password in it works and is never shown.
    storage_options : mapping, optional
        As fsspec takes them.  Secrets in it work and are never shown; a storage that has some refuses to be pickled.

    Examples
    --------
    >>> storage = RemoteStorage("memory://docs")
    >>> storage.put("a/x", [b"12", b"3"], size=3)
    >>> storage.read("a/x"), [stat.key for stat in storage.list()]
    (b'123', ['a/x'])
    >>> storage.delete_folder("a")
    """

    def __init__(self, url: str, *, storage_options: Mapping[str, object] | None = None) -> None:
        if not scheme_of(url):
            raise UsageError(f"The place {url!r} is refused because it is no URL. Use LocalStorage for a path.")
        self._access = Access(url, storage_options or {})
        self.url = self._access.public_url
        self._creates: bool | None = None

    def __repr__(self) -> str:
        return f"RemoteStorage({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "storage_options": self._access.public_options()}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def creates_if_absent(self) -> bool:
        """Whether `put(replace=False)` is decided by the storage itself: tried once with a key that is removed again.

        Servers exist that accept the condition, answer "done", and overwrite.

        Raises
        ------
        StorageError
            If the storage cannot be written.
        """
        if self._creates is None:
            self._creates = self._probe(parents=True)
        return bool(self._creates)

    @property
    def is_shareable(self) -> bool:
        # docstring inherited
        return self._access.scheme != "memory" and not self._access.has_secrets

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
        # docstring inherited
        check_new_key(key)
        if not replace and self._creates is None and self._access.scheme in CREATORS:
            self._creates = self._probe(parents=parents)
        if before_publish is not None:
            before_publish()
        self._put(key, buffers, size, replace=replace, parents=parents)

    def open(self, key: str, *, size: int | None = None) -> Source:
        # docstring inherited
        path = self._path(validate_key(key))
        if size is None or self._access.scheme in CREATORS:  # nearby: looking costs nothing
            found = self.stat(key).size
            if size is not None and found != size:
                raise CorruptBlobError(
                    f"open {key!r} in {self.url} failed because it has {found} bytes and {size} were written. It was "
                    "cut or changed: restore it from a copy."
                )
            size = found
        return RemoteSource(self._filesystem, path, size, RemoteFailing("read", key, self._access), self)

    def read(self, key: str) -> bytes:
        # docstring inherited
        path = self._path(validate_key(key))
        with RemoteFailing("read", key, self._access):
            return bytes(self._filesystem().cat_file(path))

    def delete(self, key: str) -> None:
        # docstring inherited
        path = self._path(validate_key(key))
        with RemoteFailing("delete", key, self._access):
            try:
                self._filesystem().rm_file(path)
            except FileNotFoundError:
                return

    def delete_many(self, keys: Iterable[str]) -> None:
        # docstring inherited
        batch: list[str] = []
        for key in keys:
            if _GLOB & set(validate_key(key)):
                self.delete(key)  # in a list fsspec would take it for a pattern
                continue
            batch.append(key)
            if len(batch) == _BATCH:
                self._delete_batch(batch)
                batch = []
        if batch:
            self._delete_batch(batch)

    def exists(self, key: str) -> bool:
        # docstring inherited
        try:
            self.stat(key)
        except KeyMissingError:
            return False
        return True

    def stat(self, key: str) -> Stat:
        # docstring inherited
        path = self._path(validate_key(key))
        with RemoteFailing("stat", key, self._access):
            details = self._filesystem().info(path)
            if details["type"] == "directory":
                raise FileNotFoundError(path)
        return stat_of(key, details, self.now())

    def list(self, prefix: str = "") -> Iterator[Stat]:
        # docstring inherited
        return (found for found in self._walk(prefix) if not is_temporary(found.key))

    def list_unfinished(self, prefix: str = "") -> Iterator[Stat]:
        # docstring inherited
        return (found for found in self._walk(prefix) if is_temporary(found.key))

    def folders(self, prefix: str = "") -> builtins.list[str]:
        # docstring inherited
        path = self._path(validate_key(prefix, "prefix") if prefix else "")
        with RemoteFailing("list", prefix, self._access):
            return folders_in(self._filesystem(), path)

    def make_folder(self, key: str) -> None:
        # docstring inherited
        path = self._path(validate_key(key))
        if self._access.scheme not in FLAT:
            with RemoteFailing("make_folder", key, self._access):
                self._filesystem().mkdir(path, create_parents=False)

    def prune(self, key: str) -> None:
        # docstring inherited
        path = self._path(validate_key(key))
        if self._access.scheme not in FLAT:
            with RemoteFailing("prune", key, self._access):
                if not self._filesystem().exists(path) or self._filesystem().ls(path):
                    return
                self._filesystem().rmdir(path)

    def delete_folder(self, key: str) -> None:
        # docstring inherited
        path = self._path(validate_key(key))
        self.delete_many([found.key for found in self._walk(key)])
        if self._access.scheme not in FLAT:
            with RemoteFailing("delete_folder", key, self._access):
                try:
                    self._filesystem().rm(path, recursive=True)
                except FileNotFoundError:
                    return

    def now(self) -> float:
        """Return the time of this machine (s since 1970): fsspec tells no server's clock."""
        return time.time()

    def _filesystem(self) -> Any:
        return self._access.connect()[0]

    def _path(self, key: str) -> str:
        root = self._access.connect()[1]
        return f"{root}/{key}" if key else root

    def _put(self, key: str, buffers: Iterable[Buffer], size: int, *, replace: bool, parents: bool) -> None:
        try:
            self._put_once(key, buffers, size, replace=replace)
        except KeyMissingError:
            if not parents or self._access.scheme in FLAT:
                raise
            with RemoteFailing("put", key, self._access):
                self._filesystem().makedirs(self._path(key).rpartition("/")[0], exist_ok=True)
            self._put_once(key, buffers, size, replace=replace)

    def _put_once(self, key: str, buffers: Iterable[Buffer], size: int, *, replace: bool) -> None:
        filesystem, path = self._filesystem(), self._path(key)
        views = counted(buffers, size, key)
        failing = RemoteFailing("put", key, self._access)
        creator = CREATORS.get(self._access.scheme)
        if creator and not replace and self._creates is not False:
            creator(filesystem, path, views, size, failing)
        elif self._access.scheme in FLAT:
            write_whole(filesystem, path, views, size, failing, replace=replace)
        else:
            write_by_rename(filesystem, path, views, size, failing, replace=replace)

    def _probe(self, *, parents: bool) -> bool | None:
        if self._access.scheme not in CREATORS:
            return False
        key = f"{TEMPORARY}probe-{uuid.uuid4().hex}"
        try:
            self._put(key, [b"1"], 1, replace=False, parents=parents)
            self._put(key, [b"2"], 1, replace=False, parents=False)
        except KeyExistsError:
            return True
        except KeyMissingError:
            return None  # there is no root yet: the put itself says so
        except StorageError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            return False
        finally:
            self.delete(key)
        return False

    def _delete_batch(self, keys: builtins.list[str]) -> None:
        try:
            with RemoteFailing("delete", keys[0], self._access):
                self._filesystem().rm([self._path(key) for key in keys])
        except KeyMissingError:
            for key in keys:  # one of them is gone already, and fsspec does not say which of the others are
                self.delete(key)

    def _walk(self, prefix: str) -> Iterator[Stat]:
        path = self._path(validate_key(prefix, "prefix") if prefix else "")
        with RemoteFailing("list", prefix, self._access):
            return walk(self._filesystem(), path, prefix, self.now())
