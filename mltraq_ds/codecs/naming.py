"""Where something is inside a value: for the names of members and for error messages.

Both are worked out afterwards, and only where there are members or there is an error: packing itself knows no paths.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any

from mltraq_ds.bunch import Bunch
from mltraq_ds.codecs.base import Member
from mltraq_ds.codecs.census import MAX_DEPTH, Refused
from mltraq_ds.ids import escape_member

__all__ = ["member_names", "refusal", "type_name"]

_NAMED_LEVELS = 3
_MAX_NAME_BYTES = 700  # a key has at most 1,000, and the name of a fragment may come first
_MAPPINGS = (dict, OrderedDict, defaultdict, Bunch)
_SEQUENCES = (list, tuple, deque)
_CONTAINERS = frozenset(_MAPPINGS + _SEQUENCES)
_NATIVE: tuple[type, ...] = (bool, int, float, str, bytes, list, dict, tuple, set)
_FAMILIES = ("collections", "datetime", "numpy", "pandas", "pathlib")


def member_names(name: str, value: object, members: Sequence[Member], owners: Sequence[object]) -> tuple[Member, ...]:
    """Return the members with their names: where their owner is in `value`, as far as keys are strings.

    Parameters
    ----------
    name : str
        The key of `value` in its DataStore.
    value : object
        What was encoded.
    members, owners : sequence, shape (n,)
        Each member and the value it is a part of.
    """
    if not members:
        return ()
    base = escape_member(name)
    if len(members) == 1 and owners[0] is value and not members[0].name:
        only = members[0]  # of most values; it is where the value is
        candidate = f"{base}.{only.suffix}"
        if len(candidate) <= _MAX_NAME_BYTES:
            return (Member(only.suffix, only.size, only.buffers, candidate, only.streamed),)
    places = _places(value, base, [id(owner) for owner in owners])
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    named = []
    for member, owner in zip(members, owners, strict=True):
        folders = places.get(id(owner), ())
        # A member that brings a name of its own has its suffix in it.
        end = f"/{'/'.join(map(escape_member, member.name.split('/')))}" if member.name else f".{member.suffix}"
        free = (name for folder in folders if len(name := folder + end) <= _MAX_NAME_BYTES and name not in taken)
        candidate = next(free, "")
        folder = folders[0] if folders and len(folders[0]) <= _MAX_NAME_BYTES - 50 else base
        while not candidate or candidate in taken:
            number = numbers[folder] = numbers.get(folder, -1) + 1
            candidate = f"{folder}/{number}.{member.suffix}"
        taken.add(candidate)
        named.append(Member(member.suffix, member.size, member.buffers, candidate, member.streamed))
    return tuple(named)


def _places(value: object, base: str, ids: Sequence[int]) -> dict[int, list[str]]:
    """Return where in `value` the objects with these ids are, not deeper than a few levels, as escaped names."""
    wanted, left = set(ids), len(ids)
    found: dict[int, list[str]] = {}
    if id(value) in wanted:
        found[id(value)] = [base]
        left -= ids.count(id(value))
    level: list[tuple[str, Any]] = [(base, value)]
    for _ in range(_NAMED_LEVELS if left else 0):
        below = []
        for place, container in level:
            for key, item in _named_items(container):
                if id(item) in wanted:
                    found.setdefault(id(item), []).append(_joined(place, key))
                    left -= 1
                elif type(item) in _CONTAINERS:
                    below.append((_joined(place, key), item))
        if left <= 0:
            break
        level = below
    return found


def _joined(place: str, key: str | int) -> str:
    return f"{place}/{escape_member(key) if isinstance(key, str) else key}"


def _named_items(container: Any) -> Iterator[tuple[str | int, Any]]:
    if type(container) in _MAPPINGS:
        yield from ((key, item) for key, item in container.items() if type(key) is str)
    elif type(container) in _SEQUENCES:
        yield from enumerate(container)


def refusal(value: object, chain: Sequence[object], reason: str) -> str:
    """Return the text for a value that no codec takes: where it is, its type, why, and the ways out.

    Parameters
    ----------
    value : object
        What was to be encoded.
    chain : sequence
        What was being packed when it failed, innermost first: the culprit and what it was found in.
    reason : str
        Why the culprit was refused; empty if there is no codec.
    """
    chain = [item.value if type(item) is Refused else item for item in chain]
    culprit, outer, where = chain[0], chain[-1], None
    for item in chain:
        where = _find(value, item)
        if where is not None:
            outer = item
            break
    inside = "" if outer is culprit else f" inside a {type_name(outer)!r}"
    at = f" at {where}" if where else ""
    return (
        f"The value of type {type_name(culprit)!r}{inside}{at} cannot be stored because "
        f"{reason or _reason(culprit)}. Ways out: convert it to a supported type, register a codec "
        "(mltraq_ds.codecs.register), write it to a file and store File(path), or opt in to pickle with Pickled(value)."
    )


def type_name(value: object) -> str:
    """Return the qualified name of a value's type."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _reason(value: object) -> str:
    for base in type(value).__mro__[1:-1]:
        if base in _NATIVE or base.__module__.partition(".")[0] in _FAMILIES:
            return f"no codec takes it; it is a subclass of {base.__name__!r} and would come back as that"
    return "no codec takes it"


def _find(value: object, culprit: object) -> str | None:
    """Return the path to `culprit` in the notation of Python; empty for `value` itself, None if it is not there."""
    stack: list[tuple[Any, str, int]] = [(value, "", 0)]
    seen: set[int] = set()
    while stack:
        item, path, depth = stack.pop()
        if item is culprit:
            return path
        if id(item) not in seen and depth <= MAX_DEPTH:
            seen.add(id(item))
            stack.extend((inner, path + step, depth + 1) for inner, step in _steps(item))
    return None


def _steps(container: Any) -> Iterator[tuple[Any, str]]:
    kind = type(container)
    if kind in _MAPPINGS:
        for key, item in container.items():
            yield item, f"[{key!r:.80}]"
            yield key, f" (key {key!r:.80})"
    elif kind in _SEQUENCES:
        yield from ((item, f"[{i}]") for i, item in enumerate(container))
    elif kind in (set, frozenset):
        yield from ((item, f" (item {item!r:.80})") for item in container)
    elif kind is slice:
        yield from ((getattr(container, end), f".{end}") for end in ("start", "stop", "step"))
    elif getattr(getattr(container, "dtype", None), "char", "") == "O" and hasattr(container, "flat"):
        yield from ((item, f".flat[{i}]") for i, item in enumerate(container.flat))
