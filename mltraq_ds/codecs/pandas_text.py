"""Text and object columns: Arrow strings where every element is text, element by element otherwise.

Imported on use only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mltraq_ds.codecs.arrow_ipc import ColumnReader, ColumnWriter

__all__ = ["decode_objects", "decode_text", "encode_objects", "encode_text", "object_array"]


def encode_text(array: Any, writer: ColumnWriter | None, label: object) -> dict[str, Any]:
    """Describe an array of dtype `pandas.StringDtype`, whichever library keeps its text."""
    dtype = array.dtype
    missing = "NA" if dtype.na_value is pd.NA else "nan"
    storage = "python" if dtype.storage == "python" else "pyarrow"
    description = {"kind": "string", "storage": storage, "missing": missing}
    if writer is not None:
        try:
            return {**description, "at": writer.add(label, _text(array))}
        except (UnicodeEncodeError, pa.ArrowInvalid):
            pass  # lone surrogates, which UTF-8 cannot hold
    nulls = np.asarray(array.isna())
    items = [None if null else str(item) for item, null in zip(array, nulls, strict=True)]
    return {**description, "value": items}


def _text(array: Any) -> Any:
    column = array.__arrow_array__(pa.large_string()) if array.dtype.storage == "python" else array.__arrow_array__()
    if isinstance(column, pa.ChunkedArray):
        if not pa.types.is_large_string(column.type):
            column = column.cast(pa.large_string())
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def decode_text(description: dict[str, Any], reader: ColumnReader | None) -> Any:
    """Return the text array described; with pyarrow storage a view of the member."""
    dtype = _dtype(description["storage"], description["missing"])
    if "at" not in description:
        items = object_array(description["value"])
        if not all(item is None or type(item) is str for item in items):
            raise ValueError("a column of text holds something else")
        return pd.array(items, dtype=dtype)
    column = _strings(description, reader, pa.large_string())
    if description["storage"] == "python":
        # pandas 2.3 would return the class for NA where the dtype says NaN.
        return pd.array(column.to_numpy(zero_copy_only=False), dtype=dtype)
    return dtype.__from_arrow__(pa.chunked_array([column]))


def _dtype(storage: str, missing: str) -> Any:
    if missing == "NA":
        return pd.StringDtype(storage)
    if missing != "nan":
        raise ValueError(f"text has no gaps of kind {missing!r}")
    try:
        return pd.StringDtype(storage, na_value=np.nan)
    except TypeError:
        # pandas 2.2 has text with NaN in this form only.
        return pd.StringDtype("pyarrow_numpy")


def _strings(description: dict[str, Any], reader: ColumnReader | None, kind: Any) -> Any:
    column = reader.column(description["at"]) if reader is not None else None
    if column is None or column.type != kind:
        raise ValueError(f"a column of {kind} expected")
    return column


def encode_objects(array: np.ndarray[Any, Any], writer: ColumnWriter | None, label: object) -> dict[str, Any]:
    """Describe an array of objects; text (or bytes) with one kind of gap goes to Arrow, where other tools read it."""
    kinds = set(map(type, array))
    of = "bytes" if bytes in kinds else "str"
    gaps = kinds - {str, bytes}
    if writer is not None and len(kinds - gaps) == 1 and gaps in (set(), {type(None)}, {float}):
        nulls = array != array if gaps == {float} else None
        if nulls is None or nulls.sum() == sum(type(item) is float for item in array):
            try:
                column = pa.array(array, pa.large_string() if of == "str" else pa.large_binary(), from_pandas=True)
                missing = "nan" if gaps == {float} else "None"
                return {"of": of, "missing": missing, "at": writer.add(label, column)}
            except (UnicodeEncodeError, pa.ArrowInvalid):
                pass  # lone surrogates
    return {"value": list(array)}


def decode_objects(description: dict[str, Any], reader: ColumnReader | None) -> np.ndarray[Any, Any]:
    """Return an array of objects, shape ``(rows,)``."""
    if "at" not in description:
        return object_array(description["value"])
    kind = {"str": pa.large_string(), "bytes": pa.large_binary()}[description["of"]]
    column = _strings(description, reader, kind)
    values: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    if description["missing"] == "nan" and column.null_count:
        values[np.asarray(column.is_null())] = np.nan
    return values


def object_array(items: Any) -> np.ndarray[Any, Any]:
    """Return a list as an array of objects, however long or nested the objects are."""
    if not isinstance(items, list):
        raise ValueError("a list of objects expected")
    return np.fromiter(items, dtype=object, count=len(items))
