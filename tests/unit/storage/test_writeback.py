"""The disk begins while a large file is still being written."""

import pytest

from mltraq_ds.storage import LocalStorage, writeback


@pytest.fixture
def begun(monkeypatch):
    """Collect the ranges that the disk is told to begin with, and tell it."""
    found = []
    begin = writeback._begin()

    def record(fd, start, size):
        found.append((start, size))
        return begin(fd, start, size)

    monkeypatch.setattr(writeback, "_begin", lambda: record)
    monkeypatch.setattr(writeback, "STEP", 4 * 2**20)
    monkeypatch.setattr("mltraq_ds.storage.writing.STEP", 4 * 2**20)
    return found


@pytest.mark.parametrize("sizes", [[17 * 2**20 + 5], [192, 40 * 2**20], [3 * 2**20 + 1] * 5, [1000] * 9000])
def test_ranges(tmp_path, begun, sizes):
    """Ranges are whole pages, one behind the other without a gap, and the file holds what was written."""
    buffers = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    storage = LocalStorage(tmp_path)
    storage.put("x", buffers, size=sum(sizes))
    assert (tmp_path / "x").read_bytes() == b"".join(buffers)
    ends = [start + size for start, size in begun]
    assert [start for start, _ in begun] == [0, *ends][:-1]
    assert all(end % 4096 == 0 for end in ends)
    assert all(size < 8 * 2**20 for _, size in begun), "the disk waits for the first call to end"
    assert sum(sizes) - 8 * 2**20 < ends[-1] <= sum(sizes)


def test_not_wanted(tmp_path, begun):
    """Without durability, and for small files, the disk is left to begin when it likes."""
    LocalStorage(tmp_path, durability="relaxed").put("x", [bytes(9 * 2**20)], size=9 * 2**20)
    LocalStorage(tmp_path).put("y", [bytes(2**20)], size=2**20)
    assert begun == []
    assert (tmp_path / "x").stat().st_size == 9 * 2**20
