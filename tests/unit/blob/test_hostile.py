"""Damaged and hostile blobs: every read is right or a clear error that names blob and member, in bounded memory."""

import os
import subprocess
import sys
import tracemalloc
import zipfile

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from mltraq_ds.blob import open_blob, pack, pack_many, parsing
from mltraq_ds.blob import zipformat as z
from mltraq_ds.blob.compression import compressed
from mltraq_ds.codecs.base import Encoded
from mltraq_ds.errors import CorruptBlobError, FormatError, InvalidNameError
from mltraq_ds.reference import Reference

REFUSALS = (CorruptBlobError, FormatError, InvalidNameError)
DIGEST = "sha256:" + "0" * 64


def _read_all(blob):
    """Return all that a blob says, as plain values."""
    return {
        (fragment, key): (
            entry.tree,
            [(member.name, bytes(member.read())) for member in entry.members],
            entry.references,
            entry.summary,
        )
        for fragment in blob.fragments
        for key, entry in blob.entries(fragment).items()
    }


def _small(make, compression=None):
    entries = {
        "a": make.raw(bytes(200), "a.bin"),
        "b": make.raw(b"xyz", "b.bin"),
        "n": Encoded(b"\x01", (), (0,), {"x": 1}),
    }
    packed = pack(entries, nested=lambda _: Reference("e/n", 1, DIGEST), compression=compression)
    content = b"".join(packed)
    return content, packed.digest


def _rendered(index, payload=b"", name="a.bin", version=1, members=None):
    """Return a blob with any index; a stranger's writer, so that errors made twice do not cancel out."""
    packed = index if isinstance(index, bytes) else msgpack.packb(index, unicode_errors="surrogatepass")
    content = z.local_header(name.encode(), len(payload), zlib_ng.crc32(payload), 0) + payload if payload else b""
    content += z.local_header(b"index.msgpack", len(packed), zlib_ng.crc32(packed), len(content))
    offset = len(content)
    comment = z.format_comment(offset, len(packed), zlib_ng.crc32(packed)).replace(b"/1 ", b"/%d " % version)
    return content + packed + z.end_of_archive(0, offset + len(packed), 0, comment)


def _index(members=(), entries=None, **changes):
    members = msgpack.packb(list(members)) if isinstance(members, list | tuple) else members
    index = {"format": 1, "kind": "datastore", "members": members, "fragments": {"": entries or {}}, **changes}
    return {key: value for key, value in index.items() if value is not ...}


def _member(**changes):
    row = {"name": "a.bin", "offset": 64, "stored_size": 3, "crc32": zlib_ng.crc32(b"xyz"), "sha256": bytes(32)}
    return list({**row, "compression": None, "size": 3, **changes}.values())


def _entry(tree=b"\xc0", positions=(0,), references=(), summary=b"\x80"):
    return msgpack.packb([tree, list(positions), list(references), summary])


def test_the_stranger_writes_what_we_read(make):
    """The writer of these tests makes a valid blob when asked to, so the refusals below have one reason each."""
    blob = open_blob(make.source(_rendered(_index([_member()], {"a": _entry()}), b"xyz")))
    assert bytes(blob.entries()["a"].members[0].read()) == b"xyz"


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_every_flipped_byte(make, compression):
    """After a flip of any bit pattern in any byte every read is right or refused, and opening or `check` finds it."""
    content, digest = _small(make, compression)
    expected = _read_all(open_blob(make.source(content)))
    messages = []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        is_found = False
        for verify, known in [("crc", None), ("crc", digest), ("digest", digest)]:
            try:
                blob = open_blob(make.source(bytes(damaged)), digest=known, verify=verify)
                is_found = is_found or blob.check() != []
                assert _read_all(blob) == expected
            except REFUSALS as error:
                is_found = True
                messages.append(str(error))
        assert is_found, position
    assert all("exp/0a1b" in message for message in messages)


def test_every_truncation(make):
    """A blob cut at any length is refused, and so is one with something behind it."""
    content, digest = _small(make)
    for size in range(len(content)):
        with pytest.raises(CorruptBlobError, match="exp/0a1b"):
            open_blob(make.source(content[:size]), digest=digest)
    with pytest.raises(CorruptBlobError, match="exp/0a1b"):
        open_blob(make.source(content + b"\0"))


