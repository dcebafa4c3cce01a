"""Time zones, frequencies and scalars of pandas, described in words that pandas 2 and 3 both understand.

Nothing here imports or looks up a name read from a blob other than in a fixed table: zone names go through the zone
database, names of offsets must be among the public names of ``pandas.offsets``.  Imported on use only.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd

from mltraq_ds.errors import MissingExtraError, UnsupportedTypeError

__all__ = ["decode_offset", "decode_scalar", "decode_zone", "encode_offset", "encode_scalar", "encode_zone"]

# The stubs know few of the frequencies, and no list of them.
_OFFSETS: Any = pd.tseries.offsets
_MICROSECOND = datetime.timedelta(microseconds=1)


def encode_zone(zone: datetime.tzinfo | None) -> dict[str, Any] | None:
    """Describe a time zone.

    Raises
    ------
    UnsupportedTypeError
        If it is none of `zoneinfo`, `datetime.timezone`, pytz, or the named zones and UTC of dateutil.
    """
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        description: dict[str, Any] = {"kind": "offset", "us": zone.utcoffset(None) // _MICROSECOND}
        if repr(zone) != repr(datetime.timezone(zone.utcoffset(None))) and zone is not datetime.UTC:
            description["name"] = zone.tzname(None)
        return description
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return {"kind": "zoneinfo", "key": zone.key}
    package = type(zone).__module__.partition(".")[0]
    if package == "pytz":
        if getattr(zone, "zone", None):
            return {"kind": "pytz", "key": zone.zone}  # type: ignore[attr-defined]
        return {"kind": "pytz_offset", "us": zone.utcoffset(None) // _MICROSECOND}  # type: ignore[operator]
    if package == "dateutil":
        tz: Any = importlib.import_module("dateutil.tz")
        if type(zone) is tz.tzutc:
            return {"kind": "dateutil", "key": "UTC"}
        key = str(getattr(zone, "_filename", "")).rpartition("zoneinfo/")[2]
        if type(zone) is type(tz.gettz("Europe/Berlin")) and key in zoneinfo.available_timezones():
            return {"kind": "dateutil", "key": key}
    raise UnsupportedTypeError(
        f"time zone {zone!r} of type {type(zone).__module__}.{type(zone).__qualname__} has no portable name; "
        'convert with .tz_convert("Area/City") or to a datetime.timezone'
    )


def decode_zone(description: Any) -> datetime.tzinfo | None:
    """Return the zone described; a zone of a library that is not installed becomes the `zoneinfo` of that name."""
    if description is None:
        return None
    kind = description["kind"]
    if kind in ("offset", "pytz_offset"):
        delta = description["us"] * _MICROSECOND
        if kind == "pytz_offset" and importlib.util.find_spec("pytz"):
            fixed: datetime.tzinfo = importlib.import_module("pytz").FixedOffset(delta // datetime.timedelta(minutes=1))
            return fixed
        return datetime.timezone(delta, description["name"]) if "name" in description else datetime.timezone(delta)
    key = description["key"]
    try:
        zone = zoneinfo.ZoneInfo(key)
    except zoneinfo.ZoneInfoNotFoundError as error:
        raise MissingExtraError(
            f"time zone {key!r} is not in the zone database of this machine; pip install -U tzdata"
        ) from error
    if kind == "pytz" and importlib.util.find_spec("pytz"):
        named: datetime.tzinfo = importlib.import_module("pytz").timezone(key)
        return named
    if kind == "dateutil":
        tz: Any = importlib.import_module("dateutil.tz")
        other: datetime.tzinfo = tz.UTC if key == "UTC" else tz.gettz(key)
        return other
    return zone


def encode_offset(offset: Any) -> dict[str, Any]:
    """Describe a frequency by its text, or by its public class and arguments where the text is not exact.

    Raises
    ------
    UnsupportedTypeError
        If neither gives an equal offset back.
    """
    try:
        if _is_same(pd.tseries.frequencies.to_offset(offset.freqstr), offset):
            return {"text": offset.freqstr}
    except (ValueError, TypeError):
        pass  # e.g. DateOffset(months=1): its text is its repr
    # The calendar is made again from holidays and weekmask.
    kwds = {name: value for name, value in offset.kwds.items() if name != "calendar"}
    description = {"name": type(offset).__name__, "n": offset.n, "normalize": offset.normalize, "kwds": kwds}
    try:
        if _is_same(decode_offset(description), offset):
            return description
    except (ValueError, TypeError):
        pass
    raise UnsupportedTypeError(
        f"frequency {offset!r} of type {type(offset).__qualname__} cannot be described exactly; remove it (freq=None)"
    )


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def decode_offset(description: Any) -> Any:
    """Return the offset described."""
    if "text" in description:
        return pd.tseries.frequencies.to_offset(str(description["text"]))
    name = description["name"]
    if name not in _OFFSETS.__all__:
        raise ValueError(f"pandas has no frequency called {name!r}")
    kwds = {str(key): value for key, value in description["kwds"].items()}
    return getattr(_OFFSETS, name)(int(description["n"]), normalize=bool(description["normalize"]), **kwds)


def encode_scalar(value: Any) -> dict[str, Any]:
    """Describe a scalar of pandas; ticks are kept as integers in their own unit."""
    if value is pd.NaT:
        return {"kind": "NaT"}
    if value is pd.NA:
        return {"kind": "NA"}
    if isinstance(value, pd.Timestamp):
        ticks = int(value.asm8.view("i8"))
        zone = encode_zone(value.tzinfo)
        return {"kind": "timestamp", "ticks": ticks, "unit": value.unit, "tz": zone, "fold": value.fold}
    if isinstance(value, pd.Timedelta):
        return {"kind": "timedelta", "ticks": int(value.asm8.view("i8")), "unit": value.unit}
    if isinstance(value, pd.Period):
        return {"kind": "period", "ordinal": value.ordinal, "freq": encode_offset(value.freq)}
    if isinstance(value, pd.Interval):
        return {"kind": "interval", "left": value.left, "right": value.right, "closed": value.closed}
    return {"kind": "offset", "offset": encode_offset(value)}


def decode_scalar(description: Any) -> Any:
    """Return the scalar described."""
    kind = description["kind"]
    if kind == "NaT":
        return pd.NaT
    if kind == "NA":
        return pd.NA
    if kind == "timestamp":
        return _timestamp(description)
    if kind == "timedelta":
        return pd.Timedelta(np.timedelta64(description["ticks"], _unit(description)))
    if kind == "period":
        return pd.Period(ordinal=int(description["ordinal"]), freq=decode_offset(description["freq"]))
    if kind == "interval":
        return pd.Interval(description["left"], description["right"], closed=description["closed"])
    if kind == "offset":
        return decode_offset(description["offset"])
    raise ValueError(f"unknown pandas scalar {kind!r}")


def _timestamp(description: Any) -> Any:
    value: Any = pd.Timestamp(np.datetime64(description["ticks"], _unit(description)))
    zone = decode_zone(description["tz"])
    if zone is not None:
        value = value.tz_localize("UTC").tz_convert(zone)
    fold = int(description["fold"])
    return value if value is pd.NaT or value.fold == fold else value.replace(fold=fold)


def _unit(description: Any) -> Any:
    unit = description["unit"]
    if unit not in ("s", "ms", "us", "ns"):
        raise ValueError(f"unknown time unit {unit!r}")
    return unit
