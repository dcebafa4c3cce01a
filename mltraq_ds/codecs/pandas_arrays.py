"""One-dimensional arrays of pandas: a neutral description, and the values in an Arrow column or beside it.

A description is a dict with ``kind`` and what the kind needs.  The values lie either in an Arrow column (``at``: its
position) or, where Arrow cannot hold them exactly or there is no file to put them into, in the description (``value``).
No dtype is stored as pandas prints it, so that pandas 2 and 3 read each other's blobs.  Imported on use only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from mltraq_ds.codecs.arrow_ipc import ColumnReader, ColumnWriter
from mltraq_ds.codecs.arrow_types import check_extensions, extension_names
from mltraq_ds.codecs.pandas_scalars import decode_offset, decode_zone, encode_offset, encode_zone
from mltraq_ds.codecs.pandas_text import decode_objects, decode_text, encode_objects, encode_text
from mltraq_ds.errors import UnsupportedTypeError

__all__ = ["DECODERS", "ENCODERS", "Description"]

NDArray: TypeAlias = np.ndarray[Any, Any]
Description: TypeAlias = dict[str, Any]
_I8 = np.dtype("<i8")
_UNITS = ("s", "ms", "us", "ns")
_COLUMN_DTYPES = frozenset(
    map(np.dtype, ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])
)


def _put(
    writer: ColumnWriter | None, label: object, values: NDArray, kind: Any, nulls: NDArray | None = None
) -> Description:
    if writer is None:
        return {"value": values}
    return {"at": writer.add(label, writer.fixed(values, kind, nulls))}


def _take(
    description: Description,
    reader: ColumnReader | None,
    dtype: np.dtype[Any],
    fits: Callable[[Any], bool] | None = None,
) -> NDArray:
    """Return values of a dtype, from a column whose Arrow type fits (by default: the one pyarrow gives the dtype)."""
    if "at" not in description:
        values = description["value"]
        if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype != dtype:
            raise ValueError(f"values of dtype {dtype} expected")
        return values
    array = _column(description, reader)
    if not (array.type == pa.from_numpy_dtype(dtype) if fits is None else fits(array.type)):
        raise ValueError(f"a column of dtype {dtype} expected, found {array.type}")
    assert reader is not None
    return reader.values(array, dtype)


def _column(description: Description, reader: ColumnReader | None) -> Any:
    if reader is None:
        raise ValueError("the Arrow member is missing")
    return reader.column(description["at"])


def _encode_numpy(array: NDArray, writer: ColumnWriter | None, label: object) -> Description:
    dtype = array.dtype
    if dtype.kind == "O":
        return {"kind": "object", **encode_objects(array, writer, label)}
    if writer is None or not dtype.isnative or dtype not in _COLUMN_DTYPES:
        return {"kind": "numpy", "value": array}
    if dtype.kind == "c":
        real = np.dtype(f"f{dtype.itemsize // 2}")
        pairs = pa.list_(pa.field("item", pa.from_numpy_dtype(real), nullable=False), 2)
        # A strided complex array has no view as twice as many floats.
        child = writer.fixed(np.ascontiguousarray(array).view(real), pa.from_numpy_dtype(real))
        column = pa.Array.from_buffers(pairs, len(array), [None], children=[child])
        return {"kind": "numpy", "dtype": dtype.str, "at": writer.add(label, column)}
    return {"kind": "numpy", "dtype": dtype.str, **_put(writer, label, array, pa.from_numpy_dtype(dtype))}


def _decode_numpy(description: Description, reader: ColumnReader | None) -> NDArray:
    if "at" not in description:
        values = description["value"]
        if not isinstance(values, np.ndarray) or values.ndim != 1:
            raise ValueError("an array of one dimension expected")
        return values
    dtype = np.dtype(str(description["dtype"]))
    if dtype.kind == "c":
        array = _column(description, reader)
        if not pa.types.is_fixed_size_list(array.type) or array.type.list_size != 2 or array.offset:
            raise ValueError(f"a column of pairs expected, found {array.type}")
        assert reader is not None
        pairs = array.values
        real = np.dtype(f"f{dtype.itemsize // 2}")
        if pairs.type != pa.from_numpy_dtype(real) or len(pairs) < 2 * len(array):
            raise ValueError(f"pairs of {real} expected")
        return reader.values(pairs, real)[: 2 * len(array)].view(dtype)
    if dtype.kind not in "biuf":
        raise ValueError(f"no column has dtype {dtype}")
    return _take(description, reader, dtype)


def _encode_datetime(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    dtype, ticks = array.dtype, array.asi8
    unit = np.datetime_data(dtype)[0] if isinstance(dtype, np.dtype) else dtype.unit
    if dtype.kind == "m":
        kind, shown = "timedelta", pa.duration(unit)
        description: Description = {"kind": kind, "unit": unit}
    else:
        zone = encode_zone(array.tz)
        # Other tools see the zone's name; ours is exact (which library, fixed offsets).
        shown = pa.timestamp(unit, None if zone is None else zone.get("key", "UTC"))
        description = {"kind": "datetime", "unit": unit, "tz": zone}
    return {**description, **_put(writer, label, ticks, shown, np.asarray(array.isna()))}


def _decode_datetime(description: Description, reader: ColumnReader | None) -> Any:
    unit = description["unit"]
    if unit not in _UNITS:
        raise ValueError(f"unknown time unit {unit!r}")
    is_timedelta = description["kind"] == "timedelta"
    shown = pa.types.is_duration if is_timedelta else pa.types.is_timestamp
    ticks = _take(description, reader, _I8, lambda kind: shown(kind) and kind.unit == unit)
    if is_timedelta:
        return pd.array(ticks.view(f"m8[{unit}]"), dtype=np.dtype(f"m8[{unit}]"), copy=False)
    zone = decode_zone(description["tz"])
    if zone is None:
        return pd.array(ticks.view(f"M8[{unit}]"), dtype=np.dtype(f"M8[{unit}]"), copy=False)
    return pd.array(ticks, dtype=pd.DatetimeTZDtype(unit, zone), copy=False)


def _encode_period(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    freq = encode_offset(array.dtype.freq)
    return {"kind": "period", "freq": freq, **_put(writer, label, array.asi8, pa.int64(), np.asarray(array.isna()))}


def _decode_period(description: Description, reader: ColumnReader | None) -> Any:
    ticks = _take(description, reader, _I8)
    return pd.arrays.PeriodArray(ticks, dtype=pd.PeriodDtype(decode_offset(description["freq"])))


def _encode_masked(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    # The two arrays behind a nullable dtype have no public names; pandas' own __arrow_array__ would copy booleans.
    values, nulls = array._data, array._mask
    description = {"kind": "masked", "dtype": values.dtype.str}
    if writer is None:
        return {**description, "value": values, "nulls": nulls}
    return {**description, **_put(writer, label, values, pa.from_numpy_dtype(values.dtype), nulls)}


def _decode_masked(description: Description, reader: ColumnReader | None) -> Any:
    dtype = np.dtype(str(description["dtype"]))
    values = _take(description, reader, dtype)
    if "at" in description:
        assert reader is not None
        nulls = reader.nulls(_column(description, reader))
    else:
        nulls = _take({"value": description["nulls"]}, None, np.dtype(bool))
    classes = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
    if dtype.kind not in "biuf" or len(nulls) != len(values):
        raise ValueError(f"no nullable column has dtype {dtype} and {len(nulls)} nulls for {len(values)} values")
    return classes.get(dtype.kind, pd.arrays.IntegerArray)(values, nulls)


def _encode_arrow(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    chunked = array.__arrow_array__()
    description: Description = {"kind": "arrow", "extensions": extension_names(chunked.type)}
    if writer is not None:
        try:
            column = chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
            return {**description, "at": writer.add(label, column)}
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass  # more than 2 GiB of text with 32-bit offsets, or different dictionaries: keeps its chunks
    return {**description, "value": chunked}


def _decode_arrow(description: Description, reader: ColumnReader | None) -> Any:
    value = _column(description, reader) if "at" in description else description["value"]
    if isinstance(value, pa.Array):
        value = pa.chunked_array([value])
    check_extensions(value.type, description["extensions"])
    return pd.arrays.ArrowExtensionArray(value)


def _encode_sparse(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    values = np.asarray(array.sp_values)
    if values.dtype.kind not in "biufc":
        raise UnsupportedTypeError(f"column {label!r} is sparse with dtype {values.dtype}; make it dense first")
    indices = np.asarray(array.sp_index.indices if array.kind == "integer" else array.sp_index.to_int_index().indices)
    description = {"kind": "sparse", "value": values, "indices": indices, "rows": len(array)}
    return {**description, "layout": array.kind, "fill": array.fill_value}


def _decode_sparse(description: Description, reader: ColumnReader | None) -> Any:
    values, indices, rows = description["value"], description["indices"], int(description["rows"])
    layout, fill = description["layout"], description["fill"]
    sparse_array: Any = pd.arrays.SparseArray
    if hasattr(sparse_array, "from_indices"):
        return sparse_array.from_indices(values, indices, rows, fill_value=fill, kind=layout, dtype=values.dtype)
    # pandas 2 has no public way.
    index = importlib.import_module("pandas._libs.sparse").IntIndex(rows, np.asarray(indices, np.int32))
    index = index.to_block_index() if layout == "block" else index
    dtype = pd.SparseDtype(values.dtype, fill)
    return sparse_array(values, sparse_index=index, fill_value=fill, dtype=dtype, kind=layout)


ENCODERS: dict[str, Callable[[Any, ColumnWriter | None, object], Description]] = {
    "ArrowExtensionArray": _encode_arrow,
    "ArrowStringArray": encode_text,
    "ArrowStringArrayNumpySemantics": encode_text,
    "BooleanArray": _encode_masked,
    "DatetimeArray": _encode_datetime,
    "FloatingArray": _encode_masked,
    "IntegerArray": _encode_masked,
    "NumpyExtensionArray": lambda array, writer, label: _encode_numpy(np.asarray(array), writer, label),
    "PeriodArray": _encode_period,
    "SparseArray": _encode_sparse,
    "StringArray": encode_text,
    "StringArrayNumpySemantics": encode_text,
    "TimedeltaArray": _encode_datetime,
}
DECODERS: dict[str, Callable[[Description, ColumnReader | None], Any]] = {
    "arrow": _decode_arrow,
    "datetime": _decode_datetime,
    "masked": _decode_masked,
    "numpy": _decode_numpy,
    "object": decode_objects,
    "period": _decode_period,
    "sparse": _decode_sparse,
    "string": decode_text,
    "timedelta": _decode_datetime,
}
