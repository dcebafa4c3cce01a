"""Texts: which of them JSON and databases take, and the JSON of a mapping, made once for its record and its row."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

__all__ = ["NativeMapping", "compact", "is_database_text", "is_json_text"]

# JSON has one notation for two texts: a lone high surrogate before a low one, and the character that they encode.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_ENCODE = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class NativeMapping(dict[str, Any]):
    """A mapping of JSON scalars that stand as they are: record and index have the same text for it.

    Made of values that `mltraq_ds.store.tagged.is_native` accepts, and not changed afterwards.
    """

    __slots__ = ("_text",)
    _text: str

    @property
    def text(self) -> str:
        r"""The JSON text, in ASCII.

        Examples
        --------
        >>> NativeMapping(loss=0.5, epoch=3, note="é").text
        '{"loss":0.5,"epoch":3,"note":"\\u00e9"}'
        """
        try:
            return self._text
        except AttributeError:
            self._text = text = compact(self)
            return text


def compact(values: dict[str, Any]) -> str:
    """Return the JSON text, in ASCII and without spaces, of a mapping without NaN and of nothing but JSON's types."""
    # orjson writes floats ten times as fast as the standard library, and as exactly.  What it does not know (lone
    # surrogates, integers beyond 64 bits) or writes otherwise (text beyond ASCII) is rare.  NaN would become null.
    try:
        data = orjson.dumps(values)
    except TypeError:
        return _ENCODE(values)
    return data.decode("ascii") if data.isascii() else _ENCODE(values)


def is_json_text(text: str) -> bool:
    """Tell whether JSON gives a text back as it was: not if there are surrogates in it that form a pair."""
    return text.isascii() or _PAIR.search(text) is None


def is_database_text(text: str) -> bool:
    """Tell whether every database takes a text, and JSON gives it back: not if it has a NUL or a surrogate."""
    return "\0" not in text and (text.isascii() or _SURROGATE.search(text) is None)
