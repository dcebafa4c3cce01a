"""Pointer: the small text file that stands for a blob which lives on remotes.

It has no checksum: every fact in it is verified when it is used, and people merge such files with git.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mltraq_ds.errors import CorruptRecordError, FormatError, MltraqDSError
from mltraq_ds.storage.remote_urls import parse_remote

__all__ = ["MAX_SIZE", "SUFFIX", "VERSION", "Pointer", "blob_of", "pointer_key"]

#: What the key of a pointer adds to that of its blob.
SUFFIX = ".remote"
#: Layout version; readers refuse a higher one.
VERSION = 1

_FORMAT = "mltraq_ds/pointer"
_MEDIA_TYPE = "application/zip"  # for other tools: a blob is a ZIP file
_KEYS = {"format", "version", "digest", "size", "index", "media_type", "remotes"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Largest file of a pointer (bytes): it is untrusted.
MAX_SIZE = 1 << 20


def pointer_key(blob_key: str) -> str:
    """Return the key of the pointer that stands for a blob."""
    return f"{blob_key}{SUFFIX}"


def blob_of(key: str) -> str:
    """Return the key of the blob that a pointer stands for, and any other key as it is.

    Examples
    --------
    >>> blob_of("e/0f.remote"), blob_of("e/0f")
    ('e/0f', 'e/0f')
    """
    return key.removesuffix(SUFFIX)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a blob is, and what its bytes must be.

    Parameters
    ----------
    digest : str
        ``sha256:`` and the hexadecimal SHA-256 of all bytes; the second part is the name on every remote.
    size : int
        Size of the blob (bytes).
    index : str
        ``sha256:…`` of the blob's index, as in references: by it one member can be verified alone.
    remotes : tuple of str
        URLs of the remotes, in the order in which they are asked; without secrets.
    """

    digest: str
    size: int
    index: str
    remotes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the blob on its remotes."""
        return self.digest.partition(":")[2]

    def with_remotes(self, urls: Iterable[str]) -> Pointer:
        """Return the pointer with remotes, in this order, before the others that it has."""
        return replace(self, remotes=tuple(dict.fromkeys((*urls, *self.remotes))))

    def without(self, url: str) -> Pointer:
        """Return the pointer with one remote less."""
        return replace(self, remotes=tuple(one for one in self.remotes if one != url))

    def to_bytes(self) -> bytes:
        """Return the bytes of the file: always the same for the same pointer, a line for each remote."""
        document = {
            "format": _FORMAT,
            "version": VERSION,
            "digest": self.digest,
            "size": self.size,
            "index": self.index,
            "media_type": _MEDIA_TYPE,
            "remotes": list(self.remotes),
        }
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Pointer:
        """Parse what `to_bytes` gave; it comes from a file and is not trusted.

        Raises
        ------
        CorruptRecordError
            If it is no pointer.
        FormatError
            If a newer version of the library wrote it.
        """
        try:
            document: Any = json.loads(data) if len(data) <= MAX_SIZE else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise _unreadable(key, "it is no JSON object of format 'mltraq_ds/pointer'")
        version = document.get("version")
        if type(version) is int and version > VERSION:
            raise FormatError(
                f"The pointer {key} has layout version {version}, this version of mltraq_ds knows up to {VERSION}. "
                "Upgrade with 'pip install --upgrade mltraq-ds'."
            )
        if type(version) is not int or version != VERSION:
            raise _unreadable(key, f"its 'version' is not {VERSION}")
        if document.keys() != _KEYS or document["media_type"] != _MEDIA_TYPE:
            keys = ", ".join(sorted(_KEYS))
            raise _unreadable(key, f"its keys are not {keys}, or its 'media_type' is not {_MEDIA_TYPE!r}")
        return cls(
            _digest(document, "digest", key),
            _size(document, key),
            _digest(document, "index", key),
            _remotes(document, key),
        )


def _digest(document: dict[str, Any], name: str, key: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise _unreadable(key, f"its {name!r} is not 'sha256:…'")
    return value


def _size(document: dict[str, Any], key: str) -> int:
    value = document.get("size")
    if type(value) is not int or not 0 <= value < 2**63:
        raise _unreadable(key, "its 'size' is not a number of bytes")
    return value


def _remotes(document: dict[str, Any], key: str) -> tuple[str, ...]:
    urls = document.get("remotes")
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise _unreadable(key, "its 'remotes' is not a list of URLs")
    for url in urls:
        try:
            is_public = parse_remote(url).public_url == url
        except MltraqDSError as error:
            raise _unreadable(key, f"a remote cannot be used: {error}") from error
        if not is_public:
            raise _unreadable(key, "a remote's URL is not in the form that is written, or holds a secret")
    return tuple(dict.fromkeys(urls))


def _unreadable(key: str, reason: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"The pointer {key} cannot be read because {reason}. Restore it from a copy, such as the last commit in git."
    )
