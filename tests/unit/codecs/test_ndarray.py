"""NumPy arrays and scalars: every dtype, shape and layout comes back bit by bit, and nothing is copied on the way."""

import contextlib
import io
import math
import subprocess
import sys
import tracemalloc

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mltraq_ds.codecs import decode, encode, numeric
from mltraq_ds.codecs.dtypes import dtype_from_plain, dtype_to_plain
from mltraq_ds.codecs.ndarray import NdarrayCodec
from mltraq_ds.errors import CorruptBlobError, FormatError, MissingExtraError, UnsupportedTypeError
from mltraq_ds.testing.codec import CodecConformance, MemorySource, content_of, round_trip, sources_of

HAS_STRINGS = hasattr(getattr(np, "dtypes", None), "StringDType")
NESTED = np.dtype([("a", "<i4"), ("b", [("c", ">f8", (2, 3)), ("d", "U5")]), (("title", "e"), "M8[us]")])
ALIGNED = np.dtype([("x", "i1"), ("y", "f8"), ("z", "i2")], align=True)
OFFSETS = np.dtype({"names": ["p", "q"], "formats": ["<i4", "<f4"], "offsets": [9, 2], "itemsize": 21})
OVERLAPPING = np.dtype({"names": ["p", "q"], "formats": ["<i4", "u1"], "offsets": [0, 2]})
DTYPES = [
    *["?", "i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", ">i8", "<u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"],
    *["longdouble", "clongdouble", "<c8", ">c8", "<c16", ">c16", "S1", "S7", "S0", "<U1", ">U3", "U0", "V1", "V16"],
    *["<M8[ns]", ">M8[D]", "M8", "<m8[25s]", "m8[Y]", "m8", "<M8[as]", "intc", "longlong", "ulonglong"],
    *[NESTED, ALIGNED, OFFSETS, OVERLAPPING, [("é", "i4")], [(f"field{i:050}", "i1") for i in range(1500)], []],
    *[np.dtype((np.record, [("a", "i4")])), np.dtype("f8", metadata={"unit": "m"})],
    *[np.dtype(NESTED, metadata={"of": [1, (2,)]}), np.dtype([("m", np.dtype("i4", metadata={"k": 1}))])],
]
SHAPES = [(), (0,), (1,), (3,), (2, 3), (0, 4), (3, 0, 2), (1, 2, 3, 4), (40, 50)]


def filled(dtype, shape, seed=0):
    """Return an array of any dtype with bytes that are valid for it."""
    dtype = np.dtype(dtype)
    if dtype.names is not None:
        array = np.zeros(shape, dtype)
        for i, name in enumerate(dtype.names[:20]):
            array[name] = filled(dtype[name].base, shape + dtype[name].shape, seed + i)
        return array
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "SU":
        # Trailing NULs are no part of a string.
        array = np.ndarray(shape, dtype, bytearray(math.prod(shape) * dtype.itemsize)) if not dtype.itemsize else None
        return array if array is not None else rng.integers(0, 10**6, shape).astype(dtype)
    if dtype.kind in "fc" and dtype.itemsize in (16, 32) and dtype.char in "gG":
        return np.asarray(rng.normal(size=shape)).astype(dtype)
    raw = rng.bytes(math.prod(shape) * dtype.itemsize)
    return np.ndarray(shape, dtype, bytearray(raw)) if raw else np.ndarray(shape, dtype)


def assert_same(again, value):
    """Compare type, dtype with all it has, shape, layout, and every byte."""
    assert type(again) is type(value)
    assert again.dtype == value.dtype
    assert repr(again.dtype) == repr(value.dtype)
    assert again.dtype.metadata == value.dtype.metadata
    assert again.dtype.isalignedstruct == value.dtype.isalignedstruct
    assert again.dtype.fields == value.dtype.fields
    assert again.dtype.type is value.dtype.type or value.dtype.char in "qQlL"
    assert again.shape == value.shape
    assert raw(again) == raw(value)


