"""What the index is told of saved artifacts, by whoever saves or deletes, by recovery, and by `rebuild_index`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from mltraq_ds.errors import CorruptRecordError, KeyMissingError
from mltraq_ds.orm.artifacts import ArtifactIndex, ArtifactRow
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import layout, versions
from mltraq_ds.store.tagged import plain
from mltraq_ds.store.versions import Version

__all__ = ["known_version", "name_of", "rebuild_artifacts", "row_of", "update_rows"]

# Some database holds no NUL and no lone surrogate, in texts as in JSON.
_UNHELD = re.compile("[\x00\ud800-\udfff]")
_UNHELD_IN_JSON = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def row_of(version: Version) -> ArtifactRow:
    """Return the row of a version."""
    return ArtifactRow(
        folder=version.folder,
        version=version.number,
        name=json.dumps(version.name) if _UNHELD.search(version.name) else version.name,
        storage_backend=_text(version.storage_backend),
        type=_text(version.type_name),
        created_at=version.created_at,
        n_bytes=version.size_bytes,
        digest=None if version.digest is None else _text(version.digest),
        details="{}" if version.deleted else _details(version),
        is_deleted=version.deleted,
    )


def _text(text: str) -> str:
    return _UNHELD.sub("\ufffd", text)


def _details(version: Version) -> str:
    found = dict(version.metadata)
    try:
        if version.value is not None:
            found["value"] = plain(version.value)
        text = json.dumps(found, allow_nan=False)
    except (CorruptRecordError, ValueError):
        return "{}"
    return "{}" if _UNHELD_IN_JSON.search(text) else text  # the file has it


def name_of(row: ArtifactRow) -> str:
    """Return the name of an artifact; the row has it as JSON if no database holds it as it is."""
    return row.name if layout.artifact_folder(row.name) == row.folder else str(json.loads(row.name))


def known_version(storage: Storage, index: ArtifactIndex, folder: str, *, above: int, to: int | None) -> Version | None:
    """Return the newest version between two numbers that the index knows and the files did not have when it was asked.

    A version that was saved keeps its file for ever, deleted or not.  So if the index knows one and there is no file,
    it was lost, and whoever took the one before for the newest would be served something old in silence.

    Parameters
    ----------
    storage : Storage
        Of the store.
    index : ArtifactIndex
        Its rows.
    folder : str
        Of the artifact.
    above : int
        The version that the files have, or 0.
    to : int or None
        The highest number that is wanted; None for the newest.

    Raises
    ------
    CorruptRecordError
        If its file is gone or empty, or cannot be read.
    """
    for row in reversed(index.rows(folder)):
        if row.version <= above or row.is_deleted or (to is not None and row.version > to):
            continue
        try:
            found = versions.read(storage, folder, row.version)
            state = "empty"
        except KeyMissingError:
            found, state = None, "gone"
        if found is None:
            raise CorruptRecordError(
                f"Version {row.version} of artifact {name_of(row)!a:.200} cannot be read because "
                f"{versions.version_key(folder, row.version)} is {state}, and {index.database.url} has it. "
                "Restore that file from a copy; or, if it is to go, use rebuild_index(). Other versions can be had by "
                "their number."
            )
        if not found.deleted:
            return found
    return None


OnUnreadable = Callable[[str, Exception], None]


def update_rows(
    storage: Storage, index: ArtifactIndex, folder: str, on_unreadable: OnUnreadable | None = None
) -> list[Version]:
    """Make the rows of one artifact what its files say; returns its versions."""
    found = versions.read_all(storage, folder, on_unreadable)
    index.write(map(row_of, found))
    return found


def rebuild_artifacts(storage: Storage, index: ArtifactIndex, on_unreadable: OnUnreadable) -> list[Version]:
    """Make the rows of all artifacts what the files say; returns the living versions.

    Rows of versions that cannot be read stay as they are.
    """
    before = {row.key: row for row in index.rows()}
    found: list[Version] = []

    def skip(key: str, error: Exception) -> None:
        folder = key.rpartition("/versions/")[0]
        before.pop((folder, versions.version_number(folder, key) or 0), None)
        on_unreadable(key, error)

    for folder in versions.folders(storage):
        found += versions.read_all(storage, folder, skip)
    index.rebuild(before.values(), map(row_of, found))
    return [version for version in found if not version.deleted]
