"""Values of pandas, pyarrow and polars of every kind, and members in memory, for the tests of their codecs."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa

#: pandas 2 compares no arrays of Arrow extension types.
PANDAS_3 = not pd.__version__.startswith("2.")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@dataclass
class Memory:
    """A member in memory that counts the bytes read in ranges."""

    content: bytearray
    name: str = "x.arrow"
    ranges: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self) -> memoryview:
        return memoryview(self.content)

    def read_range(self, offset: int, size: int) -> memoryview:
        self.ranges.append((offset, size))
        return memoryview(self.content)[offset : offset + size]

    def open(self) -> BinaryIO:
        return BytesIO(self.content)


def written(member: Any) -> bytearray:
    """Return the bytes of a member, iterated twice."""
    content = bytearray().join(bytes(part) for part in member.buffers())
    assert len(content) == member.size
    assert content == bytearray().join(bytes(part) for part in member.buffers())
    return content


def there_and_back(codec: Any, value: Any) -> Any:
    """Encode, copy every member's bytes, decode."""
    assert codec.accepts(value)
    parts = codec.encode(value)
    return codec.decode(parts.meta, [Memory(written(member)) for member in parts.members])


def arrays() -> dict[str, Callable[[], Any]]:
    """Return one maker per kind of column: six rows of an array or ndarray, with gaps where the dtype has them."""
    made: dict[str, Callable[[], Any]] = {}
    for dtype in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", ">i4", ">f8", "g"]:
        made[f"numpy {dtype}"] = lambda dtype=dtype: np.array([0, 1, 2, 3, 4, 120], dtype)
    made["numpy bool"] = lambda: np.array([True, False, True, True, False, False])
    made["numpy nan"] = lambda: np.array([np.nan, -0.0, np.inf, -np.inf, 1e-320, 1])
    for unit in ("s", "ms", "us", "ns"):
        days = ["2024-01-01", "NaT", "2024-10-27", "1969-12-31", "2262-01-01", "1700-01-01"]
        made[f"datetime {unit}"] = lambda unit=unit, days=days: pd.array(np.array(days, f"M8[{unit}]"))
        made[f"timedelta {unit}"] = lambda unit=unit: pd.array(np.array([0, 1, -1, 5, "NaT", 7], f"m8[{unit}]"))
        made[f"datetime {unit} zone"] = lambda unit=unit, days=days: (
            pd.DatetimeIndex(np.array(days, f"M8[{unit}]")).tz_localize("UTC").tz_convert(BERLIN).array
        )
    for label, zone in {
        "utc": datetime.UTC,
        "zoneinfo utc": zoneinfo.ZoneInfo("UTC"),
        "offset": datetime.timezone(datetime.timedelta(hours=5, minutes=30)),
        "named offset": datetime.timezone(datetime.timedelta(hours=-3), "somewhere"),
    }.items():
        made[f"zone {label}"] = lambda zone=zone: pd.date_range("2024", periods=6, freq="h", tz=zone).array
    for freq in ("D", "M", "h", "Q-NOV", "W-WED", "3D", "us"):
        made[f"period {freq}"] = lambda freq=freq: pd.array([*pd.period_range("2020", periods=5, freq=freq), pd.NaT])
    for dtype in ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"]:
        made[dtype] = lambda dtype=dtype: pd.array([1, None, 3, 4, None, 6], dtype=dtype)
    made["Int64 large"] = lambda: pd.array([2**63 - 1, None, -(2**63), 2**53 + 1, 0, 1], dtype="Int64")
    made["Int64 full"] = lambda: pd.array([1, 2, 3, 4, 5, 6], dtype="Int64")
    made["Float64 NaN and NA"] = lambda: pd.arrays.FloatingArray(
        np.array([1, np.nan, 3, 4, 5, 6.0]), np.array([False, False, True, False, False, False])
    )
    made["boolean"] = lambda: pd.array([True, None, False, True, None, True], dtype="boolean")
    text = ["", "a", None, "žluťoučký", "\0", "𝄞" * 40]
    for storage in ("python", "pyarrow"):
        for missing in (pd.NA, np.nan):
            made[f"string {storage} {missing}"] = lambda storage=storage, missing=missing: pd.array(
                text, dtype=text_dtype(storage, missing)
            )
    made["string surrogates"] = lambda: pd.array(
        ["\ud800", "a", None, "b", "c", "d"], dtype=text_dtype("python", pd.NA)
    )
    made["object text"] = lambda: np.array(["a", "", "c", "d", "ž", "f"], object)
    made["object text None"] = lambda: np.array(text, object)
    made["object text nan"] = lambda: np.array(["a", np.nan, "c", "d", np.nan, "f"], object)
    made["object text nan None"] = lambda: np.array(["a", np.nan, None, pd.NA, pd.NaT, "f"], object)
    made["object text float"] = lambda: np.array(["a", np.nan, 1.5, "d", "e", "f"], object)
    made["object bytes"] = lambda: np.array([b"a", b"", None, b"\xff\0", b"e", b"f"], object)
    made["object surrogates"] = lambda: np.array(["\ud800", "b", "c", "d", "e", "f"], object)
    made["object None"] = lambda: np.array([None] * 6, object)
    made["object nan"] = lambda: np.array([np.nan] * 6, object)
    made["object mixed"] = lambda: _objects([1, "a", None, float("nan"), (1, [2, 3]), {"k": b"v"}])
    made["object nested"] = lambda: _objects([[1, 2], [3], [], ["x"], [[1]], [None]])
    made["object np.str_"] = lambda: _objects([np.str_("a"), "b", "c", "d", "e", "f"])
    made["object bool"] = lambda: _objects([True, False, True, True, None, False])
    made["object Decimal"] = lambda: _objects(
        [Decimal("1.10"), Decimal("NaN"), None, Decimal(1), Decimal(2), Decimal(3)]
    )
    made["category text"] = lambda: pd.Categorical(
        ["a", "b", None, "a", "c", "b"], categories=["c", "a", "b", "unused"]
    )
    made["category ordered int"] = lambda: pd.Categorical([1, 3, 2, 1, None, 3], categories=[3, 1, 2], ordered=True)
    made["category interval"] = lambda: pd.cut(pd.Series([1, 5, 9, 2, 7, 100]), [0, 3, 6, 10]).array
    made["category datetime"] = lambda: pd.Categorical(pd.DatetimeIndex(["2024-01-01", "2024-01-02"] * 3, name="n"))
    made["category empty"] = lambda: pd.Categorical([None] * 6)
    made["category object"] = lambda: pd.Categorical(
        [1, "a", (1, 2), None, 1, "a"], categories=_objects([1, "a", (1, 2)])
    )
    made["category many"] = lambda: pd.Categorical.from_codes([0, 1, 299, -1, 3, 4], categories=list(range(300)))
    made["category named"] = lambda: pd.Categorical(
        pd.CategoricalIndex(list("abcabc"), name="x"), categories=pd.Index(list("cba"), name="y")
    )
    for closed in ("left", "right", "both", "neither"):
        made[f"interval {closed}"] = lambda closed=closed: pd.arrays.IntervalArray.from_arrays(
            [0, 1, np.nan, 3, 4, 5], [1, 2, np.nan, 4, 5, 6], closed=closed
        )
    made["interval int"] = lambda: pd.arrays.IntervalArray.from_breaks(range(7))
    made["interval datetime"] = lambda: pd.interval_range(pd.Timestamp("2024", tz=BERLIN), periods=6).array
    for kind in ("integer", "block"):
        made[f"sparse {kind}"] = lambda kind=kind: pd.arrays.SparseArray(
            [0, 0, 1, 2, 0, 3.5], fill_value=0.0, kind=kind
        )
    made["sparse nan"] = lambda: pd.arrays.SparseArray([np.nan, 0, 1, np.nan, 0, 3.5])
    made["sparse bool"] = lambda: pd.arrays.SparseArray([True, False, False, True, False, False])
    for label, array in {
        "int": pa.array([1, None, 3, 4, 5, 6]),
        "string": pa.array(text),
        "decimal": pa.array([Decimal("1.5"), None] * 3),
        "list": pa.array([[1], None, [], [None, 2], [3], [4]]),
        "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}] * 2),
        "map": pa.array([[("a", 1)], None, [], [("b", 2)], [], []], pa.map_(pa.string(), pa.int64())),
        "date": pa.array([datetime.date(2024, 1, 1), None] * 3),
        "time": pa.array([datetime.time(1, 2, 3), None] * 3),
        "zone": pa.array([1, None] * 3, pa.timestamp("ms", "Europe/Berlin")),
        "bool": pa.array([True, None, False] * 2),
        "null": pa.nulls(6),
        "dictionary": pa.array(["a", "b", None] * 2).dictionary_encode(),
        "binary": pa.array([b"a", None] * 3, pa.binary(1)),
        "half": pa.array(np.arange(6, dtype="f2")),
        **({"uuid": pa.array([bytes(16)] * 6, pa.uuid())} if PANDAS_3 and hasattr(pa, "uuid") else {}),
    }.items():
        made[f"arrow {label}"] = lambda array=array: pd.arrays.ArrowExtensionArray(pa.chunked_array([array]))
        made[f"arrow {label} sliced"] = lambda array=array: pd.arrays.ArrowExtensionArray(
            pa.chunked_array([array.slice(1, 2), array.slice(0, 4)])
        )
    return made


