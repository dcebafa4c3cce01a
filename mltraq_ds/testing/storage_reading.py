"""Conformance of reading: what was written, or an error with a type."""

from __future__ import annotations

import pytest

from mltraq_ds.errors import CorruptBlobError, KeyMissingError, StorageError
from mltraq_ds.testing.storage_hooks import StorageHooks, pattern

__all__ = ["ReadingConformance"]

_RANGES = [
    (0, 0),
    (0, 1),
    (1, 3),
    (100, 65_535),
    (63, 65_536),
    (4096, 200_000),
    (299_999, 1),
    (300_000, 0),
    (0, 300_000),
]


class ReadingConformance(StorageHooks):
    """What `open`, `read`, `stat` and `exists` promise."""

    @pytest.mark.parametrize("is_size_known", [False, True])
    def test_ranges(self, is_size_known: bool) -> None:
        """Any range of an open key gives just those bytes."""
        data = pattern(300_000)
        self.raw_write("a/x", data)
        source = self.make_storage().open("a/x", size=len(data) if is_size_known else None)
        assert (source.key, source.size) == ("a/x", len(data))
        for offset, size in _RANGES:
            view = source.read(offset, size)
            assert (view.nbytes, bytes(view)) == (size, data[offset : offset + size])
        source.close()

    def test_empty_key(self) -> None:
        """A key without bytes opens and reads as such."""
        self.raw_write("a/x", b"")
        source = self.make_storage().open("a/x")
        assert (source.size, bytes(source.read(0, 0))) == (0, b"")
        source.close()

    @pytest.mark.parametrize("place", [(0, 11), (10, 1), (-1, 2), (0, -1), (2**70, 1), (5, 2**70)])
    def test_range_outside(self, place: tuple[int, int]) -> None:
        """A range that leaves the key, as a hostile index may ask for, is an error and costs no memory."""
        self.raw_write("a/x", b"0123456789")
        source = self.make_storage().open("a/x")
        with pytest.raises(CorruptBlobError, match="a/x"):
            source.read(*place)
        source.close()

    @pytest.mark.parametrize("size", [100, 200_000])
    def test_views_are_private(self, size: int) -> None:
        """What is read is writable, belongs to its reader alone, and outlives the source."""
        data = pattern(size)
        self.raw_write("a/x", data)
        source = self.make_storage().open("a/x")
        first, second = source.read(0, size), source.read(0, size)
        first[0] = first[0] ^ 255
        assert bytes(second) == data
        assert bytes(source.read(0, size)) == data
        source.close()
        del source
        assert bytes(second) == data
        assert self.raw_read("a/x") == data

    def test_closed_source(self) -> None:
        """A closed source closes again without complaint, and reads no more."""
        self.raw_write("a/x", b"123")
        source = self.make_storage().open("a/x")
        source.close()
        source.close()
        with pytest.raises(StorageError, match="closed"):
            source.read(0, 1)

    @pytest.mark.parametrize("size", [5, 15])
    def test_size_differs_from_the_one_known(self, size: int) -> None:
        """A key that is not of the size it was written with is corrupt: when it is opened, or when its end is read."""
        self.raw_write("a/x", pattern(10))
        with pytest.raises(CorruptBlobError, match="a/x"):
            source = self.make_storage().open("a/x", size=size)
            source.read(0, size)

    @pytest.mark.parametrize("size", [100, 300_000])
    def test_cut_while_open(self, size: int) -> None:
        """A key that is cut while it is open gives the old bytes or a typed error, never others and never a crash."""
        data = pattern(size)
        self.raw_write("a/x", data)
        source = self.make_storage().open("a/x")
        self.raw_write("a/x", data[: size // 2])
        try:
            assert bytes(source.read(0, size)) == data
        except (CorruptBlobError, KeyMissingError) as error:
            assert "a/x" in str(error)
        source.close()

    def test_missing_key(self) -> None:
        """A key that is not there is named by the error of every verb that reads; a folder is no key."""
        storage = self.make_storage()
        self.raw_write("a/b/x", b"1")
        for key in ("nothing", "a/b/y", "a", "a/b", "a/b/x/y"):
            assert not storage.exists(key)
            for read in (storage.stat, storage.read, storage.open):
                with pytest.raises(KeyMissingError, match=key):
                    read(key)

    def test_stat(self) -> None:
        """Size and time of a key are known, on the clock of the storage."""
        storage = self.make_storage()
        self.raw_write("a/x", pattern(1234))
        stat = storage.stat("a/x")
        assert (stat.key, stat.size) == ("a/x", 1234)
        assert abs(stat.modified - storage.now()) < self.clock_tolerance_s
        assert storage.exists("a/x")
        assert list(storage.list("a")) == [stat]
