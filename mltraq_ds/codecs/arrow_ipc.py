"""One Arrow IPC file as a member: written as views of the columns, read as views of the member.

`ColumnWriter` lets pyarrow write the file into a list instead of a file.  pyarrow hands over the buffers of the columns
as they are, so nothing is copied and the size is known before the first byte is written.  Columns that lie strided in
memory (every column of ``DataFrame(array)``) are replaced by placeholders meanwhile and converted piece by piece while
the member is written.

`ColumnReader` is the way back: numpy arrays over the member's own memory, or over the ranges of a few columns.
Imported on use only: it needs pyarrow.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from mltraq_ds.codecs.arrow_bounds import RangeFile, check_file
from mltraq_ds.codecs.base import Member, MemberSource
from mltraq_ds.storage.base import Buffer

__all__ = ["ColumnReader", "ColumnWriter", "open_reader", "write_member"]

#: Strided columns are converted in pieces of this size (bytes) while they are written.
PIECE_BYTES = 4 << 20
#: Below this size (bytes) a strided column is converted at once.
LATE_BYTES = 1 << 20
_LARGE_ROWS = 2**31 - 1


class _Plan:
    """A file for pyarrow that keeps the buffers written to it instead of their bytes."""

    closed = False

    def __init__(self, late: dict[int, np.ndarray[Any, Any]]) -> None:
        self.parts: list[Any] = []
        self.size = 0
        self._late = late

    def write(self, part: Any) -> int:
        size = len(part)
        self.size += size
        if isinstance(part, pa.Buffer):
            if size:
                self.parts.append(self._late.get(part.address, part))
        elif self.parts and isinstance(self.parts[-1], bytearray):
            self.parts[-1] += part
        else:
            self.parts.append(bytearray(part))
        return size

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def buffers(self) -> Iterator[Buffer]:
        """Yield the file from the start; strided columns in pieces, everything else as views."""
        for part in self.parts:
            if isinstance(part, np.ndarray):
                rows = max(1, PIECE_BYTES // part.itemsize)
                for start in range(0, len(part), rows):
                    yield np.ascontiguousarray(part[start : start + rows]).view(np.uint8).data
            else:
                yield memoryview(part)


def write_member(table: pa.Table | pa.RecordBatch, late: dict[int, np.ndarray[Any, Any]] | None = None) -> Member:
    """Return an Arrow IPC file with the record batches of `table`, without copying fixed-width columns.

    Parameters
    ----------
    table : pyarrow.Table or pyarrow.RecordBatch
        Written chunk by chunk, uncompressed.
    late : dict, optional
        Address of a placeholder buffer -> the array of shape ``(rows,)`` that is written in its place.
    """
    plan = _Plan(late or {})
    options = pa.ipc.IpcWriteOptions(allow_64bit=table.num_rows > _LARGE_ROWS, unify_dictionaries=True)
    with pa.PythonFile(plan, mode="w") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write(table)
    return Member("arrow", plan.size, plan.buffers, streamed=bool(late))


class ColumnWriter:
    """Collects columns of one length and makes a member of them."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._arrays: list[pa.Array] = []
        self._late: dict[int, np.ndarray[Any, Any]] = {}
        self._placeholders: list[np.ndarray[Any, Any]] = []

    def __len__(self) -> int:
        return len(self._arrays)

    def array(self, position: int) -> pa.Array:
        """Return a column added before."""
        return self._arrays[position]

    def add(self, label: object, array: pa.Array) -> int:
        """Add a column under a readable name that is made unique, and return its position."""
        name = str(label).encode("utf-8", "backslashreplace").decode()
        unique, count = name, 0
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names[unique] = None
        self._arrays.append(array)
        return len(self._arrays) - 1

    def fixed(self, values: np.ndarray[Any, Any], kind: Any, nulls: np.ndarray[Any, Any] | None = None) -> pa.Array:
        """Return `values` of shape ``(rows,)`` as an Arrow array of type `kind` over the same memory.

        Parameters
        ----------
        values : ndarray
            Bits of the column; what lies under a null is kept.
        kind : pyarrow.DataType
            Fixed-width type of the same item size, or bool.
        nulls : ndarray of bool, optional
            True where other tools are to see a null.
        """
        bitmap = None if nulls is None or not nulls.any() else _bits(~nulls)
        buffer = _bits(values) if values.dtype.kind == "b" else self._buffer(values)
        return pa.Array.from_buffers(kind, len(values), [bitmap, buffer])

    def _buffer(self, values: np.ndarray[Any, Any]) -> pa.Buffer:
        if not values.flags.c_contiguous:
            if values.nbytes < LATE_BYTES:
                values = np.ascontiguousarray(values)
            else:
                # Never touched, so it takes address space only; pyarrow writes it by address.
                placeholder = np.empty(len(values), values.dtype)
                self._late[placeholder.ctypes.data] = values
                self._placeholders.append(placeholder)
                values = placeholder
        return pa.py_buffer(values.view(np.uint8))

    def member(self) -> Member:
        """Return the Arrow file of all columns: one record batch."""
        schema = pa.schema([pa.field(name, array.type) for name, array in zip(self._names, self._arrays, strict=True)])
        return write_member(pa.RecordBatch.from_arrays(self._arrays, schema=schema), self._late)


