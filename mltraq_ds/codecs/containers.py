"""Containers that msgpack does not know; list and dict it packs itself."""

from __future__ import annotations

import datetime
import decimal
import fractions
import importlib
import pathlib
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import msgpack
from msgpack import ExtType

from mltraq_ds.bunch import Bunch
from mltraq_ds.codecs import ext
from mltraq_ds.codecs.base import Member
from mltraq_ds.codecs.census import LARGE_BYTES, Raw, Refused
from mltraq_ds.codecs.ext import Packer, Packing, Unpacker, Unpacking, checked
from mltraq_ds.errors import UnsupportedTypeError

__all__ = ["PACKERS", "UNPACKERS"]

_PATHS = (pathlib.Path, pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath)

# A fixed table, both ways: a name that was read is never imported.
_FACTORIES: dict[str, type | None] = {
    kind.__name__: kind
    for kind in (bool, bytearray, bytes, complex, decimal.Decimal, deque, dict, float, fractions.Fraction, frozenset)
}
_FACTORIES |= {kind.__name__: kind for kind in (int, list, OrderedDict, set, str, tuple)}
_FACTORIES |= {kind.__name__: kind for kind in (Bunch, datetime.timedelta, *_PATHS)}
_FACTORIES["None"] = None
_FACTORY_NAMES = {kind: name for name, kind in _FACTORIES.items()}

# Of libraries that are imported when one of these is met; which ones is written here, too.
_SIZES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
_LIBRARY_FACTORIES = {f"numpy.{name}": ("numpy", name) for name in ("bool_", "complex64", "complex128", *_SIZES)}
_LIBRARY_FACTORIES |= {f"pandas.{name}": ("pandas", name) for name in ("DataFrame", "Series")}


def _pack_tuple(value: tuple[Any, ...], packing: Packing) -> ExtType:
    return ext.ext(ext.TUPLE, packing.pack([*value]))


def _unpack_tuple(packed: bytes, unpacking: Unpacking) -> tuple[Any, ...]:
    return tuple(_unpack_list(packed, unpacking))


def _unpack_list(packed: bytes, unpacking: Unpacking) -> list[Any]:
    items = unpacking.unpack(packed)
    if type(items) is not list:
        raise ValueError(f"expected a list, found {type(items).__name__}")
    return items


def _unpack_dict(value: object) -> dict[Any, Any]:
    if type(value) is not dict:
        raise ValueError(f"expected a map, found {type(value).__name__}")
    return value


def _set_packer(code: int) -> Callable[[Any, Packing], ExtType]:
    def pack(value: set[Any] | frozenset[Any], packing: Packing) -> ExtType:
        # Sorted by their bytes: the order of a set differs between processes, and equal sets must give equal blobs.
        header = msgpack.Packer().pack_array_header(len(value))
        return ext.ext(code, b"".join([header, *sorted(map(packing.pack, value))]))

    return pack


def _set_unpacker(kind: type) -> Callable[[bytes, Unpacking], Any]:
    return lambda packed, unpacking: kind(_unpack_list(packed, unpacking))


def _pack_ordered(value: OrderedDict[Any, Any], packing: Packing) -> ExtType:
    # The dictionary of attributes: a torch state_dict keeps its versions in `_metadata`.
    attributes = vars(value)
    return ext.ext(ext.ORDERED_DICT, packing.pack([dict(value), attributes] if attributes else [dict(value)]))


def _unpack_ordered(packed: bytes, unpacking: Unpacking) -> OrderedDict[Any, Any]:
    items = _unpack_list(packed, unpacking)
    ordered = OrderedDict(_unpack_dict(items[0]))
    for name, attribute in _unpack_dict(items[1]).items() if len(items) > 1 else ():
        if type(name) is not str:
            raise ValueError("the name of an attribute is not a string")
        vars(ordered)[name] = attribute
    return ordered


