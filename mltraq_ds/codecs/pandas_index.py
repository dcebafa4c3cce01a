"""Arrays and indexes of pandas: an index holds arrays, and a categorical array holds an index, so both are here.

Imported on use only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mltraq_ds.codecs.arrow_ipc import ColumnReader, ColumnWriter
from mltraq_ds.codecs.pandas_arrays import DECODERS, ENCODERS, Description
from mltraq_ds.codecs.pandas_scalars import decode_offset, encode_offset
from mltraq_ds.errors import UnsupportedTypeError

__all__ = ["ARRAYS", "decode_array", "decode_index", "encode_array", "encode_index", "positions"]

_CODES = {pa.int8(): "i1", pa.int16(): "<i2", pa.int32(): "<i4", pa.int64(): "<i8"}


def encode_array(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    """Describe an array and put its values into the writer where Arrow can hold them exactly.

    Parameters
    ----------
    array : ndarray or ExtensionArray
        Shape ``(rows,)``.
    writer : ColumnWriter or None
        None keeps all values in the description: for small things such as column labels.
    label : object
        Readable name of the column.

    Raises
    ------
    UnsupportedTypeError
        If the array is of a class that pandas does not define.
    """
    if isinstance(array, np.ndarray):
        return ENCODERS["NumpyExtensionArray"](array, writer, label)
    encode = _ENCODERS.get(type(array).__name__) if type(array).__module__.partition(".")[0] == "pandas" else None
    if encode is None:
        raise UnsupportedTypeError(
            f"column {label!r} has values of type {type(array).__module__}.{type(array).__qualname__}, which no codec "
            "takes; convert it to a dtype of pandas"
        )
    return encode(array, writer, label)


def decode_array(description: Description, reader: ColumnReader | None) -> Any:
    """Return the array described: a writable view of the member where nothing has to be converted."""
    decode = _DECODERS.get(description["kind"])
    if decode is None:
        raise ValueError(f"unknown kind of column {description['kind']!r}")
    return decode(description, reader)


def positions(description: Description) -> Iterator[int]:
    """Yield the positions of the Arrow columns that a description needs."""
    if description["kind"] == "index":
        yield from positions(description["values"])
    elif description["kind"] == "interval":
        yield from positions(description["left"])
        yield from positions(description["right"])
    elif description["kind"] == "multi":
        for level in description["levels"]:
            yield from positions(level)
    elif "at" in description:
        yield int(description["at"])


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


def _encode_interval(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    left = encode_array(_plain(array.left.array), writer, f"{label}.left")
    right = encode_array(_plain(array.right.array), writer, f"{label}.right")
    return {"kind": "interval", "closed": array.closed, "left": left, "right": right}


def _decode_interval(description: Description, reader: ColumnReader | None) -> Any:
    left, right = (decode_array(description[side], reader) for side in ("left", "right"))
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=description["closed"])


def _encode_categorical(array: Any, writer: ColumnWriter | None, label: object) -> Description:
    return {
        "kind": "categorical",
        "ordered": array.ordered,
        **encode_codes(array.codes, array.categories, writer, label),
    }


def _decode_categorical(description: Description, reader: ColumnReader | None) -> Any:
    codes, categories = decode_codes(description, reader)
    dtype = pd.CategoricalDtype(categories, ordered=description["ordered"])
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _plain(array: Any) -> Any:
    """Return the ndarray behind an array that pandas wraps for its interface only."""
    return np.asarray(array) if type(array) is pd.arrays.NumpyExtensionArray else array


_ENCODERS: dict[str, Callable[[Any, ColumnWriter | None, object], Description]] = {
    **ENCODERS,
    "Categorical": _encode_categorical,
    "IntervalArray": _encode_interval,
}
_DECODERS: dict[str, Callable[[Description, ColumnReader | None], Any]] = {
    **DECODERS,
    "categorical": _decode_categorical,
    "interval": _decode_interval,
}
#: Classes of arrays taken, by name.
ARRAYS = frozenset(_ENCODERS)
