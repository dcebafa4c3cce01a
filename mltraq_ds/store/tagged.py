"""Tagged JSON: the values of a record that stay inline, so that any tool reads them and SQL finds them.

JSON-native values stand as they are.  Other scalars and small containers become an object with one key that starts with
``$`` (the tag), so that they come back exactly.  A user's own dictionary whose keys look like that is tagged itself.
`plain` gives the form for SQL and tables: no tags, ``"NaN"`` for NaN.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mltraq_ds.codecs import decode, encode
from mltraq_ds.errors import CorruptRecordError, MltraqDSError, UnsupportedTypeError
from mltraq_ds.reference import Reference
from mltraq_ds.store.scalar_tags import MAX_INT, PARSERS, SCALARS
from mltraq_ds.store.texts import is_database_text

__all__ = ["MAX_INLINE", "NotInline", "is_native", "plain", "restore", "tag"]

#: Longest JSON text of one value that stays in the record (characters); larger ones go to a blob.
MAX_INLINE = 16 * 1024

_SIMPLE = frozenset({bool, int, str, type(None), float})
_NUMBER = re.compile(r"[<>|=]?[biuf][0-9]{1,2}")
#: What hostile or damaged content of a tag raises.
_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class NotInline(Exception):  # noqa: N818 - an answer, not an error
    """The value does not stay inline; never leaves this package."""


def is_native(values: Mapping[str, Any]) -> bool:
    """Tell quickly whether all values are JSON scalars that stay inline as they are."""
    kinds = set(map(type, values.values()))
    if not kinds <= _SIMPLE:
        return False
    if float in kinds and not _is_finite(
        values.values() if len(kinds) == 1 else [v for v in values.values() if type(v) is float]
    ):
        return False
    if int in kinds and not all(-MAX_INT < v < MAX_INT for v in values.values() if type(v) is int):
        return False
    texts = [v for v in values.values() if type(v) is str] if str in kinds else []
    return all(len(text) <= MAX_INLINE // 6 and is_database_text(text) for text in texts)


def _is_finite(numbers: Collection[float]) -> bool:
    # NaN and infinity stay in a sum, which takes a tenth of the time; finite numbers may overflow it.
    return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))


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
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -MAX_INT < value < MAX_INT else _tag_other(value)
    if kind is str:
        return value if is_database_text(value) else _tag_other(value)
    if kind is float:
        return value if math.isfinite(value) else {"$float": _float_text(value), **_bits(value)}
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
        if all(type(key) is str and not key.startswith("$") and is_database_text(key) for key in value):
            return {key: _tag(item, depth + 1) for key, item in value.items()}
        return {"$dict": [[_tag(key, depth + 1), _tag(item, depth + 1)] for key, item in value.items()]}
    if kind in SCALARS:
        name, dump, parse = SCALARS[kind]
        text = dump(value)
        if text is not None and _same(parse(text), value):
            return {f"${name}": text}
    return _tag_numpy(value) or _tag_other(value)


def _refuse_long(value: Any) -> None:
    if len(value) > MAX_INLINE // 2:
        raise NotInline  # at least two characters an item


def _bits(value: float) -> dict[str, str]:
    """Return what stands beside a NaN of other bits than the usual ones: ``inf - inf`` has a sign, for instance."""
    content = struct.pack("<d", value)
    return {"bits": content.hex()} if math.isnan(value) and content != struct.pack("<d", math.nan) else {}


def _float_text(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _same(restored: Any, value: Any) -> bool:
    # Zones and folds are not part of equality of datetimes, but are of their state.
    return type(restored) is type(value) and repr(restored) == repr(value)


def _tag_numpy(value: Any) -> Any:
    np = sys.modules.get("numpy")
    if np is None or type(value) not in (
        np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
        np.float16, np.float32, np.float64,
    ):  # fmt: skip
        return None
    item = value.item()
    if isinstance(item, float) and not math.isfinite(item):
        if math.isnan(item) and value.tobytes() != type(value)(math.nan).tobytes():
            return {"$numpy": [value.dtype.str, "NaN"], "bits": value.tobytes().hex()}
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
    return {"$value": base64.b64encode(encoded.tree).decode(), "text": _text_of(value)}


def _text_of(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - the text is for people; what __str__ does is its author's (or a number too long)
        text = f"<{type(value).__name__}>"
    return text[:200].replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


def _never(value: object) -> bool:
    return False


def restore(tagged: Any, resolve: Callable[[Reference, dict[str, Any]], Any], *, allow_pickle: bool = False) -> Any:
    """Return the value of tagged JSON; it comes from a file and is not trusted.

    Parameters
    ----------
    tagged : JSON
        As read from a record.
    resolve : callable
        Makes the value of a reference, given what stands beside it: ``kind``, ``names``, ``nested``, ``type``.
    allow_pickle : bool
        Whether this reader lets pickled values run code.

    Raises
    ------
    CorruptRecordError
        If a tag is unknown or its content is not of its form.
    """
    try:
        # Only as a whole: inside a list nothing would ever read it.
        if isinstance(tagged, dict) and next(iter(tagged), "") == "$ref":
            return resolve(Reference.from_list(tagged["$ref"]), tagged)
        return _restore(tagged, allow_pickle)
    except MltraqDSError:
        raise
    except _DAMAGE as error:
        raise _unreadable(tagged, error) from error


def _unreadable(tagged: Any, error: Exception) -> CorruptRecordError:
    return CorruptRecordError(
        f"A value in a record cannot be read: {_text_of(tagged):.120} ({error!r:.80}). The record is damaged or was "
        "written by a newer version; upgrade, or restore it from a copy."
    )


def _restore(tagged: Any, allow_pickle: bool) -> Any:
    if isinstance(tagged, list):
        return [_restore(item, allow_pickle) for item in tagged]
    if not isinstance(tagged, dict):
        return tagged
    first = next(iter(tagged), "")
    if not first.startswith("$"):
        return {key: _restore(item, allow_pickle) for key, item in tagged.items()}
    content = tagged[first]
    name = first[1:]
    if name == "float":
        return _float_of(content, tagged)
    if name == "tuple":
        return tuple(_restore(item, allow_pickle) for item in content)
    if name == "dict":
        return {_restore(key, allow_pickle): _restore(item, allow_pickle) for key, item in content}
    if name == "numpy":
        return _restore_numpy(content, tagged.get("bits"))
    if name == "value":
        return decode(base64.b64decode(content, validate=True), (), allow_pickle=allow_pickle)
    return PARSERS[name](content)


def _float_of(content: Any, tagged: dict[str, Any]) -> float:
    value: float = _SPECIAL[content]
    if "bits" not in tagged:
        return value
    value = struct.unpack("<d", bytes.fromhex(tagged["bits"]))[0]
    if not math.isnan(value):
        raise ValueError("bits that are no NaN")
    return value


def _restore_numpy(content: Any, bits: Any) -> Any:
    import numpy as np

    dtype, item = content
    if not _NUMBER.fullmatch(dtype) or isinstance(item, (list, dict)):
        raise ValueError(f"{dtype!r:.40} is not a number")
    kind = np.dtype(dtype)
    if bits is not None:
        found = np.frombuffer(bytes.fromhex(bits), kind)
        if len(found) != 1 or kind.kind != "f" or not np.isnan(found[0]):
            raise ValueError("bits that are no NaN")
        return found[0]
    return kind.type(_SPECIAL.get(item, item) if isinstance(item, str) else item)


def plain(tagged: Any) -> Any:
    """Return the form of tagged JSON for SQL and tables: numbers as numbers, special floats and the rest as text.

    Examples
    --------
    >>> plain({"$float": "NaN"}), plain({"$numpy": ["<f4", 0.5]}), plain({"$tuple": [1, 2]})
    ('NaN', 0.5, [1, 2])

    Raises
    ------
    CorruptRecordError
        If the content of a tag is not of its form: it may come from a file.
    """
    try:
        return _plain(tagged)
    except _DAMAGE as error:
        raise _unreadable(tagged, error) from error


def _plain(tagged: Any) -> Any:
    if isinstance(tagged, list):
        return [_plain(item) for item in tagged]
    if not isinstance(tagged, dict):
        return tagged
    first = next(iter(tagged), "")
    if not first.startswith("$"):
        return {key: _plain(item) for key, item in tagged.items()}
    content = tagged[first]
    if first == "$ref":
        return {"$ref": content, "kind": tagged.get("kind", "value")}
    if first == "$numpy":
        return content[1]
    if first == "$tuple":
        return [_plain(item) for item in content]
    if first == "$dict":
        return {_plain_key(key): _plain(item) for key, item in content}
    if first == "$value":
        return tagged["text"]
    if first == "$timedelta":
        return PARSERS["timedelta"](content).total_seconds()
    return content


def _plain_key(tagged: Any) -> str:
    key = _plain(tagged)
    return key if isinstance(key, str) else json.dumps(key)
