"""Value to tree: msgpack with our ext types, and members beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgpack
from msgpack import ExtType

from mltraq_ds.codecs import containers, ext, scalars
from mltraq_ds.codecs.base import Codec, Encoded, Member
from mltraq_ds.codecs.census import LARGE_BYTES, MAX_DEPTH, MAX_EXT_DEPTH, prepared
from mltraq_ds.codecs.naming import member_names, refusal, type_name
from mltraq_ds.errors import TooDeepError, UnsupportedTypeError

__all__ = ["encode_value"]

# The types that every value may have; numpy's join when the first of them is met.
_packers = {**containers.PACKERS, **scalars.PACKERS}

# numpy's way for an array that is a whole value; set when numpy is met.
_ndarray: type | None = None
_encoded_alone: Callable[[Any, str], Encoded | None]
_remember_alone: Callable[[Any, Encoded], None]

_CodecFor = Callable[[object], Codec | None]
_IsNested = Callable[[object], bool] | None


def encode_value(value: object, name: str, codec_for: _CodecFor, is_nested: _IsNested) -> Encoded:
    """Return the value as tree and members named after `name`; see `mltraq_ds.codecs.encode`."""
    is_array = type(value) is _ndarray
    if is_array and (known := _encoded_alone(value, name)) is not None:
        return known
    try:
        encoded = _encode(value, name, codec_for, is_nested, None)
        if is_array:
            _remember_alone(value, encoded)
        return encoded
    except UnicodeEncodeError:
        # Lone surrogates need an error handler, with which msgpack takes twice as long: only now.
        return _encode(value, name, codec_for, is_nested, "surrogatepass")


def _encode(
    value: object, name: str, codec_for: _CodecFor, is_nested: _IsNested, unicode_errors: str | None
) -> Encoded:
    run = _Run(value, codec_for, is_nested, unicode_errors)
    try:
        tree = run.root.pack_any(value)
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(refusal(value, run.chain, str(error))) from error.__cause__
    except RecursionError as error:
        raise TooDeepError(
            f"The value of type {type_name(value)!r} cannot be stored because the stack of Python is used up: it is "
            "nested too deeply, or this was called from too deep. Flatten it."
        ) from error
    except ValueError as error:
        if not str(error).endswith("too large"):  # what msgpack says of more than 4 GiB
            raise
        reason = f"a part of it that is neither bytes nor an array exceeds 4 GiB ({error})"
        raise UnsupportedTypeError(refusal(value, [value], reason)) from error
    finally:
        run.close()
    if len(tree) > LARGE_BYTES:
        content = tree
        position = run.root.add_member(Member("msgpack", len(tree), lambda: (content,)), value)
        tree = msgpack.packb(ext.ext(ext.TREE_MEMBER, msgpack.packb(position)))
    members = member_names(name, value, run.members, run.owners)
    return Encoded(tree, members, tuple(run.nested), _described(value, run.summary, tree, members))


def _described(value: Any, summary: dict[str, Any], tree: bytes, members: Sequence[Member]) -> dict[str, Any]:
    summary = {"type": type_name(value), "codec": "plain/1", **summary}
    summary["bytes"] = len(tree) + sum(member.size for member in members)
    if summary["codec"] == "plain/1":
        if type(value).__module__ == "numpy":
            dtype = value.dtype
            # Dtypes of kind V may be equal and yet have another name.
            named = str(dtype) if dtype.kind == "V" else _dtype_name(dtype)
            summary |= {"shape": list(value.shape), "dtype": named}
        elif hasattr(value, "__len__") and type(value) is not range:  # a range may be longer than len() can say
            summary["length"] = len(value)
    return summary


@lru_cache(maxsize=256)
def _dtype_name(dtype: Any) -> str:
    return str(dtype)  # numpy makes it anew each time: a quarter of what a small array costs


def _join_numpy() -> None:
    global _ndarray, _encoded_alone, _remember_alone
    from mltraq_ds.codecs import numeric

    _packers.update(numeric.PACKERS)
    _encoded_alone, _remember_alone = numeric.encoded_alone, numeric.remember_alone
    _ndarray = numeric.NDARRAY


class _Run:
    """What the levels of one `encode` share."""

    def __init__(self, value: object, codec_for: _CodecFor, is_nested: _IsNested, unicode_errors: str | None) -> None:
        self.value = value
        self.codec_for = codec_for
        self.is_nested = is_nested
        self.unicode_errors = unicode_errors
        self.members: list[Member] = []
        self.owners: list[object] = []
        self.nested: list[object] = []
        self.summary: dict[str, Any] = {}
        self.chain: list[object] = []  # what was being packed when an error passed, innermost first
        self.root = _Level(self, 0)

    def close(self) -> None:
        """Break the circle of packers and hooks, so that their buffers go now and not with the next collection."""
        level: _Level | None = self.root
        while level is not None:
            level.pack = None  # type: ignore[assignment]
            inner, level.inner = level.inner, None
            level = inner


class _Level:
    """One packer per level of ext types inside each other: msgpack's cannot be entered twice.

    Implements `ext.Packing`.  `pack` is the method of the packer itself, since it is called for each tuple.
    """

    __slots__ = ("depth", "inner", "pack", "run")

    def __init__(self, run: _Run, depth: int) -> None:
        self.run = run
        self.depth = depth
        self.inner: _Level | None = None
        self.pack: Callable[[object], bytes] = msgpack.Packer(
            default=self._hook,
            strict_types=True,
            unicode_errors=run.unicode_errors,
            buf_size=4096 if depth else 256 * 1024,
        ).pack

    def _hook(self, value: Any) -> ExtType:
        inner = self.inner or self._deeper()
        pack = _packers.get(type(value))
        try:
            if pack is not None:
                return pack(value, inner)
            return self._pack_other(value, inner)
        except UnsupportedTypeError:
            self.run.chain.append(value)
            raise

    def _deeper(self) -> _Level:
        if self.depth >= MAX_EXT_DEPTH:
            raise TooDeepError(
                f"The value of type {type_name(self.run.value)!r} cannot be stored because it is nested deeper than "
                f"{MAX_DEPTH} levels, or contains itself. Flatten it, or break the circle."
            )
        self.inner = _Level(self.run, self.depth + 1)
        return self.inner

    def _pack_other(self, value: object, inner: _Level) -> ExtType:
        run = self.run
        if run.is_nested is not None and run.is_nested(value):
            run.nested.append(value)
            return ext.ext(ext.NESTED, msgpack.packb(len(run.nested) - 1))
        if type(value).__module__ == "numpy" and type(value) not in _packers:
            # Now, not above: importing numpy takes longer than persisting a float.
            _join_numpy()
            if type(value) in _packers:
                return _packers[type(value)](value, inner)
        codec = run.codec_for(value)
        if codec is None:
            raise UnsupportedTypeError
        return inner.encode_with(codec, value)

    def pack_any(self, value: object) -> bytes:  # docstring inherited
        return self.pack(prepared(value))

    def add_member(self, member: Member, owner: object) -> int:  # docstring inherited
        self.run.members.append(member)
        self.run.owners.append(owner)
        return len(self.run.members) - 1

    def encode_with(self, codec: Codec, value: object) -> ExtType:  # docstring inherited
        parts = codec.encode(value)
        if value is self.run.value:
            self.run.summary = {"codec": codec.name, **parts.summary}
        positions = [self.add_member(member, value) for member in parts.members]
        return ext.ext(ext.CODEC, self.pack([codec.name, prepared(parts.meta), positions]))
