"""The table of codecs: what is in it, what may be added, and what is said when one is missing."""

import fractions
import importlib.metadata
import sys

import msgpack
import numpy as np
import pytest

from mltraq_ds import codecs
from mltraq_ds.codecs import CODECS, Codec, Member, Parts, decode, encode, register
from mltraq_ds.errors import CorruptBlobError, FormatError, MissingExtraError, UnsupportedTypeError, UsageError
from mltraq_ds.testing.codec import CodecConformance, round_trip, sources_of


class Money:
    """A type of the user's."""

    def __init__(self, amount, currency):
        self.amount, self.currency = amount, currency

    def __eq__(self, other):
        return type(other) is Money and (self.amount, self.currency) == (other.amount, other.currency)

    __hash__ = None


class MoneyCodec(Codec):
    """A codec of the user's."""

    name = "acme.money/1"

    def accepts(self, value):
        return type(value) is Money

    def encode(self, value):
        note = f"{value.amount}".encode()
        return Parts((value.currency, fractions.Fraction(1, 3)), [Member("txt", len(note), lambda: [note])])

    def decode(self, meta, members):
        return Money(int(bytes(members[0].read())), meta[0])


@pytest.fixture(autouse=True)
def _fresh_table(monkeypatch):
    """Give each test a table of its own, which `CODECS` shows."""
    before = dict(codecs._codecs)
    monkeypatch.setattr(codecs, "_instances", dict(codecs._instances))
    monkeypatch.setattr(codecs, "_registered", [])
    monkeypatch.setattr(codecs, "_broken_entry_points", None)
    yield
    codecs._codecs.clear()
    codecs._codecs.update(before)


def test_table_is_sorted_and_true():
    """The table is sorted, cannot be changed from outside, and each entry is the class of that name."""
    assert list(CODECS) == sorted(CODECS)
    with pytest.raises(TypeError):
        CODECS["x.y/1"] = MoneyCodec
    for name in CODECS:
        assert codecs.codec_named(name).name == name


def test_register():
    """A registered codec is asked for its type, and found by its name."""
    with pytest.raises(UnsupportedTypeError, match=r"register a codec \(mltraq_ds\.codecs\.register\)"):
        encode(Money(5, "EUR"))
    assert register(MoneyCodec) is MoneyCodec
    assert register(MoneyCodec) is MoneyCodec
    assert round_trip({"m": [Money(5, "EUR")]}) == {"m": [Money(5, "EUR")]}
    encoded = encode(Money(5, "EUR"), name="price")
    assert encoded.members[0].name == "price.txt"
    assert encoded.summary["codec"] == "acme.money/1"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (None, "not of the form"),
        ("money", "not of the form"),
        ("money/1", "not of the form"),
        ("Acme.money/1", "not of the form"),
        ("acme.money/0", "not of the form"),
        ("acme.money/1\n", "not of the form"),
        ("acme..money/1", "not of the form"),
        ("numpy.ndarray/1", "is taken by"),
    ],
)
def test_names_refused(name, reason):
    """A name that has not the form, or is taken, is refused with the remedy; the table stays as it is."""
    before = dict(codecs._codecs)
    with pytest.raises(UsageError, match=reason):
        register(type("Odd", (MoneyCodec,), {"name": name}))
    assert codecs._codecs == before


def test_not_a_codec():
    """Only a complete subclass of Codec is registered."""
    for odd in (Money, MoneyCodec(), "acme.money/1", None):
        with pytest.raises(UsageError, match="not a subclass"):
            register(odd)
    with pytest.raises(TypeError, match="abstract"):
        register(type("Half", (Codec,), {"name": "acme.half/1"}))
    assert "acme.half/1" not in codecs._codecs


class FakeEntryPoint:
    """An entry point of an installed package."""

    def __init__(self, name, load):
        self.name, self.load = name, load


