"""Tagged JSON: what stays inline comes back exactly, any tool can read it, and no user's value passes for a tag."""

import contextlib
import datetime
import decimal
import fractions
import json
import math
import uuid
import zoneinfo
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltraq_ds import DataStore
from mltraq_ds.errors import CorruptRecordError, MltraqDSError
from mltraq_ds.store.tagged import MAX_INLINE, NotInline, is_native, plain, restore, tag

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")

SCALARS = [
    None,
    True,
    0,
    -(2**63),
    2**200,
    0.5,
    -0.0,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "text",
    'ü\n"',
    "\ud800",
    1 + 2j,
    complex(math.nan, 1),
    b"",
    b"\x00\xff",
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
    datetime.date(2026, 1, 2),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime.time(1, 2, 3, 4),
    datetime.timedelta(-1, 2, 3),
    uuid.UUID(int=5),
    decimal.Decimal("1.10"),
    decimal.Decimal("sNaN123"),
    fractions.Fraction(1, 3),
    Path("a/b"),
    PurePosixPath("/x"),
    (1, (2, "x")),
    [1, [None]],
    {"a": {"b": []}},
    {},
    [],
    (),
    {1: "a", (2, 3): "b"},
    {"$ref": ["x", 1, "sha256:"]},
    {"$x": 1, "y": {"$float": "NaN"}},
    range(3),
    slice(1, None),
    {1, 2},
    frozenset({"a"}),
]
NUMPY = [
    np.bool_(True),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.float16(0.1),
    np.float32(0.97),
    np.float64(0.1),
    np.float32("nan"),
    np.float64("-inf"),
    np.complex64(1 + 2j),
    np.datetime64("2026-01-02", "us"),
    np.str_("x"),
    np.timedelta64(5, "s"),
    np.longdouble(1) / 3,
]
PANDAS = [pd.Timestamp("2026-01-02 03:04:05.000000006", tz="Europe/Berlin"), pd.Timedelta(5, "ns"), pd.NaT, pd.NA]


def never(reference, beside):
    raise AssertionError("no reference is here")


def same(a, b):
    if isinstance(a, float) and math.isnan(a):
        return type(a) is type(b) and math.isnan(b)
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.mark.parametrize("value", [*SCALARS, *NUMPY, *PANDAS], ids=repr)
def test_inline_values_come_back_exactly(value):
    """Through JSON text and back, value and type are the same."""
    text = json.dumps(tag(value), allow_nan=False)
    assert same(restore(json.loads(text), never), value)


@pytest.mark.parametrize("value", [*SCALARS, *NUMPY, *PANDAS], ids=repr)
def test_plain_form_is_json_without_tags(value):
    """The form for SQL is valid JSON in which no tag is left."""
    text = json.dumps(plain(tag(value)), allow_nan=False)
    if not (isinstance(value, dict) and any(str(key).startswith("$") for key in value)):
        assert '"$' not in text


def test_plain_values_are_searchable():
    """Numbers stay numbers, a diverged loss is the text NaN, and dates are ISO text."""
    assert plain(tag(math.nan)) == "NaN"
    assert plain(tag(-math.inf)) == "-Infinity"
    assert plain(tag(np.float32(0.5))) == 0.5
    assert plain(tag(datetime.date(2026, 1, 2))) == "2026-01-02"
    assert plain(tag(datetime.timedelta(seconds=90))) == 90.0
    assert plain(tag({(1, 2): (3,)})) == {"[1, 2]": [3]}
    assert plain(tag(pd.Timestamp("2026-01-02"))) == "2026-01-02 00:00:00"


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3),
        np.array(1),
        pd.DataFrame({"a": [1]}),
        DataStore(a=1),
        "x" * (MAX_INLINE + 1),
        list(range(MAX_INLINE)),
        {str(i): i for i in range(MAX_INLINE)},
        b"x" * MAX_INLINE,
        [np.zeros(3)],
        object(),
        lambda: None,
        {"a": object()},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_belongs_in_a_blob_is_not_inline(value):
    """Arrays, frames, DataStores and anything large are left to the blob, and unsupported values to its encoder."""
    with pytest.raises(NotInline):
        tag(value)


def test_deep_values_are_not_inline():
    """Deep nesting is left to the blob's codec, which states its limit."""
    value = []
    for _ in range(30):
        value = [value]
    with pytest.raises(NotInline):
        tag(value)


def test_is_native_sees_every_exception():
    """The fast way is taken only where it gives the same as the slow one."""
    assert is_native({"a": 1, "b": 0.5, "c": None, "d": True, "e": "x"})
    assert is_native({})
    assert not is_native({"a": math.nan})
    assert not is_native({"a": (1,)})
    assert not is_native({"a": np.float64(1)})
    assert not is_native({"a": "x" * MAX_INLINE})


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20) | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["$ref", "$float", "$"]), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=15,
)


@given(JSON_LIKE)
def test_any_nested_value_comes_back(value):
    """Nested containers of scalars round trip, also when their keys look like tags."""
    restored = restore(json.loads(json.dumps(tag(value), allow_nan=False)), never)
    assert same(restored, value)


@pytest.mark.parametrize(
    "tagged",
    [
        {"$unknown": 1},
        {"$float": "seven"},
        {"$uuid": "x"},
        {"$bytes": "?"},
        {"$numpy": ["O", 1]},
        {"$numpy": ["<f4"]},
        {"$dict": [[1]]},
        {"$dict": [[[], 1]]},
        {"$tuple": 5},
        {"$value": "AAAA!"},
        {"$value": "wQ=="},
        {"$ref": "x"},
        {"$ref": ["../x", 1, "sha256:" + "0" * 64]},
        {"$datetime": 5},
        {"$complex": 1},
        {"$timedelta": ["x"]},
        {"$numpy": ["nonsense", 1]},
        {"$decimal": []},
    ],
    ids=str,
)
def test_damaged_tags_are_typed_errors(tagged):
    """Whatever stands in a record, reading it gives a value or an error of ours."""
    with pytest.raises(MltraqDSError):
        restore(tagged, never)


@given(JSON_LIKE)
def test_hostile_records_never_run_wild(value):
    """Reading arbitrary JSON as a record gives values or errors of ours, nothing else."""
    hostile = plain_json(value)
    for wrapped in (hostile, {"$value": hostile}, {"$numpy": hostile}, {"$dict": hostile}, {"$tuple": hostile}):
        with contextlib.suppress(MltraqDSError):
            restore(wrapped, lambda reference, beside: reference)


def plain_json(value):
    return json.loads(
        json.dumps(plain(tag(value)) if not isinstance(value, dict) else value, default=str, skipkeys=True)
    )


def test_reference_is_resolved_with_what_stands_beside_it():
    """A reference is handed over with kind and names, and appears in SQL as what it is."""
    tagged = {"$ref": ["e/x", 5, "sha256:" + "0" * 64], "kind": "datastore", "names": ["a"]}
    reference, beside = restore(tagged, lambda reference, beside: (reference, beside))
    assert (reference.key, reference.size, beside["names"]) == ("e/x", 5, ["a"])
    assert plain(tagged) == {"$ref": tagged["$ref"], "kind": "datastore"}


def test_unknown_tag_says_what_to_do():
    """The message of an unreadable value names it and the remedy."""
    with pytest.raises(CorruptRecordError, match=r"\$unknown.*upgrade, or restore"):
        restore({"$unknown": 1}, never)
