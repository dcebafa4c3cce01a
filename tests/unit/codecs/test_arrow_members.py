"""The Arrow member: read by other tools, written and read without copies, in parts, and safe when it is hostile."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest

from mltraq_ds.codecs import arrow
from mltraq_ds.codecs.arrow_bounds import RangeFile, check_file, malformed
from mltraq_ds.codecs.arrow_ipc import ColumnReader, ColumnWriter
from mltraq_ds.codecs.base import Parts
from mltraq_ds.codecs.pandas_frames import read_columns
from tests.unit.codecs.arrow_values import BERLIN, Memory, arrays, written

FRAME, SERIES = arrow.PandasDataFrameCodec(), arrow.PandasSeriesCodec()


class Remote(Memory):
    """A member whose ranges are copies, as from a network."""

    def read_range(self, offset: int, size: int) -> memoryview:
        return memoryview(bytes(super().read_range(offset, size)))


def mixed(rows: int = 6) -> pd.DataFrame:
    """Return a frame with a column of every kind that the member holds."""
    return pd.DataFrame(
        {
            "f": np.arange(rows) / 3,
            "i": np.arange(rows, dtype="i4"),
            "b": np.arange(rows) % 3 == 0,
            "s": pd.array([f"text {i}" if i % 2 else None for i in range(rows)], dtype="string[pyarrow]"),
            "c": pd.Categorical.from_codes(np.arange(rows) % 3, ["x", "y", "z"]),
            "t": pd.date_range("2024", periods=rows, freq="h", tz=BERLIN),
            "n": pd.array([i if i % 2 else None for i in range(rows)], dtype="Int64"),
            "v": pd.interval_range(0, periods=rows),
            "o": pd.Series([{"k": i} for i in range(rows)], dtype=object),
        },
        index=pd.Index(np.arange(rows) * 2, name="id"),
    )


def source_of(parts: Parts, kind: type[Memory] = Memory) -> Memory:
    """Return the one member of a frame."""
    return kind(written(parts.members[0]))


def test_pyarrow_reads_the_member_without_this_library(tmp_path: Path) -> None:
    """Another process reads it by pyarrow.feather: names, values, nulls, categories, times."""
    path = tmp_path / "x.arrow"
    path.write_bytes(written(FRAME.encode(mixed()).members[0]))
    code = """
    import json, sys
    import pyarrow.feather
    table = pyarrow.feather.read_table(sys.argv[1])
    assert not any(name.startswith("mltraq_ds") for name in sys.modules)
    print(json.dumps([{k: str(v) for k, v in row.items()} for row in table.to_pylist()]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True, check=True
    )
    row = json.loads(done.stdout)[1]
    assert row == {
        "f": str(1 / 3),
        "i": "1",
        "b": "False",
        "s": "text 1",
        "c": "y",
        "t": "2024-01-01 01:00:00+01:00",
        "n": "1",
        "v.left": "1",
        "v.right": "2",
        "id": "2",
    }


def test_column_names_are_readable_and_unique() -> None:
    """Labels of any type become text that tells them apart."""
    frame = pd.DataFrame([[1, 2, 3, 4, 5]])
    frame.columns = pd.Index(["a", "a", 1, "a_1", "\ud800"], dtype=object)
    table = pa.feather.read_table(pa.py_buffer(written(FRAME.encode(frame).members[0])))
    assert table.column_names == ["a", "a_1", "1", "a_1_1", "\\ud800"]


def test_fixed_width_columns_are_written_from_where_they_lie() -> None:
    """Contiguous columns, also of a nullable or categorical dtype and of times, are views in the buffers."""
    values = np.arange(100_000.0)
    ticks = np.arange(100_000)
    codes = np.zeros(100_000, "i1")
    frame = pd.DataFrame(
        {
            "a": values,
            "t": pd.array(ticks.view("M8[us]"), copy=False),
            "n": pd.arrays.IntegerArray(ticks, np.zeros(100_000, bool)),
            "c": pd.Categorical.from_codes(codes, ["x"]),
        },
        copy=False,
    )
    member = FRAME.encode(frame).members[0]
    assert not member.streamed
    addresses = {np.frombuffer(part, np.uint8).ctypes.data for part in member.buffers()}
    for array in (values, ticks, np.asarray(frame["c"].array.codes)):
        assert array.ctypes.data in addresses


def test_columns_are_read_where_they_lie() -> None:
    """Columns of a frame read are views of the member, columns of one dtype one block."""
    parts = FRAME.encode(pd.DataFrame({"a": np.arange(1000.0), "i": range(1000)}))
    source = source_of(parts)
    back = FRAME.decode(parts.meta, [source])
    whole = np.frombuffer(source.content, np.uint8)
    assert np.shares_memory(back["a"].to_numpy(), whole)
    parts = FRAME.encode(pd.DataFrame(np.random.default_rng(1).random((1000, 7))))
    source = source_of(parts)
    back = FRAME.decode(parts.meta, [source])
    assert np.shares_memory(back.to_numpy(), np.frombuffer(source.content, np.uint8))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_strided_frame_is_written_in_little_memory() -> None:
    """A frame of 256 MB whose columns are strided takes a few pieces of memory, not another 256 MB."""
    code = """
    import numpy as np, pandas as pd
    from mltraq_ds.codecs.arrow import PandasDataFrameCodec
    def peak():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
    frame = pd.DataFrame(np.ones((1_000_000, 32)), copy=False)
    member = PandasDataFrameCodec().encode(frame[:10]).members[0]
    sum(len(part) for part in member.buffers())
    before = peak()
    member = PandasDataFrameCodec().encode(frame).members[0]
    assert member.streamed
    assert sum(len(part) for part in member.buffers()) == member.size > 256_000_000
    print(peak() - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 << 20


@pytest.mark.parametrize("kind", [Memory, Remote])
@pytest.mark.parametrize("rows", [6, 50_000])
def test_some_columns_are_read_alone(rows: int, kind: type[Memory]) -> None:
    """Any selection equals the same selection of the whole frame, in the order asked for."""
    frame = mixed(rows)
    parts = FRAME.encode(frame)
    for columns in (["f"], ["n", "c"], ["v", "o"], ["o"], list(frame.columns), []):
        back = read_columns(parts.meta, [source_of(parts, kind)], columns)
        pd.testing.assert_frame_equal(back, frame[columns], check_exact=True)
    with pytest.raises(KeyError, match="nowhere"):
        read_columns(parts.meta, [source_of(parts, kind)], ["f", "nowhere"])


def test_reading_one_column_does_not_read_the_others() -> None:
    """Only the ends and the column of a large member are fetched; the index is a range."""
    frame = pd.DataFrame(np.random.default_rng(1).random((200_000, 10)), columns=list("abcdefghij"))
    parts = FRAME.encode(frame)
    source = source_of(parts, Remote)
    pd.testing.assert_frame_equal(read_columns(parts.meta, [source], ["d"]), frame[["d"]])
    assert sum(size for _, size in source.ranges) < 1_600_000 + (256 << 10)
    assert len(source.ranges) < 8
    objects = pd.DataFrame({"o": pd.Series([1, "a"], dtype=object)})
    parts = FRAME.encode(objects)
    source = source_of(parts, Remote)
    pd.testing.assert_frame_equal(read_columns(parts.meta, [source], ["o"]), objects)
    assert source.ranges == []


def test_a_label_that_occurs_twice_gives_both_columns() -> None:
    """Like `frame[[label]]`."""
    frame = pd.DataFrame([[1, 2.5, "x"]], columns=["a", "b", "a"])
    parts = FRAME.encode(frame)
    pd.testing.assert_frame_equal(read_columns(parts.meta, [source_of(parts)], ["a"]), frame[["a"]])


def test_a_read_only_member_is_copied() -> None:
    """Bytes that cannot be written to are copied, so that the frame can be changed."""
    parts = FRAME.encode(pd.DataFrame({"a": [1, 2], "b": [3, 4]}))
    back = FRAME.decode(parts.meta, [Memory(bytes(source_of(parts).content))])
    back.iloc[0, 0] = 5
    assert back["a"].tolist() == [5, 2]


def compressed(codec: str) -> bytes:
    """Return an Arrow file of 8 MB of zeros in a few hundred bytes."""
    sink = pa.BufferOutputStream()
    table = pa.table({"a": np.zeros(1_000_000)})
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_bomb_is_refused_before_it_is_unpacked(codec: str) -> None:
    """Compressed buffers are never ours."""
    parts = FRAME.encode(pd.DataFrame({"a": [1.0]}))
    with pytest.raises(ValueError, match="never compressed"):
        FRAME.decode(parts.meta, [Memory(bytearray(compressed(codec)))])


def test_buffers_that_share_bytes_are_refused() -> None:
    """Many columns over the same bytes would be a bomb, too."""
    parts = FRAME.encode(pd.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000.0)}))
    content = source_of(parts).content
    # No nulls of the second column, then where its values are, then their size.
    size = (8000).to_bytes(8, "little")
    at = content.index(size + bytes(8) + size + size)
    content[at + 16 : at + 24] = bytes(8)
    with pytest.raises(ValueError, match="overlap"):
        FRAME.decode(parts.meta, [Memory(content)])


@pytest.mark.parametrize("length", [0, 5, 19, 20, 100, 400])
def test_a_cut_member_is_a_value_error(length: int) -> None:
    """Also where both ends have the magic bytes."""
    parts = FRAME.encode(mixed())
    content = source_of(parts).content
    for cut in (content[:length], content[:length] + content[-6:], content[:8] + content[-length:]):
        with pytest.raises(ValueError):
            FRAME.decode(parts.meta, [Memory(cut)])


class Broken(Memory):
    """A member on a storage that stopped answering."""

    def read(self) -> memoryview:
        raise OSError(5, "gone")


def test_errors_of_the_storage_pass() -> None:
    """An OSError with a number is the storage's, not a sign of damage; without one it is pyarrow's."""
    parts = FRAME.encode(pd.DataFrame({"a": [1.0]}))
    with pytest.raises(OSError, match="gone"):
        FRAME.decode(parts.meta, [Broken(bytearray(10))])
    with pytest.raises(ValueError, match="too few"), malformed():
        raise OSError("too few bytes")
    with pytest.raises(ValueError, match="ArrowException"), malformed():
        raise pa.ArrowException("odd")
    with pytest.raises(RuntimeError), malformed():
        raise RuntimeError("ours")


def directory(*fields: bytes | None) -> bytearray:
    """Return an Arrow file without anything but a directory: a flatbuffers table with these fields."""
    offsets, values = bytearray(), bytearray()
    for value in fields:
        offsets += struct.pack("<H", 4 + len(values) if value is not None else 0)
        values += value or b""
    table = struct.pack("<HH", 4 + len(offsets), 4 + len(values)) + offsets
    footer = struct.pack("<I", 4 + len(table)) + table + struct.pack("<i", len(table)) + values
    return bytearray(b"ARROW1\0\0" + bytes(16) + footer + struct.pack("<i", len(footer)) + b"ARROW1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (directory(None, None, None, struct.pack("<II", 4, 1000)), "vector ends"),
        (directory(None, None, None, struct.pack("<I", 1 << 30)), "malformed"),
        (directory(None, None, None, struct.pack("<IIqixxxxq", 4, 1, -8, 16, 8)), "outside of the member"),
        (directory(None, None, None, struct.pack("<IIqixxxxq", 4, 1, 8, 4, 8)), "malformed"),
        (directory(None, None, None, struct.pack("<IIqixxxxq", 4, 1, 8, 16, 8)), "outside of its message|no header"),
        (
            directory(None, None, None, b"\0" * 4)[:-10] + struct.pack("<i", 1 << 20) + b"ARROW1",
            "outside of the member",
        ),
        (directory(None)[:24] + struct.pack("<I", 99) + directory(None)[28:], "outside of its message"),
    ],
    ids=str,
)
def test_a_malformed_directory_is_a_value_error(content: bytearray, message: str) -> None:
    """Every length and offset in it is checked before it is followed."""
    with pytest.raises(ValueError, match=message):
        check_file(RangeFile(Memory(content), whole=True))


def test_the_directory_of_a_frame_is_checked_wherever_it_is_changed() -> None:
    """Each byte of message and directory set to odd values: refused by `check_file`, or taken without an error."""
    parts = FRAME.encode(pd.DataFrame({"a": np.arange(3.0), "b": ["x", "y", None]}))
    content = source_of(parts).content
    refused = set()
    for at in range(len(content)):
        for value in (0, 1, 0x7F, 0xFF):
            changed = bytearray(content)
            changed[at] = value
            try:
                check_file(RangeFile(Memory(changed), whole=True))
            except ValueError as error:
                refused.add(str(error)[:20])
    assert len(refused) > 8


def test_several_batches_are_refused() -> None:
    """A frame is one batch: more of them could repeat the same bytes."""
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [1, 2]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
        writer.write_table(table)
    parts = FRAME.encode(pd.DataFrame({"a": [1, 2]}))
    with pytest.raises(ValueError, match="one record batch"):
        FRAME.decode(parts.meta, [Memory(bytearray(sink.getvalue()))])


WRONG: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("no meta", lambda meta: None),
    ("a list", lambda meta: []),
    ("no fields", lambda meta: {**meta, "fields": None}),
    ("fewer fields", lambda meta: {**meta, "fields": meta["fields"][1:]}),
    ("another index", lambda meta: {**meta, "index": {"kind": "range", "range": [0, 5, 1], "name": None}}),
    ("an odd index", lambda meta: {**meta, "index": {"kind": "odd"}}),
    ("an endless index", lambda meta: {**meta, "index": {"kind": "range", "range": [0, 2**70, 1], "name": None}}),
    ("wrong columns", lambda meta: {**meta, "columns": meta["index"]}),
]
FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("f", {"kind": "odd"}),
    ("f", {"at": 99}),
    ("f", {"at": -1}),
    ("f", {"at": "f"}),
    ("f", {"dtype": "<f4"}),
    ("f", {"dtype": "?"}),
    ("f", {"dtype": "O"}),
    ("f", {"dtype": "c16"}),
    ("f", {"dtype": "M8[ns]"}),
    ("f", {"dtype": "odd"}),
    ("b", {"dtype": "u1"}),
    ("c", {"kind": "numpy", "dtype": "i1"}),
    ("c", {"at": 0}),
    ("c", {"level": None}),
    ("c", {"level": {"kind": "range", "range": [0, 1, 1], "name": None}}),
    ("s", {"at": 0}),
    ("s", {"storage": "odd"}),
    ("s", {"missing": "odd"}),
    ("s", {"kind": "numpy", "dtype": "<i8"}),
    ("s", {"kind": "datetime", "unit": "s", "tz": None}),
    ("t", {"unit": "D"}),
    ("t", {"unit": None}),
    ("t", {"tz": {}}),
    ("t", {"kind": "period", "freq": {"text": "odd"}}),
    ("t", {"kind": "period", "freq": {"name": "os", "n": 1, "normalize": False, "kwds": {}}}),
    ("n", {"dtype": "M8[s]"}),
    ("n", {"at": 3}),
    ("v", {"closed": "odd"}),
    ("v", {"left": {"kind": "numpy", "value": np.arange(3)}}),
    ("o", {"value": None}),
    ("o", {"value": [1]}),
    ("o", {"of": "odd", "at": 0}),
    ("o", {"kind": "string", "value": [1], "storage": "python", "missing": "NA"}),
    ("o", {"kind": "numpy", "value": [1]}),
    ("o", {"kind": "numpy", "value": np.zeros((6, 2))}),
    ("o", {"kind": "datetime", "unit": "s", "tz": None, "value": np.zeros(6)}),
    ("o", {"kind": "masked", "dtype": "<i8", "value": np.zeros(6, "i8"), "nulls": np.zeros(5, bool)}),
    (
        "o",
        {"kind": "sparse", "value": np.zeros(2), "indices": np.array([0, 9]), "rows": 6, "layout": "block", "fill": 0},
    ),
    ("o", {"kind": "arrow", "value": None, "extensions": []}),
]


@pytest.mark.parametrize(("name", "change"), WRONG, ids=[name for name, _ in WRONG])
def test_a_wrong_description_is_a_value_error(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """What the tree says of a frame is not trusted."""
    parts = FRAME.encode(mixed())
    with pytest.raises(ValueError):
        FRAME.decode(change(parts.meta), [source_of(parts)])
    for members in ([], [source_of(parts)] * 2):
        with pytest.raises(ValueError):
            FRAME.decode(parts.meta, members)


@pytest.mark.parametrize(("column", "change"), FIELDS, ids=repr)
def test_a_wrong_description_of_a_column_is_a_value_error(column: str, change: dict[str, Any]) -> None:
    """What the tree says of a column is checked against the member."""
    frame = mixed()
    parts = FRAME.encode(frame)
    position = list(frame.columns).index(column)
    fields = list(parts.meta["fields"])
    fields[position] = {**fields[position], **change}
    with pytest.raises(ValueError):
        FRAME.decode({**parts.meta, "fields": fields}, [source_of(parts)])


def test_columns_without_a_member_are_value_errors() -> None:
    """A series whose member is gone, a complex column over other bytes."""
    parts = SERIES.encode(pd.Series(pd.Categorical(["a", "b"])))
    with pytest.raises(ValueError, match="missing"):
        SERIES.decode(parts.meta, [])
    parts = SERIES.encode(pd.Series([1.0, 2.0], name="x"))
    with pytest.raises(ValueError, match="missing"):
        SERIES.decode(parts.meta, [])
    wrong = pd.Series([1j, 2j]).astype("c8")
    other = SERIES.encode(wrong)
    with pytest.raises(ValueError, match="pairs of"):
        SERIES.decode({**other.meta, "values": {**other.meta["values"], "dtype": "<c16"}}, [source_of(other)])
    with pytest.raises(ValueError, match="no values"):
        reader = ColumnReader(source_of(parts))
        reader.values(pa.nulls(3), np.dtype("f8"))
    writer = ColumnWriter()
    writer.add("x", pa.array(np.arange(10.0)))
    column = ColumnReader(Memory(written(writer.member()))).column(0)
    with pytest.raises(ValueError, match="no values"):
        reader.values(column.slice(1), np.dtype("f8"))
    with pytest.raises(ValueError, match="shorter"):
        reader.values(column, np.dtype("c16"))


FUZZ = """
import faulthandler, pickle, random, sys, warnings
faulthandler.enable()
sys.path.insert(0, sys.argv[2])
from mltraq_ds.codecs import arrow
from mltraq_ds.codecs.pandas_frames import read_columns
from mltraq_ds.errors import MltraqDSError
from tests.unit.codecs.arrow_values import Memory
import pandas as pd
warnings.simplefilter("ignore")
cases = pickle.load(open(sys.argv[1], "rb"))
chance = random.Random(int(sys.argv[3]))
seen = {"refused": 0, "read": 0}
for name, codec, meta, content in cases:
    codec = getattr(arrow, codec)()
    for _ in range(int(sys.argv[4])):
        changed = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 8])):
            at = chance.randrange(len(changed))
            what = chance.randrange(4)
            if what == 0:
                changed[at] ^= 1 << chance.randrange(8)
            elif what == 1:
                changed[at] = chance.choice([0, 1, 127, 128, 255])
            elif what == 2:
                changed[at:at + 8] = chance.choice([b"\\xff" * 8, bytes(7) + b"\\x7f", chance.randbytes(8)])
            else:
                start = chance.randrange(len(changed))
                changed[at:at + 16] = changed[start:start + 16]
        for read in (codec.decode, lambda meta, members: read_columns(meta, members, list(range(0, 9, 2)))):
            if read is not codec.decode and (codec.name != "pandas.dataframe/1" or "narrow" in name):
                continue
            try:
                value = read(meta, [Memory(changed)])
            except (ValueError, MltraqDSError):
                seen["refused"] += 1
                continue
            try:
                repr(value)
                if isinstance(value, pd.DataFrame):
                    value.describe(include="all")
                    value.memory_usage(deep=True)
                    [list(value.iloc[:, i]) for i in range(value.shape[1])]
            except Exception:
                pass  # of pandas, which cannot show every value that it can hold: only a crash counts
            seen["read"] += 1
