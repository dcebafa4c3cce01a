"""Indexes of pandas: ranges, levels with codes, arrays with a name and perhaps a frequency.  Imported on use only."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from mltraq_ds.codecs.arrow_ipc import ColumnReader, ColumnWriter
from mltraq_ds.codecs.pandas_arrays import decode_array, encode_array
from mltraq_ds.codecs.pandas_scalars import decode_offset, encode_offset
from mltraq_ds.errors import UnsupportedTypeError

__all__ = ["decode_codes", "decode_index", "encode_codes", "encode_index"]

Description: TypeAlias = dict[str, Any]
_CODES = {pa.int8(): "i1", pa.int16(): "<i2", pa.int32(): "<i4", pa.int64(): "<i8"}


def encode_index(index: Any, writer: ColumnWriter | None, label: object = "index") -> Description:
    """Describe an index; its values go to the writer where Arrow can hold them.

    Raises
    ------
    UnsupportedTypeError
        If it is of a class that pandas does not define, or holds values that no codec takes.
    """
    if type(index) is pd.RangeIndex:
        return {"kind": "range", "range": [index.start, index.stop, index.step], "name": index.name}
    if type(index) is pd.MultiIndex:
        levels = [
            encode_codes(codes, level, writer, f"{label}_{i}" if name is None else name)
            for i, (codes, level, name) in enumerate(zip(index.codes, index.levels, index.names, strict=True))
        ]
        return {
            "kind": "multi",
            "levels": levels,
            "names": list(index.names),
            "sortorder": getattr(index, "sortorder", None),
        }
    if type(index).__module__.partition(".")[0] != "pandas":
        raise UnsupportedTypeError(
            f"an index of type {type(index).__module__}.{type(index).__qualname__} has no codec; convert it to one of "
            "pandas"
        )
    label = label if index.name is None else index.name
    description = {"kind": "index", "name": index.name, "values": encode_array(index.array, writer, label)}
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) and index.freq is not None:
        description["freq"] = encode_offset(index.freq)
    return description


def decode_index(description: Description, reader: ColumnReader | None) -> Any:
    """Return the index described.

    Raises
    ------
    ValueError
        If codes point beyond their level, or the values do not follow the frequency.
    """
    kind = description["kind"]
    if kind == "range":
        start, stop, step = description["range"]
        return pd.RangeIndex(start, stop, step, name=description["name"])
    if kind == "multi":
        pairs: Any = [decode_codes(level, reader) for level in description["levels"]]
        return pd.MultiIndex(
            levels=[level for _, level in pairs],
            codes=[codes for codes, _ in pairs],
            names=description["names"],
            sortorder=description["sortorder"],
            copy=False,
        )
    if kind != "index":
        raise ValueError(f"unknown kind of index {kind!r}")
    values = decode_array(description["values"], reader)
    # dtype=object: pandas 3 would make text out of objects that are all text.
    dtype = object if isinstance(values, np.ndarray) and values.dtype == object else None
    index: Any = pd.Index(values, name=description["name"], dtype=dtype, copy=False, tupleize_cols=False)
    if "freq" in description:
        index = type(index)(index, freq=decode_offset(description["freq"]))
    return index


def encode_codes(codes: Any, level: Any, writer: ColumnWriter | None, label: object) -> Description:
    """Describe positions in a level (-1: missing): an Arrow dictionary column if the level is one Arrow column."""
    codes = np.asarray(codes)
    if writer is None:
        return {"codes": codes, "level": encode_index(level, None)}
    inner = ColumnWriter()
    described = encode_index(level, inner)
    column = writer.fixed(codes, pa.from_numpy_dtype(codes.dtype), codes < 0)
    if described["kind"] == "index" and len(inner) == 1 and "at" in described["values"]:
        column = pa.DictionaryArray.from_arrays(column, inner.array(0), safe=False)
        return {"at": writer.add(label, column), "level": described}
    return {"at": writer.add(label, column), "level": encode_index(level, None)}


def decode_codes(description: Description, reader: ColumnReader | None) -> tuple[np.ndarray[Any, Any], Any]:
    """Return positions, shape ``(rows,)``, and their level; positions are checked by who uses them."""
    if "at" not in description:
        return description["codes"], decode_index(description["level"], None)
    if reader is None:
        raise ValueError("the Arrow member is missing")
    column = reader.column(description["at"])
    level_reader = None
    if pa.types.is_dictionary(column.type):
        level_reader = DictionaryReader(reader, column.dictionary)
        column = column.indices
    if column.type not in _CODES:
        raise ValueError(f"positions expected, found {column.type}")
    codes = reader.values(column, np.dtype(_CODES[column.type]))
    return codes, decode_index(description["level"], level_reader)


class DictionaryReader(ColumnReader):
    """The dictionary of a column as the only column of a reader."""

    def __init__(self, reader: ColumnReader, dictionary: Any) -> None:
        self._file = reader._file
        self._batch = pa.RecordBatch.from_arrays([dictionary], names=["level"])
        self._positions = {0: 0}
