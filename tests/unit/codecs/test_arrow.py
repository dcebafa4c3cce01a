"""Values of pandas come back exactly: type, dtype, index, names, labels, attributes."""

from __future__ import annotations

import datetime
import subprocess
import sys
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytz
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import pandas as pdst

from mltraq_ds.codecs import arrow
from mltraq_ds.codecs.pandas_index import encode_index
from mltraq_ds.errors import FormatError, MissingExtraError, UnsupportedTypeError
from tests.unit.codecs.arrow_values import BERLIN, PANDAS_3, Memory, arrays, indexes, there_and_back, written

ARRAYS = arrays()
INDEXES = indexes()
FRAME, SERIES = arrow.PandasDataFrameCodec(), arrow.PandasSeriesCodec()
INDEX, ARRAY, SCALAR = arrow.PandasIndexCodec(), arrow.PandasArrayCodec(), arrow.PandasScalarCodec()


def series(array: Any, **options: Any) -> Any:
    """Return a series of exactly the dtype of an array: pandas 3 makes text of objects otherwise."""
    return pd.Series(array, dtype=object if array.dtype == object else None, **options)


def assert_same_elements(left: Any, right: Any) -> None:
    """Compare objects by type and representation: pandas takes None, NaN and NA for equal."""
    assert [(type(a), repr(a)) for a in left] == [(type(b), repr(b)) for b in right]


def assert_same_frame(left: Any, right: Any) -> None:
    """Compare all that pandas compares, and dtypes with their representation."""
    pd.testing.assert_frame_equal(left, right, check_exact=True, check_freq=True, check_flags=True)
    assert [repr(dtype) for dtype in left.dtypes] == [repr(dtype) for dtype in right.dtypes]
    assert repr(left.columns) == repr(right.columns)
    assert left.attrs == right.attrs


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_column_of_every_dtype_comes_back(kind: str) -> None:
    """As a column, between others, and again with no rows, one, and every second."""
    frame = pd.DataFrame({"first": range(6), "x": series(ARRAYS[kind]()), "last": 0.5})
    for value in (frame, frame[:0], frame[:1], frame[::2], frame[1:5]):
        back = there_and_back(FRAME, value)
        assert_same_frame(value, back)
        if frame.x.dtype == object:
            assert_same_elements(value.x, back.x)


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_series_of_every_dtype_comes_back(kind: str) -> None:
    """Named or not, over an index or a range."""
    for options in ({}, {"name": ("a", 1)}, {"name": "x", "index": list("abcdef")}):
        value = series(ARRAYS[kind](), **options)
        back = there_and_back(SERIES, value)
        pd.testing.assert_series_equal(value, back, check_exact=True, check_flags=True)
        assert (type(back.name), repr(back.dtype)) == (type(value.name), repr(value.dtype))


@pytest.mark.parametrize("repeats", [1, 200])
@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_of_every_dtype_comes_back(kind: str, repeats: int) -> None:
    """Alone, small (in the description) and large (in a member), with its class."""
    value = ARRAYS[kind]()
    if isinstance(value, np.ndarray):
        value = pd.arrays.NumpyExtensionArray(value)
    value = value.take(list(range(6)) * repeats)
    back = there_and_back(ARRAY, value)
    assert type(back) is type(value)
    pd.testing.assert_extension_array_equal(value, back, check_exact=True)


