"""Tables and arrays of pyarrow, frames and series of polars, as one Arrow file.  Imported on use only."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mltraq_ds.codecs.arrow_ipc import open_reader, write_member
from mltraq_ds.codecs.arrow_types import check_extensions, extension_names
from mltraq_ds.codecs.base import MemberSource, Parts
from mltraq_ds.errors import UnsupportedTypeError

__all__ = [
    "decode_arrow",
    "decode_polars",
    "decode_polars_series",
    "encode_arrow",
    "encode_polars",
    "encode_polars_series",
]

_ARRAY = "values"


def encode_arrow(value: Any) -> Parts:
    """Return one member; arrays become a table of one column."""
    if isinstance(value, pa.Table):
        kind, table = "table", value
    elif isinstance(value, pa.RecordBatch):
        kind, table = "batch", pa.Table.from_batches([value])
    else:
        kind = "chunked" if isinstance(value, pa.ChunkedArray) else "array"
        table = pa.table({_ARRAY: value})
    if not table.num_columns and table.num_rows:
        raise UnsupportedTypeError(f"a table of {table.num_rows} rows without columns has no Arrow file")
    meta = {"kind": kind, "rows": table.num_rows, "extensions": _extensions(table.schema)}
    if kind in ("table", "batch"):
        summary: dict[str, Any] = {"shape": list(table.shape), "columns": table.column_names}
        summary["dtypes"] = [str(field.type) for field in table.schema]
    else:
        summary = {"length": len(value), "dtype": str(value.type)}
    return Parts(meta, [_member(table)], summary)


def _member(table: Any) -> Any:
    try:
        return write_member(table)
    except pa.ArrowException:
        # Chunks with different nested dictionaries: one chunk has one dictionary.
        try:
            return write_member(table.combine_chunks())
        except pa.ArrowException as error:
            raise UnsupportedTypeError(
                f"pyarrow cannot write a table of schema {table.schema.names} to an Arrow file ({error}); decode its "
                "dictionaries first"
            ) from error


def decode_arrow(meta: dict[str, Any], members: Sequence[MemberSource]) -> Any:
    """Return the table or array: its buffers are views of the member."""
    table = _table(meta, members)
    kind = meta["kind"]
    if kind == "table":
        return table
    if kind == "batch":
        batches = table.to_batches()
        if len(batches) > 1:
            raise ValueError(f"one record batch expected, found {len(batches)}")
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    column = table.column(_ARRAY)
    if kind == "chunked":
        return column
    if kind != "array" or column.num_chunks > 1:
        raise ValueError(f"{kind!r} of {column.num_chunks} chunks is no array")
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _table(meta: dict[str, Any], members: Sequence[MemberSource]) -> Any:
    if len(members) != 1:
        raise ValueError(f"one Arrow member expected, found {len(members)}")
    reader, _ = open_reader(members[0])
    table = reader.read_all()
    # Offsets, UTF-8 and dictionary positions: what would be read outside of the buffers otherwise.
    table.validate(full=True)
    if table.num_rows != meta["rows"]:
        raise ValueError(f"{meta['rows']} rows expected, found {table.num_rows}")
    check_extensions(pa.struct(list(table.schema)), meta["extensions"])
    return table


def _extensions(schema: Any) -> list[str]:
    return extension_names(pa.struct(list(schema)))


def encode_polars(frame: Any) -> Parts:
    """Return one member with the columns of a polars frame.

    Raises
    ------
    UnsupportedTypeError
        If a column has a dtype that does not come back from Arrow as it was (Object, 128-bit integers).
    """
    polars = importlib.import_module("polars")
    if not frame.width:
        return Parts({"rows": frame.height}, [], {"shape": [frame.height, 0], "columns": []})
    try:
        table = frame.to_arrow()
        empty = polars.from_arrow(table.schema.empty_table())
    except (pa.ArrowException, polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        raise _refused(frame.schema) from error
    if empty.dtypes != frame.dtypes:
        pairs = zip(frame.schema.items(), empty.dtypes, strict=True)
        raise _refused({name: kind for (name, kind), other in pairs if kind != other})
    dtypes = [str(dtype) for dtype in frame.dtypes]
    summary = {"shape": list(frame.shape), "columns": frame.columns, "dtypes": dtypes}
    # polars gives columns without a name another one when it reads them.
    meta = {"rows": frame.height, "columns": frame.columns, "extensions": _extensions(table.schema)}
    return Parts(meta, [_member(table)], summary)


def _refused(columns: Any) -> UnsupportedTypeError:
    named = ", ".join(f"{name!r}: {kind}" for name, kind in columns.items())
    return UnsupportedTypeError(f"polars columns do not survive Arrow exactly ({named}); cast them first")


def decode_polars(meta: dict[str, Any], members: Sequence[MemberSource]) -> Any:
    """Return the polars frame."""
    polars = importlib.import_module("polars")
    if not members:
        return polars.DataFrame(height=meta["rows"]) if meta["rows"] else polars.DataFrame()
    try:
        frame = polars.from_arrow(_table(meta, members), rechunk=False)
        frame.columns = meta["columns"]
        return frame
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        raise ValueError(f"polars cannot hold the table ({error})") from error


def encode_polars_series(series: Any) -> Parts:
    """Return one member with the values of a polars series."""
    parts = encode_polars(series.to_frame())
    return Parts(parts.meta, parts.members, {"length": len(series), "dtype": str(series.dtype)})


def decode_polars_series(meta: dict[str, Any], members: Sequence[MemberSource]) -> Any:
    """Return the polars series."""
    frame = decode_polars(meta, members)
    if frame.width != 1:
        raise ValueError(f"one column expected, found {frame.width}")
    return frame.to_series()
