"""Random values of every supported type, and a comparison that takes nothing for equal that is not the same."""

import datetime
import decimal
import fractions
import math
import struct
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, deque
from pathlib import PosixPath, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd
import pyarrow as pa

_ZONES = [
    None,
    datetime.UTC,
    datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)),
    datetime.timezone(datetime.timedelta(seconds=1, microseconds=5), "odd"),
    zoneinfo.ZoneInfo("Europe/Berlin"),
    zoneinfo.ZoneInfo("America/St_Johns"),
]
_TEXTS = [
    "",
    "a",
    "ä",
    "\0",
    "\ud800",
    "\udc00\ud800",
    "\ud83d\ude00",
    "\U0001f600",
    "$ref",
    "$",
    "x" * 300,
    "\u2028\n\r",
    "_",
    "nan",
]
_FLOATS = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, 1e22, -1.5]
_INTS = [
    0,
    1,
    -1,
    2**31,
    -(2**31),
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    2**2000,
    -(2**2001),
]
_DTYPES = [*"?bBhHiIlLqQefdgFDG", ">i2", ">u4", ">f8", ">c16", "S0", "S3", "U0", "U2", ">U3", "V4"]
_DTYPES += ["M8[ns]", "M8[D]", ">M8[s]", "m8[us]", "m8[25s]", "M8"]


def _bits(size, rng):
    return rng.randbytes(size)


def scalar(rng):
    kind = rng.randrange(24)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind <= 2:
        return rng.choice(_INTS) + rng.randrange(-2, 3)
    if kind <= 4:
        return rng.choice([*_FLOATS, rng.gauss(0, 1), rng.gauss(0, 1e-300)])
    if kind == 5:
        return complex(rng.choice(_FLOATS), rng.choice(_FLOATS))
    if kind <= 7:
        return "".join(rng.choices(_TEXTS, k=rng.randrange(3)))
    if kind == 8:
        return _bits(rng.choice([0, 1, 5, 40]), rng)
    if kind == 9:
        return datetime.date(rng.randrange(1, 9999), rng.randrange(1, 13), rng.randrange(1, 28))
    if kind == 10:
        moment = datetime.datetime(
            rng.choice([1, 1900, 2023, 9998]), 10, 29, 2, 30, rng.randrange(60), rng.randrange(10**6)
        )
        return moment.replace(tzinfo=rng.choice(_ZONES), fold=rng.randrange(2))
    if kind == 11:
        return datetime.time(
            rng.randrange(24), 5, 0, rng.randrange(10**6), tzinfo=rng.choice(_ZONES[:4]), fold=rng.randrange(2)
        )
    if kind == 12:
        return datetime.timedelta(rng.randrange(-(10**9) + 1, 10**9), rng.randrange(86400), rng.randrange(10**6))
    if kind == 13:
        return uuid.UUID(int=rng.getrandbits(128))
    if kind == 14:
        return decimal.Decimal(
            rng.choice(["NaN", "sNaN123", "-0", "1E+999999", "-Infinity", "1.10", "0E-30", "7" * 60])
        )
    if kind == 15:
        return fractions.Fraction(rng.choice(_INTS), rng.choice([1, 3, 7, 2**70]))
    if kind == 16:
        return rng.choice([PosixPath, PurePosixPath, PureWindowsPath])(
            rng.choice(["", "/", "a/../b", "C:\\x", "//net/x", "ä"])
        )
    if kind == 17:
        return range(rng.randrange(-9, 9), rng.choice([0, 10**30]), rng.choice([1, -2, 10**25]))
    if kind == 18:
        return rng.choice([decimal.ROUND_UP, datetime.UTC, zoneinfo.ZoneInfo("Asia/Tokyo")])
    if kind == 19:
        return _pandas_scalar(rng)
    dtype = np.dtype(rng.choice([d for d in _DTYPES if d[0] != ">" and d != "M8"]))
    if dtype.kind == "U":
        return np.str_(rng.choice(_TEXTS))
    if dtype.kind == "S":
        return np.bytes_(_bits(3, rng))
    return np.frombuffer(_clean(_bits(dtype.itemsize, rng), dtype), dtype)[0]


