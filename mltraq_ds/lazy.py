"""LazyBunch: a Bunch some of whose values are still on disk, and no exit of which gives away a placeholder."""

from __future__ import annotations

import reprlib
import threading
from collections.abc import ItemsView, Iterator, Sequence, ValuesView
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any, TypeVar

from mltraq_ds.bunch import Bunch
from mltraq_ds.errors import MltraqDSError

__all__ = ["LazyBunch", "Placeholder", "copied", "read_many", "summary_text", "unread_text"]

_READERS = 8

_Self = TypeVar("_Self", bound="LazyBunch")
_MISSING = object()
# One lock for all: it is held for a dictionary look-up only, and an instance's own could not be pickled.
_LOCK = threading.Lock()


class Placeholder:
    """Stands for a value that has not been read yet.  No ABC: each access asks `isinstance`, which is slow then."""

    __slots__ = ()

    def load(self) -> Any:
        """Read and decode the value."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """Return type, shape, bytes … as far as known, without reading the value."""
        raise NotImplementedError

    @property
    def is_shareable(self) -> bool:
        """Whether another process could load it from a pickled copy."""
        raise NotImplementedError


def summary_text(summary: dict[str, Any]) -> str:
    """Return one short text about a value: ``ndarray (64, 10) float64``."""
    name = str(summary.get("type", "value")).rpartition(".")[2]
    size = summary.get("shape", summary.get("length"))
    shape = "" if size is None else f" {tuple(size)}" if isinstance(size, list | tuple) else f" of {size}"
    dtype = f" {summary['dtype']}" if summary.get("dtype") else ""
    return f"{name}{shape}{dtype}"


def unread_text(kept: Placeholder) -> str:
    """Return what stands for a value that has not been read; one that cannot be read must not spoil a whole listing."""
    try:
        return f"<{summary_text(kept.summary())}, not read yet>"
    except MltraqDSError as error:
        return f"<cannot be read: {type(error).__name__}>"


def read_many(wanted: Sequence[tuple[LazyBunch, str]], n_jobs: int | None = None) -> None:
    """Read values, given by bunch and key, in `n_jobs` threads; by default one for each up to 8."""
    with ThreadPoolExecutor(max_workers=n_jobs or min(_READERS, len(wanted) or 1)) as threads:
        for _ in threads.map(lambda where: where[0][where[1]], wanted):
            pass


class _Items(ItemsView[str, Any]):
    def __reversed__(self) -> Iterator[tuple[str, Any]]:
        return ((key, self._mapping[key]) for key in reversed(self._mapping))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"items of {self._mapping!r}"  # type: ignore[attr-defined]


class _Values(ValuesView[Any]):
    def __reversed__(self) -> Iterator[Any]:
        return (self._mapping[key] for key in reversed(self._mapping))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"values of {self._mapping!r}"  # type: ignore[attr-defined]


class LazyBunch(Bunch):
    """A `Bunch` that reads a value when it is first asked for.

    ``dict(x)``, ``{**x}`` and ``f(**x)`` take a fast path around `__getitem__` for subclasses of ``dict`` unless they
    define `__iter__` themselves (CPython, ``dict_merge``); that is why it is defined here.
    """

    __slots__ = ()

    @property
    def _label(self) -> str:
        # docstring inherited
        return "Bunch" if type(self) is LazyBunch else type(self).__name__  # being lazy is nobody's concern

    def _peek(self, key: str) -> Any:
        """Return what is kept under a key, a placeholder too."""
        return dict.__getitem__(self, key)

    def _peek_items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over what is kept, placeholders too."""
        return iter(dict.items(self))

    def _place(self, key: str, value: Any) -> None:
        """Keep a value or a placeholder as it is."""
        dict.__setitem__(self, key, value)

    def __getitem__(self, key: str) -> Any:
        kept = dict.__getitem__(self, key)
        if not isinstance(kept, Placeholder):
            return kept
        value = kept.load()
        with _LOCK:
            # Two threads may have read it at once; both get the object that was first, so that a change made to it
            # by one is not lost.
            present = dict.get(self, key, _MISSING)
            if present is kept:
                dict.__setitem__(self, key, value)
                return value
        return value if present is _MISSING or isinstance(present, Placeholder) else present

    def __iter__(self) -> Iterator[str]:
        return dict.__iter__(self)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or `default`."""
        if key not in self:
            return default
        return self[key]

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove a key and return its value; if the value cannot be read, the key stays."""
        if key not in self and default is not _MISSING:
            return default
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last key and value."""
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError(f"{type(self).__name__} is empty")

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return a view of keys and values; each value is read when the iteration comes to it."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Return a view of the values; each is read when the iteration comes to it."""
        return _Values(self)

    def copy(self: _Self) -> _Self:
        """Return a shallow copy; what has not been read stays unread."""
        clone = self._empty()
        for key, kept in self._peek_items():
            dict.__setitem__(clone, key, kept)
        return clone

    __copy__ = copy

    def _empty(self: _Self) -> _Self:
        """Return an empty bunch of the same kind and origin."""
        return type(self)()

    def __deepcopy__(self: _Self, memo: dict[int, Any]) -> _Self:
        clone = self._empty()
        memo[id(self)] = clone
        for key, kept in self._peek_items():
            # A placeholder is immutable; each copy reads a value of its own from it.
            dict.__setitem__(clone, key, kept if isinstance(kept, Placeholder) else deepcopy(kept, memo))
        return clone

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict):
            return NotImplemented
        if self is other:
            return True
        if dict.keys(self) != other.keys():
            return False
        return dict(self.items()) == dict(other.items())

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # A copy in another process reads for itself where it can; otherwise the values travel.
        for key, kept in list(self._peek_items()):
            if isinstance(kept, Placeholder) and not kept.is_shareable:
                self[key]  # read and kept
        return (_rebuild, (type(self), list(self._peek_items()), self._get_origin()))

    def _get_origin(self) -> Any:
        """Return what a pickled copy must know besides its items."""
        return None

    def _set_origin(self, origin: Any) -> None:
        """Take up what `_get_origin` gave."""

    @reprlib.recursive_repr("LazyBunch({...})")
    def __repr__(self) -> str:
        parts = []
        for key, kept in self._peek_items():
            if isinstance(kept, Placeholder):
                parts.append(f"{key!r}: {unread_text(kept)}")
            else:
                parts.append(f"{key!r}: {kept!r}")
        return f"{self._label}({{{', '.join(parts)}}})"


def _rebuild(kind: type[_Self], items: list[tuple[str, Any]], origin: Any) -> _Self:
    bunch = kind()
    for key, kept in items:
        dict.__setitem__(bunch, key, kept)
    bunch._set_origin(origin)
    return bunch


def copied(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return a value in which every `LazyBunch` is another, also those inside lists, tuples and dicts.

    Everything else is shared.  A DataStore is told where it was persisted, so one must not be in two experiments.
    """
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, LazyBunch):
        clone = memo[id(value)] = value._empty()
        for key, kept in value._peek_items():
            clone._place(key, copied(kept, memo))
        return clone
    if type(value) not in (list, tuple, dict):
        return value
    memo[id(value)] = value  # one that contains itself is refused later
    items = list(value.values()) if type(value) is dict else value
    copies = [copied(item, memo) for item in items]
    if all(copy is item for copy, item in zip(copies, items, strict=True)):
        return value
    memo[id(value)] = dict(zip(value, copies, strict=True)) if type(value) is dict else type(value)(copies)
    return memo[id(value)]
