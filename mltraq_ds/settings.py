"""Options in layers: one door that resolves them to a value.

Argument > ``ctx`` > ``set`` > default.  Layers are resolved once, at the edge (`tracking`, `artifacts`, `cli`), to a
frozen `Settings`; everything below is given plain arguments and never reads options.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mltraq_ds.option_table import OPTIONS, copied, shown, unknown, validated

__all__ = ["Settings", "options", "resolve"]


def _select(values: Mapping[str, object], path: str) -> Any:
    """Return the value of an option, or a nested dictionary for a group."""
    if path in values:
        return copied(values[path])
    group: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith(f"{path}."):
            *parents, last = name[len(path) + 1 :].split(".")
            level = group
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = copied(value)
    if not group:
        raise unknown(path)
    return group


class Settings(Mapping[str, Any]):
    """All options, resolved: an immutable mapping of dotted name to value, which may be sent to workers.

    Examples
    --------
    >>> resolve({"execution.n_jobs": 2})["execution.n_jobs"]
    2
    """

    __slots__ = ("_values",)
    _values: dict[str, object]

    def __init__(self, values: Mapping[str, object]) -> None:
        resolved = {name: option.default for name, option in OPTIONS.items()}
        resolved.update({name: validated(name, value) for name, value in values.items()})
        object.__setattr__(self, "_values", resolved)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            "Settings cannot be changed. Use options.set(...) or options.ctx({...}), or resolve again."
        )

    def __getitem__(self, path: str) -> Any:
        return _select(self._values, path)

    def __contains__(self, path: object) -> bool:
        return path in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __reduce__(self) -> tuple[type[Settings], tuple[dict[str, object]]]:
        return type(self), (self._values,)

    def __repr__(self) -> str:
        texts = [f"{name}={shown(OPTIONS[name], value)}" for name, value in self._values.items()]
        return f"Settings({', '.join(texts)})"


class _Options:
    """The options of this process; `options` is the only instance.

    ``set`` holds for the process, ``ctx`` for the ``with`` block in this thread or asyncio task only.  Threads and
    workers started inside do not see it: they are given resolved `Settings`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: Mapping[str, object] = {}  # replaced whole, never changed, so that readers need no lock
        self._ctx: ContextVar[Mapping[str, object]] = ContextVar("mltraq_ds_options")

    def __call__(self) -> _Options:
        """Return itself: ``options()`` and ``options`` are the same."""
        return self

    def layers(self, arguments: Mapping[str, object] | None = None) -> list[tuple[str, Mapping[str, object]]]:
        """Return the layers that may name options, the strongest first; defaults come after all of them."""
        given = {name: value for name, value in (arguments or {}).items() if value is not None or name not in OPTIONS}
        # The place of command-line flags, environment and file, read when a session is made, is after "set".
        return [("argument", given), ("ctx", self._ctx.get({})), ("set", self._set)]

    def get(self, path: str) -> Any:
        """Return the value of an option, or a dictionary for a group such as ``"datastore"``.

        Raises
        ------
        UnknownOptionError
            If there is no such option; the nearest name is given.

        Examples
        --------
        >>> options.get("datastore.durability")
        'full'
        >>> options().get("serialization")
        {'allow_pickle': False, 'compression': {'codec': 'uncompressed'}}
        """
        return resolve()[path]

    def set(self, path: str, value: object) -> None:
        """Set an option for the whole process, until `reset`.

        Raises
        ------
        UnknownOptionError
            If there is no such option.  Nothing was changed.
        UsageError
            If the value is of a wrong type.  Nothing was changed.
        """
        checked = validated(path, value)
        with self._lock:
            self._set = {**self._set, path: checked}

    @contextmanager
    def ctx(self, values: Mapping[str, object]) -> Iterator[None]:
        """Set options inside a ``with`` block of this thread or asyncio task.

        Raises
        ------
        UnknownOptionError, UsageError
            As `set`; the block is not entered.

        Examples
        --------
        >>> with options.ctx({"execution.n_jobs": 4}):
        ...     options.get("execution.n_jobs")
        4
        """
        checked = {path: validated(path, value) for path, value in values.items()}
        token = self._ctx.set({**self._ctx.get({}), **checked})
        try:
            yield
        finally:
            self._ctx.reset(token)

    def reset(self, path: str | None = None) -> None:
        """Undo `set` for one option, a group, or all; a surrounding `ctx` stays.

        Raises
        ------
        UnknownOptionError
            If there is no such option or group.  Nothing was changed.
        """
        if path is not None:
            resolve()[path]
        with self._lock:
            kept = {} if path is None else self._set
            self._set = {name: kept[name] for name in kept if name != path and not name.startswith(f"{path}.")}

    def origin(self, path: str) -> str:
        """Return the layer that an option has its value from: ``ctx``, ``set`` or ``default``."""
        if path not in OPTIONS:
            raise unknown(path)
        return next((layer for layer, values in self.layers() if path in values), "default")

    def show(self) -> None:
        """Print all options, their values and where these come from; secrets are not shown."""
        print(self)  # noqa: T201 - what the user asked for

    def __repr__(self) -> str:
        rows = [(name, shown(OPTIONS[name], value), self.origin(name)) for name, value in resolve().items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  ({origin})" for name, value, origin in rows)


#: The options of this process.
options = _Options()

_known: tuple[list[Mapping[str, object]], Settings] = ([], Settings({}))


def resolve(arguments: Mapping[str, object] | None = None) -> Settings:
    """Resolve all layers to one immutable value, to be passed down.

    Parameters
    ----------
    arguments : mapping, optional
        Dotted name to value, stronger than every layer.  None as a value means "not given".

    Raises
    ------
    UnknownOptionError
        If there is no option of that name.
    UsageError
        If a value is of a wrong type.
    """
    global _known
    layers = [values for _, values in options.layers(arguments) if values]
    known, settings = _known
    # A layer is replaced whole when it changes.  A thousand runs ask thrice each.
    if len(layers) == len(known) and all(map(operator.is_, layers, known)):
        return settings
    merged: dict[str, object] = {}
    for values in reversed(layers):
        merged.update(values)
    settings = Settings(merged)
    if not arguments:
        _known = (layers, settings)
    return settings