@pytest.mark.parametrize("kind", INDEXES)
def test_every_index_comes_back(kind: str) -> None:
    """Alone, over a series, over a frame, and as column labels, with type, names and frequency."""
    index = INDEXES[kind]()
    for value in (index, index[:0], index.repeat(100)):
        back = there_and_back(INDEX, value)
        assert type(back) is type(value)
        pd.testing.assert_index_equal(value, back, exact=True, check_exact=True)
        assert getattr(back, "freq", None) == getattr(value, "freq", None)
        assert back.names == value.names
        if isinstance(value, pd.MultiIndex):
            for ours, theirs in zip(back.levels, value.levels, strict=True):
                pd.testing.assert_index_equal(theirs, ours, exact=True)
    assert_same_frame(*[(frame := pd.DataFrame({"x": range(6)}, index=index)), there_and_back(FRAME, frame)])
    assert_same_frame(*[(frame := pd.DataFrame(np.eye(6), columns=index)), there_and_back(FRAME, frame)])
    value = pd.Series(range(6), index=index)
    pd.testing.assert_series_equal(value, there_and_back(SERIES, value), check_freq=True)


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "a", "a_1", "b"],
        [1, "1", 1.5, None],
        [np.nan, None, pd.NaT, ("x", 2)],
        [pd.Timestamp("2024"), datetime.date(2024, 1, 1), b"x", frozenset({1})],
        ["", "\ud800", "\0", "žluť"],
        [0, 1, 2, 3],
    ],
    ids=repr,
)
def test_column_labels_of_any_type_come_back(labels: list[Any]) -> None:
    """Duplicate, missing, mixed: labels are data."""
    columns = pd.Index(labels, dtype=object, tupleize_cols=False, name="who")
    value = pd.DataFrame([[1, 2.5, "x", True]] * 2, dtype=object)
    value.columns = columns
    back = there_and_back(FRAME, value)
    assert_same_frame(value, back)
    assert_same_elements(value.columns, back.columns)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame(),
        lambda: pd.DataFrame(index=range(5)),
        lambda: pd.DataFrame(index=list("abc")),
        lambda: pd.DataFrame(columns=list("abc")),
        lambda: pd.DataFrame(columns=pd.MultiIndex.from_product([["a"], [1, 2]], names=["x", None])),
        lambda: pd.DataFrame({"a": pd.Series([], dtype="str"), "b": pd.Series([], dtype="category")}),
        lambda: pd.DataFrame(np.arange(12.0).reshape(3, 4)),
        lambda: pd.DataFrame(np.arange(12.0).reshape(4, 3).T),
        lambda: pd.DataFrame(np.asfortranarray(np.arange(12.0).reshape(3, 4))),
        lambda: pd.DataFrame(np.random.default_rng(1).random((600_000, 5)), copy=False)[::2],
        lambda: pd.DataFrame(np.arange(800_000).reshape(400_000, 2).view("M8[us]"), copy=False),
        lambda: pd.DataFrame({i: np.arange(3) if i % 2 else np.ones(3) for i in range(300)}),
        lambda: pd.DataFrame({"a": [1, 2]}).set_flags(allows_duplicate_labels=False),
    ],
)
def test_frames_of_every_shape_come_back(make: Any) -> None:
    """No columns, no rows, one block, many blocks, strided memory, flags."""
    value = make()
    assert_same_frame(value, there_and_back(FRAME, value))


def test_attributes_and_flags_come_back() -> None:
    """`attrs` of frame and series, and the flag that forbids duplicate labels."""
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"unit": "m", "nested": {"x": [1, 2]}}
    assert there_and_back(FRAME, frame).attrs == frame.attrs
    value = pd.Series([1]).set_flags(allows_duplicate_labels=False)
    value.attrs = {"k": 1}
    back = there_and_back(SERIES, value)
    assert (back.attrs, back.flags.allows_duplicate_labels) == ({"k": 1}, False)


def test_a_wide_frame_does_not_make_pandas_complain() -> None:
    """A column can be added to a frame of 300 read columns: they are joined, or pandas would warn (an error here)."""
    frame = there_and_back(FRAME, pd.DataFrame({i: np.arange(3) if i % 2 else np.ones(3) for i in range(300)}))
    frame["new"] = 1
    assert frame.shape == (3, 301)


def test_what_was_read_can_be_changed() -> None:
    """Columns read are writable, whichever way they were built."""
    frame = pd.DataFrame({"a": [1, 2], "b": [True, False], "c": ["x", "y"], "d": pd.Categorical(["u", "v"])})
    for value in (frame, frame[["a"]], pd.DataFrame(np.zeros((2, 3)), columns=list("abc"))):
        back = there_and_back(FRAME, value)
        back.iloc[0, 0] = 7
        back.loc[1, "a"] = 8
        assert back["a"].tolist() == [7, 8]


SCALARS = [
    pd.NaT,
    pd.NA,
    *(pd.Timestamp("2024-10-27 02:30").as_unit(unit) for unit in ("s", "ms", "us", "ns")),
    pd.Timestamp("2024-10-27 00:30", tz="UTC").tz_convert(BERLIN),
    pd.Timestamp("2024-10-27 01:30", tz="UTC").tz_convert(BERLIN),
    pd.Timestamp("2024", tz=datetime.timezone(datetime.timedelta(hours=1))),
    pd.Timestamp(year=2024, month=1, day=1, hour=2, fold=1),
    pd.Timestamp.min,
    pd.Timestamp.max,
    *(pd.Timedelta(-5, "s").as_unit(unit) for unit in ("s", "ms", "us", "ns")),
    pd.Period("2024-02", "M"),
    pd.Period("2024-02-03", "W-WED"),
    pd.Interval(0, 1.5, "both"),
    pd.Interval(pd.Timestamp("2024"), pd.Timestamp("2025"), "left"),
    pd.offsets.Hour(3),
    pd.offsets.Day(2),
    pd.offsets.BusinessHour(start="10:00"),
    pd.offsets.Week(weekday=2),
    pd.DateOffset(months=1, days=2),
    pd.DateOffset(2, hour=3),
    pd.offsets.MonthEnd(normalize=True),
    pd.offsets.CustomBusinessDay(holidays=["2024-01-02"], weekmask="Mon Tue"),
]


