"""Plain values: everything the standard library has that a run may hold comes back as it was."""

import contextlib
import datetime as dt
import enum
import gc
import math
import pathlib
import subprocess
import sys
import time
import tracemalloc
import uuid
import zoneinfo
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import msgpack
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltraq_ds import Bunch
from mltraq_ds.codecs import MAX_DEPTH, Member, Pickled, decode, encode
from mltraq_ds.codecs.naming import member_names
from mltraq_ds.errors import CorruptBlobError, FormatError, TooDeepError, UnsupportedTypeError
from mltraq_ds.testing.codec import REFUSALS, MemorySource, content_of, round_trip, sources_of

NAMED = dt.timezone(dt.timedelta(hours=5, minutes=30, seconds=1, microseconds=7), "odd")
PARIS = zoneinfo.ZoneInfo("Europe/Paris")

VALUES = [
    None,
    True,
    False,
    *[sign * 2**n + d for sign in (1, -1) for n in (0, 7, 8, 15, 31, 32, 63, 64, 65, 1000) for d in (-1, 0, 1)],
    *[0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1.7976931348623157e308],
    *["", "a", "é\0\ud800\U0001f600", "x" * 100_000, "y" * 70_000 + "\udfff"],
    *[b"", b"\0\xff", b"x" * 65_535, b"x" * 65_536, b"x" * 300_000],
    *[bytearray(), bytearray(b"a"), bytearray(70_000)],
    *[(), (1,), (1, (2, [3, (None,)])), [], [[]], {}, {"a": {}}],
    *[set(), {1, "a", (2, 3), None}, frozenset(), frozenset({frozenset({1}), b"x"})],
    {1: "int", "1": "str", (1, (2,)): "tuple", None: 0, 2.5: 1, b"k": 2, frozenset({1}): 3, dt.date(2020, 1, 1): 4},
    {"a": bytearray(b"inside"), "b": [(bytearray(b"deeper"), {"c": b"x" * 70_000})]},
    *[Bunch(), Bunch(a=[1, (2,)], b=Bunch(c=np.arange(300.0).tobytes())), {"x": [Bunch({"not an identifier": None})]}],
    *[OrderedDict(), OrderedDict(b=1, a=2), OrderedDict({"x": bytearray(b"y")})],
    *[
        defaultdict(list, {1: [2]}),
        defaultdict(None, a=1),
        defaultdict(OrderedDict),
        defaultdict(int, b=bytearray(b"z")),
        *map(defaultdict, (Bunch, pathlib.Path, pathlib.PureWindowsPath, dt.timedelta, np.float32, np.bool_)),
        defaultdict(pd.DataFrame),
    ],
    *[deque(), deque([1, 2]), deque([1, bytearray(b"q")], maxlen=2), deque(maxlen=0)],
    *[0j, complex(-0.0, math.inf), complex(1e300, -5e-324)],
    *[dt.datetime.min, dt.datetime.max, dt.datetime(2024, 10, 27, 2, 30, fold=1)],
    *[dt.datetime(2024, 10, 27, 2, 30, 1, 2, tzinfo=PARIS, fold=1), dt.datetime(2000, 1, 1, tzinfo=dt.UTC)],
    *[dt.datetime(2000, 1, 1, tzinfo=NAMED), dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-23)))],
    *[dt.date.min, dt.date.max, dt.time.min, dt.time.max, dt.time(1, 2, 3, 4, fold=1), dt.time(5, tzinfo=PARIS)],
    *[dt.timedelta.min, dt.timedelta.max, dt.timedelta(), dt.timedelta(microseconds=-1)],
    *[dt.UTC, NAMED, PARIS, dt.timezone(dt.timedelta(hours=1))],
    *[uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
    *[Decimal(text) for text in ("0", "-0", "1.10", "1E+5", "1E-400", "9" * 60, "Infinity", "-Infinity")],
    *[Decimal("1E+999999"), Fraction(0), Fraction(-1, 3), Fraction(2**100, 3**50)],
    *[
        pathlib.Path("a/b"),
        pathlib.Path(),
        pathlib.Path("/"),
        pathlib.PurePosixPath("//x"),
        pathlib.PurePath("é \udcff"),
    ],
    *[pathlib.PureWindowsPath("C:\\a\\b"), pathlib.PureWindowsPath("//server/share/x")],
    *[range(0), range(5), range(10, -(2**70), -3), slice(None), slice(1, 2.5, "x"), slice(bytearray(b"s"), (1,))],
    [[[(({"a": [({1},)]},),)]]],
]


