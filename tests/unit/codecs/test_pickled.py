"""Pickles: the writer wraps, the reader allows, and nothing else runs code."""

import copy
import pickle
import threading

import msgpack
import numpy as np
import pytest

from mltraq_ds.codecs import Pickled, decode, encode
from mltraq_ds.codecs.pickled import PickledCodec
from mltraq_ds.errors import CorruptBlobError, PickleRefusedError, UnsupportedTypeError
from mltraq_ds.testing.codec import CodecConformance, content_of, round_trip, sources_of

RUNS = []


def tell():
    """Note that it was called."""
    RUNS.append("ran")


class Tattler:
    """Tells when it is unpickled."""

    def __reduce__(self):
        return tell, ()


class Custom:
    """A class that has no codec."""

    def __init__(self, items):
        self.items = items

    def __eq__(self, other):
        return type(other) is Custom and np.array_equal(self.items, other.items)

    __hash__ = None


@pytest.fixture(autouse=True)
def _nothing_ran():
    RUNS.clear()


def test_nothing_runs_until_allowed():
    """Loading, printing, storing again and comparing run nothing; the value does, once, if the reader allows it."""
    encoded = encode({"a": Pickled(Tattler())})
    refused = decode(encoded.tree, sources_of(encoded.members))["a"]
    assert repr(refused) == "Pickled(<not read>)"
    with pytest.raises(PickleRefusedError, match=r"allow_pickle=True .* serialization\.allow_pickle"):
        _ = refused.value
    again = encode([refused])
    assert refused != 5
    with pytest.raises(PickleRefusedError):
        _ = refused == Pickled(1)
    assert RUNS == []
    allowed = decode(again.tree, sources_of(again.members), allow_pickle=True)[0]
    assert RUNS == []
    _ = allowed.value
    _ = allowed.value
    assert RUNS == ["ran"]
    with pytest.raises(PickleRefusedError):
        pickle.dumps(refused)
    with pytest.raises(PickleRefusedError):
        copy.deepcopy(refused)


def test_a_blob_cannot_allow():
    """Nothing that a tree can say makes a value be unpickled."""
    stream = pickle.dumps(Tattler(), 5)
    for meta in (stream, [stream, True], {"stream": stream, "allowed": True, "_allowed": True}):
        tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb(["mltraq_ds.pickled/1", meta, []])))
        try:
            value = decode(tree)
        except CorruptBlobError:
            continue
        with pytest.raises(PickleRefusedError):
            _ = value.value
    assert RUNS == []


def test_large_buffers_are_members():
    """Large arrays inside travel beside the pickle, uncopied; small and odd ones inside it."""
    large, small = np.arange(100_000.0), np.arange(10)
    value = Pickled(Custom([large, small, large[::2], np.asfortranarray(large.reshape(10, -1))]))
    encoded = encode(value, name="model")
    assert [member.name for member in encoded.members] == ["model.pkl", "model.bin", "model/0.bin"]
    (view,) = encoded.members[1].buffers()
    assert np.shares_memory(np.frombuffer(view, np.uint8), large)
    again = decode(encoded.tree, sources_of(encoded.members), allow_pickle=True)
    for a, b in zip(again.value.items, value.value.items, strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.value.items[0].flags.writeable
    small_stream = encode(Pickled(Custom([large])), name="m")
    assert [member.suffix for member in small_stream.members] == ["bin"]
    assert round_trip(Pickled(Custom([large])), allow_pickle=True).value.items[0][5] == 5


class Raw:
    """Offers a buffer that is not contiguous."""

    def __init__(self):
        self.array = np.arange(100_000)[::2]

    def __reduce_ex__(self, protocol):
        return _unraw, (pickle.PickleBuffer(self.array),)


def _unraw(buffer):
    return buffer


def test_buffers_that_are_not_contiguous():
    """A buffer that cannot be a member is a part of the pickle, or the value is refused with the reason."""
    with pytest.raises(UnsupportedTypeError, match="cannot be pickled"):
        encode(Pickled(Raw()))


@pytest.mark.parametrize("value", [threading.Lock(), lambda: 1, (x for x in ())], ids=["lock", "lambda", "generator"])
def test_what_pickle_refuses(value):
    """What pickle does not take is refused with its reason and place."""
    with pytest.raises(UnsupportedTypeError, match=r"at \['a'\] cannot be stored because it cannot be pickled"):
        encode({"a": Pickled(value)})


def test_equality_and_repr():
    """Two of them are equal when their values are."""
    assert Pickled([1]) == Pickled([1])
    assert Pickled([1]) != Pickled([2])
    assert Pickled([1]) != [1]
    assert repr(Pickled([1])) == "Pickled([1])"
    assert pickle.loads(pickle.dumps(Pickled([1]))) == Pickled([1])
    with pytest.raises(TypeError):
        hash(Pickled(1))


def test_damaged():
    """A pickle without its stream is damage."""
    for meta in (None, 5, "text"):
        tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb(["mltraq_ds.pickled/1", meta, []])))
        with pytest.raises(CorruptBlobError, match="a pickle without its stream"):
            decode(tree)


class TestPickledCodec(CodecConformance):
    """The suite for codecs, with pickles."""

    codec = PickledCodec

    def values(self):
        """Return wrapped values, small and large."""
        return [Pickled(None), Pickled(Custom([1])), Pickled("x" * 100_000), Pickled(np.arange(20_000.0))]

    def equal(self, value, again):
        """Compare the streams and buffers, since this reader has not allowed more."""
        first, second = encode(value, name="a"), encode(again, name="a")
        return first.tree == second.tree and [*map(content_of, first.members)] == [*map(content_of, second.members)]
