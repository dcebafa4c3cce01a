"""Codecs of pandas, pyarrow and polars.  The libraries are imported when a value of theirs is met, not before.

Preserved: values bit by bit, types, dtypes (nullable, Arrow, categorical, sparse, zones and units of time), index type,
names and frequency, column labels of any supported hashable type, `attrs`, `flags`.

Not preserved: how rows are divided into chunks, how columns share blocks, cached hash tables, what lies under a missing
value of an Arrow array.  Zones of pytz become those of `zoneinfo` where pytz is not installed.  Subclasses
(geopandas) and extension arrays of other libraries are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from mltraq_ds.codecs.arrow_bounds import malformed
from mltraq_ds.codecs.base import Codec, MemberSource, Parts

__all__ = [
    "ArrowTableCodec",
    "PandasArrayCodec",
    "PandasDataFrameCodec",
    "PandasIndexCodec",
    "PandasScalarCodec",
    "PandasSeriesCodec",
    "PolarsDataFrameCodec",
    "PolarsSeriesCodec",
]


def _is_exactly(value: object, library: str, names: tuple[str, ...]) -> bool:
    """Tell whether the value's type is one of the library's public names, without importing the library."""
    kind = type(value)
    return kind.__name__ in names and getattr(sys.modules.get(library), kind.__name__, None) is kind


class PandasDataFrameCodec(Codec):
    """DataFrame: one Arrow file with a column for each column that Arrow holds exactly, others beside it."""

    name: ClassVar[str] = "pandas.dataframe/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return _is_exactly(value, "pandas", ("DataFrame",))

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import encode_frame

        return encode_frame(value)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import decode_frame

        with malformed():
            return decode_frame(meta, members)


class PandasSeriesCodec(Codec):
    """Series, named or not."""

    name: ClassVar[str] = "pandas.series/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return _is_exactly(value, "pandas", ("Series",))

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import encode_series

        return encode_series(value)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import decode_series

        with malformed():
            return decode_series(meta, members)


class PandasIndexCodec(Codec):
    """Index of every class that pandas defines."""

    name: ClassVar[str] = "pandas.index/1"
    _names = (
        "CategoricalIndex",
        "DatetimeIndex",
        "Index",
        "IntervalIndex",
        "MultiIndex",
        "PeriodIndex",
        "RangeIndex",
        "TimedeltaIndex",
    )

    def accepts(self, value: object) -> bool:  # docstring inherited
        return _is_exactly(value, "pandas", self._names)

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import encode_lone

        return encode_lone(value)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import decode_lone

        with malformed():
            return decode_lone(meta, members)


class PandasArrayCodec(Codec):
    """Categorical and every other array that pandas defines."""

    name: ClassVar[str] = "pandas.array/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        if "pandas" not in sys.modules or type(value).__module__.partition(".")[0] != "pandas":
            return False
        if not hasattr(type(value), "_from_sequence"):
            return False
        from mltraq_ds.codecs.pandas_index import ARRAYS

        return type(value).__name__ in ARRAYS

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import encode_lone

        return encode_lone(value)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.pandas_frames import decode_lone

        with malformed():
            return decode_lone(meta, members)


class PandasScalarCodec(Codec):
    """Timestamp, Timedelta, Period, Interval, NaT, NA and frequencies (DateOffset and its kin)."""

    name: ClassVar[str] = "pandas.scalar/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        pandas = sys.modules.get("pandas")
        if pandas is None:
            return False
        if value is getattr(pandas, "NaT", pandas) or value is getattr(pandas, "NA", pandas):
            return True
        if _is_exactly(value, "pandas", ("Interval", "Period", "Timedelta", "Timestamp")):
            return True
        offsets = sys.modules.get("pandas.tseries.offsets")
        kind = type(value)
        return kind.__name__ in getattr(offsets, "__all__", ()) and getattr(offsets, kind.__name__) is kind

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.pandas_scalars import encode_scalar

        return Parts(encode_scalar(value))

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.pandas_scalars import decode_scalar

        with malformed():
            return decode_scalar(meta)


class ArrowTableCodec(Codec):
    """Table, RecordBatch, Array of any type, ChunkedArray; metadata of schema and fields is kept."""

    name: ClassVar[str] = "pyarrow.table/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        pyarrow = sys.modules.get("pyarrow")
        if _is_exactly(value, "pyarrow", ("ChunkedArray", "RecordBatch", "Table")):
            return True
        # Arrays have a class for each type, all defined by pyarrow; those of user-made extension types are refused.
        array = getattr(pyarrow, "Array", None)
        return array is not None and isinstance(value, array) and type(value).__module__ == "pyarrow.lib"

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.arrow_tables import encode_arrow

        return encode_arrow(value)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.arrow_tables import decode_arrow

        with malformed():
            return decode_arrow(meta, members)


class PolarsDataFrameCodec(Codec):
    """polars DataFrame; dtypes that Arrow does not bring back exactly are refused."""

    name: ClassVar[str] = "polars.dataframe/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return _is_exactly(value, "polars", ("DataFrame",))

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.arrow_tables import encode_polars

        return encode_polars(value)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.arrow_tables import decode_polars

        with malformed():
            return decode_polars(meta, members)


class PolarsSeriesCodec(Codec):
    """polars Series."""

    name: ClassVar[str] = "polars.series/1"

    def accepts(self, value: object) -> bool:  # docstring inherited
        return _is_exactly(value, "polars", ("Series",))

    def encode(self, value: Any) -> Parts:  # docstring inherited
        from mltraq_ds.codecs.arrow_tables import encode_polars_series

        return encode_polars_series(value)

    def decode(self, meta: Any, members: Sequence[MemberSource]) -> Any:  # docstring inherited
        from mltraq_ds.codecs.arrow_tables import decode_polars_series

        with malformed():
            return decode_polars_series(meta, members)