def same(a, b):
    """Compare exactly: types everywhere, the bits of floats, order of mappings, attributes of ordered ones."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, dict):
        extras = not isinstance(a, defaultdict) or a.default_factory is b.default_factory
        return extras and same([*a.items()], [*b.items()]) and same(*(getattr(x, "__dict__", None) for x in (a, b)))
    if isinstance(a, (list, tuple, deque)):
        lengths = len(a) == len(b) and getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
        return lengths and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return a == b and Counter(map(type, a)) == Counter(map(type, b))
    if isinstance(a, slice):
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, (dt.datetime, dt.time)):
        zones = type(a.tzinfo) is type(b.tzinfo) and str(a.tzinfo) == str(b.tzinfo)
        return zones and a.fold == b.fold and a.replace(tzinfo=None) == b.replace(tzinfo=None)
    return a == b and repr(a) == repr(b)


def name_of(value):
    """Name a test; the order of a set differs from process to process, and with it the collection of tests."""
    kind = type(value).__name__
    return kind if isinstance(value, set | frozenset) else f"{kind} {value!r:.30}"


@pytest.mark.parametrize("value", VALUES, ids=name_of)
def test_round_trip(value):
    """Each supported value comes back with equal value and type, alone and inside containers."""
    assert same(round_trip(value), value)
    assert same(round_trip({"k": [value, (value,)]}), {"k": [value, (value,)]})


@pytest.mark.parametrize("text", ["NaN", "-NaN", "sNaN", "NaN123", "-sNaN456"])
def test_decimal_nan(text):
    """A NaN of Decimal keeps sign, signal and diagnostic digits."""
    assert str(round_trip(Decimal(text))) == text


def test_float_nan():
    """The sign and the digits of a NaN are kept, and so are those of a complex number."""
    odd = np.uint64(0xFFF8_0000_DEAD_BEEF).view(np.float64).item()
    assert same(round_trip(odd), odd)
    assert same(round_trip(complex(odd, -0.0)), complex(odd, -0.0))


def test_same_zone():
    """A zone by key is the same object as everybody else's, so that arithmetic within the zone works."""
    assert round_trip(dt.datetime(2020, 1, 1, tzinfo=PARIS)).tzinfo is PARIS
    assert round_trip(dt.UTC) is dt.UTC


def test_ordered_dict_attributes():
    """The attributes of an OrderedDict are kept: a torch state_dict has its versions in one."""
    state = OrderedDict(w=1)
    state._metadata = OrderedDict({"": {"version": 1, "raw": bytearray(b"x")}})
    again = round_trip(state)
    assert again == state
    assert same(vars(again), vars(state))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.fractions()
    | st.decimals(allow_nan=False)
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
values = st.recursive(
    scalars | st.binary().map(bytearray) | hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4).map(OrderedDict)
        | st.dictionaries(st.text(), inner, max_size=4).map(lambda items: defaultdict(set, items))
        | st.lists(inner, max_size=4).map(deque)
        | st.sets(hashables, max_size=4)
        | st.tuples(inner, inner, inner).map(lambda ends: slice(*ends))
    ),
    max_leaves=12,
)


def _without_nan_keys(value):
    return "nan" not in repr(value).lower()


@given(values)
def test_nested_round_trip(value):
    """Whatever is built of supported types comes back exactly, and encodes to the same bytes each time."""
    encoded = encode(value)
    again = decode(encoded.tree, sources_of(encoded.members))
    if _without_nan_keys(value):
        assert same(again, value)
    assert encode(value).tree == encoded.tree
    assert encode(again).tree == encoded.tree