def test_what_is_no_blob_is_said(make, tmp_path):
    """Empty files, foreign ZIP archives and other files are told apart in the message."""
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("a", b"1")
    for content, words in [
        (b"", "it is empty"),
        ((tmp_path / "foreign.zip").read_bytes(), "is a ZIP archive, but"),
        (b"PAR1" * 100, "cut short, or never was a blob"),
        (b"mltraq_ds/0 ", "cut short, or never was a blob"),
        (b"mltraq_ds/1 ", "cut short, or never was a blob"),
    ]:
        with pytest.raises(CorruptBlobError, match=words):
            open_blob(make.source(content))


def test_another_blob_in_its_place_is_found(make):
    """A valid blob that is not the one referred to is refused by its digest."""
    other = b"".join(pack({"a": make.raw(b"123")}))
    with pytest.raises(CorruptBlobError, match="another SHA-256 than the reference"):
        open_blob(make.source(other), digest=_small(make)[1])


def test_swapped_members_are_found(make):
    """Two payloads of one size, exchanged in the file, are refused when read, by CRC and by SHA-256."""
    first, second = os.urandom(1000), os.urandom(1000)
    content = b"".join(pack({"a": make.raw(first, "a.bin"), "b": make.raw(second, "b.bin")}))
    content = content.replace(first, b"<here>").replace(second, first).replace(b"<here>", second)
    for verify, what in [("crc", "CRC-32"), ("digest", "SHA-256")]:
        blob = open_blob(make.source(content), verify=verify)
        for key in "ab":
            with pytest.raises(CorruptBlobError, match=rf"'{key}\.bin' of the blob 'exp/0a1b' is damaged: its {what}"):
                blob.entries()[key].members[0].read()
            with pytest.raises(CorruptBlobError, match=f"{what} differs"):
                blob.entries()[key].members[0].open()
        assert len(blob.check()) == 2
    trusting = open_blob(make.source(content), verify="none").entries()["a"].members[0]
    assert bytes(trusting.read()) == second


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (b"", "cannot be read"),
        (b"\xc1", "cannot be read"),
        (b"\x91\x01", "cannot be read"),
        (b"\x01", "not a map"),
        (b"\x80\x80", "cannot be read"),
        (_index(format="1"), "format"),
        (_index(format=0), "format"),
        (_index(format=True), "format"),
        (_index(format=...), "format"),
        (_index(kind="pickle"), "kind"),
        (_index(kind=...), "lacks"),
        (_index(members=...), "lacks"),
        (_index(members={}), "not packed"),
        (_index(fragments=...), "lacks"),
        (_index(fragments={}), "other fragments"),
        (_index(fragments={"x": {}}), "other fragments"),
        (_index(fragments=b""), "not a map"),
        (_index(fragments={b"": {}}), "not a map"),
        (_index(fragments={"": b""}), "not a map"),
        (_index(entries={b"k": b""}), "not a map"),
        (_index(entries={"k": "text"}), "not packed"),
        (_index(b"\x01"), "not a list"),
        (_index(b""), "cannot be read"),
        (_index(b"\xdd\xff\xff\xff\xff"), "cannot be read"),
        (_index(msgpack.packb([]) + b"\x01"), "cannot be read"),
        (_index([[]]), "not a member"),
        (_index(["a"]), "not a member"),
        (_index([_member(name=5)]), "not a member"),
        (_index([_member(offset=True)]), "not a member"),
        (_index([_member(offset=1.0)]), "not a member"),
        (_index([_member(sha256="x")]), "not a member"),
        (_index([_member(offset=0)]), "is not where"),
        (_index([_member(offset=128)]), "is not where"),
        (_index([_member(offset=-64)]), "is not where"),
        (_index([_member(offset=2**63)]), "is not where"),
        (_index([_member(stored_size=-3, size=-3)]), "is not where"),
        (_index([_member(stored_size=2**50, size=2**50)]), "no checksums|where"),
        (_index([_member(sha256=bytes(31))]), "no checksums"),
        (_index([_member(sha256=bytes(64))]), "no checksums"),
        (_index([_member(crc32=-1)]), "no checksums"),
        (_index([_member(crc32=2**32)]), "no checksums"),
        (_index([_member(size=4)]), "cannot have 4 bytes, stored in 3"),
        (_index([_member(compression="zstd", size=-1)]), "cannot have -1 bytes"),
        (_index([_member(compression="zstd", size=2**40)]), "cannot have"),
        (_index([_member(stored_size=100, size=100)]), "where the last member ends"),
        (_index([]), "where the last member ends"),
        (_index([_member(), _member(offset=128)]), "one name|where the last"),
        (_index([_member(), _member(name="b.bin")]), "is not where"),
        (_index([_member(name="index.msgpack", offset=64)]), "one name"),
    ],
)
def test_hostile_indexes_are_refused(make, index, words):
    """An index that cannot be right is refused, and the message names the blob and the reason."""
    with pytest.raises(CorruptBlobError, match=f"(?s)exp/0a1b.*({words})"):
        open_blob(make.source(_rendered(index, b"xyz")))