def test_entry_points(monkeypatch):
    """Codecs of installed packages are found when no other fits, loaded once; a broken one harms no other."""
    loads = []

    def entry_points(group):
        loads.append(group)
        broken = FakeEntryPoint("broken", lambda: (_ for _ in ()).throw(ImportError("no acme2")))
        return [broken, FakeEntryPoint("money", lambda: MoneyCodec)]

    tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb(["other.thing/1", None, []])))
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert round_trip([1, np.zeros(500)])[0] == 1
    assert loads == []
    assert round_trip(Money(1, "x")) == Money(1, "x")
    with pytest.raises(FormatError, match=r"codecs of 'other'.*could not be loaded: broken: no acme2"):
        decode(tree)
    with pytest.raises(UnsupportedTypeError, match="no acme2"):
        encode(len)
    assert loads == ["mltraq_ds.codecs"]


def test_entry_points_to_read(monkeypatch):
    """A value of a codec that was not registered yet finds it among the installed packages."""
    register(MoneyCodec)
    encoded = encode(Money(1, "x"))
    monkeypatch.setattr(codecs, "_registered", [])
    del codecs._codecs[MoneyCodec.name], codecs._instances[MoneyCodec.name]
    with pytest.raises(FormatError, match="Install or import the package that registers the codecs of 'acme'"):
        decode(encoded.tree, sources_of(encoded.members))
    monkeypatch.setattr(codecs, "_broken_entry_points", None)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [FakeEntryPoint("money", lambda: MoneyCodec)])
    assert decode(encoded.tree, sources_of(encoded.members)) == Money(1, "x")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("numpy.ndarray/2", "This version knows numpy.ndarray/1. Upgrade"),
        ("x", "codecs of 'x'"),
        ("os.system/1", "'os'"),
    ],
)
def test_unknown_codecs(name, remedy):
    """An unknown codec is named with what to do, and nothing of that name is imported."""
    tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb([name, None, []])))
    with pytest.raises(FormatError, match="is not known here") as caught:
        decode(tree)
    assert remedy in str(caught.value)


def test_names_are_not_imported(monkeypatch):
    """A name with the look of a module is looked up, never imported."""
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    for name in ("antigravity:Codec", "antigravity.Codec/1", "antigravity"):
        tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb([name, None, []])))
        with pytest.raises(FormatError):
            decode(tree)
    assert "antigravity" not in sys.modules


def test_missing_library(monkeypatch):
    """A value of a library that is not installed names the pip command."""
    codecs._codecs["acme.gone/1"] = "mltraq_ds.codecs.no_such_module:Codec"
    tree = msgpack.packb(msgpack.ExtType(3, msgpack.packb(["acme.gone/1", None, []])))
    with pytest.raises(MissingExtraError, match="pip install acme"):
        decode(tree)


def test_errors_of_codecs():
    """What a codec raises while encoding passes; what it raises on damaged members is damage."""

    class Failing(MoneyCodec):
        name = "acme.failing/1"

        def encode(self, value):
            raise OSError("disk")

    class Picky(MoneyCodec):
        name = "acme.picky/1"

        def decode(self, meta, members):
            raise UsageError("not in this place")

    register(Picky)
    encoded = encode(Money(1, "x"))
    with pytest.raises(CorruptBlobError, match="not in this place"):
        decode(encoded.tree, sources_of(encoded.members))
    codecs._registered[:] = []
    register(Failing)
    with pytest.raises(OSError, match="disk"):
        encode(Money(1, "x"))
    with pytest.raises(AttributeError, match="nothing"):
        _ = codecs.nothing


class TestMoneyCodec(CodecConformance):
    """The suite for codecs, as a user applies it."""

    codec = MoneyCodec

    @pytest.fixture(autouse=True)
    def _registered(self, _fresh_table):
        register(MoneyCodec)

    def values(self):
        """Return some money."""
        return [Money(0, ""), Money(-(10**30), "EUR")]