def _pack_bunch(value: Bunch, packing: Packing) -> ExtType:
    return ext.ext(ext.BUNCH, packing.pack_any(dict(value)))


def _unpack_bunch(packed: bytes, unpacking: Unpacking) -> Bunch:
    items = _unpack_dict(unpacking.unpack(packed))
    if not all(type(name) is str for name in items):
        raise ValueError("a key of a Bunch is not a string")
    return Bunch(items)


def _pack_default(value: defaultdict[Any, Any], packing: Packing) -> ExtType:
    name = _factory_name(value.default_factory)
    if name is None:
        raise UnsupportedTypeError(
            f"its default_factory {value.default_factory!r:.80} is no constructor of a supported type, or none that "
            f"is kept by name ({', '.join([*sorted(_FACTORIES), *_LIBRARY_FACTORIES])})",
        )
    return ext.ext(ext.DEFAULT_DICT, packing.pack([name, dict(value)]))


def _factory_name(factory: object) -> str | None:
    if factory is not None and not isinstance(factory, type):
        return None
    if factory in _FACTORY_NAMES:
        return _FACTORY_NAMES[factory]
    for name, (library, attribute) in _LIBRARY_FACTORIES.items():
        if (there := sys.modules.get(library)) and getattr(there, attribute, None) is factory:
            return name
    return None


def _unpack_default(packed: bytes, unpacking: Unpacking) -> defaultdict[Any, Any]:
    name, items = checked(unpacking.unpack(packed), str, dict)
    if name in _LIBRARY_FACTORIES:
        library, attribute = _LIBRARY_FACTORIES[name]
        return defaultdict(getattr(importlib.import_module(library), attribute), items)
    return defaultdict(_FACTORIES[name], items)


def _pack_deque(value: deque[Any], packing: Packing) -> ExtType:
    return ext.ext(ext.DEQUE, packing.pack([value.maxlen, [*value]]))


def _unpack_deque(packed: bytes, unpacking: Unpacking) -> deque[Any]:
    maxlen, items = checked(unpacking.unpack(packed), None, list)
    return deque(items, maxlen)


def _pack_raw(value: Raw, packing: Packing) -> ExtType:
    content = value.value
    is_array = type(content) is bytearray
    if len(content) < LARGE_BYTES:
        return ext.ext(ext.BYTEARRAY, bytes(content))
    member = Member("bin", len(content), lambda: (content,))
    return ext.ext(ext.BYTES_MEMBER, packing.pack([packing.add_member(member, content), is_array]))


def _unpack_bytes_member(packed: bytes, unpacking: Unpacking) -> bytes | bytearray:
    position, is_array = checked(unpacking.unpack(packed), int, bool)
    content = unpacking.member(position).read()
    return bytearray(content) if is_array else bytes(content)


def _refuse(value: Refused, packing: Packing) -> ExtType:
    remedy = "; store bytes(value) instead" if type(value.value) is memoryview else ""
    raise UnsupportedTypeError(f"it would come back as another type{remedy}")


PACKERS: dict[type, Packer] = {
    tuple: _pack_tuple,
    set: _set_packer(ext.SET),
    frozenset: _set_packer(ext.FROZENSET),
    OrderedDict: _pack_ordered,
    defaultdict: _pack_default,
    deque: _pack_deque,
    Bunch: _pack_bunch,
    Raw: _pack_raw,
    Refused: _refuse,
}
UNPACKERS: dict[int, Unpacker] = {
    ext.TUPLE: _unpack_tuple,
    ext.SET: _set_unpacker(set),
    ext.FROZENSET: _set_unpacker(frozenset),
    ext.ORDERED_DICT: _unpack_ordered,
    ext.DEFAULT_DICT: _unpack_default,
    ext.DEQUE: _unpack_deque,
    ext.BUNCH: _unpack_bunch,
    ext.BYTEARRAY: lambda packed, unpacking: bytearray(packed),
    ext.BYTES_MEMBER: _unpack_bytes_member,
}
