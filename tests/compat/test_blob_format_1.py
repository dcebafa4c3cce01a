"""Blobs of format 1, written once and kept: every later version must read them.

Run as a script to write those that are missing: ``python tests/compat/test_blob_format_1.py``.  Files that exist are
never written again.
"""

import hashlib
import io
import pathlib
import zipfile

import msgpack
import numpy as np
import pyarrow as pa
import pytest

from mltraq_ds.blob import open_blob, pack, pack_many
from mltraq_ds.codecs.base import Encoded, Member
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Source

FOLDER = pathlib.Path(__file__).parent / "blobs"
ARRAY = (np.arange(60) / 7).astype(">f4").reshape(3, 20)
TABLE = {"x": [1, 2, None], "y": ["a", "ü", None]}
REFERENCE = Reference("exp/0123456789abcdef0123456789abcdef", 1234, "sha256:" + "ab" * 32, "run/1")

#: SHA-256 of the index of each file, as the references to it hold.
DIGESTS = {
    "datastore": "sha256:cbf362ca4731f273838d5304db7e2880efcc2f3742a5060bf807d6bf2e268b7b",
    "value": "sha256:473932d60c77cc1b69649f3cd85069d7054ad6bda08fdbc47ccedd23f5d62e69",
    "pack": "sha256:1c0c9540e97117fb630abc81c82cee2289aca205cee0a545fa8127bfebe12cc9",
    "zstd": "sha256:84beee370ba0608ce46b29ba36e968f686701727a0bd89451eb61e3986216932",
    "empty": "sha256:820e196e47234a6c8e78d9c6d0d92ede11faff86144e5e80ee1699122a0fc708",
}


def _npy(array, name):
    file = io.BytesIO()
    np.save(file, array)
    return Member("npy", len(file.getvalue()), lambda: [file.getvalue()], name)


def _array(array, name):
    tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb(["numpy.ndarray/1", {"dtype": array.dtype.str}, [0]])))
    return Encoded(tree, (_npy(array, name),), (), {"type": "numpy.ndarray", "shape": list(array.shape)})


def _table():
    sink = pa.BufferOutputStream()
    table = pa.table(TABLE)
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb(["pyarrow.Table/1", None, [0]])))
    return Encoded(tree, (Member("arrow", len(content), lambda: [content], "frames/train.arrow"),))


def _packed(name):
    nested = {"nested": lambda _: REFERENCE}
    if name == "datastore":
        large = msgpack.packb({"all": list(range(100))})
        return pack(
            {
                "weights": _array(ARRAY, "weights.npy"),
                "table": _table(),
                "plain": Encoded(
                    msgpack.packb({"a": [1, 2.5, None, "x", b"y"]}), (), (), {"type": "dict", "length": 1}
                ),
                "large": Encoded(b"\xd4\x01\x00", (Member("msgpack", len(large), lambda: [large], "index.msgpack"),)),
                "": Encoded(msgpack.packb("empty key")),
                "\ud800": Encoded(msgpack.packb("lone surrogate")),
                "nested": Encoded(msgpack.packb([msgpack.ExtType(2, b"\x00")]), (), (object(),)),
            },
            **nested,
        )
    if name == "value":
        return pack({"value": _array(ARRAY, "value.npy")}, kind="value")
    if name == "pack":
        fragments = {f"run/{i}": {"w": _array(ARRAY + i, "w.npy"), "i": Encoded(msgpack.packb(i))} for i in range(3)}
        return pack_many(fragments)
    if name == "zstd":
        return pack({"weights": _array(np.zeros((50, 50)), "weights.npy")}, compression="zstd")
    return pack({})


class _Bytes(Source):
    def __init__(self, path):
        self.key = path.name
        self.content = path.read_bytes()
        self.size = len(self.content)

    def read(self, offset, size):
        return memoryview(bytearray(self.content[offset : offset + size]))

    def close(self):
        pass


def _open(name):
    return open_blob(_Bytes(FOLDER / f"{name}.zip"), digest=DIGESTS[name], verify="digest")


def _load(entry):
    return np.load(io.BytesIO(entry.members[0].read()))


@pytest.mark.parametrize("name", DIGESTS)
def test_old_blobs_are_whole(name):
    """Every kept blob opens by its digest, and every byte of it is what its index says."""
    blob = _open(name)
    assert blob.check() == []
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        assert archive.testzip() is None
        assert f"sha256:{hashlib.sha256(archive.read('index.msgpack')).hexdigest()}" == DIGESTS[name]


def test_old_datastores_are_read():
    """Keys, trees, members, references and summaries of a kept DataStore are those that were written."""
    blob = _open("datastore")
    entries = blob.entries()
    assert (blob.kind, blob.fragments) == ("datastore", [""])
    assert list(entries) == ["weights", "table", "plain", "large", "", "\ud800", "nested"]
    assert np.array_equal(_load(entries["weights"]), ARRAY)
    assert _load(entries["weights"]).dtype.str == ">f4"
    assert entries["weights"].summary == {"type": "numpy.ndarray", "shape": [3, 20]}
    assert pa.ipc.open_file(entries["table"].members[0].read()).read_all().to_pydict() == TABLE
    assert msgpack.unpackb(entries["plain"].tree) == {"a": [1, 2.5, None, "x", b"y"]}
    assert msgpack.unpackb(entries["large"].members[0].read()) == {"all": list(range(100))}
    assert [member.name for member in blob.members] == ["weights.npy", "frames/train.arrow", "index~2.msgpack"]
    assert msgpack.unpackb(entries[""].tree) == "empty key"
    assert entries["nested"].references == [REFERENCE]


def test_old_values_packs_and_frames_are_read():
    """Single values, fragments of packs, compressed members and empty blobs that were kept are read."""
    assert _open("value").kind == "value"
    assert np.array_equal(_load(_open("value").entries()["value"]), ARRAY)
    shared = _open("pack")
    assert (shared.kind, shared.fragments) == ("pack", ["run/0", "run/1", "run/2"])
    for i in range(3):
        assert np.array_equal(_load(shared.entries(f"run/{i}")["w"]), ARRAY + i)
        assert msgpack.unpackb(shared.entries(f"run/{i}")["i"].tree) == i
    member = _open("zstd").members[0]
    assert (member.name, member.compression) == ("weights.npy.zst", "zstd")
    assert np.array_equal(_load(_open("zstd").entries()["weights"]), np.zeros((50, 50)))
    assert dict(_open("empty").entries()) == {}


@pytest.mark.parametrize("name", sorted(DIGESTS.keys() - {"zstd", "datastore"}))
def test_the_same_values_still_give_the_same_bytes(name):
    """Format 1 is written as it always was (but zstd and Arrow may find other bytes for the same content)."""
    assert b"".join(_packed(name)) == (FOLDER / f"{name}.zip").read_bytes()


def main():
    """Write the blobs that are missing, and print the digests of all."""
    FOLDER.mkdir(exist_ok=True)
    for name in DIGESTS:
        path = FOLDER / f"{name}.zip"
        if not path.exists():
            packed = _packed(name)
            path.write_bytes(b"".join(packed))
            packed.close()
        print(f'    "{name}": "{open_blob(_Bytes(path)).digest}",')


if __name__ == "__main__":
    main()
