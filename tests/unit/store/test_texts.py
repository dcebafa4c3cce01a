"""The JSON text of plain scalars is exact, in ASCII, and the same for record and index."""

import json
import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from mltraq_ds.store import records
from mltraq_ds.store.tagged import is_native
from mltraq_ds.store.texts import NativeMapping

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None), max_size=20)
)


def bits(value):
    """Return a float as its bits, so that -0.0 is not 0.0; anything else as it is, with its type."""
    return struct.pack("<d", value) if type(value) is float else (type(value), value)


@given(st.dictionaries(st.text(max_size=10), SCALARS, max_size=20).filter(is_native))
def test_exact(values):
    """Every native mapping comes back with equal keys, values, types and bits, in order."""
    text = NativeMapping(values).text
    assert text.isascii()
    assert "\n" not in text
    found = json.loads(text)
    assert list(found) == list(values)
    assert [bits(value) for value in found.values()] == [bits(value) for value in values.values()]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats(value):
    """A float comes back bit by bit, and is a float for other readers of JSON too."""
    text = NativeMapping(x=value).text
    assert bits(json.loads(text)["x"]) == bits(value)
    assert any(mark in text for mark in ".e")


def test_extremes():
    """The smallest, largest and roundest floats are exact."""
    values = [5e-324, 2.2250738585072014e-308, math.nextafter(math.inf, 0), 1e16, 1e22, 1e23, -0.0, 0.1, 2.0**53]
    assert list(map(bits, json.loads(NativeMapping(enumerate_(values)).text).values())) == list(map(bits, values))


def enumerate_(values):
    return {str(number): value for number, value in enumerate(values)}


def test_other_text():
    """What orjson refuses or writes otherwise, such as text beyond ASCII, is written by the standard library."""
    for value in ("é", "\ud800", 2**64, -(2**70), "\x7f", "\u2028"):
        mapping = NativeMapping(x=value)
        assert json.loads(mapping.text) == {"x": value}
        assert mapping.text.isascii()


def test_same_text():
    """Record and index get one and the same text, made once."""
    mapping = NativeMapping(a=0.5, b="x")
    assert records.plain_text(mapping) is mapping.text
    assert records.to_json(mapping) is mapping.text
