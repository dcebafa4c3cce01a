"""Beyond 4 GiB and 65,535 members: ZIP64, shown on sparse files and with small limits."""

import io
import shutil
import subprocess
import zipfile

import pytest

from mltraq_ds.blob import hashing, open_blob, pack, writer
from mltraq_ds.blob import zipformat as z
from mltraq_ds.codecs.base import Encoded, Member
from mltraq_ds.storage import LocalStorage

GIB = 2**30


class _NoSha:
    """Hashing 5 GiB takes seconds and shows nothing here."""

    def __init__(self, *_):
        pass

    def update(self, view):
        pass

    def digest(self):
        return bytes(32)

    def hexdigest(self):
        return "0" * 64


def test_more_than_four_gibibytes(make, tmp_path, monkeypatch):
    """Members of more than 4 GiB, and members behind them, are found by us, by `zipfile` and by `unzip`."""
    monkeypatch.setattr(hashing.hashlib, "sha256", _NoSha)
    zeros = memoryview(bytes(64 * 2**20))
    large = Member("bin", 5 * GIB, lambda: [zeros] * 80, "large.bin")
    packed = pack({"a": Encoded(b"\xc0", (large,)), "b": make.raw(b"behind", "behind.bin")})
    with open(tmp_path / "blob", "wb") as file:
        for buffer in packed:
            if buffer.nbytes == zeros.nbytes:
                file.seek(zeros.nbytes, io.SEEK_CUR)  # a hole: nothing is written
            else:
                file.write(buffer)
    monkeypatch.undo()
    assert (tmp_path / "blob").stat().st_size == packed.size
    blob = open_blob(LocalStorage(tmp_path).open("blob"))
    assert [(member.name, member.size) for member in blob.members] == [("large.bin", 5 * GIB), ("behind.bin", 6)]
    assert bytes(blob.entries()["b"].members[0].read()) == b"behind"
    assert bytes(blob.members[0].read_range(5 * GIB - 3, 3)) == bytes(3)
    assert blob.check(deep=False) == []
    with zipfile.ZipFile(tmp_path / "blob") as archive:
        assert archive.read("behind.bin") == b"behind"
        assert archive.getinfo("large.bin").file_size == 5 * GIB
        with archive.open("large.bin") as member:
            assert member.read(10) == bytes(10)
    if shutil.which("unzip"):
        run = ["unzip", "-p", "blob", "behind.bin"]
        assert subprocess.run(run, cwd=tmp_path, check=True, capture_output=True).stdout == b"behind"


def test_more_than_65535_members(make):
    """As many members as a plain ZIP cannot count are counted by us and by `zipfile`."""
    count = 65_540
    members = tuple(Member("bin", 1, lambda: [b"x"], f"{i}.bin") for i in range(count))
    content = b"".join(pack({"a": Encoded(b"\xc0", members)}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.namelist()) == count + 1
        assert archive.read("65539.bin") == b"x"
    blob = open_blob(make.source(content))
    assert len(blob.entries()["a"].members) == count
    assert blob.check(deep=False) == []


@pytest.mark.parametrize("limit", [1, 50, 300, 10_000])
def test_every_field_can_be_wide(make, monkeypatch, limit):
    """With small limits each combination of wide and narrow fields reads back, and `zipfile` agrees."""
    monkeypatch.setattr(z, "SIZE_LIMIT", limit)
    contents = {str(size): bytes([size % 256]) * size for size in (0, 1, 49, 50, 299, 300, 9000)}
    content = b"".join(pack({key: make.raw(value, f"{key}.bin") for key, value in contents.items()}))
    blob = open_blob(make.source(content))
    assert {key: bytes(entry.members[0].read()) for key, entry in blob.entries().items()} == contents
    assert blob.check() == []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {key: archive.read(f"{key}.bin") for key in contents} == contents


@pytest.mark.parametrize("limit", [1, 10**6])
@pytest.mark.parametrize("offset", [0, 1, 33, 64, 10**7 + 5])
@pytest.mark.parametrize("name", [b"a", b"x" * 200])
def test_headers_have_the_size_they_are_said_to_have(monkeypatch, limit, offset, name):
    """`header_size` is the length of `local_header`, and the payload behind it is aligned."""
    monkeypatch.setattr(z, "SIZE_LIMIT", limit)
    header = z.local_header(name, 100, 1, offset)
    assert len(header) == z.header_size(name, 100, offset)
    assert (offset + len(header)) % z.ALIGNMENT == 0


def test_joining_keeps_the_order(make, monkeypatch):
    """However buffers are put together, the bytes are the same."""
    entries = {str(i): make.raw(bytes([i]) * (i * 37), f"{i}.bin") for i in range(100)}
    expected = b"".join(pack(entries))
    for below, up_to in [(0, 1), (1, 1), (500, 1000), (10**9, 10**9)]:
        monkeypatch.setattr(writer, "_JOIN_BELOW", below)
        monkeypatch.setattr(writer, "_JOIN_UP_TO", up_to)
        assert b"".join(pack(entries)) == expected