def raw(array):
    """Return all bytes, those between fields too."""
    has_fields = array.dtype.names is not None and array.dtype.itemsize
    return (array.view(f"V{array.dtype.itemsize}") if has_fields else array).tobytes()


def has_npy(dtype):
    """Tell whether an array of this dtype becomes a member, and one that is not of this machine only."""
    return dtype.itemsize > 0 and dtype.char not in "gG" and (dtype.names is None or len(dtype.names) < 9)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: f"{dtype!s:.40}")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dtypes_and_shapes(dtype, shape):
    """Each dtype in each shape comes back exactly, in C and in Fortran order, and by steps."""
    value = filled(dtype, shape)
    assert_same(round_trip(value), value)
    fortran = np.asfortranarray(value)
    again = round_trip(fortran)
    assert_same(again, fortran)
    assert again.flags.f_contiguous == fortran.flags.f_contiguous
    if value.ndim:
        stepped = np.concatenate([value, value])[::-2]
        assert_same(round_trip(stepped), stepped)


@given(
    hnp.arrays(
        dtype=hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes() | hnp.array_dtypes(),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12),
    ),
    st.sampled_from(["as it is", "transposed", "stepped"]),
)
def test_any_array(array, layout):
    """Whatever Hypothesis comes up with survives, alone and in a container."""
    array = {"as it is": array, "transposed": array.T, "stepped": array[..., ::-1] if array.ndim else array}[layout]
    assert_same(round_trip(array), array)
    assert_same(round_trip([array])[0], array)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if has_npy(np.dtype(d))], ids=str)
def test_npy_is_read_by_numpy(dtype):
    """`numpy.load` reads the member, without us and without pickle; what it loses is kept beside it."""
    dtype = np.dtype(dtype)
    value = filled(dtype, (50, 40))
    (member,) = encode(value, name="w").members
    assert member.name == "w.npy"
    content = content_of(member)
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
    assert loaded.shape == value.shape
    if dtype.names is None or loaded.dtype.names is None:
        assert raw(loaded) == raw(value)
    else:
        assert all(raw(loaded[name]) == raw(value[name]) for name in dtype.names)
    if dtype.kind != "V":
        assert loaded.dtype == dtype
    assert (len(content) - value.nbytes) % 64 == 0


def test_npy_headers():
    """Long headers and such that are not ASCII have the versions of the format made for them."""
    long = filled([(f"field{i:060}", "i1") for i in range(2000)], (3,))
    unicode = filled([("é", "i4")], (300,))
    for value, version in ((filled("f8", (300,)), 1), (long, 2), (unicode, 3)):
        content = content_of(encode(value).members[0])
        assert content[6] == version
        np.testing.assert_array_equal(np.load(io.BytesIO(content), max_header_size=10**6), value)


def test_layouts():
    """Slices, broadcasts, transposed, read-only and unaligned arrays come back with their items."""
    base = np.arange(6000.0).reshape(20, 30, 10)
    unaligned = np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view("f8")
    read_only = base.copy()
    read_only.flags.writeable = False
    for value in (
        base[::2, ::-3],
        np.broadcast_to(base[0], (5, 30, 10)),
        base.transpose(1, 2, 0),
        unaligned,
        read_only,
    ):
        assert_same(round_trip(value), value)
        assert round_trip(value).flags.aligned
    assert round_trip(np.asfortranarray(base)).flags.f_contiguous


def test_nothing_is_copied():
    """The buffers are views of the array, and what is read is a view of the member, writable as that is."""
    for value in (
        np.arange(100_000.0),
        np.asfortranarray(np.arange(100_000).reshape(100, 1000)).astype("M8[s]", order="F"),
    ):
        encoded = encode(value)
        _, view = encoded.members[0].buffers()
        assert np.shares_memory(np.frombuffer(view, np.uint8), value)
        assert not encoded.members[0].streamed
        (source,) = sources_of(encoded.members)
        again = decode(encoded.tree, [source])
        assert np.shares_memory(again, np.frombuffer(source.read(), np.uint8))
        assert again.flags.writeable
        assert again.flags.aligned