@pytest.mark.parametrize("value", SCALARS, ids=repr)
def test_every_scalar_comes_back(value: Any) -> None:
    """With unit, zone, fold, frequency and the side on which an interval is closed."""
    back = there_and_back(SCALAR, value)
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    if isinstance(value, pd.Timestamp | pd.Timedelta):
        assert (back.unit, back.asm8) == (value.unit, value.asm8)
        assert getattr(back, "fold", 0) == getattr(value, "fold", 0)
    if value is pd.NaT or value is pd.NA:
        assert back is value
    else:
        assert back == value


def test_zones_of_other_libraries() -> None:
    """Zones of dateutil and pytz come back, as theirs if the library is there; nameless ones are refused."""
    tz = pytest.importorskip("dateutil.tz")
    for zone in (tz.UTC, tz.gettz("Europe/Berlin")):
        try:
            value = pd.Timestamp("2024", tz=zone)
        except AttributeError:
            pytest.skip("this pandas is too old for this dateutil")
        back = there_and_back(SCALAR, value)
        assert back == value
        assert type(back.tz) is type(zone)
    with pytest.raises(UnsupportedTypeError, match="tz_convert"):
        SCALAR.encode(pd.Timestamp("2024", tz=tz.tzlocal()))
    ticks = {"kind": "timestamp", "ticks": 0, "unit": "s", "fold": 0}
    named = SCALAR.decode({**ticks, "tz": {"kind": "pytz", "key": "Europe/Berlin"}}, [])
    assert str(named.tz) == "Europe/Berlin"
    fixed = SCALAR.decode({**ticks, "tz": {"kind": "pytz_offset", "us": 3_600_000_000}}, [])
    assert fixed.utcoffset() == datetime.timedelta(hours=1)


def test_zones_of_pytz() -> None:
    """Zones of pytz come back as theirs."""
    for zone in (pytz.UTC, pytz.timezone("Europe/Berlin"), pytz.FixedOffset(90)):
        value = pd.Timestamp("2024-07-01", tz=zone)
        back = there_and_back(SCALAR, value)
        assert (back, back.utcoffset(), str(back.tz)) == (value, value.utcoffset(), str(value.tz))


def test_a_zone_that_this_machine_lacks_is_named() -> None:
    """The error says what to install; a name that is a path is refused."""
    parts = SERIES.encode(pd.Series(pd.date_range("2024", periods=2, tz="Europe/Berlin")))
    for key, error in (("Mars/Olympus", MissingExtraError), ("../../etc/passwd", ValueError), (3, ValueError)):
        parts.meta["values"]["tz"]["key"] = key
        with pytest.raises(error):
            SCALAR.decode(
                {"kind": "timestamp", "ticks": 0, "unit": "s", "fold": 0, "tz": parts.meta["values"]["tz"]}, []
            )


class Subframe(pd.DataFrame):
    """A subclass, as geopandas has."""


class Subseries(pd.Series):
    """A subclass."""


class OddIndex(pd.Index):
    """A subclass."""


def test_subclasses_and_foreign_types_are_not_taken() -> None:
    """A subclass would come back as its base; classes that only share a name are others' too."""
    codecs = (FRAME, SERIES, INDEX, ARRAY, SCALAR, arrow.ArrowTableCodec(), arrow.PolarsDataFrameCodec())
    odd = type("DataFrame", (), {})()
    for value in (Subframe(), Subseries([1]), odd, 1, "x", None, np.zeros(3), datetime.datetime(2024, 1, 1), [1]):
        assert not any(codec.accepts(value) for codec in codecs), value
    ours = type("Timestamp", (pd.Timestamp,), {})(2024, 1, 1)
    assert SCALAR.accepts(ours) == (type(ours) is pd.Timestamp)


