"""Tree to value; nothing in a tree is trusted."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgpack

from mltraq_ds.codecs import containers, ext, scalars
from mltraq_ds.codecs.base import Codec, MemberSource
from mltraq_ds.codecs.census import MAX_DEPTH, MAX_EXT_DEPTH, nesting
from mltraq_ds.codecs.ext import checked, sequence_of
from mltraq_ds.codecs.pickled import Pickled
from mltraq_ds.errors import CorruptBlobError, FormatError, MissingExtraError, MltraqDSError, UsageError

__all__ = ["decode_tree"]

_unpackers = {**containers.UNPACKERS, **scalars.UNPACKERS}

# numpy's way for an array that is a whole value; set when one is met.
_decoded_alone: Callable[[bytes], Any] | None = None

_SMALL_BYTES = MAX_DEPTH  # so few cannot be too deep
_TREE_MEMBER_BYTES = 16
_NUMPY = (ext.NUMPY_SCALAR, ext.SMALL_NDARRAY)

#: What damaged or hostile bytes raise in msgpack, the standard library, numpy and codecs.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    msgpack.UnpackException,
    struct.error,
)


def decode_tree(
    tree: bytes,
    members: Sequence[MemberSource],
    codec_named: Callable[[str], Codec],
    nested: Callable[[int], object] | None,
    allow_pickle: bool,
) -> Any:
    """Return the value, or raise `CorruptBlobError` for what no encoder makes; see `mltraq_ds.codecs.decode`."""
    if not members and _decoded_alone is not None and tree:
        try:
            array = _decoded_alone(tree)
        except _DAMAGE as error:
            raise _corrupt(members, error) from error
        if array is not None:
            return array
    run = _Run(members, codec_named, nested, allow_pickle, len(tree) <= _TREE_MEMBER_BYTES)
    try:
        value = _Level(run, 0).unpack(tree)
        # Each packed part is not too deep, but together they may be.
        if run.has_parts and nesting(value) > MAX_DEPTH:
            raise ValueError(f"containers are nested deeper than {MAX_DEPTH} levels")
    except MltraqDSError as error:
        # What is an error of the caller elsewhere (a name that leaves its place, say) was read from the blob here.
        if isinstance(error, UsageError) and not isinstance(error, MissingExtraError):
            raise _corrupt(members, error) from error
        raise
    except _DAMAGE as error:
        raise _corrupt(members, error) from error
    return value


def _join_numpy() -> None:
    global _decoded_alone
    from mltraq_ds.codecs import numeric

    _unpackers.update(numeric.UNPACKERS)
    _decoded_alone = numeric.decoded_alone


def _corrupt(members: Sequence[MemberSource], error: Exception) -> CorruptBlobError:
    names = ", ".join(member.name for member in members[:3])
    where = f" (members {names}{' …' if len(members) > 3 else ''})" if names else ""
    return CorruptBlobError(
        f"A value{where} cannot be decoded because its blob is damaged: {type(error).__name__}: {error!s:.300}. "
        "Restore the blob from a copy; 'mltraq-ds check' lists what else is damaged."
    )


class _Run:
    """What the levels of one `decode` share."""

    def __init__(
        self,
        members: Sequence[MemberSource],
        codec_named: Callable[[str], Codec],
        nested: Callable[[int], object] | None,
        allow_pickle: bool,
        expects_tree_member: bool,
    ) -> None:
        self.members = members
        self.codec_named = codec_named
        self.nested = nested
        self.allow_pickle = allow_pickle
        self.expects_tree_member = expects_tree_member
        self.used: set[int] = set()
        self.has_parts = False


class _Level:
    """One level of ext types inside each other.  Implements `ext.Unpacking`."""

    __slots__ = ("_unpackb", "depth", "inner", "run")

    def __init__(self, run: _Run, depth: int) -> None:
        if depth > MAX_EXT_DEPTH + 1:
            raise ValueError(f"values are nested deeper than {MAX_DEPTH} levels")
        self.run = run
        self.depth = depth
        self.inner: _Level | None = None
        self._unpackb: Callable[[bytes | memoryview], Any] = partial(
            msgpack.unpackb, ext_hook=self._hook, strict_map_key=False, unicode_errors="surrogatepass"
        )

    def unpack(self, packed: bytes | memoryview) -> Any:  # docstring inherited
        if self.depth:
            self.run.has_parts = True
        if len(packed) > _SMALL_BYTES:
            _skip(packed)
        return self._unpackb(packed)

    def member(self, position: object) -> MemberSource:  # docstring inherited
        members, used = self.run.members, self.run.used
        if type(position) is not int or not 0 <= position < len(members):
            raise ValueError(f"there is no member {position!r:.80}")
        if position in used:  # else a small tree could copy one member a million times
            raise ValueError(f"member {position} is referred to twice")
        used.add(position)
        return members[position]

    def _hook(self, code: int, packed: bytes) -> Any:
        inner = self.inner
        if inner is None:
            inner = self.inner = _Level(self.run, self.depth + 1)
        unpack = _unpackers.get(code)
        return self._unpack_other(code, packed, inner) if unpack is None else unpack(packed, inner)

    def _unpack_other(self, code: int, packed: bytes, inner: _Level) -> Any:
        run = self.run
        if code == ext.CODEC:
            return inner.decode_with_codec(packed)
        if code == ext.NESTED and run.nested is not None:
            return run.nested(_position(packed))
        if code == ext.TREE_MEMBER and run.expects_tree_member:
            run.expects_tree_member = False
            return self.unpack(self.member(_position(packed)).read())
        if code in (ext.NESTED, ext.TREE_MEMBER):
            raise ValueError(f"the mark {code} is in a place where it cannot be")
        if code in _NUMPY:
            # Now, not above: importing numpy takes longer than loading a float.
            _join_numpy()
            return _unpackers[code](packed, inner)
        raise FormatError(
            f"A value cannot be decoded because it has the unknown mark {code}: it was written by a newer version of "
            "mltraq_ds. Upgrade: pip install --upgrade mltraq_ds."
        )

    def decode_with_codec(self, packed: bytes) -> Any:
        """Return what the codec named in `packed` makes of it."""
        name, meta, positions = checked(self.unpack(packed), str, None, list)
        members = [self.member(position) for position in sequence_of(positions, int)]
        value = self.run.codec_named(name).decode(meta, members)
        if type(value) is Pickled and self.run.allow_pickle:
            value.allow()
        return value


def _position(packed: bytes) -> int:
    position = msgpack.unpackb(packed)
    if type(position) is not int or position < 0:
        raise ValueError(f"not a position: {position!r:.80}")
    return position


def _skip(packed: bytes | memoryview) -> None:
    """Raise unless `packed` is well formed and not too deep: in C, and nothing is allocated for what it claims.

    msgpack itself allocates lists of the lengths it reads, up to 1,024 inside each other.  Skipping allocates nothing.
    """
    prefix = _depth_prefix()
    total = len(prefix) + len(packed)
    unpacker = msgpack.Unpacker(max_buffer_size=total, read_size=total)
    unpacker.feed(prefix)
    unpacker.feed(packed)
    unpacker.skip()


_prefix: bytes | None = None


def _depth_prefix() -> bytes:
    """Return lists of one item inside each other, so many that only `MAX_DEPTH` more fit the stack of msgpack."""
    global _prefix
    if _prefix is None:
        limit = 0
        if msgpack.Unpacker.__module__.endswith("_cmsgpack"):  # the stack of the pure Python version is Python's
            limit = next((depth for depth in range(MAX_DEPTH, 8192) if not _can_skip(depth + 1)), 0)
        _prefix = b"\x91" * max(limit - MAX_DEPTH, 0)
    return _prefix


def _can_skip(depth: int) -> bool:
    unpacker = msgpack.Unpacker()
    unpacker.feed(b"\x91" * depth + b"\xc0")
    try:
        unpacker.skip()
    except msgpack.StackError:
        return False
    return True
