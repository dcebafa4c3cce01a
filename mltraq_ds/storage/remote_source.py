"""Random access to a key of a remote by range reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mltraq_ds.errors import CorruptBlobError, StorageError
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.storage.failures import Failing
from mltraq_ds.storage.sources import check_range, new_buffer

__all__ = ["RemoteSource"]

_CHUNK = 32 * 2**20  # bounds what is held beside the buffer that is filled (bytes)


class RemoteSource(Source):
    """A key of a remote.  Holds no connection of its own; every read is one request per 32 MiB."""

    def __init__(
        self, filesystem: Callable[[], Any], path: str, size: int, failing: Failing, home: Storage | None = None
    ) -> None:
        self.key = failing.key
        self.size = size
        self._filesystem = filesystem
        self._path = path
        self._failing = failing
        self._home = home
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
        for start in range(offset, offset + size, _CHUNK):
            end = min(start + _CHUNK, offset + size)
            # One byte more than there should be: a key that is longer than it was costs no request to find.
            beyond = 1 if end == self.size else 0
            with self._failing:
                data = self._filesystem().cat_file(self._path, start=start, end=end + beyond)
            if len(data) != end - start:
                raise CorruptBlobError(
                    f"read {self.key!r} in {self._failing.url} failed because bytes {start} to {end} of {self.size} "
                    f"gave {len(data)}. It was cut or changed: restore it from a copy."
                )
            buffer[start - offset : end - offset] = data
        return buffer

    def close(self) -> None:
        # docstring inherited
        self._is_closed = True
