"""Tables of pyarrow and frames of polars come back exactly."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mltraq_ds.codecs import arrow
from mltraq_ds.codecs.arrow_ipc import write_member
from mltraq_ds.errors import UnsupportedTypeError
from tests.unit.codecs.arrow_values import Memory, there_and_back, written

CODEC = arrow.ArrowTableCodec()
DICTIONARIES = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", "b"]).dictionary_encode()]
TABLES: dict[str, Callable[[], Any]] = {
    "columns": lambda: pa.table({"a": [1, None, 3], "b": ["x", "", None], "c": [1.5, float("nan"), None]}),
    "metadata": lambda: pa.table(
        {"a": [1]}, pa.schema([pa.field("a", pa.int64(), False, {"unit": "m"})], metadata={b"\xff": b"\0"})
    ),
    "duplicate names": lambda: pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], ["a", "a"]),
    "chunks": lambda: pa.concat_tables([pa.table({"a": [1, 2]}), pa.table({"a": [3]})]),
    "different dictionaries": lambda: pa.table({"d": pa.chunked_array(DICTIONARIES)}),
    "nested dictionaries": lambda: pa.table(
        {"d": pa.chunked_array([pa.ListArray.from_arrays([0, 1, 2], item) for item in DICTIONARIES])}
    ),
    "nested": lambda: pa.table({"a": [[{"x": [1, None]}], None, []]}),
    "no rows": lambda: pa.table({"a": pa.array([], pa.string())}),
    "no columns": lambda: pa.table({}),
    "sliced": lambda: pa.table({"a": list(range(100)), "b": [str(i) for i in range(100)]}).slice(13, 50),
    "views": lambda: pa.table({"a": pa.array(["x" * 40, None, ""], pa.string_view())}),
    "run ends": lambda: pa.table({"a": pa.RunEndEncodedArray.from_arrays([2, 5], [1, 2])}),
    "union": lambda: pa.table(
        {"a": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])}
    ),
}
if hasattr(pa, "uuid"):
    TABLES["uuid"] = lambda: pa.table({"a": pa.array([bytes(16)], pa.uuid())})


@pytest.mark.parametrize("kind", TABLES)
def test_tables_come_back(kind: str) -> None:
    """Schema with metadata, nulls, nesting, and the values."""
    value = TABLES[kind]()
    back = there_and_back(CODEC, value)
    assert type(back) is pa.Table
    back.validate(full=True)
    assert back.schema.equals(value.schema, check_metadata=True)
    assert back.combine_chunks().to_pylist() == value.combine_chunks().to_pylist() or kind == "columns"
    if kind not in ("different dictionaries", "nested dictionaries", "columns"):
        assert back.equals(value)
    if kind == "columns":
        assert repr(back.to_pylist()) == repr(value.to_pylist())


@pytest.mark.parametrize("kind", TABLES)
def test_batches_and_arrays_come_back(kind: str) -> None:
    """A record batch, an array and a chunked array come back as what they were."""
    table = TABLES[kind]().combine_chunks()
    batches = table.to_batches() if kind == "union" else [pa.RecordBatch.from_pylist([], schema=table.schema)]
    for batch in [*table.to_batches(), *batches]:
        back = there_and_back(CODEC, batch)
        assert type(back) is pa.RecordBatch
        assert back.schema.equals(batch.schema, check_metadata=True)
        assert repr(back.to_pylist()) == repr(batch.to_pylist())
    for column in table.columns:
        back = there_and_back(CODEC, column)
        assert type(back) is pa.ChunkedArray
        assert (back.type, repr(back.to_pylist())) == (column.type, repr(column.to_pylist()))
        for array in [
            *column.chunks,
            pa.array([], column.type) if kind not in ("union", "run ends") else pa.array([1]),
        ]:
            back = there_and_back(CODEC, array)
            assert (type(back), back.type) == (type(array), array.type)
            assert repr(back.to_pylist()) == repr(array.to_pylist())


def test_a_table_is_written_and_read_without_copies() -> None:
    """The buffers are the table's, and the table read lies in the member."""
    values = np.arange(100_000.0)
    parts = CODEC.encode(pa.table({"a": values}))
    addresses = {np.frombuffer(part, np.uint8).ctypes.data for part in parts.members[0].buffers()}
    assert values.ctypes.data in addresses
    source = Memory(written(parts.members[0]))
    back = CODEC.decode(parts.meta, [source])
    start = np.frombuffer(source.content, np.uint8).ctypes.data
    assert start <= back.column(0).chunk(0).buffers()[1].address < start + source.size


