"""Links that leave a store: refused, but for those that `clone` made and listed in ``_store.json``."""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["is_listed", "listed_in"]

_STORE = "_store.json"


def listed_in(root: str) -> dict[str, dict[str, str]]:
    """Return the links that a store lists: by key their target (absolute path) and digest; empty if it lists none."""
    try:
        with open(os.path.join(root, _STORE), "rb") as file:
            document: Any = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    links = document.get("links") if isinstance(document, dict) else None
    return links if isinstance(links, dict) else {}


def is_listed(root: str, path: str) -> bool:
    """Tell whether a link is one that the store lists, and still leads where it was made to lead."""
    key = os.path.relpath(path, root).replace(os.sep, "/")
    link = listed_in(root).get(key)
    try:
        return isinstance(link, dict) and os.readlink(path) == link.get("target")
    except OSError:
        return False
