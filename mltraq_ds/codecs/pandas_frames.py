"""DataFrame and Series: columns in one Arrow file that any Arrow tool reads, everything else in the description.

Imported on use only.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mltraq_ds.codecs.arrow_bounds import malformed
from mltraq_ds.codecs.arrow_ipc import ColumnReader, ColumnWriter
from mltraq_ds.codecs.base import Member, MemberSource, Parts
from mltraq_ds.codecs.pandas_index import decode_array, decode_index, encode_array, encode_index, positions

__all__ = [
    "decode_frame",
    "decode_lone",
    "decode_series",
    "encode_frame",
    "encode_lone",
    "encode_series",
    "read_columns",
]

#: Above this many separate blocks pandas warns when a column is added; then they are joined, which copies.
_MANY_BLOCKS = 100
#: An index or array below this size (bytes) needs no file of its own.
_LONE_BYTES = 1024


def encode_frame(frame: pd.DataFrame) -> Parts:
    """Return one Arrow member and the description of a frame."""
    writer = ColumnWriter()
    fields = [encode_array(column.array, writer, label) for label, column in frame.items()]
    meta = {
        "columns": encode_index(frame.columns, None),
        "fields": fields,
        "index": encode_index(frame.index, writer),
        **_extras(frame),
    }
    dtypes = [str(dtype) for dtype in frame.dtypes]
    summary = {"shape": list(frame.shape), "columns": [str(label) for label in frame.columns], "dtypes": dtypes}
    return Parts(meta, [writer.member()], summary)


def decode_frame(meta: dict[str, Any], members: Sequence[MemberSource]) -> Any:
    """Return the frame described."""
    reader = ColumnReader(_only(members))
    return _with_extras(_frame(meta, reader, meta["fields"], decode_index(meta["columns"], None)), meta)


def read_columns(meta: dict[str, Any], members: Sequence[MemberSource], columns: Sequence[Hashable]) -> Any:
    """Read some columns of a frame, and its index, without reading the others.

    The ranges read are checked for bounds and structure, not against the checksum of the member, which covers all of
    it.  Dictionaries of categorical columns are all read.

    Parameters
    ----------
    meta : dict
        As returned by `encode_frame`.
    members : sequence of MemberSource
        The one member; only its `read_range` is used.
    columns : sequence of labels
        In the order wanted; a label that occurs twice in the frame gives two columns.

    Raises
    ------
    KeyError
        If the frame has no such column.
    ValueError
        If the member cannot be right.
    """
    with malformed():
        labels = decode_index(meta["columns"], None)
    chosen: list[int] = []
    for column in columns:
        where = [i for i, label in enumerate(labels) if label is column or label == column]
        if not where:
            raise KeyError(column)
        chosen.extend(where)
    with malformed():
        fields = [meta["fields"][i] for i in chosen]
        needed = {at for description in (*fields, meta["index"]) for at in positions(description)}
        reader = ColumnReader(_only(members), needed) if needed else None
        return _with_extras(_frame(meta, reader, fields, labels.take(chosen)), meta)


def _frame(meta: dict[str, Any], reader: ColumnReader | None, fields: list[Any], columns: Any) -> pd.DataFrame:
    if len(fields) != len(columns):
        raise ValueError(f"{len(columns)} columns have names, {len(fields)} are described")
    index = decode_index(meta["index"], reader)
    frame = _block_frame(reader, fields, index)
    if frame is None:
        arrays = {i: decode_array(field, reader) for i, field in enumerate(fields)}
        for i, array in arrays.items():
            if len(array) != len(index):
                raise ValueError(f"column {i} has {len(array)} rows, the index {len(index)}")
            if isinstance(array, np.ndarray) and array.dtype == object:
                # As a Series it keeps its dtype: pandas 3 makes text out of objects that are all text.
                arrays[i] = pd.Series(array, index=index, dtype=object, copy=False)
        frame = pd.DataFrame(arrays, index=index, copy=False)
        if sum(isinstance(array, np.ndarray) for array in arrays.values()) > _MANY_BLOCKS:
            frame = frame.copy()
    frame.columns = columns
    return frame


def _block_frame(reader: ColumnReader | None, fields: list[Any], index: Any) -> pd.DataFrame | None:
    """Return columns of one dtype that lie at equal distances as one block, without a copy."""
    dtypes = {field.get("dtype") if field["kind"] == "numpy" and "at" in field else None for field in fields}
    if reader is None or len(fields) < 2 or len(dtypes) != 1 or None in dtypes:
        return None
    dtype = np.dtype(str(dtypes.pop()))
    block = reader.block([field["at"] for field in fields], dtype) if dtype.kind in "iuf" else None
    return None if block is None else pd.DataFrame(block.T, index=index, copy=False)


def encode_series(series: pd.Series[Any]) -> Parts:
    """Return the description of a series, and an Arrow member if Arrow can hold its values or its index."""
    writer = ColumnWriter()
    label = "values" if series.name is None else series.name
    meta = {
        "name": series.name,
        "values": encode_array(series.array, writer, label),
        "index": encode_index(series.index, writer),
        **_extras(series),
    }
    summary = {"shape": [len(series)], "length": len(series), "dtype": str(series.dtype)}
    return Parts(meta, _members(writer), summary)


def decode_series(meta: dict[str, Any], members: Sequence[MemberSource]) -> Any:
    """Return the series described."""
    reader = ColumnReader(_only(members)) if members else None
    values = decode_array(meta["values"], reader)
    index = decode_index(meta["index"], reader)
    dtype = object if isinstance(values, np.ndarray) and values.dtype == object else None
    return _with_extras(pd.Series(values, index=index, name=meta["name"], dtype=dtype, copy=False), meta)


def encode_lone(value: Any) -> Parts:
    """Return the description of an index or an array; large ones get an Arrow member."""
    writer = ColumnWriter() if _is_large(value) else None
    summary = {"length": len(value), "dtype": str(value.dtype)}
    if isinstance(value, pd.Index):
        return Parts(encode_index(value, writer), _members(writer), summary)
    meta = encode_array(value, writer, "values")
    if type(value) is pd.arrays.NumpyExtensionArray:
        meta["wrapped"] = True
    if isinstance(getattr(value, "freq", None), pd.tseries.offsets.BaseOffset) and meta["kind"] != "period":
        # pandas 2 keeps the frequency with the array, pandas 3 with the index only.
        meta["array_freq"] = value.freq
    return Parts(meta, _members(writer), summary)


def decode_lone(meta: dict[str, Any], members: Sequence[MemberSource]) -> Any:
    """Return the index or array described."""
    reader = ColumnReader(_only(members)) if members else None
    if meta["kind"] in ("index", "multi", "range"):
        return decode_index(meta, reader)
    array = decode_array(meta, reader)
    if meta.get("wrapped"):
        array = pd.arrays.NumpyExtensionArray(array)
    if "array_freq" in meta and hasattr(array, "freq"):
        array.freq = meta["array_freq"]
    return array


def _is_large(value: Any) -> bool:
    if type(value) is pd.MultiIndex:
        return sum(codes.nbytes for codes in value.codes) > _LONE_BYTES
    return type(value) is not pd.RangeIndex and int(value.nbytes) > _LONE_BYTES


def _members(writer: ColumnWriter | None) -> list[Member]:
    return [writer.member()] if writer else []


def _only(members: Sequence[MemberSource]) -> MemberSource:
    if len(members) != 1:
        raise ValueError(f"one Arrow member expected, found {len(members)}")
    return members[0]


def _extras(value: Any) -> dict[str, Any]:
    """Return what pandas keeps beside the values, as far as it differs from the default."""
    extras: dict[str, Any] = {"attrs": dict(value.attrs)} if value.attrs else {}
    if not value.flags.allows_duplicate_labels:
        extras["allows_duplicate_labels"] = False
    return extras


def _with_extras(value: Any, meta: dict[str, Any]) -> Any:
    if "attrs" in meta:
        value.attrs = dict(meta["attrs"])
    if "allows_duplicate_labels" in meta:
        value.flags.allows_duplicate_labels = bool(meta["allows_duplicate_labels"])
    return value