def test_two_members_of_one_name(make):
    """Two members of one name are refused even if each is where it should be."""
    first = _member(stored_size=0, size=0, crc32=0)
    second = _member(stored_size=0, size=0, crc32=0, offset=128)
    with pytest.raises(CorruptBlobError, match="one name"):
        open_blob(make.source(_rendered(_index([first, second]), b"xyz")))


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a\\b", "C:a", "a\0b", "", "a//b", "%2e%2e/a", "."])
def test_names_that_leave_the_folder_are_refused(make, name):
    """A member whose name would be extracted elsewhere is refused, and the blob is named."""
    member = _member(name=name, offset=64 if len(name) < 28 else 128)
    with pytest.raises(InvalidNameError, match="exp/0a1b"):
        open_blob(make.source(_rendered(_index([member]), b"xyz")))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (b"", "cannot be read"),
        (b"\xc1", "cannot be read"),
        (b"\x01", "is not"),
        (b"\x90", "is not"),
        (_entry(tree="text"), "is not"),
        (_entry(summary={}), "is not"),
        (_entry() + b"\x01", "cannot be read"),
        (_entry(tree=bytes(2000)) + b"\x01", "cannot be read"),
        (_entry(tree=bytes(2000))[:-1], "cannot be read"),
        (_entry(positions=[1]), "beyond the 1 there are"),
        (_entry(positions=[-1]), "beyond the 1 there are"),
        (_entry(positions=[True]), "not a number"),
        (_entry(positions=["0"]), "not a number"),
        (_entry(positions=[0] * 3000 + [1]), "beyond the 1"),
        (_entry(references=[1]), "reference"),
        (_entry(references=[["e/n", -1, DIGEST]]), "reference"),
        (_entry(references=[["e/n", 1, DIGEST, "f", 1]]), "reference"),
    ],
)
def test_hostile_entries_are_refused(make, entry, words):
    """An entry that cannot be right is refused when it is asked for, `check` lists it, and other keys work."""
    blob = open_blob(make.source(_rendered(_index([_member()], {"bad": entry, "good": _entry()}), b"xyz")))
    with pytest.raises(CorruptBlobError, match=f"(?s)exp/0a1b.*'bad'.*{words}"):
        blob.entries()["bad"]
    assert bytes(blob.entries()["good"].members[0].read()) == b"xyz"
    assert [finding for finding in blob.check() if "'bad'" in finding]


def test_references_that_leave_the_store_are_refused(make):
    """A reference to a place outside of the store is refused where it is read."""
    entry = _entry(references=[["../../etc/passwd", 1, DIGEST]])
    blob = open_blob(make.source(_rendered(_index([_member()], {"bad": entry}), b"xyz")))
    with pytest.raises(InvalidNameError):
        blob.entries()["bad"]
    assert [finding for finding in blob.check() if "etc/passwd" in finding]


@pytest.mark.parametrize("summary", [b"", b"\xc1", b"\x01", b"\x91" * 3000, b"\x81\xa1a" * 2000])
def test_hostile_summaries_are_refused(make, summary):
    """A summary that is none is refused when it is asked for; the value can still be read."""
    blob = open_blob(make.source(_rendered(_index([_member()], {"a": _entry(summary=summary)}), b"xyz")))
    entry = blob.entries()["a"]
    assert entry.tree == b"\xc0"
    with pytest.raises(CorruptBlobError, match="exp/0a1b"):
        entry.summary  # noqa: B018
    assert [finding for finding in blob.check() if "summary" in finding]


def test_large_entries_and_summaries_come_back(make):
    """Entries beyond the size that is unpacked at once are read element by element, and are equal."""
    members = tuple(make.member(b"%d" % i, f"{i}.bin") for i in range(3000))
    summary = {"columns": [f"column {i}" for i in range(1000)], "shape": [1, 2], "dtypes": {"a": ["f8"] * 10}}
    reference = Reference("e/n", 1, DIGEST, "fragment")
    entries = {"a": Encoded(b"tree", members, tuple(range(500)), summary)}
    packed = pack(entries, nested=lambda _: reference)
    entry = open_blob(make.source(b"".join(packed))).entries()["a"]
    assert [bytes(member.read()) for member in entry.members] == [b"%d" % i for i in range(3000)]
    assert (entry.tree, entry.references, entry.summary) == (b"tree", [reference] * 500, summary)