def text_dtype(storage: str, missing: Any) -> Any:
    """Return a dtype of text; pandas 2.2 has only one with NaN."""
    try:
        return pd.StringDtype(storage, na_value=missing)
    except TypeError:
        return pd.StringDtype(storage if missing is pd.NA else "pyarrow_numpy")


def _objects(items: list[Any]) -> Any:
    return np.fromiter(items, dtype=object, count=len(items))


def indexes() -> dict[str, Callable[[], Any]]:
    """Return one maker per kind of index, six rows each."""
    made: dict[str, Callable[[], Any]] = {
        "range": lambda: pd.RangeIndex(6),
        "range named": lambda: pd.RangeIndex(10, -2, -2, name=("a", 1)),
        "int": lambda: pd.Index([3, 1, 2, 3, 1, 2], name="n"),
        "text": lambda: pd.Index(list("abcdef")),
        "object": lambda: pd.Index(list("abcdef"), dtype=object, name=3),
        "object tuples": lambda: pd.Index([(1, 2), "a", None, np.nan, 1.5, b"x"], dtype=object, tupleize_cols=False),
        "all tuples": lambda: pd.Index([(i, "a") for i in range(6)], dtype=object, tupleize_cols=False),
        "bool": lambda: pd.Index([True, False] * 3),
        "complex": lambda: pd.Index(np.arange(6) * 1j),
        "interval": lambda: pd.interval_range(0, periods=6, name="i"),
        "category": lambda: pd.CategoricalIndex(list("abcabc"), ordered=True, name="c"),
        "Int64": lambda: pd.Index(pd.array([1, None, 3, 4, 5, 6], dtype="Int64")),
        "arrow": lambda: pd.Index(pd.array([1, None, 3, 4, 5, 6], dtype="int64[pyarrow]")),
        "multi": lambda: pd.MultiIndex.from_product([["a", "b"], pd.date_range("2024", periods=3)], names=["x", None]),
        "multi unused": lambda: pd.MultiIndex.from_product([[1, 2, 3], ["b", "a", "c"]], names=["x", "x"])[:6],
        "multi missing": lambda: pd.MultiIndex.from_arrays([[1, None, 2, 1, 2, None], list("abcdef")]),
        "multi interval": lambda: pd.MultiIndex.from_arrays(
            [pd.interval_range(0, periods=6), range(6)], names=[0, (1,)]
        ),
    }
    for freq in ("D", "h", "15min", "ME", "B", "W-SUN", "2D", "YE-MAR", "QS-FEB", "us"):
        made[f"dates {freq}"] = lambda freq=freq: pd.date_range("2024-01-01", periods=6, freq=freq, name="d")
    made["dates zone dst"] = lambda: pd.date_range("2024-10-25", periods=6, freq="D", tz=BERLIN)
    made["dates zone hours dst"] = lambda: pd.date_range("2024-10-27", periods=6, freq="h", tz=BERLIN)
    made["dates offset"] = lambda: pd.date_range("2024-01-01", periods=6, freq=pd.DateOffset(months=1, days=2))
    made["dates normalize"] = lambda: pd.date_range("2024-01-31", periods=6, freq=pd.offsets.MonthEnd(normalize=True))
    made["dates no freq"] = lambda: pd.DatetimeIndex(["2024-01-01", "NaT", "2023-01-01"] * 2)
    made["times"] = lambda: pd.timedelta_range("1s", periods=6, freq="3s", name="t")
    made["periods"] = lambda: pd.period_range("2020", periods=6, freq="M", name="p")
    return made