def test_large_array_takes_no_memory():
    """Encoding 512 MiB and going through the buffers allocates next to nothing, a stepped array small blocks."""
    value = np.zeros(2**26, "f8")
    tracemalloc.start()
    try:
        for array, limit in ((value, 100_000), (value.reshape(2**13, 2**13)[:4096, ::2], 40 * 2**20)):
            member = encode(array).members[0]
            tracemalloc.reset_peak()
            assert sum(len(buffer) for buffer in member.buffers()) == member.size
            assert tracemalloc.get_traced_memory()[1] < limit
        assert member.streamed
    finally:
        tracemalloc.stop()


def test_small_arrays_are_inline():
    """Below 1 KiB an array is in the tree, whatever its dtype; it owns its bytes and can be written to."""
    for dtype in DTYPES[:-1]:
        value = filled(dtype, (3,))
        if value.nbytes < 1024:
            assert encode(value).members == ()
            again = round_trip(value)
            assert again.flags.writeable
            assert_same(again, value)
    assert len(encode(np.zeros(128)).members) == 1
    assert encode(np.zeros(127)).members == ()


def test_small_arrays_do_not_mix():
    """Arrays of equal dtypes that are yet different keep their own: metadata, void types, longlong, many shapes."""
    plain, unit = np.zeros(3), np.zeros(3, np.dtype("f8", metadata={"unit": "m"}))
    record = np.zeros(2, np.dtype((np.record, [("a", "i4")])))
    values = [plain, unit, plain, record, np.zeros(2, [("a", "i4")]), np.zeros(3, "V8"), plain.reshape(3, 1)]
    for again, value in zip(round_trip(values), values, strict=True):
        assert_same(again, value)
    many = [np.zeros(i % 7, f"S{i + 1}") for i in range(5000)]
    assert all(a.dtype == b.dtype and a.shape == b.shape for a, b in zip(round_trip(many), many, strict=True))


def test_object_arrays():
    """Arrays of objects keep items, shape and order, arrays inside arrays too."""
    value = np.empty((2, 3), object)
    value[0] = [1, "a", None]
    value[1, 0], value[1, 1], value[1, 2] = [1, (2,)], np.arange(200.0), {"k": np.array(5)}
    for array in (value, np.asfortranarray(value), value[:, ::2]):
        again = round_trip(array)
        assert again.dtype == object
        assert again.shape == array.shape
        assert again.flags.f_contiguous == (array.flags.f_contiguous and not array.flags.c_contiguous) or array.ndim < 2
        assert again[0, 0] == 1
        assert repr(again.tolist()) == repr(array.tolist())
    for odd in (np.empty((), object), np.empty(0, object), np.empty((3, 0), object)):
        again = round_trip(odd)
        assert (again.shape, again.dtype) == (odd.shape, odd.dtype)
    zero = np.empty((), object)
    zero[()] = [1, 2]
    assert round_trip(zero)[()] == [1, 2]
    inner = np.empty(1, object)
    inner[0] = np.array(5)
    if isinstance(inner[0], np.ndarray):
        assert isinstance(round_trip(inner)[0], np.ndarray)


@pytest.mark.skipif(not HAS_STRINGS, reason="numpy has no StringDType")
def test_string_dtype():
    """Strings of any length keep their missing value and whether they coerce."""
    words = ["", "a", "é" * 100, "nul\0", "x" * 5000, "last"]
    for settings in ({}, {"coerce": False}, {"na_object": None}, {"na_object": math.nan}, {"na_object": "gone"}):
        value = np.array(words, np.dtypes.StringDType(**settings)).reshape(2, 3)
        if "na_object" in settings:
            value[0, 1] = settings["na_object"]
        again = round_trip(value)
        assert again.dtype == value.dtype
        assert again.dtype.coerce == value.dtype.coerce
        assert again.shape == value.shape
        assert repr(again.tolist()) == repr(value.tolist())
    assert round_trip(np.array([], np.dtypes.StringDType())).shape == (0,)


