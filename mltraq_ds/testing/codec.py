"""A suite for codecs: subclass it in a test module, and pytest runs it on your values."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from mltraq_ds.codecs import CODECS, decode, encode
from mltraq_ds.codecs.base import Codec, Encoded, Member, MemberSource
from mltraq_ds.errors import CorruptBlobError, FormatError, MissingExtraError, PickleRefusedError

__all__ = ["CodecConformance", "MemorySource", "round_trip", "sources_of"]

#: All that may come out of decoding damaged bytes, besides a value.
REFUSALS = (CorruptBlobError, FormatError, MissingExtraError, PickleRefusedError)


class MemorySource:
    """A member held in memory; implements `mltraq_ds.codecs.MemberSource`.

    Parameters
    ----------
    name : str
        Name inside the blob.
    content : bytes
        Its bytes; `read` gives a view of a private, writable copy, as a mapping does.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self.size = len(content)
        self._content = bytearray(content)

    def read(self) -> memoryview:  # docstring inherited
        return memoryview(self._content)

    def read_range(self, offset: int, size: int) -> memoryview:  # docstring inherited
        if not 0 <= offset <= offset + size <= self.size:
            raise CorruptBlobError(f"The member {self.name!r} has no {size} bytes at {offset}.")
        return memoryview(self._content)[offset : offset + size]

    def open(self) -> BinaryIO:  # docstring inherited
        return io.BytesIO(bytes(self._content))


def content_of(member: Member) -> bytes:
    """Return all bytes of a member, and check what every writer relies on: the size, and that they can be had twice."""
    content = b"".join(bytes(buffer) for buffer in member.buffers())
    assert len(content) == member.size, f"{member.name!r} says {member.size} bytes and gives {len(content)}"
    assert b"".join(bytes(buffer) for buffer in member.buffers()) == content, f"{member.name!r} differs when read again"
    return content


def sources_of(members: Sequence[Member]) -> list[MemberSource]:
    """Return the members as they will be read."""
    return [MemorySource(member.name, content_of(member)) for member in members]


def round_trip(value: object, *, name: str = "value", allow_pickle: bool = False) -> Any:
    """Encode and decode a value in memory."""
    encoded = encode(value, name=name)
    return decode(encoded.tree, sources_of(encoded.members), allow_pickle=allow_pickle)


class CodecConformance:
    """What every codec must do.  Subclass it as ``class TestMine(CodecConformance)`` and give `codec` and `values`.

    Examples
    --------
    ::

        class TestFraction(CodecConformance):
            codec = FractionCodec

            def values(self):
                return [Fraction(1, 3)]
    """

    #: The class under test, registered already.
    codec: ClassVar[type[Codec]]

    def values(self) -> Iterable[Any]:
        """Return values that the codec takes: ordinary, empty, largest, odd."""
        raise NotImplementedError

    def others(self) -> Iterable[Any]:
        """Return values that it must leave to others: subclasses, above all."""
        return [None, 1, "text", object()]

    def equal(self, value: Any, again: Any) -> bool:
        """Tell whether a value came back; override it where ``==`` says too little or is not a bool."""
        return bool(value == again)

    def encoded(self) -> list[tuple[Any, Encoded]]:
        """Return each value with what became of it."""
        return [(value, encode(value, name="value")) for value in self.values()]

    def test_is_registered(self) -> None:
        """The codec is found by its name."""
        place = CODECS[self.codec.name]
        assert place is self.codec or str(place).endswith(f":{self.codec.__qualname__}")

    def test_accepts_exactly(self) -> None:
        """It takes its values and leaves others."""
        codec = self.codec()
        assert [value for value in self.values() if not codec.accepts(value)] == []
        assert [value for value in self.others() if codec.accepts(value)] == []

    def test_round_trip(self) -> None:
        """Each value comes back equal, alone and inside a container, with its type."""
        for value in self.values():
            for again in (round_trip(value), round_trip({"a": [value, 1]})["a"][0]):
                assert type(again) is type(value)
                assert self.equal(value, again), f"{value!r} came back as {again!r}"

    def test_stays_equal_when_stored_again(self) -> None:
        """What was read can be written once more."""
        for value in self.values():
            assert self.equal(value, round_trip(round_trip(value)))

    def test_unchanged_is_the_same_bytes(self) -> None:
        """Encoding a value twice gives the same bytes: only so an unchanged value is recognised."""
        for value, encoded in self.encoded():
            again = encode(value, name="value")
            assert encoded.tree == again.tree
            assert [content_of(m) for m in encoded.members] == [content_of(m) for m in again.members]

    def test_members_have_distinct_names(self) -> None:
        """The members of a value lie below its name and do not hide each other."""
        for _, encoded in self.encoded():
            names = [member.name for member in encoded.members]
            assert len(set(names)) == len(names)
            assert [name for name in names if not name.startswith(("value.", "value/"))] == []

    def test_summary_is_plain(self) -> None:
        """The summary names type, codec and bytes, and JSON can hold it."""
        for _, encoded in self.encoded():
            assert {"type", "codec", "bytes"} <= encoded.summary.keys()
            assert encoded.summary["codec"] == self.codec.name
            assert _is_json(encoded.summary)

    def test_damage_is_an_error_of_ours(self) -> None:
        """Cut or flipped trees, and cut members, give another value or one of four errors, never something else."""
        for _, encoded in self.encoded():
            contents = [content_of(member) for member in encoded.members]
            step = max(len(encoded.tree) // 100, 1)
            for at in range(0, len(encoded.tree), step):
                flipped = bytearray(encoded.tree)
                flipped[at] ^= 0x55
                _try_decode(bytes(flipped), encoded.members, contents)
                _try_decode(encoded.tree[:at], encoded.members, contents)
            for cut in (0, 1, 8, 64):
                _try_decode(encoded.tree, encoded.members, [content[:cut] for content in contents])
            _try_decode(encoded.tree, [], [])


def _try_decode(tree: bytes, members: Sequence[Member], contents: Sequence[bytes]) -> None:
    sources = [MemorySource(member.name, content) for member, content in zip(members, contents, strict=True)]
    with contextlib.suppress(*REFUSALS):
        decode(tree, sources)


def _is_json(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or type(value) in (bool, int, float, str)
