"""Provenance: the code that saved an artifact, its git commit, and the versions it ran with."""

from __future__ import annotations

import importlib.metadata
import linecache
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote, urlsplit

from mltraq_ds.artifacts.literals import without_secret_literals
from mltraq_ds.option_table import redact
from mltraq_ds.settings import Settings
from mltraq_ds.storage.places import is_secret_name

__all__ = ["Code", "capture"]

_MAX_CHARACTERS = 1 << 20
_MIN_SECRET = 4
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"refs/[\w./-]+")


@dataclass(frozen=True)
class Code:
    """Where an artifact was saved from.  ``str(code)`` is the source.

    Parameters
    ----------
    source : str
        Of the notebook cell or the script that called `save`; empty if Python does not know it (``python -c``).
    file : str
        Name of the script or cell, without its folder.
    line : int
        The line that called `save`.
    git_commit : str or None
        What was checked out in the script's (of a cell, the working) folder; None outside of git.
    python : str
        Version of Python.
    packages : mapping
        Name to version of every package that was imported.
    """

    source: str = ""
    file: str = ""
    line: int = 0
    git_commit: str | None = None
    python: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.source


def capture(settings: Settings) -> dict[str, Any]:
    """Return what is known of the code that called into this library, as JSON; secrets of the options are taken out.

    Parameters
    ----------
    settings : Settings
        The options, whose secrets may stand in the source.
    """
    frame = _caller()
    path = frame.f_code.co_filename if frame is not None else ""
    source = "".join(linecache.getlines(path, frame.f_globals)) if frame is not None else ""
    source = _without_secrets(source, settings)  # before it is cut: half a script cannot be parsed
    if len(source) > _MAX_CHARACTERS:
        source = f"{source[:_MAX_CHARACTERS]}\n# … cut here: the source has {len(source):,} characters\n"
    return {
        "source": source,
        "file": os.path.basename(path),
        "line": frame.f_lineno if frame is not None else 0,
        "git_commit": _commit_of(Path(path).parent if os.path.isfile(path) else Path.cwd()),
        "python": platform.python_version(),
        "packages": _packages(),
    }


def _caller() -> FrameType | None:
    """Return the frame of the user's code that called into this library."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "mltraq_ds":
        frame = frame.f_back
    return frame


def _without_secrets(source: str, settings: Settings) -> str:
    """Take out secrets: of the options and the environment, and what the source itself gives to names of secrets."""
    source = without_secret_literals(source)
    for secret in sorted(_secrets(settings), key=len, reverse=True):
        source = source.replace(secret, "***")
    return redact(source)


def _secrets(settings: Settings) -> set[str]:
    found: set[str] = set()
    waiting: list[Any] = [settings["datastore.storage_options"]]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str) and not _is_plain(value):
            found.add(value)
    for name in ("database.url", "datastore.url", "mlflow.tracking_uri", "mlflow.registry_uri"):
        password = _password(settings[name])
        found |= {password, unquote(password)}
    found |= {value for name, value in os.environ.items() if is_secret_name(name)}
    return {secret for secret in found if len(secret) >= _MIN_SECRET}


def _is_plain(text: str) -> bool:
    return "://" in text  # an endpoint; `redact` sees to its password


def _password(url: object) -> str:
    try:
        return urlsplit(url).password or "" if isinstance(url, str) else ""
    except ValueError:
        return ""


def _packages() -> dict[str, str]:
    """Return the versions of what was imported; a package that tells none is left out."""
    found = {}
    for name in sorted({module.partition(".")[0] for module in list(sys.modules)} - sys.stdlib_module_names):
        if name.startswith("_"):
            continue
        try:
            version: object = importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            version = getattr(sys.modules.get(name), "__dict__", {}).get("__version__")
        if isinstance(version, str):
            found[name] = version
    return found


def _commit_of(folder: Path) -> str | None:
    """Return the commit that is checked out, read from git's files: running git would run what a repository names."""
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            try:
                return _head(place / ".git")
            except (OSError, UnicodeDecodeError):
                return None
    return None


def _head(git: Path) -> str | None:
    if git.is_file():  # a worktree or submodule
        git = git.parent / git.read_text().removeprefix("gitdir:").strip()
    head = (git / "HEAD").read_text().strip()
    if _COMMIT.fullmatch(head):
        return head
    ref = head.removeprefix("ref:").strip()
    if not _REF.fullmatch(ref) or ".." in ref:
        return None
    common = git / "commondir"
    shared = git / common.read_text().strip() if common.exists() else git
    for place in (git, shared):
        if (place / ref).is_file():
            commit = (place / ref).read_text().strip()
            return commit if _COMMIT.fullmatch(commit) else None
    packed = shared / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        commit, _, name = line.partition(" ")
        if name == ref and _COMMIT.fullmatch(commit):
            return commit
    return None
