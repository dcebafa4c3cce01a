"""Ext types of blob format 1: their numbers, and what the modules that define them may ask for.

The numbers are part of the format: never change or re-use one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from msgpack import ExtType

from mltraq_ds.codecs.base import Codec, Member, MemberSource

__all__ = ["Packer", "Packing", "Unpacker", "Unpacking", "checked", "ext", "sequence_of"]

TREE_MEMBER = 1
NESTED = 2
CODEC = 3
BIG_INT = 4
TUPLE = 5
SET = 6
FROZENSET = 7
ORDERED_DICT = 8
DEFAULT_DICT = 9
DEQUE = 10
COMPLEX = 11
BYTEARRAY = 12
DATETIME = 13
DATE = 14
TIME = 15
TIMEDELTA = 16
UUID = 17
DECIMAL = 18
FRACTION = 19
PATH = 20
RANGE = 21
SLICE = 22
NUMPY_SCALAR = 23
SMALL_NDARRAY = 24
BYTES_MEMBER = 25
ZONE = 26
BUNCH = 27


class Packing(Protocol):
    """What an ext type may ask of the encoder at work."""

    @property
    def pack(self) -> Callable[[object], bytes]:
        """Pack a part of something that `census.prepared` has seen."""

    def pack_any(self, value: object) -> bytes:
        """Pack something that `census.prepared` has not seen."""

    def add_member(self, member: Member, owner: object) -> int:
        """Return the position of a new member."""

    def encode_with(self, codec: Codec, value: object) -> ExtType:
        """Pack a value by a codec."""


class Unpacking(Protocol):
    """What an ext type may ask of the decoder at work."""

    def unpack(self, packed: bytes) -> Any:
        """Unpack the content of an ext type."""

    def member(self, position: object) -> MemberSource:
        """Return a member, or raise ValueError if there is none at this position."""


#: Returns the ext type for a value of one exact type.
Packer: TypeAlias = Callable[[Any, Packing], ExtType]

#: Returns the value for the content of an ext type; any ordinary error in it means a damaged blob.
Unpacker: TypeAlias = Callable[[bytes, Unpacking], Any]


def ext(code: int, packed: bytes, _new: Callable[..., ExtType] = tuple.__new__) -> ExtType:
    """Return `ExtType(code, packed)` without its checks: they cost more than packing a small array."""
    return _new(ExtType, (code, packed))


def checked(value: Any, *types: type | None) -> Any:
    """Return the list `value` if its items are of these types (None: any), else raise ValueError: it was read."""
    if not isinstance(value, list) or len(value) != len(types):
        raise ValueError(f"expected a list of {len(types)}, found {value!r:.80}")
    for item, kind in zip(value, types, strict=True):
        if kind is not None and type(item) is not kind:
            raise ValueError(f"expected {kind.__name__}, found {item!r:.80}")
    return value


def sequence_of(value: Any, kind: type) -> Sequence[Any]:
    """Return the list `value` if all its items are of this type, else raise ValueError."""
    return checked(value, *[kind] * len(value)) if isinstance(value, list) else checked(value)  # type: ignore[no-any-return]
