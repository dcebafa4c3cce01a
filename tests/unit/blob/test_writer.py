"""Writing: nothing is held twice, nothing changes unnoticed, and no thread stays behind."""

import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest

from mltraq_ds.blob import hashing, index, open_blob, pack
from mltraq_ds.blob import zipformat as z
from mltraq_ds.codecs.base import Encoded, Member
from mltraq_ds.errors import CorruptBlobError, ValueChangedError

LARGE = 3 * 1024 * 1024


def _entry(buffers, size, **more):
    return Encoded(b"\xc0", (Member("bin", size, buffers, "large.bin", **more),))


def _hashing_threads():
    return [thread for thread in threading.enumerate() if "sha256" in thread.name]


def test_large_buffers_are_the_values_own(make):
    """A large array is not copied: what is yielded is a view of its memory; small buffers are put together."""
    array = np.arange(LARGE, dtype=np.uint8)
    small = {f"s{i}": make.raw(bytes(100), f"s{i}.bin") for i in range(1000)}
    buffers = list(pack({**small, "a": _entry(lambda: [memoryview(array)], LARGE)}))
    assert any(np.shares_memory(np.frombuffer(buffer, np.uint8), array) for buffer in buffers)
    assert len(buffers) < 6


@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (4, 5)])
@pytest.mark.parametrize("dtype", ["f8", "i2"])
def test_any_contiguous_buffer_is_taken(make, shape, dtype):
    """Buffers of any shape and item type are bytes; empty ones, which Python cannot cast, are nothing."""
    array = np.ones(shape, dtype)
    blob = make.blob({"a": _entry(lambda: [memoryview(array), b"", bytearray(b"x")], array.nbytes + 1)})
    assert bytes(blob.members[0].read()) == array.tobytes() + b"x"


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("size", [10, LARGE])
def test_a_value_changed_during_the_write_is_found(make, size, compression):
    """An array changed after its CRC was taken is refused after the write, and the member is named."""
    content = bytearray(size)
    packed = pack({"a": _entry(lambda: [content], size), "b": make.raw(b"1")}, compression=compression)
    for _ in packed:
        pass
    packed.check_unchanged()
    content[5] = 1
    with pytest.raises(ValueChangedError, match=r"'large\.bin.*Nothing was committed"):
        packed.check_unchanged()
    packed.close()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("size", [9, 11])
def test_lying_sizes_are_found(size, streamed):
    """A member whose buffers have another size than it declared is refused before anything of it is written."""
    packed = pack({"a": _entry(lambda: [b"0123456789"], size, streamed=streamed)})
    with pytest.raises(ValueChangedError, match=f"10 bytes instead of {size}"):
        list(packed)


def test_lying_sizes_are_found_when_compressed():
    """A compressed member of another size than declared is refused when the blob is laid out."""
    with pytest.raises(ValueChangedError, match="1000 bytes instead of 2000"):
        pack({"a": _entry(lambda: [bytes(1000)], 2000)}, compression="zstd")


@pytest.mark.parametrize("second", [b"012345678X", b"012345678", b"0123456789X"])
def test_a_file_changed_between_its_two_readings_is_found(second):
    """What is made on the fly is read for its CRC and read again to be written; a difference is refused."""
    readings = [b"0123456789", second]
    packed = pack({"a": _entry(lambda: [readings.pop(0)], 10, streamed=True)})
    with pytest.raises(ValueChangedError, match=r"large\.bin"):
        list(packed)


def test_streamed_members_are_not_read_again_after_the_write(make):
    """A file is read exactly twice: a change after it was copied does not matter."""
    calls = []

    def buffers():
        calls.append(1)
        return iter([bytes(LARGE), b"x"])

    blob = make.blob({"a": _entry(buffers, LARGE + 1, streamed=True)})
    assert len(calls) == 2
    assert bytes(blob.members[0].read()[-2:]) == b"\0x"


def test_a_damaged_member_is_not_copied(make):
    """A raw copy checks the CRC of what it copies and names blob and member."""
    content = bytearray(b"".join(pack({"a": make.raw(b"0123456789")})))
    content[content.index(b"0123456789")] ^= 1
    packed = pack({"a": open_blob(make.source(bytes(content))).entries()["a"]})
    with pytest.raises(CorruptBlobError, match=r"'raw.bin' of the blob 'exp/0a1b'"):
        list(packed)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("streamed", [True, False])
def test_no_thread_survives_an_abandoned_write(stop_after, streamed):
    """Closing the iterator, at any buffer, ends the threads that hash."""
    packed = pack({"a": _entry(lambda: [bytes(LARGE)] * 10, 10 * LARGE, streamed=streamed)})
    buffers = iter(packed)
    for _ in range(stop_after):
        next(buffers)
    buffers.close()
    assert _hashing_threads() == []
    assert len(b"".join(packed)) == packed.size
    assert _hashing_threads() == []