def test_sets_do_not_depend_on_their_order():
    """Equal sets give equal bytes, whatever order they were filled in."""
    first, second = set(range(1000)), set(range(999, -1, -1))
    second.discard(5)
    second.add(5)
    words = [f"word{i}" for i in range(100)]
    assert encode([first, set(words)]).tree == encode([second, {*words[::-1]}]).tree
    code = "from mltraq_ds.codecs import encode; print(encode({'a', 'b', 'c', 'd', ('e', 1)}).tree.hex())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": str(seed)}, capture_output=True, check=True
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(runs) == 1


# What is refused


class IntSubclass(int):
    """A subclass that would come back as its base."""


class Colour(enum.IntEnum):
    """An enum that is an int."""

    RED = 1


Point = namedtuple("Point", "x y")


@dataclass
class Record:
    """A class of the user's."""

    x: int = 1


class StrSubclass(str):
    """A subclass of str."""


class DictSubclass(dict):
    """A subclass of dict."""


class DatetimeSubclass(dt.datetime):
    """A subclass of datetime."""


class ZoneSubclass(dt.tzinfo):
    """A zone of the user's."""

    def utcoffset(self, when):
        return dt.timedelta(0)


REFUSED = [
    IntSubclass(1),
    Colour.RED,
    Point(1, 2),
    Record(),
    StrSubclass("a"),
    DictSubclass(a=1),
    DatetimeSubclass(2020, 1, 1),
    Counter("a"),
    UserDict(a=1),
    len,
    lambda: 1,
    int,
    object(),
    memoryview(b"a"),
    msgpack.ExtType(5, b"\x90"),
    msgpack.Timestamp(1),
    iter([]),
    Ellipsis,
    ValueError("x"),
    math,
    defaultdict(lambda: 1),
    defaultdict(Record),
    defaultdict({}.get),
    defaultdict(np.float16(1).astype),
    dt.datetime(2020, 1, 1, tzinfo=ZoneSubclass()),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [1, (x,)]}, lambda x: [x, bytearray(b"a")]])
def test_refused(value, wrap):
    """What could not come back as itself is refused, with its type and the ways out."""
    with pytest.raises(UnsupportedTypeError, match="cannot be stored because") as caught:
        encode(wrap(value))
    assert type(value).__qualname__ in str(caught.value)
    assert "Pickled(value)" in str(caught.value)
    assert "File(path)" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [0, 1, 2, len]}, r"at ['a'][3] "),
        ([(1, {"x": deque([len])})], r"at [0][1]['x'][0] "),
        ({("k", len): 1}, "(key ('k', <built-in function len>))[1] "),
        ({1: {2, len}}, "(item <built-in function len>) "),
        ([slice(0, len)], "at [0].stop "),
        ({"o": np.array([1, len], object)}, "at ['o'].flat[1] "),
        ({"d": dt.datetime(2020, 1, 1, tzinfo=ZoneSubclass())}, "at ['d'] "),
        ({"d": [memoryview(b"")]}, "at ['d'][0] "),
        (OrderedDict(a=defaultdict(int, b=len)), "at ['a']['b'] "),
    ],
)
def test_refusal_says_where(value, where):
    """The path to the culprit is in the message."""
    with pytest.raises(UnsupportedTypeError) as caught:
        encode(value)
    assert where in str(caught.value)


def test_refusal_of_subclass_says_so():
    """A subclass is told from a type that nobody knows."""
    with pytest.raises(UnsupportedTypeError, match="it is a subclass of 'int' and would come back as that"):
        encode(Colour.RED)
    with pytest.raises(UnsupportedTypeError, match="its default_factory .*constructor of a supported type"):
        encode(defaultdict(Record))