def _clean(content, dtype):
    """Return bytes that are an item of the dtype: a bool is 0 or 1, an x87 float has no bits in its padding."""
    if dtype.kind == "b":
        return bytes(byte & 1 for byte in content)
    if dtype.char in "gG":
        parts = len(content) // 16
        return np.array([1.25] * parts, "g").tobytes()
    if dtype.kind == "U":
        return np.array(["ab"] * (len(content) // max(dtype.itemsize, 1)), dtype).tobytes()
    return content


def _pandas_scalar(rng):
    return rng.choice(
        [
            pd.NaT,
            pd.NA,
            pd.Timestamp(1698539400123456789 + 3600 * 10**9 * rng.randrange(3), tz=rng.choice(_ZONES)),
            pd.Timestamp("1900-01-01").as_unit(rng.choice(["s", "ms", "us"])),
            pd.Timedelta(rng.randrange(-(10**15), 10**15)),
            pd.Period("2023Q4", freq="Q"),
            pd.Interval(0, 1.5, closed="left"),
        ]
    )


def array(rng):
    dtype = np.dtype(rng.choice(_DTYPES))
    if rng.random() < 0.2:
        parts = rng.sample(["?", ">i2", "f8", "M8[ns]", "S3", "U2", "g"], rng.randrange(1, 4))
        fields = [(f"f{i}", part, (2,)) if rng.random() < 0.3 else (f"f{i}", part) for i, part in enumerate(parts)]
        dtype = np.dtype(fields, align=rng.random() < 0.5)
    shape = tuple(rng.choice([0, 1, 2, 3, 7, 40]) for _ in range(rng.randrange(4)))
    items = math.prod(shape)
    if dtype.names:
        found = np.zeros(shape, dtype)
        for name in dtype.names:
            part = dtype[name].base
            sizes = found[name].shape
            found[name] = np.frombuffer(_clean(_bits(part.itemsize * math.prod(sizes), rng), part), part).reshape(sizes)
    elif dtype.itemsize:
        found = np.frombuffer(_clean(_bits(items * dtype.itemsize, rng), dtype), dtype).reshape(shape).copy()
    else:
        found = np.zeros(shape, dtype)
    form = rng.randrange(4)
    if form == 1:
        return np.asfortranarray(found)
    if form == 2 and found.ndim:
        return found[::-1]
    return found.T if form == 3 else found


def objects(rng):
    found = np.empty(rng.randrange(4), object)
    for i in range(len(found)):
        found[i] = value(rng, 1)
    return found


def _column(rng, rows):
    kind = rng.randrange(16)
    ints = [rng.randrange(-100, 100) for _ in range(rows)]
    gaps = [rng.choice([None, i]) for i in ints]
    if kind < 3:
        return np.array(ints, rng.choice(["i1", "i8", "f4", "f8", "c8", "?"]))
    if kind == 3:
        return pd.array(gaps, dtype=rng.choice(["Int8", "Int64", "Float32"]))
    if kind == 4:
        return pd.array([None if gap is None else gap > 0 for gap in gaps], dtype="boolean")
    if kind == 5:
        return pd.array(
            [None if gap is None else rng.choice(["", "ä", "a\0b", "x"]) for gap in gaps],
            dtype=rng.choice(["string", "str"]),
        )
    if kind == 6:
        return pd.Categorical(
            rng.choices(["a", "b", None], k=rows), categories=["b", "a", "c"], ordered=rng.random() < 0.5
        )
    if kind == 7:
        return pd.Categorical(rng.choices([1.5, None, 2.5], k=rows))
    if kind == 8:
        unit = rng.choice(["s", "ms", "us", "ns"])
        zone = rng.choice(_ZONES)
        moments = pd.DatetimeIndex(np.array(ints, f"M8[{unit}]")).insert(0, pd.NaT)[:rows]
        return moments if zone is None else moments.tz_localize("UTC").tz_convert(zone)
    if kind == 9:
        return pd.array(np.array(ints, "m8[us]"))
    if kind == 10:
        return pd.period_range("2020", periods=rows, freq=rng.choice(["D", "M", "h"])).array
    if kind == 11:
        return pd.arrays.IntervalArray.from_arrays(np.array(ints), np.array(ints) + 1, closed="both")
    if kind == 12:
        return pd.arrays.SparseArray(
            np.array([0.0 if i < 50 else i for i in ints]), fill_value=rng.choice([0.0, math.nan])
        )
    if kind == 13:
        return pd.array(gaps, dtype=pd.ArrowDtype(rng.choice([pa.int32(), pa.float64(), pa.timestamp("us")])))
    mixed = np.empty(rows, object)
    for i in range(rows):
        mixed[i] = rng.choice([None, math.nan, "a", "\ud800", b"x", 1, 2.5, (1, 2), [3], pd.NaT])
    return mixed


def _index(rng, rows):
    kind = rng.randrange(8)
    if kind < 3:
        return pd.RangeIndex(3, 3 + 2 * rows, 2, name=rng.choice([None, "r", ("a", 1), 5]))
    if kind == 3:
        return pd.date_range(
            "2023-10-28", periods=rows, freq=rng.choice(["D", "h", "MS", "2W-TUE"]), tz=rng.choice(_ZONES), name="t"
        )
    if kind == 4:
        return pd.MultiIndex.from_arrays([np.arange(rows) % 2, [f"k{i}" for i in range(rows)]], names=[None, "k"])
    if kind == 5:
        return pd.CategoricalIndex(rng.choices("ab", k=rows))
    if kind == 6:
        return pd.Index(_filled(rng.choices([1, "a", None, (2, 3)], k=rows)), dtype=object)
    return pd.Index([float(i) for i in range(rows)], name="f")


def frame(rng):
    rows = rng.choice([0, 1, 3, 50])
    names = rng.choices(["a", "b", "a", 1, ("t", 2), None, "\ud800", "index", ""], k=rng.randrange(5))
    series = [_series(rng, rows, pd.RangeIndex(rows), None) for _ in names]
    made = pd.concat(series, axis=1) if series else pd.DataFrame(index=pd.RangeIndex(rows))
    made.columns = pd.Index(names, dtype=object, tupleize_cols=False)
    made.index = _index(rng, rows)
    if rng.random() < 0.3:
        made.attrs = {"units": ["m", 1.5], 7: None}
    return made


def series(rng):
    rows = rng.choice([0, 1, 3, 50])
    return _series(rng, rows, _index(rng, rows), rng.choice([None, "n", 3, ("a", "b")]))


def _series(rng, rows, index, name):
    column = _column(rng, rows)
    dtype = object if isinstance(column, np.ndarray) and column.dtype == object else None
    return pd.Series(column, index=index, name=name, dtype=dtype)


def container(rng, depth):
    items = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = [hashable(rng) for _ in items]
    kind = rng.randrange(10)
    if kind <= 1:
        return items
    if kind == 2:
        return tuple(items)
    if kind <= 4:
        return dict(zip(keys, items, strict=True))
    if kind == 5:
        return set(keys)
    if kind == 6:
        return frozenset(keys)
    if kind == 7:
        return OrderedDict(zip(keys, items, strict=True))
    if kind == 8:
        return defaultdict(rng.choice([None, int, list, dict, deque]), zip(keys, items, strict=True))
    return deque(items, rng.choice([None, 5]))


def hashable(rng):
    while True:
        found = scalar(rng)
        try:
            hash(found)
        except TypeError:
            continue
        if not isinstance(found, decimal.Decimal) or not found.is_snan():
            return rng.choice([found, (found, scalar_key(rng))])


def scalar_key(rng):
    return rng.choice([1, "a", None, (2, b"x"), frozenset([3])])


def value(rng, depth=0):
    kind = rng.randrange(20)
    if kind < 8 or depth > 4:
        return scalar(rng)
    if kind < 13:
        return container(rng, depth)
    if kind < 16:
        return array(rng)
    if kind == 16:
        return objects(rng)
    if kind == 17:
        return frame(rng)
    if kind == 18:
        return series(rng)
    if rng.random() < 0.3:
        return slice(scalar(rng), None, scalar(rng))
    return bytearray(_bits(rng.choice([0, 9, 70_000]), rng))


def differs(one, two, path=""):
    """Return where two values are not the same, or None; NaNs of the same bits are."""
    if type(one) is not type(two):
        return f"{path}: type {type(one)} and {type(two)}"
    if isinstance(one, float):
        return None if struct.pack("d", one) == struct.pack("d", two) else f"{path}: {one!r} {two!r}"
    if isinstance(one, np.generic) and not isinstance(one, (np.str_, np.bytes_)):
        same = one.dtype == two.dtype and one.dtype.char == two.dtype.char
        return None if same and one.tobytes()[:10] == two.tobytes()[:10] else f"{path}: {one!r} {two!r}"
    if isinstance(one, complex):
        return differs(one.real, two.real, path) or differs(one.imag, two.imag, path)
    if isinstance(one, np.ndarray):
        return _array_differs(one, two, path)
    if isinstance(one, (pd.DataFrame, pd.Series)):
        return _pandas_differs(one, two, path)
    if isinstance(one, dict):
        if isinstance(one, defaultdict) and one.default_factory is not two.default_factory:
            return f"{path}: default_factory"
        return differs([*one.items()], [*two.items()], path)
    if isinstance(one, (set, frozenset)):
        return differs(sorted(map(ascii_of, one)), sorted(map(ascii_of, two)), path)
    if isinstance(one, deque) and one.maxlen != two.maxlen:
        return f"{path}: maxlen"
    if isinstance(one, (list, tuple, deque)):
        if len(one) != len(two):
            return f"{path}: length {len(one)} {len(two)}"
        return next(
            filter(None, (differs(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(one, two, strict=True)))), None
        )
    if isinstance(one, slice):
        return differs([one.start, one.stop, one.step], [two.start, two.stop, two.step], path)
    if isinstance(one, int):
        return None if one == two else f"{path}: int"
    if isinstance(one, (datetime.datetime, datetime.time)) and one.fold != two.fold:
        return f"{path}: fold"
    if isinstance(one, (datetime.datetime, pd.Timestamp)) and type(one.tzinfo) is not type(two.tzinfo):
        return f"{path}: zone"
    if isinstance(one, (pd.Timestamp, pd.Timedelta)) and one is not pd.NaT and one.unit != two.unit:
        return f"{path}: unit"
    return None if ascii_of(one) == ascii_of(two) else f"{path}: {one!r} {two!r}"


def ascii_of(found):
    if isinstance(found, tuple):
        return f"({', '.join(map(ascii_of, found))})"
    if type(found) is int:
        return hex(found)
    if isinstance(found, (fractions.Fraction, range)):
        parts = (
            [found.numerator, found.denominator]
            if isinstance(found, fractions.Fraction)
            else [found.start, found.stop, found.step]
        )
        return f"{type(found).__name__}{[*map(hex, parts)]}"
    return f"{type(found).__name__} {found!a}"


def _array_differs(one, two, path):
    if one.dtype != two.dtype or one.dtype.str != two.dtype.str or one.shape != two.shape:
        return f"{path}: {one.dtype} {one.shape} {two.dtype} {two.shape}"
    if one.dtype.names and (
        one.dtype.isalignedstruct != two.dtype.isalignedstruct or one.dtype.fields != two.dtype.fields
    ):
        return f"{path}: fields"
    if one.flags.f_contiguous and not one.flags.c_contiguous and not two.flags.f_contiguous:
        return f"{path}: order"
    if one.dtype == object:
        return differs([*one.reshape(-1)], [*two.reshape(-1)], path)
    if one.dtype.names:
        return next(filter(None, (_array_differs(one[n], two[n], f"{path}.{n}") for n in one.dtype.names)), None)
    if one.dtype.char in "gG":
        return None if np.array_equal(one, two, equal_nan=True) else f"{path}: values"
    return None if one.tobytes() == two.tobytes() else f"{path}: values"


def _pandas_differs(one, two, path):
    try:
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, two, check_exact=True, check_freq=True, check_column_type="exact")
            columns = [(one.iloc[:, i], two.iloc[:, i]) for i in range(one.shape[1])]
        else:
            pd.testing.assert_series_equal(one, two, check_exact=True)
            columns = [(one, two)]
    except AssertionError as error:
        return f"{path}: {error!s:.300}"
    for a, b in columns:
        if a.dtype == object:
            found = differs(list(a), list(b), path)
            if found:
                return found
        if a.dtype != b.dtype or type(a.array) is not type(b.array):
            return f"{path}: {a.dtype} {b.dtype}"
    if type(one.index) is not type(two.index) or getattr(one.index, "freq", None) != getattr(two.index, "freq", None):
        return f"{path}: index {one.index!r} {two.index!r}"
    return differs([one.attrs], [two.attrs], path) or differs([*one.index.names], [*two.index.names], path)


def _filled(items):
    found = np.empty(len(items), object)
    for i, item in enumerate(items):
        found[i] = item
    return found
