"""Options in layers: one table of names, one door that resolves them to a value.

Argument > ``ctx`` > ``set`` > default.  Layers are resolved once, at the edge (`tracking`, `artifacts`, `cli`), to a
frozen `Settings`; everything below is given plain arguments and never reads options.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mltraq_ds.errors import UnknownOptionError, UsageError

__all__ = ["OPTIONS", "Option", "Settings", "options", "redact", "resolve"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Parameters
    ----------
    name : str
        Dotted path, ``group.name``.
    default : object
        Value when no layer names the option.
    expects : str
        What is accepted, for messages and the documentation.
    accepts : callable
        Tells whether a value is accepted.
    doc : str
        One sentence for the documentation.
    is_secret : bool
        Never shown.
    """

    name: str
    default: object
    expects: str
    accepts: Callable[[object], bool]
    doc: str
    is_secret: bool = False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_flag(value: object) -> bool:
    return type(value) is bool


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_jobs(value: object) -> bool:
    return type(value) is int and value != 0


def _is_seed(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**32


def _choice(name: str, choices: tuple[str, ...], doc: str) -> Option:
    """Return an option with a few named values, the first of which is the default."""
    return Option(name, choices[0], " or ".join(map(repr, choices)), choices.__contains__, doc)


def _flag(name: str, default: bool, doc: str) -> Option:
    return Option(name, default, "True or False", _is_flag, doc)


_TABLE = (
    Option("database.url", "sqlite:///mltraq.db", "a URL of SQLAlchemy", _is_text, "Where the index is kept."),
    _flag("database.echo", False, "Log the SQL that is run."),
    Option(
        "datastore.url",
        "mltraq.datastore",
        "a folder or a URL",
        _is_text,
        "Root of the store: a folder (made absolute when a session is made) or any URL of fsspec.",
    ),
    _choice(
        "datastore.durability",
        ("full", "relaxed"),
        "`full` survives a power cut; `relaxed` survives a killed process and skips every fsync.",
    ),
    _choice(
        "datastore.verify",
        ("crc", "none", "digest"),
        "What is checked when a value is first used: its CRC-32, nothing, or its SHA-256.",
    ),
    _flag("datastore.mmap", True, "Map blobs on local disks into memory instead of reading them."),
    Option(
        "datastore.storage_options",
        {},
        "a dictionary with str keys",
        _is_mapping,
        "Arguments for the file system of fsspec; may hold secrets, so it is never shown and never stored.",
        is_secret=True,
    ),
    Option(
        "execution.n_jobs",
        1,
        "an int other than 0",
        _is_jobs,
        "How many runs are executed at a time; -1 is one per CPU.",
    ),
    Option(
        "execution.backend",
        None,
        "a name of joblib's, or None",
        lambda value: value is None or _is_text(value),
        "The backend of joblib; None is joblib's own choice.",
    ),
    _flag(
        "serialization.allow_pickle",
        False,
        "Let pickled values be written and, above all, be *loaded*: that runs code.",
    ),
    _choice("serialization.compression.codec", ("uncompressed", "zstd"), "How members of new blobs are compressed."),
    Option(
        "reproducibility.random_seed",
        123,
        "an int from 0 to 4294967295",
        _is_seed,
        "Seed that runs derive theirs from.",
    ),
    _flag(
        "reproducibility.sequential_uuids",
        False,
        "Draw ids from a fixed sequence, so that documentation prints fixed ids.",
    ),
    _flag("tqdm.disable", False, "Show no progress bars."),
)

#: Name to option, sorted.
OPTIONS: Mapping[str, Option] = {option.name: option for option in sorted(_TABLE, key=lambda option: option.name)}
assert all(option.accepts(option.default) for option in _TABLE)

# URLs carry passwords before an "@" and in queries; too much is hidden rather than too little.
_USERINFO = re.compile(r"(://[^:/?#@\s]*):[^\s]*@")
_QUERY = re.compile(r"([?&][^=&#\s]*(?:pass|pwd|secret|token|key|sig|credential)[^=&#\s]*=)[^&#\s]*", re.IGNORECASE)


def redact(text: str) -> str:
    """Return a text for people, without the passwords that URLs carry.

    Examples
    --------
    >>> redact("postgresql://ada:secret@localhost/lab?sslpassword=secret")
    'postgresql://ada:***@localhost/lab?sslpassword=***'
    """
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


def _shown(option: Option, value: object) -> str:
    if option.is_secret:
        return "{***}" if value else "{}"
    return repr(redact(value) if isinstance(value, str) else value)


def _copied(value: Any) -> Any:
    """Return a value that its owner cannot change under us; leaves (credential objects) are shared."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _unknown(path: object) -> UnknownOptionError:
    groups = {name.rsplit(".", level)[0] for name in OPTIONS for level in (1, 2) if "." in name}
    if isinstance(path, str) and path in groups:
        members = ", ".join(repr(name) for name in OPTIONS if name.startswith(f"{path}."))
        return UnknownOptionError(f"Option {path!r} is a group and has no value of its own. Name one of {members}.")
    near = difflib.get_close_matches(path, OPTIONS, n=1, cutoff=0.0) if isinstance(path, str) else []
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownOptionError(f"There is no option {path!r}.{hint} options.show() lists all of them.")


def _validated(path: object, value: object) -> object:
    """Return a copy of `value` if option `path` takes it; raise otherwise."""
    option = OPTIONS.get(path) if isinstance(path, str) else None
    if option is None:
        raise _unknown(path)
    try:
        is_accepted = option.accepts(value)
    except TypeError:  # an unhashable value compared with choices
        is_accepted = False
    if not is_accepted:
        # The value itself is not printed: it may be a secret in the wrong place.
        raise UsageError(
            f"Option {option.name!r} cannot be set to a value of type {type(value).__name__} "
            f"because it expects {option.expects}."
        )
    return _copied(value)


def _select(values: Mapping[str, object], path: str) -> Any:
    """Return the value of an option, or a nested dictionary for a group."""
    if path in values:
        return _copied(values[path])
    group: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith(f"{path}."):
            *parents, last = name[len(path) + 1 :].split(".")
            level = group
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = _copied(value)
    if not group:
        raise _unknown(path)
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
        resolved.update({name: _validated(name, value) for name, value in values.items()})
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
        shown = ", ".join(f"{name}={_shown(OPTIONS[name], value)}" for name, value in self._values.items())
        return f"Settings({shown})"


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
        checked = _validated(path, value)
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
        checked = {path: _validated(path, value) for path, value in values.items()}
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
            raise _unknown(path)
        return next((layer for layer, values in self.layers() if path in values), "default")

    def show(self) -> None:
        """Print all options, their values and where these come from; secrets are not shown."""
        print(self)  # noqa: T201 - what the user asked for

    def __repr__(self) -> str:
        rows = [(name, _shown(OPTIONS[name], value), self.origin(name)) for name, value in resolve().items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  ({origin})" for name, value, origin in rows)


#: The options of this process.
options = _Options()


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
    merged: dict[str, object] = {}
    for _, values in reversed(options.layers(arguments)):
        merged.update(values)
    return Settings(merged)