def test_refusal_inside_a_codec():
    """Where the culprit is inside a value of a codec, that value's place is named."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1]})
    frame.attrs["owner"] = Record()
    with pytest.raises(UnsupportedTypeError, match=r"Record' inside a 'pandas.*DataFrame' at \['f'\]\[0\]"):
        encode({"f": [frame]})


def test_ext_types_cannot_be_smuggled():
    """A value that looks like one of our marks is refused wherever it hides, and never read as a mark."""
    mark = msgpack.ExtType(3, msgpack.packb(["mltraq_ds.pickled/1", b"cos\nsystem\n(S'true'\ntR.", []]))
    for value in (mark, [mark], {"a": (mark,)}, {mark: 1}, np.array([mark, 1], object), slice(mark), deque([mark])):
        with pytest.raises(UnsupportedTypeError, match="ExtType"):
            encode(value)


# Depth


def _nested(make, depth):
    value = 0
    for _ in range(depth):
        value = make(value)
    return value


def _object_array(inner):
    array = np.empty(1, object)
    array[0] = inner
    return array


MAKERS = {
    "list": lambda x: [x],
    "dict": lambda x: {"a": x},
    "tuple": lambda x: (x,),
    "frozenset": lambda x: frozenset([x]),
    "deque": lambda x: deque([x]),
    "ordered": lambda x: OrderedDict(a=x),
    "default": lambda x: defaultdict(int, a=x),
    "mixed": lambda x: [(x,)] if isinstance(x, dict) else {"a": x},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_depth(make):
    """The stated depth can be stored and read; beyond it is refused, however deep."""
    limit = MAX_DEPTH if make is not MAKERS["mixed"] else MAX_DEPTH * 2 // 3
    assert repr(round_trip(_nested(make, limit))) == repr(_nested(make, limit))
    for depth in (MAX_DEPTH + 1, 500, 20_000):
        value = _nested(make, depth if make is not MAKERS["frozenset"] else min(depth, 500))
        with pytest.raises(TooDeepError, match=f"deeper than {MAX_DEPTH} levels"):
            encode(value)


def test_depth_of_slices_and_object_arrays():
    """Containers that are not walked are limited too."""
    for make, inner in ((lambda x: slice(x), lambda x: x.stop), (_object_array, lambda x: x[0])):
        again = round_trip(_nested(make, 90))
        for _ in range(90):
            again = inner(again)
        assert again == 0
        with pytest.raises(TooDeepError, match="Flatten it"):
            encode(_nested(make, 200))


def test_circles():
    """A value that contains itself is refused, whatever it is made of."""
    items: list = []
    items.append(items)
    mapping: dict = {}
    mapping["a"] = [(mapping, mapping)]
    array = np.empty(1, object)
    array[0] = array
    queue = deque([1])
    queue.append({"q": queue})
    for value in (items, mapping, array, queue, [items, bytearray(b"x")]):
        with pytest.raises(TooDeepError):
            encode(value)


def test_stack_used_up():
    """Called where Python's stack is nearly used up, the answer is an error of ours."""

    def deep(levels):
        return encode(_nested(MAKERS["tuple"], 99)) if levels == 0 else deep(levels - 1)

    with pytest.raises((TooDeepError, RecursionError)):
        deep(sys.getrecursionlimit() - 150)


def test_shared_references():
    """A value that is there twice comes back as two equal ones."""
    shared = [1, {"a": bytearray(b"x")}]
    again = round_trip({"a": shared, "b": shared, "c": (shared,)})
    assert again == {"a": shared, "b": shared, "c": (shared,)}
    assert again["a"] is not again["b"]


# Members, names and nested values


def test_large_plain_value_is_one_msgpack_member():
    """A large plain value is a member that any msgpack library reads."""
    value = {"a": list(range(50_000)), "b": {"c": 1.5}}
    encoded = encode(value, name="history")
    assert [member.name for member in encoded.members] == ["history.msgpack"]
    assert len(encoded.tree) < 16
    assert msgpack.unpackb(content_of(encoded.members[0])) == value
    assert decode(encoded.tree, sources_of(encoded.members)) == value


def test_large_bytes_are_not_copied():
    """Bytes beyond 64 KiB are a member of their own, and the very same bytes."""
    content = b"x" * 100_000
    for value in (content, {"a": [content]}):
        (member,) = encode(value, name="blob").members
        assert next(iter(member.buffers())) is content
    assert round_trip({"a": (content, bytearray(content))}) == {"a": (content, bytearray(content))}