@pytest.mark.skipif(not HAS_STRINGS, reason="numpy has no StringDType")
def test_string_dtype_needs_numpy_2(monkeypatch):
    """Where numpy has no such dtype, the remedy is named."""
    tree = encode(np.array(["a"], np.dtypes.StringDType())).tree
    monkeypatch.delattr(np.dtypes, "StringDType")
    with pytest.raises(MissingExtraError, match="numpy>=2"):
        decode(tree)


SCALARS = [
    *[np.dtype(char).type(1) for char in "?bBhHiIlLqQefdgFDG"],
    *[np.float64("-0.0"), np.float32("inf"), np.longdouble(1) / 3, np.clongdouble(1 + 2j) / 3, np.complex64(-0.0)],
    *[np.int64(-(2**63)), np.uint64(2**64 - 1), np.bool_(False)],
    *[
        np.str_(""),
        np.str_("é\0"),
        np.str_("\ud800"),
        np.bytes_(b""),
        np.bytes_(b"a\0"),
        np.void(b"ab\0"),
        np.void(b""),
    ],
    *[np.datetime64("2020-01-01"), np.datetime64("NaT"), np.datetime64("2020-01-01T00:00:00.123456789")],
    *[np.datetime64(5, "25s"), np.timedelta64(3, "m"), np.timedelta64("NaT", "as"), np.timedelta64(7)],
    *[filled(NESTED, (2,))[1], filled(ALIGNED, (2,))[0], np.zeros(1, np.dtype((np.record, [("a", "i4")])))[0]],
]


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: f"{type(value).__name__} {value!r:.30}")
def test_scalars(value):
    """Each scalar comes back with its type, unit and bits, alone and as a key."""
    again = round_trip(value)
    assert type(again) is type(value)
    assert again.dtype == value.dtype
    assert repr(again) == repr(value)
    if value.dtype.char not in "gG":
        assert again.tobytes() == value.tobytes()
    if value.dtype.kind != "V" and value.dtype != "m8" and value == value:
        assert round_trip({value: [value]}) == {value: [value]}


def test_scalar_nan_bits():
    """The digits of a NaN survive, in every width."""
    for kind, bits in (
        (np.float16, np.uint16(0xFE01)),
        (np.float32, np.uint32(0xFFC00001)),
        (np.float64, np.uint64(2**64 - 3)),
    ):
        value = bits.view(kind)
        assert round_trip(value).tobytes() == value.tobytes()


def test_longdouble_padding():
    """The bytes that pad a longdouble are random; equal values give equal trees all the same."""
    if np.dtype("g").itemsize != 16 or np.finfo("g").nmant != 63:
        pytest.skip("no padding on this processor")
    raw = bytearray(np.longdouble(1.5).tobytes())
    raw[12] ^= 0xFF
    dirty = np.frombuffer(raw, "g")[0]
    assert encode(dirty).tree == encode(np.longdouble(1.5)).tree
    assert round_trip(dirty) == 1.5


@pytest.mark.parametrize(
    "value",
    [
        np.ma.array([1, 2], mask=[0, 1]),
        np.array([(1, 2)], [("a", "i4"), ("b", "i4")]).view(np.recarray),
        np.zeros(3, [("a", "i4"), ("o", "O")]),
        np.zeros(3, [("a", "i4"), ("o", "O")])[0],
        np.zeros(3, np.dtype("O", metadata={"vlen": str})),
        np.zeros(300, np.dtype("f8", metadata={"x": object()})),
        np.memmap,
    ],
    ids=["masked", "recarray", "fields of objects", "void of objects", "h5py strings", "odd metadata", "a class"],
)
def test_refused(value):
    """What would come back as something else is refused."""
    with pytest.raises(UnsupportedTypeError, match="cannot be stored because"):
        encode([value])


def test_matrix_is_refused():
    """A matrix is refused as any other subclass."""
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1]])
    with pytest.raises(UnsupportedTypeError, match="it is a subclass of 'ndarray' and would come back as that"):
        encode(matrix)