@pytest.mark.parametrize("version", [2, 17])
def test_newer_formats_are_named(make, version):
    """A newer format, said by the comment or by the index, asks for an upgrade."""
    for content in [_rendered(_index([]), version=version), _rendered(_index([], format=version))]:
        with pytest.raises(FormatError, match=rf"exp/0a1b.*format {version}.*pip install --upgrade"):
            open_blob(make.source(content))
    member = _member(compression="zstd9", offset=64)
    with pytest.raises(FormatError, match="zstd9.*pip install --upgrade"):
        open_blob(make.source(_rendered(_index([member]), b"xyz")))


def test_places_of_the_index_outside_of_the_file(make):
    """A comment that points outside of the file is refused; one that points at itself too."""
    content = _rendered(_index([]))
    for offset, size in [(0, 10**19), (10**19, 1), (len(content) - 10, 10), (0, 64)]:
        comment = z.format_comment(offset, size, zlib_ng.crc32(content[offset : offset + size]))
        with pytest.raises(CorruptBlobError, match="exp/0a1b"):
            open_blob(make.source(content[: -z.COMMENT_SIZE] + comment))
    comment = z.format_comment(len(content) - z.END_SIZE, z.END_SIZE, 0)
    with pytest.raises(CorruptBlobError, match="exp/0a1b"):
        open_blob(make.source(content[: -z.COMMENT_SIZE] + comment))


def _zstd(content):
    return b"".join(compressed([memoryview(content)]))


@pytest.mark.parametrize(
    ("payload", "size", "words"),
    [
        (_zstd(bytes(1000)), 999, "more than the 999 bytes"),
        (_zstd(bytes(1000)), 1001, "not one zstd frame"),
        (_zstd(bytes(1000))[:-1], 1000, "not one zstd frame"),
        (_zstd(bytes(1000)) + b"x", 1000, "not one zstd frame"),
        (_zstd(bytes(1000)) + _zstd(b"x" * 10), 1010, "not one zstd frame"),
        (b"not a frame at all", 1000, "cannot be decompressed"),
        (b"\x28\xb5\x2f\xfd\x00\xa0" + bytes(20), 1000, "cannot be decompressed"),
    ],
)
def test_hostile_zstd_frames_are_refused(make, payload, size, words):
    """A frame that is none, has another size, or is followed by something, is refused however it is read."""
    row = _member(stored_size=len(payload), size=size, compression="zstd", crc32=zlib_ng.crc32(payload))
    blob = open_blob(make.source(_rendered(_index([row], {"a": _entry()}), payload)))
    member = blob.members[0]
    for read in (member.read, member.open, lambda: member.read_range(0, 10), lambda: list(member.decompressed())):
        with pytest.raises(CorruptBlobError, match=rf"(?s)'a\.bin' of the blob 'exp/0a1b'.*{words}"):
            read()
    assert [finding for finding in blob.check() if "a.bin" in finding]


def test_something_behind_the_frame_in_a_later_chunk(monkeypatch, make):
    """What follows a zstd frame is refused also if it comes with another read."""
    payload = _zstd(b"x" * 100) + bytes(100)
    monkeypatch.setattr("mltraq_ds.blob.member._CHUNK", 10)
    row = _member(stored_size=len(payload), size=100, compression="zstd", crc32=zlib_ng.crc32(payload))
    blob = open_blob(make.source(_rendered(_index([row], {"a": _entry()}), payload)))
    with pytest.raises(CorruptBlobError, match="cannot be decompressed"):
        blob.members[0].open()


def test_bombs_are_refused_in_bounded_memory(make):
    """A frame of 40 KiB that expands to 1 GiB costs no memory, whether its size is confessed or not."""
    payload = b"".join(compressed([memoryview(bytes(64 * 2**20))] * 16))
    assert len(payload) < 100_000
    for size, when in [(2**30, "open"), (1000, "read"), (64 * 2**20, "read")]:
        row = _member(stored_size=len(payload), size=size, compression="zstd", crc32=zlib_ng.crc32(payload))
        content = _rendered(_index([row], {"a": _entry()}), payload)
        tracemalloc.start()
        try:
            with pytest.raises(CorruptBlobError):
                blob = open_blob(make.source(content))
                assert when == "read"
                for _ in blob.members[0].decompressed():
                    pass
            assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        finally:
            tracemalloc.stop()


