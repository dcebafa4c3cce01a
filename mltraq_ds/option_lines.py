"""Lines of configuration files: where a name stands, which parsers do not say."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["lines_of"]

_SPACE = re.compile(r"[ \t\r\n]*")


@lru_cache(maxsize=8)
def lines_of(text: str, *, is_json: bool) -> Mapping[str, int]:
    r"""Return the line (from 1) at which each name begins; nested names are joined by dots.

    Parameters
    ----------
    text : str
        Valid JSON or TOML.
    is_json : bool
        Which of them.

    Examples
    --------
    >>> lines_of("[database]\nurl = 'x'", is_json=False)
    {'database': 1, 'database.url': 2}
    """
    return _json_lines(text) if is_json else _toml_lines(text)


def _json_lines(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    decoder = json.JSONDecoder()

    def skip(position: int) -> int:
        space = _SPACE.match(text, position)
        return space.end() if space else position

    def walk(position: int, group: str) -> int:
        """Note the names of the object that begins at `position`, and return where it ends."""
        position = skip(position + 1)
        while text[position] != "}":
            line = text.count("\n", 0, position) + 1
            key, position = decoder.raw_decode(text, position)
            position = skip(skip(position) + 1)  # behind the colon
            found.setdefault(f"{group}{key}", line)
            if text[position] == "{":
                position = walk(position, f"{group}{key}.")
            else:
                _, position = decoder.raw_decode(text, position)
            position = skip(position)
            if text[position] == ",":
                position = skip(position + 1)
        return position + 1

    walk(skip(0), "")
    return found


def _toml_lines(text: str) -> dict[str, int]:
    # A name begins behind the last beginning of the text that is valid and does not have it.  The parser itself says
    # so, whatever strings over several lines look like; it costs a parse for each line, of a short file.
    found: dict[str, int] = {}
    lines = text.split("\n")
    start = 1
    for end in range(1, len(lines) + 1):
        try:
            parsed = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        for name in _names(parsed):
            found.setdefault(name, start)
        start = end + 1
    return found


def _names(table: Mapping[str, Any], group: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield f"{group}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{group}{key}.")
