"""Tagged JSON: the values of a record that stay inline, so that any tool reads them and SQL finds them.

JSON-native values stand as they are.  Other scalars and small containers become an object with one key that starts with
``$`` (the tag), so that they come back exactly.  A user's own dictionary whose keys look like that is tagged itself.
`plain` gives the form for SQL and tables: no tags, ``"NaN"`` for NaN.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import fractions
import json
import math
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import PosixPath, PurePosixPath
from typing import Any

from mltraq_ds.codecs import decode, encode
from mltraq_ds.errors import CorruptRecordError, MltraqDSError, UnsupportedTypeError
from mltraq_ds.reference import Reference

__all__ = ["MAX_INLINE", "NotInline", "is_native", "plain", "restore", "tag"]

#: Longest JSON text of one value that stays in the record (characters); larger ones go to a blob.
MAX_INLINE = 16 * 1024

_NATIVE = frozenset({bool, int, str, type(None)})
_SIMPLE = _NATIVE | {float}
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class NotInline(Exception):  # noqa: N818 - an answer, not an error
    """The value does not stay inline; never leaves this package."""


def is_native(values: Mapping[str, Any]) -> bool:
    """Tell quickly whether all values are JSON scalars that stay inline as they are."""
    kinds = set(map(type, values.values()))
    if not kinds <= _SIMPLE:
        return False
    if float in kinds and not all(map(math.isfinite, [v for v in values.values() if type(v) is float])):
        return False
    return str not in kinds or max(len(v) for v in values.values() if type(v) is str) <= MAX_INLINE // 6


def tag(value: object) -> Any:
    """Return the tagged JSON of a value.

    Raises
    ------
    NotInline
        If the value belongs in a blob: arrays, frames, DataStores, anything large.
    """
    tagged = _tag(value, 0)
    if type(value) not in _SIMPLE - {str} and len(json.dumps(tagged)) > MAX_INLINE:
        raise NotInline
    return tagged


def _tag(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _NATIVE:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": _float_text(value)}
    if depth > 16:
        raise NotInline
    if kind is list:
        _refuse_long(value)
        return [_tag(item, depth + 1) for item in value]
    if kind is tuple:
        _refuse_long(value)
        return {"$tuple": [_tag(item, depth + 1) for item in value]}
    if kind is dict:
        _refuse_long(value)
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _tag(item, depth + 1) for key, item in value.items()}
        return {"$dict": [[_tag(key, depth + 1), _tag(item, depth + 1)] for key, item in value.items()]}
    if kind in _SCALARS:
        name, dump, parse = _SCALARS[kind]
        text = dump(value)
        if text is not None and _same(parse(text), value):
            return {f"${name}": text}
    return _tag_numpy(value) or _tag_other(value)


def _refuse_long(value: Any) -> None:
    if len(value) > MAX_INLINE // 2:
        raise NotInline  # at least two characters an item


def _float_text(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _same(restored: Any, value: Any) -> bool:
    # Zones and folds are not part of equality of datetimes, but are of their state.
    return type(restored) is type(value) and repr(restored) == repr(value)


_SCALARS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    complex: ("complex", lambda v: [v.real, v.imag] if _finite(v) else None, lambda p: complex(*map(float, p))),
    bytes: ("bytes", lambda v: base64.b64encode(v).decode(), lambda p: base64.b64decode(p, validate=True)),
    datetime.datetime: ("datetime", lambda v: v.isoformat(), datetime.datetime.fromisoformat),
    datetime.date: ("date", lambda v: v.isoformat(), datetime.date.fromisoformat),
    datetime.time: ("time", lambda v: v.isoformat(), datetime.time.fromisoformat),
    datetime.timedelta: (
        "timedelta",
        lambda v: [v.days, v.seconds, v.microseconds],
        lambda p: datetime.timedelta(*map(int, p)),
    ),
    uuid.UUID: ("uuid", str, uuid.UUID),
    decimal.Decimal: ("decimal", str, decimal.Decimal),
    fractions.Fraction: ("fraction", str, fractions.Fraction),
    PosixPath: ("path", str, PosixPath),
    PurePosixPath: ("pure_path", str, PurePosixPath),
}
_PARSERS = {name: parse for name, _, parse in _SCALARS.values()}


def _finite(value: complex) -> bool:
    return math.isfinite(value.real) and math.isfinite(value.imag)


def _tag_numpy(value: Any) -> Any:
    np = sys.modules.get("numpy")
    if np is None or type(value) not in (
        np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
        np.float16, np.float32, np.float64,
    ):  # fmt: skip
        return None
    item = value.item()
    if isinstance(item, float) and not math.isfinite(item):
        item = _float_text(item)
    return {"$numpy": [value.dtype.str, item]}


def _tag_other(value: Any) -> Any:
    """Tag any other small value by its codec's tree, beside a text for people."""
    if hasattr(value, "__len__") and not isinstance(value, (bytes, bytearray, str, set, frozenset, range)):
        raise NotInline  # containers of other kinds are not scalars: arrays, frames, DataStores
    try:
        encoded = encode(value, is_nested=_never)
    except UnsupportedTypeError:
        raise NotInline from None  # the blob's encoder says why, with the name of the field
    if encoded.members or encoded.nested or len(encoded.tree) > MAX_INLINE // 2:
        raise NotInline
    return {"$value": base64.b64encode(encoded.tree).decode(), "text": str(value)[:200]}