def test_names():
    """Members are named after the keys on the way to them, and all differ."""
    big = np.zeros(1000)
    value = {"train": {"x": big, "y": [big + 1, big + 2]}, "odd/key": big + 3, "a": (big + 4,), 1: big + 5}
    value |= {"twice": big, "deep": {"er": {"and": {"deeper": big + 6}}}}
    names = [member.name for member in encode(value, name="w:1").members]
    assert {"train/x.npy", "train/y/0.npy", "train/y/1.npy", "odd=2fkey.npy", "a/0.npy", "twice.npy"} <= {
        name.removeprefix("w=3a1/") for name in names
    }
    assert len(set(names)) == len(names)
    assert {name for name in names if not name.startswith("w=3a1/")} == set()
    assert len(encode([big] * 20, name="n").members) == 20
    assert len({m.name for m in encode([big] * 20, name="n").members}) == 20
    assert encode(big, name="").members[0].name == "=.npy"


def test_long_names():
    """Names stay below what a key may have, however long the keys are."""
    big = np.zeros(1000)
    value = {"k" * 500: {"l" * 500: {"m" * 500: big, "n" * 500: big}, "o" * 500: [big, big]}}
    names = [member.name for member in encode(value, name="é" * 300).members]
    assert len(set(names)) == 4
    assert max(map(len, names)) < 800


class Store(dict):
    """Stands for a DataStore."""


def test_nested():
    """What the hook recognises is handed out, and what is at its position comes back."""
    stores = [Store(a=1), Store(b=2)]
    value = {"x": stores[0], "y": [(stores[1], stores[0])]}
    encoded = encode(value, is_nested=lambda item: isinstance(item, Store))
    assert len(encoded.nested) == 3
    assert [id(item) for item in encoded.nested] == [id(stores[0]), id(stores[1]), id(stores[0])]
    again = decode(encoded.tree, nested=lambda position: ("nested", position))
    assert again == {"x": ("nested", 0), "y": [(("nested", 1), ("nested", 2))]}
    with pytest.raises(CorruptBlobError, match="mark 2"):
        decode(encoded.tree)
    with pytest.raises(UnsupportedTypeError, match="Store"):
        encode(value)


def test_nested_after_surrogates():
    """A lone surrogate makes a second attempt; it does not count members and nested values twice."""
    store = Store()
    value = [store, np.zeros(1000), "\ud800", store]
    encoded = encode(value, is_nested=lambda item: isinstance(item, Store))
    assert len(encoded.nested) == 2
    assert len(encoded.members) == 1
    assert decode(encoded.tree, sources_of(encoded.members), nested=lambda i: i)[2:] == ["\ud800", 1]


def test_summary():
    """The summary says type, codec, bytes, and length or shape."""
    assert encode([1, 2], name="a").summary == {"type": "list", "codec": "plain/1", "bytes": 3, "length": 2}
    assert encode(Decimal(1)).summary["type"] == "decimal.Decimal"
    summary = encode(np.zeros((2, 3))).summary
    assert (summary["shape"], summary["dtype"]) == ([2, 3], "float64")
    # Of a list, not of the arrays in it.
    assert encode([np.zeros(1000)]).summary["length"] == 1
    assert encode([np.zeros(1000)]).summary["bytes"] > 8000


def test_leaves_nothing_behind():
    """Encoding makes no garbage that waits for the collector, with its packers' buffers."""
    encode({"a": (1, 2)})
    gc.collect()
    gc.disable()
    try:
        encode({"a": (1, (2,))})
        assert gc.collect() < 20
    finally:
        gc.enable()


# Hostile trees


def _ext(code, content):
    return msgpack.packb(msgpack.ExtType(code, content))


def _nested_ext(depth, code=5):
    tree = b"\x90"
    for _ in range(depth):
        tree = _ext(code, b"\x91" + tree)
    return tree