print(seen)
"""


@pytest.mark.parametrize("seed", range(2))
def test_changed_members_never_crash(seed: int, tmp_path: Path) -> None:
    """Thousands of changed members, in a process of their own: an error or some frame, never a crash."""
    cases = []
    frame = mixed(20)
    frame.columns = pd.RangeIndex(len(frame.columns))
    parts = FRAME.encode(frame)
    cases.append(("mixed", "PandasDataFrameCodec", parts.meta, bytes(source_of(parts).content)))
    for kind, make in arrays().items():
        if "sliced" in kind or "numpy" in kind:
            continue
        array = make()
        value = pd.DataFrame({"x": pd.Series(array, dtype=object if array.dtype == object else None)})
        parts = FRAME.encode(value)
        cases.append((f"narrow {kind}", "PandasDataFrameCodec", parts.meta, bytes(source_of(parts).content)))
    table = pa.table({"a": ["x", None, "yz"], "d": pa.array(["u", "v", "u"]).dictionary_encode(), "l": [[1], [], None]})
    parts = arrow.ArrowTableCodec().encode(table)
    cases.append(("table", "ArrowTableCodec", parts.meta, bytes(source_of(parts).content)))
    path = tmp_path / "cases"
    path.write_bytes(pickle.dumps(cases))
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(path), root, str(seed), "20"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'refused': 0" not in done.stdout
    assert "'read': 0" not in done.stdout
