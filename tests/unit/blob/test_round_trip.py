"""What is packed comes back, here and in tools that know nothing of us."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import msgpack
import numpy as np
import pyarrow as pa
import pytest
from zlib_ng import zlib_ng

from mltraq_ds.blob import hashing, open_blob, pack, pack_many
from mltraq_ds.codecs.base import Encoded
from mltraq_ds.errors import CorruptBlobError, UsageError
from mltraq_ds.reference import Reference
from mltraq_ds.storage import LocalStorage

ARRAY = np.arange(5000, dtype=">f4").reshape(50, 100)
ODD_KEYS = ["weights", "index", "", "ключ", "a/b", "../x", "\ud800", "A", "a", "x" * 300]


def _numbers(entry):
    return np.load(io.BytesIO(entry.members[0].read()))


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("verify", ["crc", "none", "digest"])
def test_entries_come_back(make, compression, verify):
    """Tree, members, references and summary of every key are those that went in, whatever is verified."""
    reference = Reference("exp/nested", 10, "sha256:" + "0" * 64, "part")
    entries = {key: make.array(ARRAY + i, f"k{i}.npy") for i, key in enumerate(ODD_KEYS)}
    entries["nested"] = Encoded(b"\x01", (), ("a store",), {"type": "DataStore"})
    packed = pack(entries, nested={"a store": reference}.get, compression=compression)
    content = b"".join(packed)
    blob = open_blob(make.source(content), digest=packed.digest, verify=verify)
    assert (blob.kind, blob.fragments, blob.digest) == ("datastore", [""], packed.digest)
    assert list(blob.entries()) == [*ODD_KEYS, "nested"]
    for i, key in enumerate(ODD_KEYS):
        entry = blob.entries()[key]
        assert np.array_equal(_numbers(entry), ARRAY + i)
        assert (entry.tree, entry.summary) == (entries[key].tree, entries[key].summary)
    assert blob.entries()["nested"].references == [reference]
    assert "nested" in blob.entries()
    assert "other" not in blob.entries()
    assert len(blob.entries()) == len(ODD_KEYS) + 1
    assert blob.check() == []
    assert blob.check(deep=False) == []


def test_numbers_of_the_index_are_true(make):
    """Offset, size, CRC-32 and SHA-256 in the index are those of the bytes in the file, and payloads are aligned."""
    content = b"".join(
        pack({"a": make.array(ARRAY, "a.npy"), "b": make.raw(b"", "b.bin"), "c": make.raw(b"12", "c.bin")})
    )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        index = msgpack.unpackb(archive.read("index.msgpack"))
    members = msgpack.unpackb(index["members"])
    assert [member[0] for member in members] == ["a.npy", "b.bin", "c.bin"]
    for _, offset, stored_size, crc32, sha256, compression, size in members:
        payload = content[offset : offset + stored_size]
        assert offset % 64 == 0
        assert (zlib_ng.crc32(payload), hashlib.sha256(payload).digest()) == (crc32, sha256)
        assert (compression, size) == (None, stored_size)


def test_large_members_have_a_digest_for_each_piece(make, monkeypatch):
    """Each 16 MiB of a member have a SHA-256 of their own, hashed in threads or not, from one buffer or many."""
    content = os.urandom(1_000_003)
    monkeypatch.setattr(hashing, "PIECE", 100_000)
    entries = {
        "whole": make.raw(content, "a.bin"),
        "streamed": Encoded(b"\xc0", (make.member(content, "b.bin", streamed=True),)),
    }
    expected = b"".join(hashlib.sha256(content[i : i + 100_000]).digest() for i in range(0, len(content), 100_000))
    for inline_size in (0, 10**9):
        monkeypatch.setattr(hashing, "INLINE_SIZE", inline_size)
        blob = make.blob(entries)
        assert [member.sha256 for member in blob.members] == [expected, expected]
        assert blob.check() == []


def test_other_tools_read_members(make, tmp_path):
    """`np.load`, `pyarrow.feather`, `zipfile` and `unzip` read a blob in a process that never sees this library."""
    sink = pa.BufferOutputStream()
    table = pa.table({"x": [1, 2, 3], "y": ["a", None, "c"]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    frame = sink.getvalue().to_pybytes()
    entries = {"weights": make.array(ARRAY), "frame": make.raw(frame, "frames/train.arrow")}
    packed = pack(entries)
    LocalStorage(tmp_path).put("exp/b", packed, size=packed.size, parents=True)
    code = """