def _bits(values: np.ndarray[Any, Any]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def open_reader(source: MemberSource, columns: Collection[int] | None = None) -> tuple[Any, RangeFile]:
    """Open an Arrow file, all of it or only some columns, after checking that reading it is bounded by its size.

    Raises
    ------
    ValueError
        If the member is no Arrow file, is compressed, or counts bytes twice.
    """
    file = RangeFile(source, whole=columns is None)
    check_file(file)
    whole = file.whole()
    if whole is not None:
        return pa.ipc.open_file(pa.py_buffer(whole)), file
    # An empty list would mean all.
    options = pa.ipc.IpcReadOptions(included_fields=sorted(columns or ()) or [0])
    return pa.ipc.open_file(pa.PythonFile(file, mode="r"), options=options), file


class ColumnReader:
    """Columns of one member as arrays over its memory.

    Parameters
    ----------
    source : MemberSource
        As written by `ColumnWriter.member`.
    columns : collection of int, optional
        Positions to read; only their ranges are fetched.  All by default.
    """

    def __init__(self, source: MemberSource, columns: Collection[int] | None = None) -> None:
        reader, self._file = open_reader(source, columns)
        if reader.num_record_batches != 1:
            raise ValueError(f"{source.name}: one record batch expected, found {reader.num_record_batches}")
        self._batch = reader.get_batch(0)
        everything = range(self._batch.num_columns)
        chosen = everything if columns is None else sorted(columns)
        only_chosen = self._file.whole() is None
        self._positions = {at: i if only_chosen else at for i, at in enumerate(chosen)}
        for at in chosen:
            # Offsets, UTF-8 and dictionary positions: what would be read outside of the buffers otherwise.
            self.column(at).validate(full=True)

    def column(self, at: int) -> pa.Array:
        """Return the column written at this position."""
        return self._batch.column(self._positions[at])

    def values(self, array: pa.Array, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return the values buffer of a fixed-width array as a writable array of shape ``(rows,)``, not copied."""
        _, buffer = [*array.buffers(), None][:2]
        rows = len(array)
        if array.offset or (rows and buffer is None):
            raise ValueError("the column has no values of its own")
        if not rows:
            return np.empty(0, dtype)
        if dtype.kind == "b":
            return np.unpackbits(np.frombuffer(buffer, np.uint8), count=rows, bitorder="little").view(bool)
        if buffer.size < rows * dtype.itemsize:
            raise ValueError("the column is shorter than its length")
        view = self._file.view_at(buffer.address, rows * dtype.itemsize)
        if view is None or buffer.address % dtype.alignment:
            return np.frombuffer(buffer, dtype, rows).copy()
        return np.frombuffer(view, dtype)

    def nulls(self, array: pa.Array) -> np.ndarray[Any, Any]:
        """Return a new array of bool, shape ``(rows,)``: True where the column is null."""
        bitmap = array.buffers()[0]
        if bitmap is None or not array.null_count:
            return np.zeros(len(array), bool)
        return ~np.unpackbits(np.frombuffer(bitmap, np.uint8), count=len(array), bitorder="little").view(bool)

    def block(self, positions: Collection[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | None:
        """Return columns as one array of shape ``(columns, rows)`` if they lie at equal distances, else None."""
        kind = pa.from_numpy_dtype(dtype)
        columns = [self.column(at) for at in positions]
        rows = self._batch.num_rows
        if dtype.kind == "b" or not rows or any(column.type != kind or column.offset for column in columns):
            return None
        starts = [buffer.address if (buffer := column.buffers()[1]) else 0 for column in columns]
        steps = {after - before for before, after in itertools.pairwise(starts)}
        step = steps.pop() if len(steps) == 1 else 0
        if step < rows * dtype.itemsize or step % dtype.alignment or starts[0] % dtype.alignment:
            return None
        view = self._file.view_at(starts[0], step * (len(columns) - 1) + rows * dtype.itemsize)
        if view is None:
            return None
        return np.ndarray((len(columns), rows), dtype, view, 0, (step, dtype.itemsize))