def _never(value: object) -> bool:
    return False


def restore(tagged: Any, resolve: Callable[[Reference, dict[str, Any]], Any]) -> Any:
    """Return the value of tagged JSON; it comes from a file and is not trusted.

    Parameters
    ----------
    tagged : JSON
        As read from a record.
    resolve : callable
        Makes the value of a reference, given what stands beside it: ``kind``, ``names``, ``nested``, ``type``.

    Raises
    ------
    CorruptRecordError
        If a tag is unknown or its content is not of its form.
    """
    try:
        return _restore(tagged, resolve)
    except MltraqDSError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise CorruptRecordError(
            f"A value in a record cannot be read: {tagged!r:.120} ({error!r:.80}). The record is damaged or was "
            "written "
            "by a newer version; upgrade, or restore it from a copy."
        ) from error


def _restore(tagged: Any, resolve: Callable[[Reference, dict[str, Any]], Any]) -> Any:
    if isinstance(tagged, list):
        return [_restore(item, resolve) for item in tagged]
    if not isinstance(tagged, dict):
        return tagged
    first = next(iter(tagged), "")
    if not first.startswith("$"):
        return {key: _restore(item, resolve) for key, item in tagged.items()}
    content = tagged[first]
    name = first[1:]
    if name == "ref":
        return resolve(Reference.from_list(content), tagged)
    if name == "float":
        return _SPECIAL[content]
    if name == "tuple":
        return tuple(_restore(item, resolve) for item in content)
    if name == "dict":
        return {_restore(key, resolve): _restore(item, resolve) for key, item in content}
    if name == "numpy":
        return _restore_numpy(*content)
    if name == "value":
        return decode(base64.b64decode(content, validate=True), ())
    return _PARSERS[name](content)


def _restore_numpy(dtype: str, item: Any) -> Any:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.kind not in "biuf":
        raise ValueError(f"{dtype!r} is not a number")
    return kind.type(_SPECIAL.get(item, item) if isinstance(item, str) else item)


def plain(tagged: Any) -> Any:
    """Return the form of tagged JSON for SQL and tables: numbers as numbers, special floats and the rest as text.

    Examples
    --------
    >>> plain({"$float": "NaN"}), plain({"$numpy": ["<f4", 0.5]}), plain({"$tuple": [1, 2]})
    ('NaN', 0.5, [1, 2])
    """
    if isinstance(tagged, list):
        return [plain(item) for item in tagged]
    if not isinstance(tagged, dict):
        return tagged
    first = next(iter(tagged), "")
    if not first.startswith("$"):
        return {key: plain(item) for key, item in tagged.items()}
    content = tagged[first]
    if first == "$ref":
        return {"$ref": content, "kind": tagged.get("kind", "value")}
    if first == "$numpy":
        return content[1]
    if first == "$tuple":
        return [plain(item) for item in content]
    if first == "$dict":
        return {_plain_key(key): plain(item) for key, item in content}
    if first == "$value":
        return tagged["text"]
    if first == "$timedelta":
        return _PARSERS["timedelta"](content).total_seconds()
    return content


def _plain_key(tagged: Any) -> str:
    key = plain(tagged)
    return key if isinstance(key, str) else json.dumps(key)