def test_no_thread_survives_an_error():
    """A member that cannot be read ends the iteration with its own error, and the threads."""

    def buffers():
        yield bytes(LARGE)
        raise OSError("disk on fire")

    packed = pack({"a": _entry(lambda: [bytes(LARGE)] * 10, 10 * LARGE), "b": _entry(buffers, LARGE)})
    with pytest.raises(OSError, match="on fire"):
        list(packed)
    assert _hashing_threads() == []


@pytest.mark.parametrize("size", [99_999, 100_000, 100_001, 1_000_003])
def test_the_crc_of_a_very_large_view_is_that_of_its_bytes(monkeypatch, size):
    """Several threads share it; what they find is one CRC-32, as zlib knows it."""
    monkeypatch.setattr(hashing, "_CRC_IN_THREADS", 100_000)
    monkeypatch.setattr(hashing, "core_count", lambda: 3)
    data = np.random.default_rng(size).bytes(size)
    views = [memoryview(b"before"), memoryview(data), memoryview(b"behind")]
    assert hashing.crc_of(views, zlib.crc32(b"first")) == zlib.crc32(b"firstbefore" + data + b"behind")


@pytest.mark.parametrize("n_members", [1, 6])
def test_pieces_of_all_members_are_shared_by_the_threads(monkeypatch, n_members):
    """Six pieces, of one member or of six, are two for each of three threads, and no thread is started for fewer."""
    monkeypatch.setattr(hashing, "PIECE", 100_000)
    monkeypatch.setattr(hashing, "core_count", lambda: 3)
    used = []
    next_queue = hashing.Hasher.next_queue
    monkeypatch.setattr(hashing.Hasher, "next_queue", lambda self: used.append(next_queue(self)) or used[-1])
    array = np.arange(600_000 // n_members, dtype=np.uint8)
    packed = pack({f"a{i}": _entry(lambda: [memoryview(array)], array.nbytes) for i in range(n_members)})
    for _ in packed:
        pass
    assert sorted(used.count(queue) for queue in set(used)) == [2, 2, 2]
    assert _hashing_threads() == []
    hasher = hashing.Hasher()
    hasher.pieces(100_000)
    assert len(_hashing_threads()) == 1
    hasher.close()


def test_an_error_while_hashing_is_not_lost(monkeypatch):
    """If a thread cannot hash, the write fails with what it said."""

    class Broken:
        def update(self, view):
            raise MemoryError("no hash today")

    monkeypatch.setattr(hashing.hashlib, "sha256", Broken)
    with pytest.raises(MemoryError, match="no hash today"):
        list(pack({"a": _entry(lambda: [bytes(LARGE)] * 2, 2 * LARGE)}))
    assert _hashing_threads() == []


def test_fresh_buffers_do_not_pile_up(monkeypatch):
    """While hashing is slow, few buffers made on the fly are alive."""
    alive = set()
    most = []

    class Chunk(bytearray):
        def __init__(self, size):
            super().__init__(size)
            alive.add(id(self))
            most.append(len(alive))

        def __del__(self):
            alive.discard(id(self))

    def buffers():
        for _ in range(40):
            yield Chunk(200_000)

    monkeypatch.setattr(hashing, "PIECE", 400_000)
    for _ in pack({"a": _entry(buffers, 40 * 200_000, streamed=True)}):
        pass
    assert max(most) <= 10


def test_compression_stores_what_is_smaller(make):
    """A member that zstd cannot make smaller keeps its plain name and bytes; a smaller one is a plain zstd frame."""
    random = np.random.default_rng(0).bytes(100_000)
    blob = make.blob({"a": make.raw(random, "a.bin"), "b": make.raw(bytes(100_000), "b.bin")}, compression="zstd")
    plain, small = blob.members
    assert (plain.name, plain.compression, plain.stored_size) == ("a.bin", None, 100_000)
    assert (small.name, small.compression, small.size) == ("b.bin.zst", "zstd", 100_000)
    assert small.stored_size < 100
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    stored = b"".join(small.buffers())
    assert zstd.decompress(stored) == bytes(100_000) == bytes(small.read())


def test_what_looks_like_a_bomb_is_not_compressed(make, monkeypatch):
    """Zeros that expand too much are stored as they are, since a reader cannot tell them from an attack."""
    monkeypatch.setattr("mltraq_ds.blob.index.EXPANSION_FREE", 1_000_000)
    blob = make.blob({"a": make.raw(bytes(LARGE), "a.bin")}, compression="zstd")
    assert (blob.members[0].name, blob.members[0].stored_size) == ("a.bin", LARGE)


def test_large_compressed_members_spool_to_disk(make):
    """Compressed members beyond some MiB lie in one temporary file until they are written; several are kept apart."""
    random = np.random.default_rng(0)
    contents = [np.repeat(random.integers(0, 255, 6 * 1024 * 1024, np.uint8), 2).tobytes() for _ in range(2)]
    entries = {str(i): make.raw(content, f"{i}.bin") for i, content in enumerate(contents)}
    blob = make.blob(entries, compression="zstd")
    assert sum(member.stored_size for member in blob.members) > 9 * 1024 * 1024
    assert [bytes(member.read()) for member in blob.members] == contents


def test_a_failed_layout_leaves_no_spool(make):
    """If a later value cannot be laid out, the error is the value's."""
    entries = {"a": make.raw(bytes(10_000)), "b": Encoded(b"\xc0", (), (object(),))}
    with pytest.raises(ValueError, match="nested"):
        pack(entries, compression="zstd")


_MEMORY = """
import resource, sys
import numpy as np
from mltraq_ds.blob import pack
from mltraq_ds.codecs.base import Encoded, Member
from mltraq_ds.storage import LocalStorage

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

array = np.ones(SIZE, np.uint8)
storage = LocalStorage(sys.argv[1], durability="relaxed")
storage.put("warm", [b"1"], size=1)
before = peak()
if sys.argv[2] == "view":
    member = Member("bin", array.nbytes, lambda: [memoryview(array)], "a.bin")
else:
    chunks = lambda: (bytes(memoryview(array)[i : i + 2**20]) for i in range(0, SIZE, 2**20))
    member = Member("bin", array.nbytes, chunks, "a.bin", streamed=True)
packed = pack({"a": Encoded(b"", (member,))})
storage.put("blob", packed, size=packed.size)
packed.check_unchanged()
print(peak() - before)
"""


@pytest.mark.parametrize("way", ["view", "streamed"])
def test_memory_of_a_write(tmp_path, way):
    """Writing 128 MiB needs at most 32 MiB besides the value."""
    code = _MEMORY.replace("SIZE", str(128 * 2**20))
    run = [sys.executable, "-c", code, str(tmp_path), way]
    output = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert int(output) < 32 * 2**20
    assert (tmp_path / "blob").stat().st_size > 128 * 2**20


@pytest.mark.parametrize("crc32", [0, 0xFF, 0xFFFF, 0x10000, 0xFFFFFFFF])
def test_rows_packed_at_once(crc32):
    """Rows have the same bytes packed at once and each alone, and as many whatever their CRC-32."""
    rows = [
        index.Row(f"{'é' * i}.npy", 64 + i * 10**i, 10**i, crc, bytes(32 * i), compression, 10**i)
        for i, (crc, compression) in enumerate([(crc32, None), (2**32 - 1, "zstd"), (crc32, "zstd"), (70_000, None)])
    ]
    head = index.pack_head("pack", rows, index.make_packer())
    assert index._pack_rows(rows, index.make_packer()) in head
    others = [row._replace(crc32=0xFFFFFFFF) for row in rows]
    assert len(index.pack_head("pack", others, index.make_packer())) == len(head)


@pytest.mark.parametrize("limit", [1, 500, 2000, z.SIZE_LIMIT])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_tail_has_the_size_it_is_said_to_have(monkeypatch, limit, count):
    """`tail_size` is the length of `render_tail`, with wide and narrow fields."""
    monkeypatch.setattr(z, "SIZE_LIMIT", limit)
    monkeypatch.setattr(z, "COUNT_LIMIT", 5)
    rows = [index.Row(f"é{i}", 1000 * i + 64, 400 * i, 1, bytes(32), None, 400 * i) for i in range(count)]
    place = index.end_of(rows), 8000, 600
    assert index.tail_size(rows, *place) == len(index.render_tail(rows, *place, 1))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 200, 255, 256, 300, 65_500, 65_535, 65_536, 70_000])
