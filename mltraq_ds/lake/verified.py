"""Verified: what the last look at each remote has found, in ``_verified.json`` of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mltraq_ds.errors import DamageError, KeyMissingError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, layout

__all__ = ["ids", "note", "times", "wrong_names"]


def times(storage: Storage) -> dict[str, str]:
    """Return when each remote was last verified without a finding, by URL."""
    found = _body(storage).get("remotes")
    return {str(url): str(time) for url, time in found.items()} if isinstance(found, dict) else {}


def wrong_names(storage: Storage) -> dict[str, frozenset[str]]:
    """Return the objects of each remote that had wrong bytes when it was last looked at, by URL."""
    found = _body(storage).get("wrong")
    if not isinstance(found, dict):
        return {}
    return {str(url): frozenset(map(str, names)) for url, names in found.items() if isinstance(names, list)}


def ids(storage: Storage) -> dict[str, str]:
    """Return the id of each remote, as far as it was ever looked at: two URLs of one place have the same."""
    found = _body(storage).get("ids")
    return {str(url): str(id_) for url, id_ in found.items()} if isinstance(found, dict) else {}


def note(
    storage: Storage, fine: Iterable[str], wrong: Mapping[str, Iterable[str]], identities: Mapping[str, str]
) -> None:
    """Note which remotes had no finding, and which objects of others were wrong.

    Parameters
    ----------
    fine : iterable of str
        URLs of remotes that were looked at without a finding, now.
    wrong : mapping
        The names of wrong objects, of every remote that was looked at.
    identities : mapping
        The ids of those remotes that told them.
    """
    if not wrong:
        return
    found = {**times(storage), **dict.fromkeys(fine, layout.now_text())}
    known = {**wrong_names(storage), **wrong}
    body: dict[str, Any] = {
        "remotes": dict(sorted(found.items())),
        "ids": dict(sorted({**ids(storage), **identities}.items())),
    }
    if any(known.values()):
        body["wrong"] = {url: sorted(names) for url, names in sorted(known.items()) if names}
    data = descriptors.to_bytes("verified", body)
    storage.put(layout.VERIFIED, [data], size=len(data), replace=True)


def _body(storage: Storage) -> dict[str, Any]:
    try:
        return descriptors.from_bytes(storage.read(layout.VERIFIED), "verified", layout.VERIFIED)
    except (KeyMissingError, DamageError):
        return {}  # it may be absent; the next look writes it
