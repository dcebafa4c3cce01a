"""The tree of a value: msgpack with our ext types, and members beside it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
from msgpack import ExtType

from mltraq_ds.codecs import containers, ext, scalars
from mltraq_ds.codecs.base import Codec, Encoded, Member, MemberSource
from mltraq_ds.codecs.census import LARGE_BYTES, MAX_DEPTH, Unsupported, nesting, prepared
from mltraq_ds.codecs.ext import checked, packers, sequence_of, unpackers
from mltraq_ds.codecs.naming import member_names, refusal
from mltraq_ds.codecs.pickled import Pickled
from mltraq_ds.errors import (
    CorruptBlobError,
    FormatError,
    MissingExtraError,
    MltraqDSError,
    TooDeepError,
    UnsupportedTypeError,
    UsageError,
)

__all__ = ["Decoder", "Encoder"]

# Ext types inside each other: each level is one of MAX_DEPTH, and a few more for what a codec adds.
_MAX_EXT_DEPTH = MAX_DEPTH + 8
_SMALL_BYTES = 256
#: What damaged or hostile bytes raise in msgpack, the standard library, numpy and codecs.
_DAMAGE = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, struct.error)
_DAMAGE += (RecursionError, NotImplementedError, AssertionError, msgpack.UnpackException)
assert containers and scalars  # imported for the tables they fill


class Encoder:
    """One run of `encode`; see `mltraq_ds.codecs.encode`."""

    def __init__(self, codec_for: Callable[[object], Codec | None], is_nested: Callable[[object], bool] | None) -> None:
        self._codec_for = codec_for
        self._is_nested = is_nested
        self._packers: list[msgpack.Packer] = []
        self._depth = -1
        self._members: list[Member] = []
        self._owners: list[object] = []
        self._nested: list[object] = []
        self._summary: dict[str, Any] = {"codec": "plain/1"}

    def encode(self, value: object, name: str) -> Encoded:
        """Return the value as tree and members named after `name`."""
        try:
            tree = self.pack_any(value)
        except Unsupported as unsupported:
            raise UnsupportedTypeError(refusal(value, unsupported)) from None
        except RecursionError as error:
            raise TooDeepError(
                f"The value of type {type(value).__name__!r} cannot be stored because the stack of Python is used up: "
                "it is nested too deeply, or this was called from too deep."
            ) from error
        if len(tree) > LARGE_BYTES:
            content = tree
            position = self.add_member(Member("msgpack", len(tree), lambda: (content,)), value)
            tree = msgpack.packb(ext.ext(ext.TREE_MEMBER, msgpack.packb(position)))
        members = member_names(name, value, self._members, self._owners)
        return Encoded(tree, members, tuple(self._nested), self._described(value, tree, members))

    def _described(self, value: Any, tree: bytes, members: Sequence[Member]) -> dict[str, Any]:
        kind = type(value)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        summary = {"type": f"{module}{kind.__qualname__}", **self._summary}
        summary["bytes"] = len(tree) + sum(member.size for member in members)
        if "shape" not in summary and "length" not in summary:
            if hasattr(value, "dtype"):
                summary |= {"shape": list(value.shape), "dtype": str(value.dtype)}
            elif hasattr(value, "__len__"):
                summary["length"] = len(value)
        return summary

    def pack(self, value: object) -> bytes:
        # docstring inherited
        depth = self._depth = self._depth + 1
        try:
            if depth >= len(self._packers):
                if depth > _MAX_EXT_DEPTH:
                    raise TooDeepError(
                        f"A value cannot be stored because it is nested deeper than {MAX_DEPTH} levels, or contains "
                        "itself. Flatten it, or break the circle."
                    )
                self._packers.append(self._packer(depth))
            members, nested = len(self._members), len(self._nested)
            try:
                return self._packers[depth].pack(value)  # type: ignore[no-any-return]
            except UnicodeEncodeError:
                # Lone surrogates need an error handler, with which msgpack takes twice as long.  So once more:
                del self._members[members:], self._owners[members:], self._nested[nested:]
                return self._packer(depth, unicode_errors="surrogatepass").pack(value)  # type: ignore[no-any-return]
            except ValueError as error:
                if not str(error).endswith("too large"):  # what msgpack says of more than 4 GiB
                    raise
                raise Unsupported(value, f"a part of it is too large ({error}); store it as a File or an array") from error
        finally:
            self._depth = depth - 1

    def _packer(self, depth: int, **settings: Any) -> msgpack.Packer:
        size = 256 * 1024 if depth == 0 else 4096
        return msgpack.Packer(default=self._hook, strict_types=True, buf_size=size, **settings)

    def pack_any(self, value: object) -> bytes:
        # docstring inherited
        return self.pack(prepared(value))

    def add_member(self, member: Member, owner: object) -> int:
        # docstring inherited
        self._members.append(member)
        self._owners.append(owner)
        return len(self._members) - 1

    def encode_with(self, codec: Codec, value: object) -> ExtType:
        # docstring inherited
        is_root = self._depth == 0
        try:
            parts = codec.encode(value)
            positions = [self.add_member(member, value) for member in parts.members]
            packed = self.pack_any([codec.name, parts.meta, positions])
        except Unsupported as unsupported:
            unsupported.chain.append(value)
            raise
        except UnsupportedTypeError as error:
            raise Unsupported(value, str(error)) from error
        if is_root:
            self._summary = {"codec": codec.name, **parts.summary}
        return ext.ext(ext.CODEC, packed)

    def _hook(self, value: Any) -> ExtType:
        kind = type(value)
        pack = packers.get(kind)
        if pack is None:
            if self._is_nested is not None and self._is_nested(value):
                self._nested.append(value)
                return ext.ext(ext.NESTED, msgpack.packb(len(self._nested) - 1))
            if kind.__module__ == "numpy":
                _know_numpy()
                pack = packers.get(kind)
        if pack is not None:
            return pack(value, self)
        codec = self._codec_for(value)
        if codec is None:
            raise Unsupported(value)
        return self.encode_with(codec, value)


def _know_numpy() -> None:
    # On use: importing numpy takes longer than persisting a float.
    import mltraq_ds.codecs.numeric  # noqa: F401


class Decoder:
    """One run of `decode`; see `mltraq_ds.codecs.decode`."""

    def __init__(
        self,
        codec_named: Callable[[str], Codec],
        members: Sequence[MemberSource],
        nested: Callable[[int], object] | None,
        allow_pickle: bool,
    ) -> None:
        self._codec_named = codec_named
        self._members = members
        self._nested = nested
        self._allow_pickle = allow_pickle
        self._depth = 0
        self._deepest = 0
        self._used: set[int] = set()

    def decode(self, tree: bytes) -> Any:
        """Return the value, or raise `CorruptBlobError` for anything that `Encoder` does not make."""
        try:
            value = self.unpack(tree)
            # Payloads are checked one by one: together they may be deeper.
            if self._deepest > 1 and nesting(value) > MAX_DEPTH:
                raise ValueError(f"containers are nested deeper than {MAX_DEPTH} levels")
            return value
        except MltraqDSError as error:
            if isinstance(error, UsageError) and not isinstance(error, MissingExtraError):
                raise self._corrupt(error) from error
            raise
        except _DAMAGE as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> CorruptBlobError:
        names = ", ".join(member.name for member in self._members[:3])
        where = f" (members {names}{' …' if len(self._members) > 3 else ''})" if names else ""
        return CorruptBlobError(
            f"A value{where} cannot be decoded because its blob is damaged: {type(error).__name__}: {error!s:.300}. "
            "Restore the blob from a copy; 'mltraq-ds check' lists what else is damaged."
        )

    def unpack(self, packed: bytes | memoryview) -> Any:
        # docstring inherited
        self._depth += 1
        self._deepest = max(self._deepest, self._depth)
        try:
            if self._depth > _MAX_EXT_DEPTH + 1:
                raise ValueError(f"values are nested deeper than {MAX_DEPTH} levels")
            if len(packed) > _SMALL_BYTES:
                _skip(packed)
            return msgpack.unpackb(
                packed, ext_hook=self._hook, strict_map_key=False, unicode_errors="surrogatepass"
            )
        finally:
            self._depth -= 1

    def member(self, position: object) -> MemberSource:
        # docstring inherited
        if type(position) is not int or not 0 <= position < len(self._members):
            raise ValueError(f"there is no member {position!r:.80}")
        if position in self._used:  # a small tree could copy one member a million times
            raise ValueError(f"member {position} is referred to twice")
        self._used.add(position)
        return self._members[position]

    def _hook(self, code: int, packed: bytes) -> Any:
        unpack = unpackers.get(code)
        if unpack is not None:
            return unpack(packed, self)
        if code == ext.CODEC:
            return self._decode_with_codec(packed)
        if code == ext.NESTED and self._nested is not None:
            position = self.unpack(packed)
            if type(position) is not int or position < 0:
                raise ValueError(f"not a position: {position!r:.80}")
            return self._nested(position)
        if code == ext.TREE_MEMBER and self._depth == 1:
            return self.unpack(self.member(self.unpack(packed)).read())
        if code in (ext.NUMPY_SCALAR, ext.SMALL_NDARRAY):
            _know_numpy()
            return unpackers[code](packed, self)
        if code in (ext.NESTED, ext.TREE_MEMBER):
            raise ValueError(f"the mark {code} is in a place where it cannot be")
        raise FormatError(
            f"A value cannot be decoded because it has the unknown mark {code}: it was written by a newer version of "
            "mltraq_ds. Upgrade: pip install --upgrade mltraq_ds."
        )

    def _decode_with_codec(self, packed: bytes) -> Any:
        name, meta, positions = checked(self.unpack(packed), str, None, list)
        members = [self.member(position) for position in sequence_of(positions, int)]
        value = self._codec_named(name).decode(meta, members)
        if type(value) is Pickled and self._allow_pickle:
            value.allow()
        return value


def _skip(packed: bytes | memoryview) -> None:
    """Raise unless `packed` is well formed and not nested too deeply: in C, and nothing is allocated for what it claims.

    msgpack allocates a list of the length that it reads, 1,024 times inside each other if told so.  Skipping does not.
    """
    prefix = _depth_prefix()
    total = len(prefix) + len(packed)
    unpacker = msgpack.Unpacker(max_buffer_size=total, read_size=total)
    unpacker.feed(prefix)
    unpacker.feed(packed)
    unpacker.skip()


_prefix: bytes | None = None


def _depth_prefix() -> bytes:
    """Return lists of one item in each other, so many that `MAX_DEPTH` more fill the stack of the C unpacker."""
    global _prefix
    if _prefix is None:
        limit = 0
        if msgpack.Unpacker.__module__.endswith("_cmsgpack"):
            limit = next((n for n in range(MAX_DEPTH, 8192) if not _can_skip(n + 1)), 0)
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
