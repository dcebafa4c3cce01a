"""What a server of files shows by HTTP: read-only."""

from __future__ import annotations

import builtins
import errno
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from mltraq_ds.errors import StorageError
from mltraq_ds.storage.base import Stat
from mltraq_ds.storage.clients.anything import AnyClient
from mltraq_ds.storage.clients.base import Progress
from mltraq_ds.storage.failures import with_errno

__all__ = ["HttpClient"]


class HttpClient(AnyClient):
    """Requests to a server that shows folders as pages of links, and sends ranges when asked for them."""

    def path(self, key: str) -> str:
        # docstring inherited
        return super().path(urllib.parse.quote(key))

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
        self._refuse("put", key)

    def delete(self, key: str) -> None:
        # docstring inherited
        self._refuse("delete", key)

    def delete_many(self, keys: builtins.list[str]) -> None:
        # docstring inherited
        self._refuse("delete", keys[0])

    def make_folder(self, key: str) -> None:
        # docstring inherited
        self._refuse("make_folder", key)

    def list(self, prefix: str) -> Iterator[Stat]:
        # docstring inherited
        names, folders = self._entries(prefix)
        for name in names:
            yield self.stat(_join(prefix, name))
        for name in folders:
            yield from self.list(_join(prefix, name))

    def folders(self, prefix: str) -> builtins.list[str]:
        # docstring inherited
        return self._entries(prefix)[1]

    def _entries(self, prefix: str) -> tuple[builtins.list[str], builtins.list[str]]:
        """Return the names of files and of folders in a folder, sorted."""
        page = self.path(prefix) + "/"
        try:
            found = self.requests.ask("list", prefix, lambda left: self.filesystem.ls(page, detail=False, timeout=left))
        except FileNotFoundError:
            return [], []
        links = {link.removeprefix(page) for link in found if link.startswith(page)}
        names = {urllib.parse.unquote(link) for link in links if link.strip("/") and "/" not in link.rstrip("/")}
        names = {name for name in names if not name.startswith(("?", "#"))}
        files = sorted(name for name in names if not name.endswith("/"))
        return files, sorted(name.rstrip("/") for name in names if name.endswith("/"))

    def _refuse(self, verb: str, key: str) -> NoReturn:
        raise with_errno(
            StorageError(
                f"{verb} {key!r} in {self.url} is refused because what a server shows by HTTP is only read. Use the "
                "storage behind it, or another 'datastore.url'."
            ),
            errno.EROFS,
        )


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
