"""BoundIO: what `session.io` is."""

from __future__ import annotations

from collections.abc import Callable

from mltraq_ds.datastore_io import DataStoreIO
from mltraq_ds.place import Place

__all__ = ["BoundIO"]


class BoundIO:
    """`DataStoreIO` with the store of one session."""

    def __init__(self, place: Callable[[], Place]) -> None:
        self._place = place

    def __call__(self, url: str) -> DataStoreIO:
        """Return the file that a URL names."""
        return DataStoreIO(url, self._place())

    def serialize_write(self, value: object, relative_path_prefix: str) -> DataStoreIO:
        """Write any supported value as a blob; see `DataStoreIO.serialize_write`."""
        return DataStoreIO.serialize_write(value, relative_path_prefix, self._place())

    def write(self, content: bytes | bytearray | memoryview, relative_path_prefix: str) -> DataStoreIO:
        """Write bytes as they are; see `DataStoreIO.write`."""
        return DataStoreIO.write(content, relative_path_prefix, self._place())

    def delete(self, relative_path_prefix: str) -> None:
        """Remove a folder of your own; see `DataStoreIO.delete`."""
        DataStoreIO.delete(relative_path_prefix, self._place())

    def list(self, relative_path_prefix: str) -> list[DataStoreIO]:
        """Return the files below a folder of your own; see `DataStoreIO.list`."""
        return DataStoreIO.list(relative_path_prefix, self._place())
