"""Links that leave a store: refused, but for those to blobs that `clone` made and listed in ``_store.json``.

A hostile store could list any file, so a link is followed only if it has the key of a blob, still leads where it was
made to lead, and what is there is a blob whose index has the listed digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from typing import Any

__all__ = ["is_broken", "is_listed"]

_STORE = "_store.json"
_BLOB_KEY = re.compile(r"[^/]+/[0-9a-f]{32}")
_COMMENT = re.compile(rb"mltraq_ds/1 index=(\d{20}) size=(\d{20}) crc=[0-9a-f]{8}")
_COMMENT_SIZE = 77
_MAX_INDEX = 1 << 30  # bytes


def is_listed(root: str, path: str) -> bool:
    """Tell whether a link is one to a blob that the store lists."""
    key = os.path.relpath(path, root).replace(os.sep, "/")
    if not _BLOB_KEY.fullmatch(key):
        return False
    link = _links(root).get(key)
    try:
        return (
            isinstance(link, dict)
            and os.readlink(path) == link.get("target")
            and _index_digest(str(link["target"])) == link.get("digest")
        )
    except (OSError, ValueError):
        return False


def is_broken(root: str, path: str) -> bool:
    """Tell whether a link is one to a blob that the store lists, and the blob is gone."""
    key = os.path.relpath(path, root).replace(os.sep, "/")
    link = _links(root).get(key) if _BLOB_KEY.fullmatch(key) else None
    target = link.get("target") if isinstance(link, dict) else None
    try:
        return isinstance(target, str) and os.readlink(path) == target and not os.path.lexists(target)
    except (OSError, ValueError):
        return False


def _links(root: str) -> dict[str, Any]:
    try:
        with open(os.path.join(root, _STORE), "rb") as file:
            document: Any = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    links = document.get("links") if isinstance(document, dict) else None
    return links if isinstance(links, dict) else {}


def _index_digest(target: str) -> str | None:
    """Return the digest of a blob's index, or None if it is no blob."""
    with open(target, "rb", opener=lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size < _COMMENT_SIZE:
            return None
        file.seek(-_COMMENT_SIZE, os.SEEK_END)
        found = _COMMENT.fullmatch(file.read())
        if found is None or int(found[1]) + int(found[2]) > status.st_size or int(found[2]) > _MAX_INDEX:
            return None
        file.seek(int(found[1]))
        return f"sha256:{hashlib.sha256(file.read(int(found[2]))).hexdigest()}"
