"""Whatever fsspec reaches: object stores, servers, memory."""

from __future__ import annotations

import builtins
import errno
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from mltraq_ds.errors import CorruptBlobError, KeyExistsError, KeyMissingError, StorageError, UsageError
from mltraq_ds.ids import validate_key
from mltraq_ds.storage.access import Access
from mltraq_ds.storage.base import TEMPORARY, Buffer, Source, Stat, Storage, check_new_key, is_temporary
from mltraq_ds.storage.clients import Client, client_class
from mltraq_ds.storage.obstore_options import ClientName
from mltraq_ds.storage.places import scheme_of
from mltraq_ds.storage.remote_source import RemoteSource
from mltraq_ds.storage.requests import CONCURRENCY, DEADLINE_S, Requests
from mltraq_ds.storage.sizes import check_size
from mltraq_ds.storage.transfers import OnTransfer, watched
from mltraq_ds.storage.writing import counted

__all__ = ["RemoteStorage"]

_NEARBY = {"file", "local", "memory"}
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
    concurrency : int
        How many requests are under way at a time, in one process.
    deadline_s : float
        When a request is given up, its repetitions included (s).
    on_transfer : callable, optional
        Called with verb ("put" or "read"), key and size (bytes) of each transfer of 64 MiB or more; returns a callback
        of fsspec that is told how far it is, or None.  It is not pickled with the storage.
    client : {"auto", "fsspec", "obstore"}
        Who sends the requests; see `open_storage`.

    Examples
    --------
    >>> storage = RemoteStorage("memory://docs")
    >>> storage.put("a/x", [b"12", b"3"], size=3)
    >>> storage.read("a/x"), [stat.key for stat in storage.list()]
    (b'123', ['a/x'])
    >>> storage.delete_folder("a")
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, object] | None = None,
        concurrency: int = CONCURRENCY,
        deadline_s: float = DEADLINE_S,
        on_transfer: OnTransfer | None = None,
        client: ClientName = "auto",
    ) -> None:
        if not scheme_of(url):
            raise UsageError(f"The place {url!r} is refused because it is no URL. Use LocalStorage for a path.")
        self._access = Access(url, storage_options or {}, client)
        self.url = self._access.public_url
        self._concurrency = concurrency
        self._deadline_s = deadline_s
        self._on_transfer = on_transfer
        self._creates: bool | None = None
        self._clients: dict[int, Client] = {}

    def __repr__(self) -> str:
        return f"RemoteStorage({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {
            "url": self.url,
            "storage_options": self._access.public_options(),
            "concurrency": self._concurrency,
            "deadline_s": self._deadline_s,
            "client": self._access.client,
        }

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def warn_of_secrets(self) -> None:
        """Warn, once for each storage, if a secret was given in the URL or an option."""
        self._access.warn_of_secrets()

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
        if not replace and self._creates is None:
            self._creates = self._probe(parents=parents)
        self._put(key, buffers, size, replace=replace, parents=parents, before_publish=before_publish)

    def open(self, key: str, *, size: int | None = None) -> Source:
        # docstring inherited
        validate_key(key)
        if size is None or self._access.scheme in _NEARBY:  # nearby: looking costs nothing
            found = self.stat(key).size
            if size is not None and found != size:
                raise CorruptBlobError(
                    f"open {key!r} in {self.url} failed because it has {found} bytes and {size} were written. It was "
                    "cut or changed: restore it from a copy."
                )
            size = found
        return RemoteSource(self._client, key, size, self, on_transfer=self._on_transfer)

    def read(self, key: str, *, max_size: int | None = None) -> bytes:
        # docstring inherited
        validate_key(key)
        if max_size is not None and self._access.scheme in _NEARBY:  # elsewhere looking costs a request
            check_size(key, self.stat(key).size, max_size)
        return self._client().read(key)

    def delete(self, key: str) -> None:
        # docstring inherited
        validate_key(key)
        self._client().delete(key)

    def delete_many(self, keys: Iterable[str]) -> None:
        # docstring inherited
        found = [validate_key(key) for key in keys]
        if found:
            self._client().delete_many(found)

    def exists(self, key: str) -> bool:
        # docstring inherited
        try:
            self.stat(key)
        except KeyMissingError:
            return False
        return True

    def stat(self, key: str) -> Stat:
        # docstring inherited
        validate_key(key)
        return self._client().stat(key)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        # docstring inherited
        return (found for found in self._listing(prefix) if not is_temporary(found.key))

    def list_unfinished(self, prefix: str = "") -> Iterator[Stat]:
        # docstring inherited
        yield from (found for found in self._listing(prefix) if is_temporary(found.key))
        yield from self._client().unfinished(prefix)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        # docstring inherited
        return self._client().folders(validate_key(prefix, "prefix") if prefix else "")

    def make_folder(self, key: str) -> None:
        # docstring inherited
        self._client().make_folder(validate_key(key))

    def prune(self, key: str) -> None:
        # docstring inherited
        self._client().prune(validate_key(key))

    def delete_folder(self, key: str) -> None:
        # docstring inherited
        validate_key(key)
        found = [stat.key for stat in (*self._client().list(key), *self._client().unfinished(key))]
        if found:
            self._client().delete_many(found)
        self._client().delete_folder(key)

    def now(self) -> float:
        """Return the time on the clock of the service where it tells, else of this machine (s since 1970)."""
        return self._client().now()

    def _client(self) -> Client:
        pid = os.getpid()
        if pid not in self._clients:
            kind = client_class(self._access.scheme, obstore=self._access.client == "obstore")
            concurrency = min(self._concurrency, kind.most_requests or self._concurrency)
            requests = Requests(self._access, concurrency=concurrency, deadline_s=self._deadline_s)
            connecting = Requests(self._access, deadline_s=self._deadline_s)  # most connect with the first request only
            filesystem, root = connecting.ask("connect to", "", lambda left: self._access.connect())
            made = kind(filesystem, root, requests, self.url)
            made.creates = bool(self._creates)
            # Two threads may come here at once: both then use the first.
            self._clients.setdefault(pid, made)
        return self._clients[pid]

    def _listing(self, prefix: str) -> Iterator[Stat]:
        return self._client().list(validate_key(prefix, "prefix") if prefix else "")

    def _put(
        self,
        key: str,
        buffers: Iterable[Buffer],
        size: int,
        *,
        replace: bool,
        parents: bool,
        before_publish: Callable[[], None] | None = None,
    ) -> None:
        client = self._client()
        client.creates = self._creates is not False and client.asks_if_absent
        with watched(self._on_transfer, "put", key, size) as progress:
            client.put(
                key,
                counted(buffers, size, key),
                size,
                replace=replace,
                parents=parents,
                before_publish=before_publish,
                progress=progress,
            )

    def _probe(self, *, parents: bool) -> bool | None:
        if not self._client().asks_if_absent:
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
            with suppress(StorageError):  # another error may be on its way; left behind, it is an unfinished write
                self.delete(key)
        return False
