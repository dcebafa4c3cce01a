"""Options from a configuration file: which one is read, and what is in it."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from mltraq_ds.errors import UsageError
from mltraq_ds.option_environment import HOME
from mltraq_ds.option_layer import Layer, collected
from mltraq_ds.option_lines import lines_of
from mltraq_ds.option_table import OPTIONS, canonical

__all__ = ["NAMES", "NOT_IN_WORKING_FOLDER", "find_file", "read_file", "user_folder"]

#: Names of the configuration file.
NAMES = ("mltraq_ds_config.toml", "mltraq_ds_config.json")

#: What the file in a working folder may not set: whoever wrote the folder would decide what runs here.  Loading a model
#: runs code that its MLflow keeps.
NOT_IN_WORKING_FOLDER = ("serialization.allow_pickle", "mlflow.tracking_uri", "mlflow.registry_uri")


@dataclass(frozen=True, slots=True)
class _Place:
    """An option in a file; its line is looked for when somebody wants to see it."""

    path: Path
    text: str
    name: str

    def __str__(self) -> str:
        line = lines_of(self.text, is_json=self.path.suffix == ".json").get(self.name)
        return f"{self.path}:{line}" if line else str(self.path)


def user_folder() -> Path:
    """Return the folder where this user's configuration belongs on this system; it need not exist."""
    return platformdirs.user_config_path("mltraq_ds", appauthor=False)


def find_file(environ: Mapping[str, str]) -> Path | None:
    """Return the configuration file: that of ``MLTRAQ_DS_HOME``, else of the working folder, else of the user.

    Raises
    ------
    UsageError
        If ``MLTRAQ_DS_HOME`` is no folder, or a folder has both a TOML and a JSON file.
    """
    home = environ.get(HOME)
    if home is not None and not _may_be_searched(Path(home).expanduser()):
        raise UsageError(
            f"The variable {HOME} is {home!r}, which is no folder, or none that may be searched. Make the folder, or "
            "unset the variable."
        )
    for folder in (*_own_folders(environ)[:-1], Path(), user_folder()):
        found = [folder / name for name in NAMES if os.path.isfile(folder / name)]  # not if it may not be looked at
        if len(found) > 1:
            raise UsageError(
                f"The folder {folder.absolute()} has two configuration files, {' and '.join(NAMES)}. Remove one."
            )
        if found:
            return Path(os.path.abspath(found[0]))
    return None


def _may_be_searched(folder: Path) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.X_OK)


def _own_folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that the user has chosen for configuration."""
    homes = [Path(environ[HOME]).expanduser().absolute()] if HOME in environ else []
    return [*homes, user_folder()]


def read_file(environ: Mapping[str, str]) -> Layer:
    """Return the options of the configuration file; none if there is no file.

    Raises
    ------
    UnknownOptionError
        If the file names no option; file, line and the nearest name are given.
    UsageError
        If the file cannot be read, or has a value that its option does not take; file and line are given, the value
        is not: it may be a secret.
    """
    path = find_file(environ)
    if path is None:
        return Layer("file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The configuration file {path} cannot be read ({type(error).__name__}). Make it a readable UTF-8 file."
        ) from error
    found = _flat(_parsed(path, text))
    layer = collected("file", ((name, value, _Place(path, text, name)) for name, value in found))
    refused = next((name for name in NOT_IN_WORKING_FOLDER if layer.values.get(name)), None)
    if refused is not None and path.parent not in _own_folders(environ):
        raise UsageError(
            f"Option {refused!r} is refused in {layer.places[refused]} because a file in the working folder may come "
            "with what somebody else wrote, which would run code then. Set it in "
            f"{user_folder() / NAMES[0]}, in a variable or in your program."
        )
    return layer


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        parsed = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        # Not as its cause: the error of a parser keeps the whole text.
        place = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        kind = path.suffix[1:].upper()
        raise UsageError(f"The configuration file {place} is not {kind}: {reason}. Correct the file.") from None
    if not isinstance(parsed, dict):
        raise UsageError(f'The configuration file {path} is no JSON object. Write {{"database": {{"url": "…"}}}}.')
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is there twice")
    return dict(pairs)


def _flat(table: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        name = f"{group}.{key}" if group else key
        is_group = isinstance(value, Mapping) and canonical(name) not in OPTIONS
        if is_group and (value or any(option.startswith(f"{name}.") for option in OPTIONS)):
            yield from _flat(value, name)
        else:
            yield name, value
