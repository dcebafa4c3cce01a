"""The table of options: names, defaults, what is accepted, and what is never shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mltraq_ds.errors import UnknownOptionError, UsageError

__all__ = [
    "ALIASES",
    "OPTIONS",
    "Option",
    "canonical",
    "copied",
    "has_secret",
    "redact",
    "shown",
    "unknown",
    "validated",
]


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
    alias : str
        Another name, LineaPy's; empty if there is none.
    """

    name: str
    default: object
    expects: str
    accepts: Callable[[object], bool]
    doc: str
    is_secret: bool = False
    alias: str = ""


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
    return Option(
        name, choices[0], " or ".join(map(repr, choices)), lambda value: type(value) is str and value in choices, doc
    )


def _flag(name: str, default: bool, doc: str) -> Option:
    return Option(name, default, "True or False", _is_flag, doc)


_TABLE = (
    Option(
        "database.url",
        "sqlite:///mltraq.db",
        "a URL of SQLAlchemy",
        _is_text,
        "Where the index is kept.",
        alias="database_url",
    ),
    _flag("database.echo", False, "Log the SQL that is run."),
    Option(
        "datastore.url",
        "mltraq.datastore",
        "a folder or a URL",
        _is_text,
        "Root of the store: a folder (made absolute when a session is made) or any URL of fsspec.",
        alias="artifact_storage_dir",
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
    Option(
        "datastore.cache_dir",
        None,
        "a folder, or None",
        lambda value: value is None or (_is_text(value) and "://" not in str(value)),
        "Where copies of what is read from remotes are kept, for all stores and processes; None keeps none.",
    ),
    Option(
        "datastore.cache_bytes",
        10 * 2**30,
        "an int above 0",
        lambda value: type(value) is int and value > 0,
        "How much is kept in `datastore.cache_dir` (bytes); what was not used for longest goes first.",
    ),
    _choice(
        "datastore.client",
        ("auto", "fsspec", "obstore"),
        "Who sends requests to S3, Google Cloud Storage and Azure; `auto` is fsspec, unless only obstore is installed.",
    ),
    _flag("datastore.mmap", True, "Map blobs on local disks into memory instead of reading them."),
    Option(
        "datastore.storage_options",
        {},
        "a dictionary with str keys",
        _is_mapping,
        "Arguments for the file system of fsspec; may hold secrets, so it is never shown and never stored.",
        is_secret=True,
        alias="storage_options",
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
        "Let pickled values be loaded, which runs code. Writing them takes `Pickled(value)`.",
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
    Option(
        "artifacts.default_ml_models_storage_backend",
        None,
        "'native', 'mlflow', the name of another storage backend, or None",
        lambda value: value is None or _is_text(value),  # those of packages are known where they are used
        "Who keeps models that are saved without `storage_backend`; None is MLflow where `mlflow.tracking_uri` is set.",
        alias="default_ml_models_storage_backend",
    ),
    Option(
        "mlflow.tracking_uri",
        None,
        "a URI of MLflow, or None",
        lambda value: value is None or _is_text(value),
        "Where MLflow keeps models: a folder, a database or a server.",
        alias="mlflow_tracking_uri",
    ),
    Option(
        "mlflow.registry_uri",
        None,
        "a URI of MLflow, or None",
        lambda value: value is None or _is_text(value),
        "Where MLflow registers models by name; None is where it keeps them.",
        alias="mlflow_registry_uri",
    ),
)

#: Name to option, sorted.
OPTIONS: Mapping[str, Option] = {option.name: option for option in sorted(_TABLE, key=lambda option: option.name)}
#: LineaPy's names to ours, for its users' configuration files and habits.
ALIASES: Mapping[str, str] = {option.alias: option.name for option in OPTIONS.values() if option.alias}
assert all(option.accepts(option.default) for option in _TABLE)


def canonical(path: object) -> Any:
    """Return the dotted name that an alias stands for, and anything else as it is.

    Examples
    --------
    >>> canonical("artifact_storage_dir"), canonical("datastore.url")
    ('datastore.url', 'datastore.url')
    """
    return ALIASES.get(path, path) if isinstance(path, str) else path


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


def has_secret(name: str, value: object) -> bool:
    """Tell whether the value of an option may hold a secret, so that it must not be written down."""
    if OPTIONS[name].is_secret:
        return bool(value)
    return isinstance(value, str) and redact(value) != value


def shown(option: Option, value: object) -> str:
    """Return the text of an option's value for people."""
    if option.is_secret:
        return "{***}" if value else "{}"
    return repr(redact(value) if isinstance(value, str) else value)


def copied(value: Any) -> Any:
    """Return a value that its owner cannot change under us; leaves (credential objects) are shared."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def unknown(path: object, place: object = "") -> UnknownOptionError:
    """Return the error for a name that is no option, with the nearest one and, if given, where the name was found."""
    where = f" (in {place})" if place else ""
    groups = {name.rsplit(".", level)[0] for name in OPTIONS for level in (1, 2) if "." in name}
    if isinstance(path, str) and path in groups:
        members = ", ".join(repr(name) for name in OPTIONS if name.startswith(f"{path}."))
        return UnknownOptionError(
            f"Option {path!r} is a group and has no value of its own{where}. Name one of {members}."
        )
    near = difflib.get_close_matches(path, [*OPTIONS, *ALIASES], n=1, cutoff=0.0) if isinstance(path, str) else []
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownOptionError(f"There is no option {path!r}{where}.{hint} options.show() lists all of them.")


def validated(path: object, value: object, place: object = "") -> object:
    """Return a copy of `value` if option `path` takes it; raise otherwise, saying where it was found if that is given.

    Parameters
    ----------
    path : str
        Dotted name or alias.
    value : object
        What it is to be.
    place : object, optional
        Its text is the variable, or file and line.
    """
    name = canonical(path)
    option = OPTIONS.get(name) if isinstance(name, str) else None
    if option is None:
        raise unknown(path, place)
    if not option.accepts(value):
        # The value itself is not printed: it may be a secret in the wrong place.
        raise UsageError(
            f"Option {option.name!r} cannot be set to this value (of type {type(value).__name__}) "
            f"because it expects {option.expects}.{f' It was found in {place}.' if place else ''}"
        )
    return copied(value)