import json, sys, zipfile
import numpy as np, pyarrow as pa, pyarrow.feather
path = sys.argv[1]
archive = zipfile.ZipFile(path)
info = archive.getinfo("frames/train.arrow")
frame = pyarrow.feather.read_table(pa.BufferReader(archive.read(info))).to_pydict()
weights = np.load(path)["weights"]
assert not [name for name in sys.modules if name.startswith("mltraq")]
print(json.dumps([archive.testzip(), archive.namelist(), float(weights.sum()), weights.dtype.str, frame,
                  info.date_time, oct(info.external_attr >> 16)]))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTHON"))}
    run = [sys.executable, "-c", code, str(tmp_path / "exp" / "b")]
    output = subprocess.run(run, check=True, capture_output=True, cwd=tmp_path, env=environment).stdout
    names = ["weights.npy", "frames/train.arrow", "index.msgpack"]
    date = [1980, 1, 1, 0, 0, 0]
    assert json.loads(output) == [None, names, float(ARRAY.sum()), ">f4", table.to_pydict(), date, "0o100644"]


def test_unzip_finds_nothing_wrong(make, tmp_path):
    """`unzip -t` accepts a blob, and `unzip` gives back the bytes."""
    if not shutil.which("unzip"):
        pytest.skip("unzip is not installed: apt-get install unzip")
    content = b"".join(pack({"a": make.array(ARRAY, "folder/a.npy"), "b": make.raw(b"123", "b.bin")}))
    (tmp_path / "blob").write_bytes(content)
    shown = subprocess.run(["unzip", "-t", "blob"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "No errors detected" in shown.stdout
    subprocess.run(["unzip", "-q", "blob"], cwd=tmp_path, check=True)
    assert np.array_equal(np.load(tmp_path / "folder" / "a.npy"), ARRAY)
    assert (tmp_path / "b.bin").read_bytes() == b"123"


def test_bytes_are_a_function_of_the_values(make):
    """Two packs of equal values are equal byte for byte, and so are two iterations of one."""
    first, second = (pack({"a": make.array(ARRAY), "b": make.raw(b"1")}) for _ in range(2))
    assert b"".join(first) == b"".join(first) == b"".join(second)
    assert first.digest == second.digest


def test_empty_blob(make):
    """A DataStore without keys is a blob too."""
    blob = make.blob({})
    assert (dict(blob.entries()), blob.members, blob.check()) == ({}, (), [])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["index.msgpack"], ["index~2.msgpack"]),
        (["a.npy", "a.npy", "a.npy"], ["a.npy", "a~2.npy", "a~3.npy"]),
        (["x", "x"], ["x", "x~2"]),
        (["a.npy", "a.npy/0.npy"], ["a.npy", "a.npy~0.npy"]),
        (["a.npy/0.npy", "a.npy"], ["a.npy/0.npy", "a~2.npy"]),
        (["f/a.npy", "f/a.npy"], ["f/a.npy", "f/a~2.npy"]),
    ],
)
def test_names_are_unique(make, names, expected):
    """No two members have one name, none is named as the index, and no file is where a folder must be."""
    blob = make.blob({str(i): make.raw(b"%d" % i, name) for i, name in enumerate(names)})
    assert [member.name for member in blob.members] == expected
    assert [bytes(blob.entries()[str(i)].members[0].read()) for i in range(len(names))] == [
        b"%d" % i for i in range(len(names))
    ]


def test_one_member_reads_only_its_bytes(make):
    """Reading one key of many reads the end of the file and this member; a second look-up parses nothing twice."""
    entries = {str(i): make.raw(bytes([i]) * 100_000, f"{i}.bin") for i in range(20)}
    content = b"".join(pack(entries))
    source = make.source(content)
    blob = open_blob(source)
    assert len(source.reads) == 1
    assert bytes(blob.entries()["7"].members[0].read()) == bytes([7]) * 100_000
    assert [size for _, size in source.reads[1:]] == [100_000]
    assert blob.entries()["7"].members[0] is blob.entries()["7"].members[0]


def test_large_index_takes_a_second_read(make):
    """An index beyond the end that is read at once is found with one more read."""
    content = b"".join(pack({str(i): Encoded(bytes(1000)) for i in range(200)}))
    source = make.source(content)
    assert len(open_blob(source).entries()) == 200
    assert len(source.reads) == 2


def test_packs_share_a_file(make):
    """Fragments keep their own keys and member names, and members of one fragment lie in one folder."""
    fragments = {name: {"a": make.array(ARRAY + i, "a.npy")} for i, name in enumerate(["run/1", "run_1", "R"])}
    packed = pack_many(fragments)
    content = b"".join(packed)
    blob = open_blob(make.source(content), digest=packed.digest)
    assert (blob.kind, blob.fragments) == ("pack", ["run/1", "run_1", "R"])
    assert [member.name for member in blob.members] == ["run=2f1/a.npy", "run_1/a.npy", "R/a.npy"]
    for i, name in enumerate(fragments):
        assert np.array_equal(_numbers(blob.entries(name)["a"]), ARRAY + i)
    with pytest.raises(CorruptBlobError, match="no fragment 'other'"):
        blob.entries("other")


