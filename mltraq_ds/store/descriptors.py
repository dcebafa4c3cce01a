"""Descriptors: the small JSON files of a store that say what something is, each with format, version and checksum.

`_store.json`, `_meta.json`, intents and generations are all written and read here, so that one place refuses what is
damaged, foreign or newer.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mltraq_ds.errors import CorruptRecordError, FormatError

__all__ = ["MAX_SIZE", "RECORD_SIZE", "VERSION", "from_bytes", "to_bytes"]

#: Layout version of every descriptor; readers refuse a higher one.
VERSION = 1
#: No descriptor is larger (bytes); single records and results may be: `RECORD_SIZE`.
MAX_SIZE = 64 << 20
RECORD_SIZE = 256 << 20


def to_bytes(kind: str, body: dict[str, Any]) -> bytes:
    """Return the bytes of a descriptor.

    Parameters
    ----------
    kind : str
        ``store``, ``experiment``, ``intent`` or ``generation``.
    body : dict
        JSON-native content.

    Returns
    -------
    bytes
        UTF-8 JSON with the added keys ``format`` (``mltraq_ds/<kind>``), ``version`` and ``checksum`` (SHA-256 of the
        compact, key-sorted JSON of everything else).
    """
    document = {"format": f"mltraq_ds/{kind}", "version": VERSION, **body}
    document["checksum"] = _checksum(document)
    # One line a key: people can read it, and json's fast encoder (which cannot indent) does the work.
    lines = ",\n ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
    return f"{{{lines}}}\n".encode()


def from_bytes(data: bytes, kind: str, key: str) -> dict[str, Any]:
    """Parse and verify what `to_bytes` gave.

    Parameters
    ----------
    data : bytes
        Content of the file.
    kind : str
        The kind expected.
    key : str
        Where it was read from, for messages.

    Raises
    ------
    CorruptRecordError
        If it is not JSON, not of this kind, or its checksum differs.
    FormatError
        If a newer version of the library wrote it.
    """
    try:
        document: Any = json.loads(data, parse_constant=_refuse_constant)
        is_ours = isinstance(document, dict) and document.get("format") == f"mltraq_ds/{kind}"
        checksum = _checksum({name: document[name] for name in document if name != "checksum"}) if is_ours else ""
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(
            f"{key} cannot be read because it is not JSON ({error!s:.80}). It was damaged or cut; restore it from a "
            "copy."
        ) from error
    if not is_ours:
        raise CorruptRecordError(
            f"{key} cannot be read because it is not a descriptor of kind {kind!r}. It was replaced by another file; "
            "restore it from a copy."
        )
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise FormatError(
            f"{key} has layout version {version}, this version of mltraq_ds knows up to {VERSION}. Upgrade with "
            "'pip install --upgrade mltraq_ds'."
        )
    if document.pop("checksum", None) != checksum:
        raise CorruptRecordError(
            f"{key} does not verify: its content differs from its checksum. It was damaged or edited; restore it from "
            "a copy."
        )
    body: dict[str, Any] = document
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _checksum(document: dict[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
