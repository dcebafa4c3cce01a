"""What fsspec tells of keys, in our words.  Nothing it remembers is believed: a sweep acts on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from mltraq_ds.storage.base import Stat

__all__ = ["folders_in", "stat_of", "walk"]

_TIMES = ("mtime", "modified", "created", "LastModified", "last_modified", "updated")


def walk(filesystem: Any, path: str, prefix: str, now: float) -> Iterator[Stat]:
    """Yield every key below a folder, unfinished ones too; `prefix` is the key of the folder."""
    filesystem.invalidate_cache()
    try:
        found = filesystem.find(path, detail=True) if _finds_by_itself(filesystem) else _find(filesystem, path)
    except FileNotFoundError:
        found = {}
    start = f"{path}/"
    skip = len(start) - (len(prefix) + 1 if prefix else 0)
    return (
        stat_of(name[skip:], details, now)
        for name, details in found.items()
        if name.startswith(start) and details["type"] != "directory"
    )


def _finds_by_itself(filesystem: Any) -> bool:
    # Only what an implementation brings itself, one flat listing of an object store.  The `find` that it inherits
    # leaves out every folder that cannot be read, and says nothing.
    if isinstance(filesystem, AsyncFileSystem):
        return type(filesystem)._find is not AsyncFileSystem._find
    return type(filesystem).find is not AbstractFileSystem.find


def _find(filesystem: Any, path: str) -> Mapping[str, Mapping[str, Any]]:
    found = {}
    folders = [path]
    while folders:
        folder = folders.pop()
        try:
            entries = filesystem.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed since its name was read
        for details in entries:
            name = details["name"].rstrip("/")
            if details["type"] != "directory" or details.get("islink"):
                found[name] = details
            elif name != folder:
                folders.append(name)
    return found


def folders_in(filesystem: Any, path: str) -> list[str]:
    """Return the names of the folders directly in a folder, sorted; none if there is no such folder."""
    filesystem.invalidate_cache()
    try:
        found = filesystem.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = {details["name"].rstrip("/").rpartition("/")[2] for details in found if details["type"] == "directory"}
    return sorted(names - {""})


def stat_of(key: str, details: Mapping[str, Any], now: float) -> Stat:
    """Return size and time of a key; of unknown age it is as young as can be, so that no sweep takes it."""
    times = [_seconds(details.get(name)) for name in _TIMES]
    return Stat(key, int(details["size"]), max((time for time in times if time is not None), default=now))


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return None