HOSTILE = {
    "nothing": b"",
    "two values": b"\x01\x02",
    "reserved byte": b"\xc1",
    "long list": b"\xdd\xff\xff\xff\xff",
    "long lists inside each other": b"\xdd\x00\x0f\xff\xff" * 1000 + b"\xc0" * 0xFFFFF,
    "long map": b"\xdf\xff\xff\xff\xff",
    "long text": b"\xdb\xff\xff\xff\xffabc",
    "long bytes": b"\xc6\xff\xff\xff\xffabc",
    "long ext": b"\xc9\xff\xff\xff\xff\x05abc",
    "not Unicode": b"\xa2\xff\xfe",
    "list as key": b"\x81\x90\x01",
    "deep": b"\x91" * 200 + b"\xc0",
    "deeper": b"\x91" * 100_000 + b"\xc0",
    "deep maps": b"\x81\x01" * 300 + b"\xc0",
    "deep with an ext": b"\x91" * 99 + _ext(5, b"\x91" * 99 + b"\xc0"),
    "deep tuples": _nested_ext(150),
    "deeper tuples": _nested_ext(3000),
    "deep frozensets": _nested_ext(150, 7),
    "tuple of no list": _ext(5, b"\x01"),
    "tuple of nothing": _ext(5, b""),
    "set of lists": _ext(6, b"\x91\x90"),
    "ordered of a list": _ext(8, b"\x91\x90"),
    "ordered of nothing": _ext(8, b"\x90"),
    "ordered with an odd attribute": _ext(8, b"\x92\x80\x81\x01\x02"),
    "unknown factory": _ext(9, msgpack.packb(["os.system", {}])),
    "factory of no name": _ext(9, msgpack.packb([1, {}])),
    "negative maxlen": _ext(10, msgpack.packb([-1, []])),
    "maxlen of text": _ext(10, msgpack.packb(["a", []])),
    "short complex": _ext(11, b"\0" * 15),
    "month 13": _ext(13, b"\xe8\x07\x0d\x01\0\0\0\0\0\0\0\0"),
    "short datetime": _ext(13, b"\xe8\x07"),
    "zone that leaves its place": _ext(26, msgpack.packb(["../../etc/passwd"])),
    "zone of a package": _ext(26, msgpack.packb(["a.b/c"])),
    "zone of a number": _ext(26, msgpack.packb([1])),
    "zone of a day": _ext(26, msgpack.packb([1, 0, 0])),
    "timedelta beyond": _ext(16, b"\xff\xff\xff\x7f\0\0\0\0\0\0\0\0"),
    "short uuid": _ext(17, b"abc"),
    "decimal of letters": _ext(18, b"abc"),
    "decimal not ASCII": _ext(18, b"\xff"),
    "fraction by zero": _ext(19, b"\x92\x01\x00"),
    "fraction of text": _ext(19, b"\x92\xa11\xa12"),
    "unknown path": _ext(20, msgpack.packb(["Path", "x"])),
    "range by zero": _ext(21, b"\x93\x01\x02\x00"),
    "range of floats": _ext(21, msgpack.packb([1.0, 2, 1])),
    "short slice": _ext(22, b"\x92\x01\x02"),
    "empty scalar": _ext(23, b""),
    "scalar of objects": _ext(23, b"\x01O" + b"\0" * 8),
    "scalar of a module": _ext(23, b"\x09os.system12345678"),
    "short scalar": _ext(23, b"\x03<f8abc"),
    "scalar without a kind": _ext(23, b"\0Xabc"),
    "empty array": _ext(24, b""),
    "array of objects": _ext(24, b"\x02|OC\x01" + b"\x01" + b"\0" * 15),
    "array too long": _ext(24, b"\x03<f8C\x01" + b"\xff" * 8),
    "array of odd order": _ext(24, b"\x03<f8X\x01\x01" + b"\0" * 15),
    "array with no shape": _ext(24, b"\x03<f8C\x20"),
    "array of 200 dimensions": _ext(24, b"\x03<f8C\xc8" + b"\0" * 1600),
    "member of nothing": _ext(25, b"\x92\x00\xc2"),
    "member of text": _ext(25, b"\x92\xa1a\xc2"),
    "tree member of nothing": _ext(1, b"\x00"),
    "tree member inside": msgpack.packb([msgpack.ExtType(1, b"\x00")] * 9),
    "negative nested": _ext(2, b"\xff"),
    "codec of a number": _ext(3, b"\x93\x01\xc0\x90"),
    "codec without members": _ext(3, msgpack.packb(["numpy.ndarray/1", {"shape": [1], "dtype": "<f8"}, []])),
    "codec with a negative position": _ext(3, msgpack.packb(["numpy.ndarray/1", None, [-1]])),
    "codec with no list": _ext(3, msgpack.packb(["numpy.ndarray/1", None, None])),
    "timestamp": b"\xc7\x03\xffabc",
}