@pytest.mark.parametrize("failures", [1, 2])
def test_a_table_that_pyarrow_cannot_write_in_chunks(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions cannot write chunks with different nested dictionaries: one chunk is tried, then it is refused."""
    calls = []

    def write(table: Any) -> Any:
        calls.append(table.column(0).num_chunks)
        if len(calls) <= failures:
            raise pa.ArrowInvalid("dictionary replacement")
        return write_member(table)

    monkeypatch.setattr("mltraq_ds.codecs.arrow_tables.write_member", write)
    value = TABLES["chunks"]()
    if failures == 2:
        with pytest.raises(UnsupportedTypeError, match="decode its dictionaries"):
            CODEC.encode(value)
    else:
        assert there_and_back(CODEC, value).equals(value)
    assert calls == [2, 1]


def test_rows_without_columns_are_refused() -> None:
    """Arrow files hold no rows without columns: an error, not an empty table."""
    with pytest.raises(UnsupportedTypeError, match="without columns"):
        CODEC.encode(pa.table({"a": [1, 2]}).select([]))


def test_descriptions_that_do_not_fit_are_value_errors() -> None:
    """Wrong kinds, counts and members."""
    parts = CODEC.encode(TABLES["chunks"]())
    source = Memory(written(parts.members[0]))
    for meta, members in (
        ({**parts.meta, "rows": 4}, [source]),
        ({**parts.meta, "kind": "batch"}, [source]),
        ({**parts.meta, "kind": "array"}, [source]),
        ({**parts.meta, "kind": None}, [source]),
        (parts.meta, []),
        (parts.meta, [source, source]),
        ({}, [source]),
        (None, [source]),
    ):
        with pytest.raises(ValueError):
            CODEC.decode(meta, members)
    parts = CODEC.encode(TABLES["chunks"]().column(0))
    with pytest.raises(ValueError, match="no array"):
        CODEC.decode({**parts.meta, "kind": "array"}, [Memory(written(parts.members[0]))])


def polars_columns() -> dict[str, Any]:
    """Return one polars series per dtype that survives."""
    pl = pytest.importorskip("polars", reason="polars is optional")
    moment = datetime.datetime(2024, 1, 1)
    return {
        "int": pl.Series([1, None], dtype=pl.Int8),
        "float": pl.Series([float("nan"), None]),
        "text": pl.Series(["x", None]),
        "bool": pl.Series([True, None]),
        "bytes": pl.Series([b"x", None]),
        "categorical": pl.Series(["u", "v"], dtype=pl.Categorical),
        "enum": pl.Series(["u", "v"], dtype=pl.Enum(["v", "u", "w"])),
        "list": pl.Series([[1], [2, None]]),
        "array": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int16, 2)),
        "struct": pl.Series([{"a": 1, "b": "x"}, {"a": None, "b": None}]),
        "decimal": pl.Series([Decimal("1.20"), None], dtype=pl.Decimal(10, 2)),
        "date": pl.Series([datetime.date(2024, 1, 1), None]),
        "time": pl.Series([datetime.time(1, 2, 3), None]),
        "duration": pl.Series([datetime.timedelta(1), None], dtype=pl.Duration("ms")),
        "datetime": pl.Series([moment, None], dtype=pl.Datetime("ns")),
        "zone": pl.Series([moment, None], dtype=pl.Datetime("us")).dt.replace_time_zone("Europe/Berlin"),
        "null": pl.Series([None, None]),
    }


def test_polars_frames_and_series_come_back() -> None:
    """Every dtype, with gaps, without rows, without columns, in several chunks."""
    pl = pytest.importorskip("polars", reason="polars is optional")
    frame_codec, series_codec = arrow.PolarsDataFrameCodec(), arrow.PolarsSeriesCodec()
    frame = pl.DataFrame(polars_columns())
    unnamed = pl.DataFrame({"": [1], "b": [2]})
    for value in (frame, unnamed, frame[:0], frame[1:], pl.concat([frame, frame], rechunk=False), pl.DataFrame()):
        back = there_and_back(frame_codec, value)
        assert type(back) is pl.DataFrame
        assert back.schema == value.schema
        assert repr(back.to_dicts()) == repr(value.to_dicts())
    for name, column in polars_columns().items():
        for value in (column, column.alias(name), column[:0]):
            back = there_and_back(series_codec, value)
            assert (back.name, back.dtype) == (value.name, value.dtype)
            assert repr(back.to_list()) == repr(value.to_list())


def test_polars_rows_without_columns_come_back() -> None:
    """A frame of five rows without columns, where this polars has such frames."""
    pl = pytest.importorskip("polars", reason="polars is optional")
    try:
        value = pl.DataFrame(height=5)
    except TypeError:
        pytest.skip("this polars has no rows without columns")
    assert there_and_back(arrow.PolarsDataFrameCodec(), value).shape == (5, 0)


def test_polars_dtypes_that_would_change_are_refused() -> None:
    """Objects and 128-bit integers are errors that name the column."""
    pl = pytest.importorskip("polars", reason="polars is optional")
    for value in (pl.Series("odd", [object()], dtype=pl.Object), pl.Series("odd", [1], dtype=pl.Int128)):
        with pytest.raises(UnsupportedTypeError, match="'odd'"):
            arrow.PolarsDataFrameCodec().encode(value.to_frame())


def test_a_polars_member_that_does_not_fit_is_a_value_error() -> None:
    """Two columns are no series; a description of another kind is none."""
    pl = pytest.importorskip("polars", reason="polars is optional")
    parts = arrow.PolarsDataFrameCodec().encode(pl.DataFrame({"a": [1], "b": [2]}))
    source = Memory(written(parts.members[0]))
    for meta in (parts.meta, {}, None, {**parts.meta, "rows": 2}, {**parts.meta, "columns": ["a", "a"]}):
        with pytest.raises(ValueError):
            arrow.PolarsSeriesCodec().decode(meta, [source])
