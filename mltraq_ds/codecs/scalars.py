"""Scalars of the standard library that msgpack does not know."""

from __future__ import annotations

import datetime
import re
import struct
import uuid
import zoneinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any

from msgpack import ExtType

from mltraq_ds.codecs import ext
from mltraq_ds.codecs.ext import Packer, Packing, Unpacker, Unpacking, checked
from mltraq_ds.errors import FormatError, UnsupportedTypeError

__all__ = ["PACKERS", "UNPACKERS"]

_COMPLEX = struct.Struct("<dd")
_DATETIME = struct.Struct("<HBBBBBIB")
_DATE = struct.Struct("<HBB")
_TIME = struct.Struct("<BBBIB")
_TIMEDELTA = struct.Struct("<iII")
# Stricter than zoneinfo, which turns a key into the name of a package below tzdata.
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_PATHS: dict[str, type[PurePath]] = {
    kind.__name__: kind for kind in (PosixPath, PurePosixPath, PureWindowsPath, WindowsPath)
}


def _pack_int(value: int, packing: Packing) -> ExtType:
    # Called beyond 64 bits only; below, msgpack has its own form.
    return ext.ext(ext.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _pack_complex(value: complex, packing: Packing) -> ExtType:
    return ext.ext(ext.COMPLEX, _COMPLEX.pack(value.real, value.imag))


def _zone_to_plain(zone: datetime.tzinfo) -> list[Any]:
    """Return the key of a time zone, or its offset and name."""
    if type(zone) is datetime.timezone:
        delta, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # what pickle uses, too
        return [delta.days, delta.seconds, delta.microseconds, *name]
    if type(zone) is zoneinfo.ZoneInfo and zone.key and _ZONE_KEY.fullmatch(zone.key):
        return [zone.key]
    raise UnsupportedTypeError(
        f"the zone {zone!r} cannot be restored exactly: only zoneinfo.ZoneInfo with a key and datetime.timezone can"
    )


def _zone_from_plain(value: Any) -> datetime.tzinfo:
    """Return the time zone that `_zone_to_plain` was given."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) and _ZONE_KEY.fullmatch(value[0]):
        try:
            return zoneinfo.ZoneInfo(value[0])
        except (zoneinfo.ZoneInfoNotFoundError, OSError) as error:
            raise FormatError(
                f"The time zone {value[0]!r} cannot be read because this machine does not have it. Install its data: "
                "pip install tzdata."
            ) from error
    named = isinstance(value, list) and len(value) == 4
    days, seconds, microseconds, *name = checked(value, *(int, int, int, str)[: 4 if named else 3])
    return datetime.timezone(datetime.timedelta(days, seconds, microseconds), *name)


def _packed_zone(value: datetime.datetime | datetime.time, packing: Packing) -> bytes:
    if value.tzinfo is None:
        return b""
    return packing.pack(_zone_to_plain(value.tzinfo))


def _pack_datetime(value: datetime.datetime, packing: Packing) -> ExtType:
    fields = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ext.ext(ext.DATETIME, _DATETIME.pack(*fields) + _packed_zone(value, packing))


def _unpack_datetime(packed: bytes, unpacking: Unpacking) -> datetime.datetime:
    *fields, fold = _DATETIME.unpack_from(packed)
    rest = packed[_DATETIME.size :]
    zone = _zone_from_plain(unpacking.unpack(rest)) if rest else None
    return datetime.datetime(*fields, tzinfo=zone, fold=fold)  # type: ignore[misc]  # seven fields


def _pack_time(value: datetime.time, packing: Packing) -> ExtType:
    fields = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ext.ext(ext.TIME, _TIME.pack(*fields) + _packed_zone(value, packing))


def _unpack_time(packed: bytes, unpacking: Unpacking) -> datetime.time:
    *fields, fold = _TIME.unpack_from(packed)
    rest = packed[_TIME.size :]
    zone = _zone_from_plain(unpacking.unpack(rest)) if rest else None
    return datetime.time(*fields, tzinfo=zone, fold=fold)  # type: ignore[misc]  # four fields


def _pack_path(value: PurePath, packing: Packing) -> ExtType:
    return ext.ext(ext.PATH, packing.pack([type(value).__name__, str(value)]))


def _unpack_path(packed: bytes, unpacking: Unpacking) -> PurePath:
    name, text = checked(unpacking.unpack(packed), str, str)
    kind = _PATHS[name]
    try:
        return kind(text)
    except NotImplementedError:  # a path of the other operating system: the pure class is as near as one can get
        return (PureWindowsPath if kind is WindowsPath else PurePosixPath)(text)


def _pack_slice(value: slice, packing: Packing) -> ExtType:
    return ext.ext(ext.SLICE, packing.pack_any([value.start, value.stop, value.step]))


PACKERS: dict[type, Packer] = {
    int: _pack_int,
    complex: _pack_complex,
    datetime.datetime: _pack_datetime,
    datetime.date: lambda value, packing: ext.ext(ext.DATE, _DATE.pack(value.year, value.month, value.day)),
    datetime.time: _pack_time,
    datetime.timedelta: lambda value, packing: ext.ext(
        ext.TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)
    ),
    datetime.timezone: lambda value, packing: ext.ext(ext.ZONE, packing.pack(_zone_to_plain(value))),
    zoneinfo.ZoneInfo: lambda value, packing: ext.ext(ext.ZONE, packing.pack(_zone_to_plain(value))),
    uuid.UUID: lambda value, packing: ext.ext(ext.UUID, value.bytes),
    # As text: exact for every digit, exponent, sign and NaN payload, whatever the context.
    Decimal: lambda value, packing: ext.ext(ext.DECIMAL, str(value).encode()),
    Fraction: lambda value, packing: ext.ext(ext.FRACTION, packing.pack([value.numerator, value.denominator])),
    **dict.fromkeys(_PATHS.values(), _pack_path),
    range: lambda value, packing: ext.ext(ext.RANGE, packing.pack([value.start, value.stop, value.step])),
    slice: _pack_slice,
}
UNPACKERS: dict[int, Unpacker] = {
    ext.BIG_INT: lambda packed, unpacking: int.from_bytes(packed, "little", signed=True),
    ext.COMPLEX: lambda packed, unpacking: complex(*_COMPLEX.unpack(packed)),
    ext.DATETIME: _unpack_datetime,
    ext.DATE: lambda packed, unpacking: datetime.date(*_DATE.unpack(packed)),
    ext.TIME: _unpack_time,
    ext.TIMEDELTA: lambda packed, unpacking: datetime.timedelta(*_TIMEDELTA.unpack(packed)),
    ext.ZONE: lambda packed, unpacking: _zone_from_plain(unpacking.unpack(packed)),
    ext.UUID: lambda packed, unpacking: uuid.UUID(bytes=packed),
    ext.DECIMAL: lambda packed, unpacking: Decimal(packed.decode("ascii")),
    ext.FRACTION: lambda packed, unpacking: Fraction(*checked(unpacking.unpack(packed), int, int)),
    ext.PATH: _unpack_path,
    ext.RANGE: lambda packed, unpacking: range(*checked(unpacking.unpack(packed), int, int, int)),
    ext.SLICE: lambda packed, unpacking: slice(*checked(unpacking.unpack(packed), None, None, None)),
}