def test_raw_copies_keep_bytes_and_drop_the_pack(make):
    """Entries of blobs and packs are copied as they are stored, compressed or not, and renamed where needed."""
    old = make.blob({"a": make.array(ARRAY, "a.npy"), "z": make.array(ARRAY, "z.npy")}, compression="zstd")
    packed = pack_many({"run": {"a": make.array(ARRAY + 1, "sub/a.npy")}})
    shared = open_blob(make.source(b"".join(packed)))
    entries = {"a": old.entries()["a"], "b": shared.entries("run")["a"], "c": make.array(ARRAY + 2, "a.npy")}
    new = make.blob(entries)
    assert [member.name for member in new.members] == ["a.npy.zst", "sub/a.npy", "a.npy"]
    assert new.members[0].sha256 == old.members[0].sha256
    for i, key in enumerate("abc"):
        assert np.array_equal(_numbers(new.entries()[key]), ARRAY + i)
    assert new.entries()["a"].summary == entries["a"].summary
    assert make.blob(new.entries()).digest == new.digest
    again = open_blob(make.source(b"".join(pack_many({"x": shared.entries("run")}))))
    assert again.members[0].name == "x/sub/a.npy"
    assert new.check() == again.check() == []


def test_members_are_read_in_parallel(make):
    """Many threads reading many members of one blob get what was written."""
    blob = make.blob({str(i): make.array(ARRAY + i, f"{i}.npy") for i in range(30)}, compression="zstd")
    wrong = []

    def read():
        wrong.extend(i for i in range(30) if not np.array_equal(_numbers(blob.entries()[str(i)]), ARRAY + i))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("verify", ["crc", "none"])
def test_streams_and_ranges(make, compression, verify):
    """A member is a seekable stream and gives ranges; what is beyond its end is empty or refused."""
    content = bytes(range(256)) * 5000
    packed = pack({"a": make.raw(content, "a.bin")}, compression=compression)
    blob = open_blob(make.source(b"".join(packed)), verify=verify)
    member = blob.entries()["a"].members[0]
    assert member.compression == compression
    for _ in range(2):
        with member.open() as stream:
            assert stream.readable()
            assert stream.seekable()
            assert stream.read(300) == content[:300]
            assert stream.seek(-10, os.SEEK_END) == len(content) - 10
            assert stream.read() == content[-10:]
            assert stream.seek(1000) == 1000
            assert stream.seek(5, os.SEEK_CUR) == 1005
            assert stream.read(5) == content[1005:1010]
            assert stream.read() == content[1010:]
            assert stream.read() == b""
    assert bytes(member.read_range(1000, 20)) == content[1000:1020]
    for offset, size in [(-1, 2), (0, -1), (len(content), 1)]:
        with pytest.raises(CorruptBlobError, match=r"'a\.bin"):
            member.read_range(offset, size)
    if compression is None:
        with pytest.raises(ValueError, match="negative"):
            member.open().seek(-1)


def test_values_are_private_to_the_reader(make):
    """What is written into the bytes of a member reaches no other reader."""
    member = make.blob({"a": make.raw(b"12345")}).members[0]
    member.read()[0] = 0
    assert bytes(member.read()) == b"12345"


def test_wrong_calls_are_refused(make):
    """Unknown kinds, compressions and verifications, and nested values without a hook, are named."""
    with pytest.raises(UsageError, match="kind 'pack'"):
        pack({}, kind="pack")
    with pytest.raises(UsageError, match="compression 'gzip'"):
        pack({}, compression="gzip")
    with pytest.raises(UsageError, match="nested"):
        pack({"a": Encoded(b"\xc0", (), (object(),))})
    with pytest.raises(UsageError, match="verify='md5'"):
        open_blob(make.source(b""), verify="md5")
    packed = pack({})
    with pytest.raises(UsageError, match="after all its buffers"):
        packed.digest  # noqa: B018
    with pytest.raises(UsageError, match="after all its buffers"):
        packed.check_unchanged()


def test_blob_closes_its_source(make):
    """A blob is a context manager, names itself, and closes what it reads from."""
    source = make.source(b"".join(pack({"a": make.raw(b"1")}, kind="value")))
    with open_blob(source) as blob:
        assert repr(blob) == f"<blob 'exp/0a1b', value, 1 members, {source.size} bytes>"
        assert repr(blob.members[0]) == "<member 'raw.bin' of 'exp/0a1b', 1 bytes>"
    assert source.is_closed
