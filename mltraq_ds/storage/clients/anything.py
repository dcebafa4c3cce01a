"""Whatever fsspec reaches: its own verbs, and the best that each kind of filesystem can do with them."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fsspec.asyn import AsyncFileSystem

from mltraq_ds.errors import CorruptBlobError, KeyMissingError, StorageError
from mltraq_ds.storage.base import Stat
from mltraq_ds.storage.body import Body
from mltraq_ds.storage.clients.base import Client, Progress, told
from mltraq_ds.storage.remote_listing import folders_in, stat_of, walk
from mltraq_ds.storage.remote_writing import CREATORS, FLAT, SMALL, Failing, write_by_rename, write_whole
from mltraq_ds.storage.requests import Guard, Requests

__all__ = ["AnyClient"]


_BATCH = 1000  # keys that S3 removes in one request


class AnyClient(Client):
    """Requests by the verbs that every filesystem of fsspec has."""

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        super().__init__(filesystem, root, requests, url)
        self.scheme = requests.scheme
        self.has_folders = self.scheme not in FLAT
        self.asks_if_absent = self.scheme in CREATORS

    def put(
        self,
        key: str,
        views: Iterable[memoryview],
        size: int,
        *,
        replace: bool,
        parents: bool = False,
        before_publish: Callable[[], None] | None = None,
        progress: Progress = lambda count: None,
    ) -> None:
        # docstring inherited
        if before_publish is not None:
            before_publish()
        # Small ones may be repeated.  Others are streamed: nothing of them is taken before their folder is found.
        views = told(views, progress)
        some = list(views) if size <= SMALL else views
        try:
            self._send(key, some, size, replace)
        except KeyMissingError:
            if not parents or not self.has_folders:
                raise
            self.make_folders(key.rpartition("/")[0])
            self._send(key, some, size, replace)

    def _send(self, key: str, views: Iterable[memoryview], size: int, replace: bool) -> None:
        if size > SMALL:
            self._write(key, views, size, Guard(self.requests, "put", key, size), replace)
        else:
            failing = self.requests.failing("put", key)
            self.requests.ask("put", key, lambda left: self._write(key, views, size, failing, replace))

    def _write(self, key: str, views: Iterable[memoryview], size: int, failing: Failing, replace: bool) -> None:
        path = self.path(key)
        if self.creates and not replace:
            CREATORS[self.scheme](self.filesystem, path, views, size, failing)
            return
        write = write_by_rename if self.has_folders else write_whole
        write(self.filesystem, path, views, size, failing, replace=replace)

    def list(self, prefix: str) -> Iterator[Stat]:
        # docstring inherited
        return self.requests.ask(
            "list", prefix, lambda left: walk(self.filesystem, self.path(prefix), prefix, self.now())
        )

    def folders(self, prefix: str) -> builtins.list[str]:
        # docstring inherited
        return self.requests.ask("list", prefix, lambda left: folders_in(self.filesystem, self.path(prefix)))

    def make_folder(self, key: str) -> None:
        # docstring inherited
        if self.has_folders:
            path = self.path(key)
            self.requests.ask("make_folder", key, lambda left: self.filesystem.mkdir(path, create_parents=False))

    def make_folders(self, key: str) -> None:
        # docstring inherited
        if self.has_folders:
            path = self.path(key)
            self.requests.ask("put", key, lambda left: self.filesystem.makedirs(path, exist_ok=True))

    def prune(self, key: str) -> None:
        # docstring inherited
        if not self.has_folders:
            return
        path = self.path(key)

        def remove(left: float) -> None:
            if self.filesystem.isdir(path) and not self.filesystem.ls(path):
                self.filesystem.rmdir(path)

        self.requests.ask("prune", key, remove)

    def delete_folder(self, key: str) -> None:
        # docstring inherited
        if not self.has_folders:
            return
        path = self.path(key)

        def remove(left: float) -> None:
            try:
                self.filesystem.rm(path, recursive=True)
            except FileNotFoundError:
                return

        self.requests.ask("delete_folder", key, remove)

    def delete_many(self, keys: builtins.list[str]) -> None:
        # docstring inherited
        # In a list fsspec would take these for a pattern.
        odd = [key for key in keys if set("*?[]") & set(key)]
        for key in odd:
            self.delete(key)
        plain = sorted(set(keys).difference(odd))
        for start in range(0, len(plain), _BATCH):
            self._delete_batch(plain[start : start + _BATCH])

    def _delete_batch(self, keys: builtins.list[str]) -> None:
        try:
            paths = [self.path(key) for key in keys]
            self.requests.ask("delete", keys[0], lambda left: self.filesystem.rm(paths))
        except KeyMissingError:
            for key in keys:  # one of them is gone already, and fsspec does not say which of the others are
                self.delete(key)

    def _delete(self, key: str, left: float) -> None:
        try:
            self.filesystem.rm_file(self.path(key))
        except FileNotFoundError:
            return

    def _read(self, key: str, left: float) -> bytes:
        return bytes(self.filesystem.cat_file(self.path(key), **self._within(left)))

    def _get(self, key: str, start: int, into: memoryview, size: int, left: float) -> int:
        end = start + into.nbytes
        # One byte more than there should be: a key that is longer than it was costs no request to find.
        beyond = 1 if end == size else 0
        data = self.filesystem.cat_file(self.path(key), start=start, end=end + beyond, **self._within(left))
        if len(data) == size and into.nbytes < size:
            raise StorageError(
                f"read {key!r} in {self.url} failed because the server sends the whole of it when asked for a range. "
                "Serve it with one that knows ranges."
            )
        if len(data) != into.nbytes:
            raise CorruptBlobError(
                f"read {key!r} in {self.url} failed because bytes {start} to {end} of {size} gave {len(data)}. It was "
                "cut or changed: restore it from a copy."
            )
        into[:] = data
        return size

    def _stat(self, key: str, left: float) -> Stat:
        details = self.filesystem.info(self.path(key), **self._within(left))
        if details["type"] == "directory":
            raise FileNotFoundError(key)
        return stat_of(key, details, self.now())

    def _put(self, key: str, body: Body, stamp: str, create: bool, left: float) -> None:
        raise NotImplementedError

    def _within(self, left: float) -> dict[str, float]:
        """Return how fsspec is told of the time that is left."""
        return {"timeout": left} if isinstance(self.filesystem, AsyncFileSystem) else {}
