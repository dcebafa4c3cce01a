"""Rows as plain values: what callers hand to the index and what it tells them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NoReturn, Protocol

from mltraq_ds.errors import UsageError

__all__ = [
    "BlobRow",
    "EndedVersion",
    "ExperimentRow",
    "IndexedExperiment",
    "NameClaim",
    "RunRow",
    "name_key",
    "validate_rows",
]

MAX_ID_CHARACTERS = 500
_MAX_NAME_KEY_BYTES = 200
_KEY = " (the key itself)"
_MARKS = ("\\", "N", "I")
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])|NaN|Infinity")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRow:
    """One experiment, to be written.

    Parameters
    ----------
    id_experiment, name, folder : str
        Id, name and store-relative folder.
    generation : int
        The committed version that the row describes; an older one never replaces a newer one.
    created_at, persisted_at : datetime
        With time zone.
    n_runs, n_blobs, n_bytes : int
        Numbers of runs and blobs, and the size of the blobs (bytes).
    fields : str
        JSON text of an object: plain values, no NaN.
    """

    id_experiment: str
    name: str
    generation: int
    folder: str
    created_at: datetime
    persisted_at: datetime
    n_runs: int = 0
    n_blobs: int = 0
    n_bytes: int = 0
    fields: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run, to be written; its position is that in the sequence.  `params`, `config`, `fields` are JSON texts."""

    id_run: str
    status: str
    params: str = "{}"
    config: str = "{}"
    fields: str = "{}"
    exception: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BlobRow:
    """One blob of an experiment: store-relative key, size (bytes), digest."""

    key: str
    size: int
    digest: str


class EndedVersion(Protocol):
    """The last version of an experiment that counts as deleted: a later one is not meant."""

    @property
    def id_experiment(self) -> str:
        """Its id."""

    @property
    def number(self) -> int:
        """The generation that was seen."""


@dataclass(frozen=True, slots=True)
class IndexedExperiment:
    """What the index knows of one experiment; the words are those of `ExperimentRow`."""

    store_id: str
    id_experiment: str
    name: str
    generation: int
    folder: str
    created_at: datetime
    persisted_at: datetime
    n_runs: int
    n_blobs: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class NameClaim:
    """Who has a name and who is at work on it.

    Parameters
    ----------
    name, store_id : str
        The name, and the store of whoever has or claims it.
    id_experiment : str or None
        The experiment that has it.
    claimed_by, claim_intent : str or None
        The experiment that a writer is persisting under this name, and the key of the writer's intent.
    claimed_at : datetime or None
        When the claim was made.
    """

    name: str
    store_id: str
    id_experiment: str | None
    claimed_by: str | None
    claim_intent: str | None
    claimed_at: datetime | None


def name_key(name: str) -> str:
    """Return what stands for a name in SQL indexes, which hold bounded text only: the name, or a digest of a long one.

    Examples
    --------
    >>> name_key("digits")
    'digits'
    >>> len(name_key("x" * 10_000))
    71
    """
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= _MAX_NAME_KEY_BYTES and not name.startswith("sha256:") and _is_unicode(name):
        return name
    return f"sha256:{sha256(encoded).hexdigest()}"


def validate_rows(experiment: ExperimentRow, runs: Sequence[RunRow]) -> None:
    """Refuse what some database could not hold, on every database alike, before anything is written.

    Raises
    ------
    UsageError
        If a text has a NUL character or is not valid Unicode, a JSON text has NaN, or an id is too long.  The text
        names experiment, run and field.
    """
    whole = f"experiment {experiment.name!r}"
    if len(experiment.id_experiment) > MAX_ID_CHARACTERS:
        raise UsageError(
            f"The {whole} cannot be persisted because its id has {len(experiment.id_experiment):,} characters and the "
            f"index holds {MAX_ID_CHARACTERS}. Use a shorter id; a name may have any length."
        )
    for column in ("id_experiment", "name", "folder"):
        _check_text(getattr(experiment, column), whole, column)
    _check_json(experiment.fields, whole, "fields")
    for run in runs:
        if _is_plain(f"{run.id_run}{run.status}{run.exception or ''}{run.params}{run.config}{run.fields}"):
            continue  # 1,000 runs are a common case, and most are numbers
        where = f"run {run.id_run!r} of {whole}"
        for column in ("id_run", "status", "exception"):
            _check_text(getattr(run, column), where, column)
        for column in ("params", "config", "fields"):
            _check_json(getattr(run, column), where, column)


def _is_plain(text: str) -> bool:
    """Tell quickly that there is nothing in a text, or in several joined, that is to be looked at."""
    return text.isascii() and "\0" not in text and not any(mark in text for mark in _MARKS)


def _check_text(text: str | None, where: str, what: str) -> None:
    if text is None:
        return
    remedy = _remedy(what)
    if "\0" in text:
        _refuse(where, what, "a NUL character, which PostgreSQL cannot hold in text", remedy)
    if not text.isascii() and not _is_unicode(text):
        _refuse(where, what, "a lone surrogate, which is not valid Unicode", remedy)


def _remedy(what: str) -> str:
    if what.startswith("id_"):
        return "Use another id"
    if what in ("name", "folder") or what.endswith(_KEY):
        return "Use another name"
    return "Keep such a value as bytes, or in a DataStore, where any text is allowed"


def _check_json(text: str, where: str, what: str) -> None:
    # Single characters first: a hundred times as fast as the expression, and most long texts are rows of numbers.
    is_suspect = any(mark in text for mark in _MARKS) and _SUSPECT.search(text) is not None
    if not is_suspect and (text.isascii() or _is_unicode(text)):
        return
    # Rare and slow: find out which field it is, or that it was a false alarm.
    document = json.loads(text, parse_constant=lambda name: _Constant(name))
    for path, found in _leaves(document):
        if isinstance(found, _Constant):
            _refuse(where, f"{what}{path}", f"{found.name}, which is not JSON", _remedy(""))
        _check_text(found, where, f"{what}{path}")


@dataclass(frozen=True)
class _Constant:
    name: str


def _leaves(node: object, path: str = "") -> Iterator[tuple[str, str | _Constant]]:
    if isinstance(node, str | _Constant):
        yield path, node
    elif isinstance(node, list):
        for i, item in enumerate(node):
            yield from _leaves(item, f"{path}[{i}]")
    elif isinstance(node, dict):
        for key, item in node.items():
            yield f"{path}[{key!r}]{_KEY}", key
            yield from _leaves(item, f"{path}[{key!r}]")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(where: str, what: str, found: str, remedy: str) -> NoReturn:
    raise UsageError(f"The {where} cannot be persisted because {what} has {found}. {remedy}.")