def test_entries_without_members_have_a_frame_in_common(make, size):
    """Entries are put together to the bytes that one packer would make of them, whatever their sizes are."""
    trees = [bytes(size), bytes(size + 1), bytes(size), bytes(size)]
    shared, long = {"type": "x"}, {"type": "y" * size}
    summaries = [shared, shared, long, long]
    pairs = zip(trees, summaries, strict=True)
    entries = {f"k{i}": Encoded(tree, (), (), summary) for i, (tree, summary) in enumerate(pairs)}
    entries |= {"m": make.raw(b"1"), "\ud800": Encoded(bytes(size), (), (), shared), "": Encoded(b"", (), (), long)}
    blob = make.blob(entries)
    packer = index.make_packer()
    expected = {
        key: packer.pack([entry.tree, [0] if entry.members else [], [], packer.pack(entry.summary)])
        for key, entry in entries.items()
    }
    assert blob._index.fragments == {"": expected}
    assert blob.check() == []


@pytest.mark.parametrize("threshold", [0, 10**9])
def test_small_members_have_the_same_bytes_as_large_ones(make, monkeypatch, threshold):
    """Members that are copied before they are hashed give the same blob as those that are hashed in place."""
    entries = {
        str(size): _entry(lambda size=size: [b"head", memoryview(np.arange(size)), b""], 4 + 8 * size)
        for size in (0, 1, 100, 8191, 8192, 9000)
    }
    expected = b"".join(pack(entries))
    monkeypatch.setattr("mltraq_ds.blob.writer.INLINE_SIZE", threshold)
    assert b"".join(pack(entries)) == expected
