"""Texts: the JSON of a mapping, made once for its record, its validation and its row in the index."""

from __future__ import annotations

import json
from typing import Any

import orjson

__all__ = ["NativeMapping"]

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
            self._text = text = _encode(self)
            return text


def _encode(values: dict[str, Any]) -> str:
    # orjson writes floats ten times as fast as the standard library, and as exactly.  What it does not know (lone
    # surrogates, integers beyond 64 bits) or writes otherwise (text beyond ASCII) is rare.  NaN, which it would turn
    # into null, is not native.
    try:
        data = orjson.dumps(values)
    except TypeError:
        return _ENCODE(values)
    return data.decode("ascii") if data.isascii() else _ENCODE(values)
