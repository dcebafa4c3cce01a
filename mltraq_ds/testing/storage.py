"""The suite that every storage passes; subclass it for yours.

Needs pytest.  A storage of your own is tested with::

    class TestMine(StorageConformance):
        def make_storage(self):
            return MyStorage(self.folder / "store")

        def raw_read(self, key):
            return (self.folder / "store" / key).read_bytes()

        def raw_write(self, key, data):
            path = self.folder / "store" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        def raw_list(self):
            root = self.folder / "store"
            return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
"""

from __future__ import annotations

import multiprocessing
import pickle

from mltraq_ds.errors import UsageError
from mltraq_ds.storage.base import Storage
from mltraq_ds.testing.storage_listing import ListingConformance
from mltraq_ds.testing.storage_reading import ReadingConformance
from mltraq_ds.testing.storage_writing import WritingConformance

__all__ = ["StorageConformance"]


class StorageConformance(WritingConformance, ReadingConformance, ListingConformance):
    """All promises of a storage.  Fill in the hooks of `mltraq_ds.testing.storage_hooks.StorageHooks`."""

    def test_verdict_on_creation_leaves_nothing(self) -> None:
        """Finding out whether the storage creates if absent gives one answer and leaves no key."""
        storage = self.make_storage()
        assert storage.creates_if_absent is storage.creates_if_absent
        assert self.raw_list() == set()

    def test_pickle(self) -> None:
        """A copy in another process reads the same bytes, where that is promised; else it refuses or works here."""
        storage = self.make_storage()
        storage.put("a/x", [b"123"], size=3, parents=True)
        try:
            data = pickle.dumps(storage)
        except UsageError as error:
            assert not storage.is_shareable
            assert "secret" in str(error)
            return
        copy = pickle.loads(data)
        assert copy.read("a/x") == b"123"
        assert copy.url == storage.url
        copy.put("a/y", [b"4"], size=1)
        assert self.raw_read("a/y") == b"4"
        if storage.is_shareable:
            assert _in_new_process(storage, "a/x") == b"123"

    def test_repr_shows_where(self) -> None:
        """The text for people names the place."""
        storage = self.make_storage()
        assert storage.url in repr(storage)
        assert "://" in storage.url


def _in_new_process(storage: Storage, key: str) -> bytes:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_read_and_answer, (storage, key))


def _read_and_answer(storage: Storage, key: str) -> bytes:
    data = storage.read(key)
    storage.put("a/answer", [data], size=len(data), replace=True)
    return data
