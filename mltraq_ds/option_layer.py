"""A layer of options: values that were found in one kind of place, and where each of them was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mltraq_ds.errors import UsageError
from mltraq_ds.option_table import OPTIONS, canonical, validated

__all__ = ["Layer", "collected", "from_text"]

_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True, slots=True)
class Layer:
    """Options of one layer, by dotted name.

    Parameters
    ----------
    name : str
        Which layer: ``"set"``, ``"environment"`` …
    values : mapping
        Dotted name to value, validated.
    places : mapping
        Dotted name to an object whose text says where the value was found, in layers that have several places.
    """

    name: str
    values: Mapping[str, object] = field(default_factory=dict)
    places: Mapping[str, object] = field(default_factory=dict)


def from_text(name: str, text: str) -> object:
    """Return the value that a text stands for in a variable or on the command line.

    Text where the option takes any text; else ``true``, ``false``, ``none``, or JSON.  What is none of these stays a
    text, which the option then refuses.

    Examples
    --------
    >>> from_text("execution.n_jobs", "-1"), from_text("tqdm.disable", "true"), from_text("datastore.url", "true")
    (-1, True, 'true')
    """
    word = text.lower()
    if word == "none" and OPTIONS[name].accepts(None):
        return None
    if OPTIONS[name].accepts(text):
        return text
    if word in _WORDS:
        return _WORDS[word]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def collected(name: str, found: Iterable[tuple[str, object, object]]) -> Layer:
    """Return a layer of what was found: names or aliases, values, and the place of each (``""`` if there is but one).

    Raises
    ------
    UnknownOptionError
        If there is no option of a name; the place is named.
    UsageError
        If a value is of a wrong type, or two names of one option have different values; the places are named.
    """
    values: dict[str, object] = {}
    places: dict[str, object] = {}
    for path, value, place in found:
        option = canonical(path)
        checked = validated(option, value, place)
        if option in values and values[option] != checked:
            where = f", in {places[option]} and in {place}" if place else " under two names"
            raise UsageError(f"Option {option!r} was given two values{where}. Remove one of them.")
        values.setdefault(option, checked)
        places.setdefault(option, place)
    return Layer(name, values, {option: place for option, place in places.items() if place})
