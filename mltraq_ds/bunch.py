"""Bunch: a dictionary whose values are attributes too."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Self

from mltraq_ds.errors import UnsupportedTypeError

__all__ = ["Bunch"]


def _is_reserved(name: str) -> bool:
    """Tell whether Python reserves the name: pickle, copy and notebooks probe objects for such attributes."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


class Bunch(dict[str, Any]):
    """A dictionary with str keys whose values are attributes too.

    A missing attribute is an `AttributeError`, a missing key a `KeyError`.  Names that a method of the mapping would
    hide (``items``, ``keys`` …) cannot be attributes; as keys they are fine.

    Examples
    --------
    >>> bunch = Bunch(lr=0.1)
    >>> bunch.epochs = 3
    >>> bunch["not an identifier"] = None
    >>> bunch
    Bunch({'lr': 0.1, 'epochs': 3, 'not an identifier': None})
    >>> bunch.items = 3
    Traceback (most recent call last):
        ...
    AttributeError: 'items' cannot be an attribute of a Bunch because its own 'items' would hide it. Use bunch["items"].
    """

    __slots__ = ()  # no __dict__: an attribute that is not an item would be lost

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        if args == (None,):  # empty, so that an optional argument can be passed on as it is
            args = ()
        if args or kwargs:
            self.update(*args, **kwargs)

    @property
    def _label(self) -> str:
        """What messages and `repr` call it."""
        return type(self).__name__

    def _check_key(self, key: object) -> str:
        """Return the key as a plain str, or raise; subclasses may refuse more."""
        if type(key) is str:
            return key
        if isinstance(key, str):
            return str.__str__(key)  # np.str_, enums: a key reads back as what it was stored as
        raise UnsupportedTypeError(
            f"{key!r:.60} cannot be a key of a {self._label} because it is of type {type(key).__name__}, not "
            "str. Use a str, or keep a dict as a value."
        )

    def _check_attribute(self, name: str) -> None:
        """Raise if `name` cannot be an attribute: reading it would give something else."""
        own, variable = self._label, self._label.lower()
        if _is_reserved(name):
            raise AttributeError(
                f"{name!r} cannot be an attribute of a {own} because Python reserves such names. "
                f'Use {variable}["{name}"].'
            )
        if hasattr(type(self), name):
            raise AttributeError(
                f"{name!r} cannot be an attribute of a {own} because its own {name!r} would hide it. "
                f'Use {variable}["{name}"].'
            )

    def _missing(self, name: str) -> AttributeError:
        near = difflib.get_close_matches(name, self.keys(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return AttributeError(f"This {self._label} has no attribute or key {name!r}.{hint}")

    # Only called for names that are not found otherwise.
    def __getattr__(self, name: str) -> Any:
        if name in self and not _is_reserved(name):
            return self[name]
        raise self._missing(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_attribute(name)
        self[name] = value

    def __delattr__(self, name: str) -> None:
        self._check_attribute(name)
        if name not in self:
            raise self._missing(name)
        del self[name]

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *(name for name in self if name.isidentifier())]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(self._check_key(key), value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, after setting it to `default` if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, /, *args: Any, **kwargs: Any) -> None:
        """Set items from a mapping or pairs, and keywords.

        Raises
        ------
        UnsupportedTypeError
            If a key is not a str.  Nothing was changed.
        """
        items = dict(*args, **kwargs)
        if not set(map(type, items)) <= {str} or type(self)._check_key is not Bunch._check_key:
            items = {self._check_key(key): value for key, value in items.items()}
        super().update(items)

    def copy(self) -> Self:
        """Return a shallow copy of the same type."""
        return type(self)(self)

    def __or__(self, other: Any) -> Self:  # type: ignore[override]  # of our own type, where dict gives a dict
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> Self:  # type: ignore[override]  # as above
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = type(self)(other)
        merged.update(self)
        return merged

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]  # as above
        self.update(other)
        return self

    @reprlib.recursive_repr("Bunch({...})")
    def __repr__(self) -> str:
        return f"{self._label}({dict(self.items())!r})"