@pytest.mark.parametrize("tree", HOSTILE.values(), ids=HOSTILE)
def test_hostile_trees(tree):
    """A tree that no encoder makes is an error, quickly and in little memory."""
    decode_quietly(tree)
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(CorruptBlobError, match="its blob is damaged"):
            decode(tree, nested=lambda position: position)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000 + 120 * len(tree)
    assert time.perf_counter() - began < 10


def decode_quietly(tree):
    """Decode, with what is imported on use out of the way."""
    with contextlib.suppress(*REFUSALS):
        decode(tree)


def test_unknown_marks_and_zones_are_of_another_version():
    """What a newer version or another machine knows is said to be so, not called damage."""
    with pytest.raises(FormatError, match="pip install --upgrade mltraq_ds"):
        decode(_ext(99, b""))
    with pytest.raises(FormatError, match="pip install tzdata"):
        decode(_ext(26, msgpack.packb(["Mars/Olympus_Mons"])))


def test_members_are_used_once():
    """A small tree cannot multiply a large member."""
    content = MemorySource("x.bin", b"x" * 100_000)
    tree = msgpack.packb([msgpack.ExtType(25, b"\x92\x00\xc2")] * 2)
    with pytest.raises(CorruptBlobError, match=r"x\.bin.*referred to twice"):
        decode(tree, [content])


def test_tree_member_is_checked():
    """The tree in a member is as little trusted as any other."""
    for content in (b"\x91" * 5000 + b"\xc0", b"\xdd\xff\xff\xff\xff", _ext(1, b"\x00")):
        with pytest.raises(CorruptBlobError):
            decode(_ext(1, b"\x00"), [MemorySource("x.msgpack", content)])


SEEDS = [
    encode([value for value in VALUES if not isinstance(value, (bytes, bytearray, str)) or len(value) < 100]).tree,
    encode([np.float32(1), np.arange(5), np.datetime64("2020-01-01"), np.str_("a"), np.zeros((2, 2), order="F")]).tree,
    encode({"a": Pickled([1, 2]), "b": np.array([1, "a"], object), "c": np.zeros(2, [("x", "i4"), ("y", "U3")])}).tree,
]


@given(st.sampled_from(SEEDS), st.data())
def test_mutated_trees(tree, data):
    """However a tree is changed, what comes out is a value or one of our errors."""
    mutated = bytearray(tree)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
        if not mutated:
            break
    decode_quietly(bytes(mutated))


@given(st.binary(max_size=300))
def test_random_trees(tree):
    """Random bytes are a value or one of our errors."""
    decode_quietly(tree)


@given(st.integers(1, 26), st.binary(max_size=60))
def test_random_ext_types(code, content):
    """Random bytes in each ext type are a value or one of our errors."""
    decode_quietly(_ext(code, content))


def test_error_of_the_storage_passes():
    """That a storage does not answer is not taken for damage."""

    class Failing(MemorySource):
        def read(self):
            raise TimeoutError("no answer")

    encoded = encode(b"x" * 100_000)
    with pytest.raises(TimeoutError):
        decode(encoded.tree, [Failing("x.bin", b"")])


@pytest.mark.parametrize("suffix", ["bin", "x" * 690])
@pytest.mark.parametrize("name", ["a", "a/b", "", "\ud800", "x" * 300])
@pytest.mark.parametrize("own", ["", "folder/own.bin"])
def test_the_only_member_has_the_name_of_a_first_one(name, suffix, own):
    """The only member of a value is named as it would be with others behind it."""
    value, other = [1], [2]
    member = Member(suffix, 1, lambda: [b"1"], own)
    (only,) = member_names(name, value, [member], [value])
    first, _ = member_names(name, value, [member, Member("npy", 1, lambda: [b"2"])], [value, other])
    assert only == first