def test_foreign_dtypes_are_refused():
    """A dtype of another library says it is void; it is not taken for that."""
    for size in (3, 3000):
        with pytest.raises(UnsupportedTypeError, match="belongs to another library"):
            encode(np.zeros(size, ml_dtypes.bfloat16))


def _codec_tree(meta, positions):
    content = msgpack.packb(["numpy.ndarray/1", meta, positions])
    return msgpack.packb(msgpack.ExtType(3, content))


GOOD = {"dtype": "<f8", "shape": [200], "order": "C", "scalar": False}


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {},
        {**GOOD, "shape": [2**62]},
        {**GOOD, "shape": [-200]},
        {**GOOD, "shape": [True] * 3},
        {**GOOD, "shape": [1.5]},
        {**GOOD, "shape": ["a"]},
        {**GOOD, "shape": [0, 2**63 - 1]},
        {**GOOD, "shape": [1] * 100 + [200]},
        {**GOOD, "shape": [199]},
        {**GOOD, "order": "K"},
        {**GOOD, "dtype": "O"},
        {**GOOD, "dtype": "|O8"},
        {**GOOD, "dtype": "f8,O"},
        {**GOOD, "dtype": "numpy.float64"},
        {**GOOD, "dtype": "<f9"},
        {**GOOD, "dtype": "<i3"},
        {**GOOD, "dtype": 5},
        {**GOOD, "dtype": {}},
        {**GOOD, "dtype": {"base": "<f8", "shape": [2**40]}},
        {
            **GOOD,
            "dtype": {
                "names": ["a"],
                "formats": ["O"],
                "offsets": [0],
                "titles": [None],
                "itemsize": 8,
                "aligned": False,
                "record": False,
            },
        },
        {
            **GOOD,
            "dtype": {
                "names": ["a"],
                "formats": ["f8"],
                "offsets": [-8],
                "titles": [None],
                "itemsize": 8,
                "aligned": False,
                "record": False,
            },
        },
        {**GOOD, "dtype": {"dtype": "<f8", "metadata": 5}},
        {"shape": [3], "order": "C", "items": [1, 2]},
        {"shape": [2**40], "order": "C", "items": []},
        {"shape": [1], "order": "C", "items": 5},
        {"shape": [1], "order": "C", "items": [1], "coerce": True},
        {**GOOD, "bytes": b"abc"},
        {**GOOD, "bytes": 10**12},
    ],
    ids=str,
)
def test_hostile_meta(meta):
    """A description that does not fit the member is an error before anything is allocated for it."""
    content = content_of(encode(np.zeros(200)).members[0])
    assert decode(_codec_tree(GOOD, [0]), [MemorySource("x.npy", content)]).shape == (200,)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptBlobError):
            decode(_codec_tree(meta, [0]), [MemorySource("x.npy", content)])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_deeply_nested_dtype():
    """A dtype inside dtypes without end is an error."""
    plain = "<f8"
    for _ in range(60):
        plain = {"base": plain, "shape": [1]}
    with pytest.raises(CorruptBlobError, match="nested too deeply"):
        decode(_codec_tree({**GOOD, "dtype": plain}, [0]), [MemorySource("x.npy", b"")])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-8],
        lambda content: b"",
        lambda content: b"\x93NUMPX" + content[6:],
        lambda content: content[:8] + b"\xff\xff" + content[10:],
        lambda content: content + b"\0" * 8,
        lambda content: content[64:],
    ],
)
def test_hostile_npy(change):
    """A member whose header and items do not fit is an error."""
    content = content_of(encode(np.zeros(200)).members[0])
    with pytest.raises(CorruptBlobError, match=r"x\.npy"):
        decode(_codec_tree(GOOD, [0]), [MemorySource("x.npy", change(content))])


def test_npy_header_is_not_parsed():
    """What the header says is for other tools: its text is not evaluated, dtype and shape come from the tree."""
    content = bytearray(content_of(encode(np.arange(200.0)).members[0]))
    content[10:100] = b"(" * 90
    assert decode(_codec_tree(GOOD, [0]), [MemorySource("x.npy", bytes(content))])[199] == 199