def _nested(depth, leaf=b"\xc0", header=b"\x91"):
    return header * depth + leaf


@pytest.mark.parametrize(
    "lie",
    [
        _nested(100_000),
        _nested(20_000, header=b"\xdc\xff\xff"),
        _nested(20_000, header=b"\xdd\x00\x0f\xff\xff"),
        _nested(20_000, header=b"\xdf\xff\xff\xff\xff"),
        _nested(20_000, header=b"\x81\xa1a"),
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
)
def test_lies_about_lengths_and_depth_cost_no_memory(make, lie):
    """Headers that claim billions of elements, at thousands of levels, anywhere in an index, are refused cheaply."""
    long_entry = b"\x94" + msgpack.packb(bytes(2000)) + lie
    candidates = [
        _rendered(lie),
        _rendered(b"\x84\xa6format\x01\xa4kind" + lie),
        _rendered(_index(lie)),
        _rendered(_index(b"\x91" + lie)),
        *(
            _rendered(_index([_member()], {"a": entry}), b"xyz")
            for entry in (lie, b"\x94\xc4\x00" + lie, b"\x94\xc4\x00\x90" + lie, long_entry, long_entry[:-1])
        ),
        _rendered(_index([_member()], {"a": _entry(summary=lie)}), b"xyz"),
        _rendered(_index([_member()], {"a": _entry(summary=b"\x81\xa1x" + lie)}), b"xyz"),
    ]
    tracemalloc.start()
    try:
        for content in candidates:
            with pytest.raises(CorruptBlobError):
                for entry in open_blob(make.source(content)).entries().values():
                    entry.summary  # noqa: B018
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    finally:
        tracemalloc.stop()


def test_lengths_lie_in_a_process_with_little_memory():
    """Opening hostile indexes needs little address space: a process limited to 512 MiB more than its start does it."""
    if sys.platform != "linux":
        pytest.skip("RLIMIT_AS is enforced on Linux only")
    code = """
import resource, msgpack
from mltraq_ds.blob.parsing import UNPACK_ERRORS, parse_entry, unpack_bounded
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)
for lie in (b"\\xdc\\xff\\xff", b"\\xdd\\x00\\xff\\xff\\xff", b"\\xdf\\xff\\xff\\xff\\xff"):
    for parse in (parse_entry, unpack_bounded):
        try:
            parse(lie * 100_000)
        except MemoryError:
            raise SystemExit("out of memory")
        except UNPACK_ERRORS:
            pass
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_damage_to_an_entry(monkeypatch):
    """The quick way to read an entry without members finds what the general one finds, whatever byte is damaged."""

    def outcome(packed):
        try:
            return parsing.parse_entry(packed)
        except parsing.UNPACK_ERRORS:
            return None

    for size in (0, 1, 200, 255, 256, 300):
        entry = msgpack.packb([b"t" * size, [], [], b"\x80"])
        damaged = [entry, entry + b"x", *(entry[:end] for end in range(len(entry)))]
        damaged += [
            entry[:at] + bytes([entry[at] ^ 1 << bit]) + entry[at + 1 :]
            for at in (*range(6), *range(len(entry) - 6, len(entry)))
            for bit in range(8)
        ]
        quick = [outcome(packed) for packed in damaged]
        with monkeypatch.context() as patch:
            patch.setattr(parsing, "_parse_plain_entry", lambda packed: None)
            assert quick == [outcome(packed) for packed in damaged]
        assert quick[0] == (b"t" * size, [], [], b"\x80")


@given(data=st.data())
def test_mutated_blobs(make_blob_bytes, data):
    """Random damage anywhere, repaired checksums of the index or not: a right value or a typed error."""
    content = bytearray(make_blob_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        replacement = data.draw(st.binary(min_size=1, max_size=8))
        content[position : position + len(replacement)] = replacement
    end = z.parse_end(bytes(content[-z.END_SIZE :]))
    if end and data.draw(st.booleans()):
        offset, size, _ = end
        comment = z.format_comment(offset, size, zlib_ng.crc32(bytes(content[offset : offset + size])))
        content[-z.COMMENT_SIZE :] = comment
    _must_be_refused_or_read(bytes(content))


_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10)
_anything = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_rows = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a.bin", "b.bin", "index.msgpack", "../x", ""]) | _anything,
        "offset": st.sampled_from([0, 64, 128, 192, 2**40, -64]) | _anything,
        "stored_size": st.sampled_from([0, 3, 64, 2**32, -1]) | _anything,
        "crc32": st.just(zlib_ng.crc32(b"xyz")) | _anything,
        "sha256": st.just(bytes(32)) | _anything,
        "compression": st.sampled_from([None, "zstd", "x"]) | _anything,
        "size": st.sampled_from([0, 3, 2**62, -1]) | _anything,
    }
).map(lambda row: list(row.values()))
_entry_parts = st.tuples(
    st.binary(max_size=10) | _anything,
    st.lists(st.integers(-2, 3), max_size=5) | _anything,
    st.lists(st.just(["e/n", 1, DIGEST]) | _anything, max_size=3) | _anything,
    _anything.map(msgpack.packb) | st.binary(max_size=20) | _anything,
).map(lambda parts: msgpack.packb(list(parts)))


@given(
    rows=st.lists(_rows | _anything, max_size=3) | st.just([_member()]),
    entries=st.dictionaries(st.text(max_size=3), _entry_parts | st.binary(max_size=20), max_size=3) | _anything,
    changes=st.dictionaries(st.sampled_from(["format", "kind", "members", "fragments"]), _anything, max_size=1),
)
def test_structured_hostile_indexes(rows, entries, changes):
    """Indexes that are nearly right, with any value anywhere: a right value or a typed error."""
    index = {"format": 1, "kind": "datastore", "members": msgpack.packb(rows), "fragments": {"": entries}, **changes}
    _must_be_refused_or_read(_rendered(index, b"xyz"))


def _right_rows(sizes):
    rows, end = [], 0
    for number, size in enumerate(sizes):
        name = f"{number}/w.npy"
        offset = end + z.header_size(name.encode(), size, end)
        rows.append([name, offset, size, number, bytes(32), None, size])
        end = offset + size
    return rows


def _tuples(rows):
    return tuple(tuple(row) if type(row) is list else row for row in rows)


@given(
    sizes=st.lists(st.integers(0, 10_000), min_size=1, max_size=6),
    position=st.integers(0, 5),
    field=st.integers(0, 6),
    value=_anything
    | st.sampled_from(["a\nb", "a\n", "ä", "a b", "../x", "a/", "x" * 201, 2**24 + 1, bytes(64), "zstd"]),
)
def test_rows_looked_at_together(sizes, position, field, value):
    """What passes for right when all rows are looked at together is right one by one, too; and right ones do pass."""
    rows = _right_rows(sizes)
    assert parsing._are_plain(_tuples(rows))
    rows[position % len(rows)][field] = value
    if parsing._are_plain(_tuples(rows)):
        assert parsing._require_rows(_tuples(rows), "exp/0a1b") == [parsing.Row(*row) for row in rows]


@pytest.fixture(scope="module")
def make_blob_bytes():
    """A pack with everything in it."""
    from mltraq_ds.codecs.base import Member

    member = Member("bin", 300, lambda: [b"abc" * 100], "x.bin")
    entry = Encoded(b"tree", (member,), (0,), {"shape": [1]})
    fragments = {"run": {"k": entry, "l": Encoded(b"\x01")}, "other": {"k": entry}}
    packed = pack_many(fragments, nested=lambda _: Reference("e/n", 1, DIGEST), compression="zstd")
    content = b"".join(packed)
    packed.close()
    return content


def _must_be_refused_or_read(content):
    from mltraq_ds.storage.base import Source

    class Bytes(Source):
        key, size = "exp/0a1b", len(content)

        def read(self, offset, size):
            if offset < 0 or size < 0 or offset + size > self.size:
                raise CorruptBlobError(f"{self.key}: {offset}+{size} is outside of {self.size}")
            return memoryview(bytearray(content[offset : offset + size]))

        def close(self):
            pass

    try:
        blob = open_blob(Bytes())
        assert all(isinstance(finding, str) for finding in blob.check())
        for fragment in blob.fragments:
            for key in blob.entries(fragment):
                try:
                    entry = blob.entries(fragment)[key]
                    for member in entry.members:
                        assert zlib_ng.crc32(b"".join(member.buffers())) == member.crc32
                        assert len(member.read()) == member.size
                    assert isinstance(entry.summary, dict)
                except REFUSALS:
                    pass
    except REFUSALS:
        pass
