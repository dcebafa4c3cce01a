"""What the index is told of saved artifacts, by whoever saves or deletes, by recovery, and by `rebuild_index`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from mltraq_ds.errors import CorruptRecordError
from mltraq_ds.orm.artifacts import ArtifactIndex, ArtifactRow
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import layout, versions
from mltraq_ds.store.tagged import plain
from mltraq_ds.store.versions import Version

__all__ = ["name_of", "rebuild_artifacts", "row_of", "update_rows"]

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
