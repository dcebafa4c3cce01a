"""Options in layers: one door that resolves them to a value.

Argument > ``ctx`` > ``set`` > command line > environment > configuration file > default.  Layers are resolved once, at
the edge (`tracking`, `artifacts`, `cli`), to a frozen `Settings`; everything below is given plain arguments and never
reads options.  Environment and file are read when options are first asked for, and anew when a session is made.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mltraq_ds.option_environment import read_environment
from mltraq_ds.option_files import read_file
from mltraq_ds.option_layer import Layer, collected
from mltraq_ds.option_table import OPTIONS, canonical, shown, unknown, validated
from mltraq_ds.resolved import Settings, select

__all__ = ["Settings", "options", "resolve"]


class _Options:
    """The options of this process; `options` is the only instance.

    ``set`` holds for the process, ``ctx`` for the ``with`` block in this thread or asyncio task only.  The steps of
    runs see the options of whoever executes them, in whatever thread or process they run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Layers are replaced whole, never changed, so that readers need no lock.
        self._set = Layer("set")
        self._flags = Layer("command line")
        self._outside: tuple[Layer, ...] | None = None
        self._ctx: ContextVar[Layer] = ContextVar("mltraq_ds_options")
        self._given: ContextVar[Settings | None] = ContextVar("mltraq_ds_given_options", default=None)

    def __call__(self) -> _Options:
        """Return itself: ``options()`` and ``options`` are the same."""
        return self

    @property
    def settings_given(self) -> Settings | None:
        """What this task of a worker was given, instead of all layers below ``ctx``."""
        return self._given.get()

    def layers(self, arguments: Mapping[str, object] | None = None) -> list[Layer]:
        """Return the layers that name options, the strongest first; defaults come after all of them.

        Raises
        ------
        UsageError
            If the environment or the configuration file cannot be used.
        """
        given = {name: value for name, value in (arguments or {}).items() if value is not None or name not in OPTIONS}
        inner = [collected("argument", ((*item, "") for item in given.items()))] if given else []
        if _EMPTY_CTX is not (ctx := self._ctx.get(_EMPTY_CTX)):
            inner.append(ctx)
        if self.settings_given is not None:
            return inner
        return [layer for layer in (*inner, self._set, self._flags, *self._read_outside()) if layer.values]

    @property
    def state(self) -> tuple[object, ...]:
        """All that options come from: as long as these are the same objects, options have the same values."""
        ctx, given = self._ctx.get(_EMPTY_CTX), self._given.get()
        if given is not None:
            return ctx, given
        return (ctx, self._set, self._flags, *self._read_outside())

    def _read_outside(self) -> tuple[Layer, ...]:
        return self._outside if self._outside is not None else self.reload()

    def reload(self) -> tuple[Layer, ...]:
        """Read environment and configuration file anew, as making a session does.

        Raises
        ------
        UnknownOptionError, UsageError
            If they have a name or value that cannot be used; what was read before stays.
        """
        # A copy, because threads may change it while we look.
        environ = dict(os.environ)
        self._outside = outside = (read_environment(environ), read_file(environ))
        return outside

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
            self._set = Layer("set", {**self._set.values, canonical(path): checked})

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
        checked = collected("ctx", ((*item, "") for item in values.items())).values
        token = self._ctx.set(Layer("ctx", {**self._ctx.get(_EMPTY_CTX).values, **checked}))
        try:
            yield
        finally:
            self._ctx.reset(token)

    @contextmanager
    def command_line(self, values: Mapping[str, object]) -> Iterator[None]:
        """Set options for the whole process as flags of a command do: weaker than ``set`` and ``ctx``.

        Raises
        ------
        UnknownOptionError, UsageError
            As `set`; the block is not entered.
        """
        before, self._flags = self._flags, collected("command line", ((*item, "") for item in values.items()))
        try:
            yield
        finally:
            self._flags = before

    @contextmanager
    def given(self, settings: Settings) -> Iterator[None]:
        """Have the options of whoever sent this task, in a ``with`` block of this thread."""
        outside: dict[str, object] = {}
        if settings.missing:
            for layer in reversed(self._read_outside()):
                outside.update(layer.values)
        tokens = self._given.set(settings.arrived(outside)), self._ctx.set(_EMPTY_CTX)
        try:
            yield
        finally:
            self._given.reset(tokens[0])
            self._ctx.reset(tokens[1])

    def reset(self, path: str | None = None) -> None:
        """Undo `set` for one option, a group, or all; a surrounding `ctx` stays.

        Without `path`, environment and configuration file are read anew when options are next asked for.

        Raises
        ------
        UnknownOptionError
            If there is no such option or group.  Nothing was changed.
        """
        name = canonical(path)
        if name is not None:
            select(dict.fromkeys(OPTIONS), name)
        with self._lock:
            kept = {} if name is None else self._set.values
            left = {one: kept[one] for one in kept if one != name and not one.startswith(f"{name}.")}
            self._set = Layer("set", left)
            self._outside = None if name is None else self._outside

    def origin(self, path: str) -> str:
        """Return where an option has its value from: a layer, and the variable, or the file and line.

        Examples
        --------
        >>> options.origin("datastore.durability")
        'default'
        """
        if canonical(path) not in OPTIONS:
            raise unknown(path)
        return resolve().origin(path)

    def show(self) -> None:
        """Print all options, their values and where these come from; secrets are not shown."""
        print(self)  # noqa: T201 - what the user asked for

    def __repr__(self) -> str:
        rows = [(name, shown(OPTIONS[name], value), self.origin(name)) for name, value in resolve().items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  ({origin})" for name, value, origin in rows)


_EMPTY_CTX = Layer("ctx")

#: The options of this process.
options = _Options()

_DEFAULTS = Settings({})
_known: tuple[tuple[object, ...], Settings] = ((), _DEFAULTS)


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
        If a value is of a wrong type, or environment or configuration file cannot be used.
    """
    global _known
    state = options.state
    if not arguments:
        known, settings = _known
        # A layer is replaced whole when it changes.  A thousand runs ask thrice each.
        if len(state) == len(known) and all(map(operator.is_, state, known)):
            return settings
    layers = options.layers(arguments)
    given = options.settings_given
    settings = given if given is not None and not layers else (given or _DEFAULTS).over(layers)
    if not arguments:
        _known = (state, settings)
    return settings
