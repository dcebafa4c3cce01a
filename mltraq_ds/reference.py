"""Reference: what stays in place of a blob."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mltraq_ds.errors import CorruptRecordError
from mltraq_ds.ids import url_from_key, validate_key

__all__ = ["Reference"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What stays in place of a blob.

    Parameters
    ----------
    key : str
        Store-relative name of the blob.
    size : int
        Size of the blob (bytes).
    digest : str
        ``sha256:`` and the hexadecimal SHA-256 of the blob's *index*, which in turn holds the SHA-256 of every member:
        one member can be verified alone, and nothing is hashed twice.
    fragment : str
        Name of the subtree of a pack; empty for a blob of its own.
    """

    key: str
    size: int
    digest: str
    fragment: str = ""

    @property
    def url(self) -> str:
        """``file:///<key>[#fragment]``, relative to the store."""
        return url_from_key(self.key, fragment=self.fragment)

    def to_list(self) -> list[Any]:
        """Return the form kept in records, generations and blobs: ``[key, size, digest, fragment?]``."""
        parts: list[Any] = [self.key, self.size, self.digest]
        return [*parts, self.fragment] if self.fragment else parts

    @classmethod
    def from_list(cls, parts: object) -> Reference:
        """Parse and validate what `to_list` gave; it comes from a file and is not trusted.

        Raises
        ------
        CorruptRecordError
            If it is not of that form.
        InvalidNameError
            If its key could leave the store.
        """
        if isinstance(parts, list) and len(parts) in (3, 4):
            key, size, digest, fragment = [*parts, ""][:4]
            if (
                isinstance(key, str)
                and type(size) is int
                and 0 <= size < 2**63
                and isinstance(digest, str)
                and _DIGEST.fullmatch(digest)
                and isinstance(fragment, str)
            ):
                return cls(validate_key(key, "key of a reference"), size, digest, fragment)
        raise CorruptRecordError(
            f"A reference cannot be read: {parts!r:.200} is not [key, size, 'sha256:…']. The record, generation or "
            "blob "
            "that holds it is damaged; 'mltraq-ds check' lists what else is."
        )
