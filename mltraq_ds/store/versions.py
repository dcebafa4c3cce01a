"""Versions of saved artifacts: ``artifacts/<escaped name>/versions/<n>.json``.

Creating the file, if it is absent, *is* the commit and gives the number.  One thing is done to it later: a deleted
version is replaced by its tombstone, which keeps the number.  So a version is absent, then there, then deleted, and
never goes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mltraq_ds.errors import CorruptRecordError, FormatError, KeyExistsError, KeyMissingError
from mltraq_ds.ids import validate_key
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, layout, slots

__all__ = [
    "Version",
    "bury",
    "create",
    "folders",
    "is_deleted",
    "numbers",
    "read",
    "read_all",
    "version_key",
    "version_number",
]

_NUMBER = re.compile(r"versions/([1-9][0-9]{0,17})\.json")


def version_key(folder: str, number: int) -> str:
    """Return the key of a version."""
    return f"{folder}/versions/{number}.json"


def version_number(folder: str, key: str) -> int | None:
    """Return the number if `key` is a version of this artifact."""
    match = _NUMBER.fullmatch(key[len(folder) + 1 :])
    return int(match.group(1)) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a saved artifact.

    Parameters
    ----------
    name : str
        Of the artifact.
    number : int
        1, 2, …; never given twice.
    writer : str
        Random id of whoever saved it: after a lost response it tells our own version from another's.
    storage_backend : str
        Who keeps the value.
    type_name : str
        Type of the value, with its module.
    size_bytes : int
        Size of what the store keeps of it (bytes).
    digest : str or None
        Of the value, if the backend tells one.
    value : JSON
        The value as tagged JSON, if the store keeps it.
    metadata : mapping
        What the backend notes to find the value again: JSON.
    blobs : tuple of Reference
        Every blob that this version refers to; no other version refers to any of them.
    code : mapping
        Where it was saved from: JSON.
    deleted : bool
        Whether only the number is left.
    retires : tuple of str
        Keys of the blobs that ended with it, if `deleted`.
    created : str
        ISO 8601, UTC.
    """

    name: str
    number: int
    writer: str
    storage_backend: str
    type_name: str = ""
    size_bytes: int = 0
    digest: str | None = None
    value: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[Reference, ...] = ()
    code: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False
    retires: tuple[str, ...] = ()
    created: str = field(default_factory=layout.now_text)

    @property
    def folder(self) -> str:
        """Folder of the artifact."""
        return layout.artifact_folder(self.name)

    @property
    def key(self) -> str:
        """Key of the version."""
        return version_key(self.folder, self.number)

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return f"version {self.number} of artifact {self.name!a:.200}"

    @property
    def created_at(self) -> datetime:
        """When it was saved."""
        found = datetime.fromisoformat(self.created)
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    @property
    def keys(self) -> set[str]:
        """Keys of all blobs that this version refers to."""
        return {reference.key for reference in self.blobs}

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        body = {
            "name": self.name,
            "number": self.number,
            "writer": self.writer,
            "created": self.created,
            "deleted": self.deleted,
            "storage_backend": self.storage_backend,
            "type": self.type_name,
            "size_bytes": self.size_bytes,
            "digest": self.digest,
            "value": self.value,
            "metadata": dict(self.metadata),
            "blobs": [reference.to_list() for reference in self.blobs],
            "code": dict(self.code),
            "retires": list(self.retires),
        }
        return descriptors.to_bytes("version", body)


def _parse(data: bytes, key: str, folder: str, number: int) -> Version:
    body = descriptors.from_bytes(data, "version", key)
    try:
        version = Version(
            name=_typed(body["name"], str),
            number=_typed(body["number"], int),
            writer=_typed(body["writer"], str),
            created=_typed(body["created"], str),
            deleted=body["deleted"] is True,
            storage_backend=_typed(body["storage_backend"], str),
            type_name=_typed(body["type"], str),
            size_bytes=_typed(body["size_bytes"], int),
            digest=None if body["digest"] is None else _typed(body["digest"], str),
            value=body["value"],
            metadata=_typed(body["metadata"], dict),
            blobs=tuple(map(Reference.from_list, body["blobs"])),
            code=_typed(body["code"], dict),
            retires=tuple(validate_key(_typed(key, str), "key in a version") for key in body["retires"]),
        )
        _ = version.created_at
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptRecordError(f"{key} cannot be read: {error!r:.80}. Restore it from a copy.") from error
    if version.number != number or version.folder != folder:
        raise CorruptRecordError(
            f"{key} belongs to {version.label}, so it was moved here from elsewhere. Move it back."
        )
    if any(not inside.startswith(f"{folder}/") for inside in (*version.keys, *version.retires)):
        raise CorruptRecordError(f"{key} refers to files of another artifact. Restore it from a copy.")
    return version


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is not of type {kind.__name__}")
    return value


def read(storage: Storage, folder: str, number: int) -> Version | None:
    """Read one version, a deleted one too; None if it is empty: a save was killed there, and nothing was lost.

    Raises
    ------
    KeyMissingError
        If there is none of that number.
    CorruptRecordError, FormatError
        If it does not verify, or a newer version of the library wrote it.
    """
    key = version_key(folder, number)
    data = storage.read(key)
    return _parse(data, key, folder, number) if data else None


def numbers(storage: Storage, folder: str) -> list[int]:
    """Return the numbers of all versions, deleted and torn ones too, lowest first."""
    found = (version_number(folder, stat.key) for stat in storage.list(f"{folder}/versions"))
    return sorted(number for number in found if number is not None)


def read_all(
    storage: Storage, folder: str, on_unreadable: Callable[[str, Exception], None] | None = None
) -> list[Version]:
    """Read all versions of an artifact, deleted ones too, lowest first.

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : str
        Of the artifact.
    on_unreadable : callable, optional
        Given key and error of each that cannot be read; without it the first error is raised.
    """
    found = []
    for number in numbers(storage, folder):
        try:
            version = read(storage, folder, number)
        except (CorruptRecordError, FormatError) as error:
            if on_unreadable is None:
                raise
            on_unreadable(version_key(folder, number), error)
            continue
        if version is not None:
            found.append(version)
    return found


def folders(storage: Storage) -> Iterator[str]:
    """Yield the folders of all artifacts, sorted; those of artifacts that are wholly deleted too."""
    yield from (f"{layout.ARTIFACTS}/{name}" for name in storage.folders(layout.ARTIFACTS))


def create(storage: Storage, version: Version, verify: Callable[[], None]) -> bool:
    """Create a version if its number is free; afterwards it is known who has it: True if it is ours.

    Raises
    ------
    CorruptRecordError
        If it could not be read back.  Nothing was committed.
    KeyMissingError
        If the folder is gone.
    UnknownOutcomeError
        If the answer was lost and cannot be asked for.  It may have happened.
    """
    data = version.to_bytes()
    if _parse(data, version.key, version.folder, version.number) != version:
        raise CorruptRecordError(f"The {version.label} was not committed because it would read otherwise.")
    try:
        slots.put_once(storage, version.key, data, f"the {version.label}", verify)
    except KeyExistsError:
        there = read(storage, version.folder, version.number)
        return there is not None and there.writer == version.writer
    return True


def bury(storage: Storage, tombstone: Version) -> None:
    """Replace a version by its tombstone."""
    data = tombstone.to_bytes()
    storage.put(tombstone.key, [data], size=len(data), replace=True)


def is_deleted(storage: Storage, version: Version) -> bool:
    """Tell whether a version was deleted since it was read."""
    try:
        there = read(storage, version.folder, version.number)
    except KeyMissingError:
        return True
    return there is not None and there.deleted