def test_values_of_foreign_libraries_inside_a_frame_are_refused() -> None:
    """An extension array that pandas does not define is named with its column; so is an index."""

    class Foreign(pd.arrays.IntegerArray):
        pass

    Foreign.__module__ = "foreign"
    frame = pd.DataFrame({"geo": pd.Series(Foreign(np.array([1]), np.array([False])))})
    with pytest.raises(UnsupportedTypeError, match=r"'geo'.*foreign\..*Foreign"):
        FRAME.encode(frame)
    assert not ARRAY.accepts(frame["geo"].array)
    with pytest.raises(UnsupportedTypeError, match="index of type"):
        encode_index(type("OddIndex", (), {"__module__": "foreign"})(), None)


def test_what_cannot_be_described_exactly_is_refused() -> None:
    """A frequency of one's own, sparse objects: errors with a remedy, not approximations."""

    class Mine(pd.DateOffset):
        pass

    with pytest.raises(UnsupportedTypeError, match="freq=None"):
        INDEX.encode(pd.date_range("2024-01-01", periods=3, freq=Mine(days=2)))
    assert not SCALAR.accepts(Mine(days=2))
    sparse = pd.Series(pd.arrays.SparseArray(np.array([1, "a"], object)))
    with pytest.raises(UnsupportedTypeError, match="dense"):
        SERIES.encode(sparse)


def test_an_extension_type_whose_library_is_missing_is_named() -> None:
    """It would come back as its storage; the error says which type to register."""
    value = pd.Series(ARRAYS["arrow int"]())
    parts = SERIES.encode(value)
    parts.meta["values"]["extensions"] = ["geo.point"]
    with pytest.raises(FormatError, match=r"geo\.point"):
        SERIES.decode(parts.meta, [Memory(written(parts.members[0]))])


def test_asking_imports_nothing() -> None:
    """Codecs answer for any value without importing pandas, pyarrow, polars or torch."""
    code = """
import sys
from mltraq_ds.codecs import arrow, tensor
codecs = [getattr(arrow, name)() for name in arrow.__all__] + [tensor.TorchTensorCodec()]
print([codec.accepts(value) for codec in codecs for value in (1, "x", object())].count(True))
print(sorted({"pandas", "pyarrow", "polars", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["0", "[]"]


TIMES = ["m8[us]", "M8[s]"] if PANDAS_3 else []  # Hypothesis cannot draw them with pandas 2
COLUMNS = st.sampled_from(["i1", "u8", "f2", "f4", "f8", "c16", "?", "M8[ns]", *TIMES])


@st.composite
def frames(draw: Any) -> Any:
    """Frames of random dtypes, values, indexes and labels."""
    dtypes = draw(st.lists(COLUMNS, max_size=5))
    labels = draw(st.lists(st.text(max_size=3) | st.integers(-2, 2), min_size=len(dtypes), max_size=len(dtypes)))
    index = draw(pdst.range_indexes(max_size=8) | pdst.indexes(dtype="i8", max_size=8, unique=False))
    frame = pd.DataFrame({i: draw(pdst.series(dtype=dtype, index=st.just(index))) for i, dtype in enumerate(dtypes)})
    if not dtypes:
        frame = pd.DataFrame(index=index)
    frame.columns = pd.Index(labels, dtype=object)
    if draw(st.booleans()):
        items = st.none() | st.text(max_size=3) | st.binary(max_size=3) | st.floats() | st.just(pd.NA)
        objects = draw(st.lists(items, min_size=len(index), max_size=len(index)))
        frame.insert(0, "o", pd.Series(np.fromiter(objects, object, len(objects)), index=index, dtype=object))
    return frame


@given(frames())
def test_random_frames_come_back(frame: Any) -> None:
    """Any frame comes back equal, with the same types inside objects."""
    back = there_and_back(FRAME, frame)
    assert_same_frame(frame, back)
    if len(frame.columns) and frame.columns[0] == "o":
        assert_same_elements(frame.iloc[:, 0], back.iloc[:, 0])


@given(st.datetimes(timezones=st.sampled_from([None, datetime.UTC, BERLIN, zoneinfo.ZoneInfo("Asia/Kolkata")])))
def test_random_timestamps_come_back(moment: datetime.datetime) -> None:
    """Any moment comes back with its zone and fold."""
    value = pd.Timestamp(moment)
    back = there_and_back(SCALAR, value)
    assert (back, back.unit, back.fold, str(back.tz)) == (value, value.unit, value.fold, str(value.tz))
