"""Random access to a key of a remote by range reads."""

from __future__ import annotations

from collections.abc import Callable

from mltraq_ds.errors import StorageError
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.storage.clients.base import Client
from mltraq_ds.storage.sources import check_range, new_buffer
from mltraq_ds.storage.transfers import OnTransfer, watched

__all__ = ["RemoteSource"]


class RemoteSource(Source):
    """A key of a remote.  Holds no connection of its own; a read is one request per part (8 MiB), several at a time."""

    def __init__(
        self,
        client: Callable[[], Client],
        key: str,
        size: int,
        home: Storage | None = None,
        *,
        on_transfer: OnTransfer | None = None,
    ) -> None:
        self.key = key
        self.size = size
        self._client = client
        self._home = home
        self._on_transfer = on_transfer
        self._is_closed = False

    @property
    def home(self) -> Storage | None:
        # docstring inherited
        return self._home

    def read(self, offset: int, size: int) -> memoryview:
        # docstring inherited
        if self._is_closed:
            raise StorageError(f"read {self.key!r} failed because it was closed. Open it again.")
        check_range(self.key, offset, size, self.size)
        buffer = new_buffer(size)
        if size:
            with watched(self._on_transfer, "read", self.key, size) as progress:
                self._client().read_into(self.key, offset, buffer, self.size, progress)
        return buffer

    def close(self) -> None:
        # docstring inherited
        self._is_closed = True