def test_longdouble_of_another_processor():
    """A precision that this machine does not have is said to be so."""
    with pytest.raises(FormatError, match="depends on the processor"):
        dtype_from_plain("<f12" if np.dtype("g").itemsize == 16 else "<f16")


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: f"{dtype!s:.40}")
def test_dtypes_as_plain_values(dtype):
    """The plain form of a dtype needs nothing but msgpack and brings back an equal one."""
    dtype = np.dtype(dtype)
    plain = round_trip(dtype_to_plain(dtype))
    assert dtype_from_plain(plain) == dtype


def test_numpy_is_not_imported_for_plain_values():
    """Persisting and loading a float does not wait for numpy, pandas or pyarrow."""
    code = """
import sys
from mltraq_ds.codecs import decode, encode
assert decode(encode({"a": [1.5, (2,)]}).tree) == {"a": [1.5, (2,)]}
print([name for name in ("numpy", "pandas", "pyarrow", "polars", "torch") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


class TestNdarrayCodec(CodecConformance):
    """The suite for codecs, with arrays."""

    codec = NdarrayCodec

    def values(self):
        """Return arrays that are too large or too odd for the tree."""
        return [
            np.arange(1000.0),
            np.asfortranarray(filled("<i4", (30, 40))),
            np.arange(1000)[::2],
            filled(NESTED, (5,)),
            filled(OFFSETS, (100,)),
        ]

    def others(self):
        """Return values of other codecs."""
        return [1, [1], np.float64(1), np.ma.array([1]), "text"]

    def equal(self, value, again):
        """Compare all items."""
        return value.dtype == again.dtype and raw(value) == raw(again)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_second_array_of_a_kind(monkeypatch, dtype, order):
    """An array of a dtype and shape that was met before is encoded to the same bytes as if it were the first."""
    for shape in (shape for shape in SHAPES if math.prod(shape) < 100):
        first, second = (np.asarray(filled(dtype, shape, seed), order=order) for seed in (1, 2))
        encode(first)
        quick = encode(second)
        monkeypatch.setattr(numeric, "_alone", {})
        slow = encode(second)
        assert (quick.tree, quick.summary, len(quick.members)) == (slow.tree, slow.summary, len(slow.members))
        assert_same(round_trip(second), second)
        if second.ndim == 1 and len(second) and second.dtype.itemsize:
            spread = np.repeat(second, 2)[::2]
            assert encode(spread).tree == slow.tree, "one that is not contiguous"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["v0", "a/b", "", "\ud800", "x" * 300])
def test_the_second_large_array_of_a_kind(monkeypatch, dtype, order, name):
    """The member of a dtype and shape that was met before has the same name and bytes as if it were the first."""

    def seen(encoded):
        members = [(m.suffix, m.size, m.name, m.streamed, [*map(bytes, m.buffers())]) for m in encoded.members]
        return encoded.tree, encoded.summary, encoded.nested, members

    for shape in ((1500,), (1, 1500), (30, 50), (3, 0)):
        first, second = (np.asarray(filled(dtype, shape, seed), order=order) for seed in (1, 2))
        encode(first, name=name)
        spread = np.repeat(second, 2, axis=0)[::2]  # not contiguous: is not like the first
        quick = [seen(encode(value, name=name)) for value in (second, spread)]
        monkeypatch.setattr(numeric, "_alone", {})
        assert quick[0] == seen(encode(second, name=name))
        monkeypatch.setattr(numeric, "_alone", {})
        assert quick[1] == seen(encode(spread, name=name))


def test_damage_to_a_small_array():
    """Whatever byte of a small array is changed or missing: another value or a typed error, no other."""
    tree = encode(np.arange(5, dtype="<i2")).tree
    for damaged in [*(tree[:end] for end in range(len(tree))), tree + b"x"]:
        with pytest.raises(CorruptBlobError):
            decode(damaged)
    for at in range(len(tree)):
        for bit in range(8):
            with contextlib.suppress(CorruptBlobError, FormatError):
                decode(tree[:at] + bytes([tree[at] ^ 1 << bit]) + tree[at + 1 :])
