"""Checking saved artifacts: files are listed first, then intents are read, then versions, as with experiments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from mltraq_ds.errors import KeyMissingError, MltraqDSError
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import descriptors, layout, outside, references, versions
from mltraq_ds.store.artifact_rows import row_of
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.report import Notebook
from mltraq_ds.store.shelves import Shelf, at_work, shelves_in
from mltraq_ds.store.survey import read_intents, seems_alive
from mltraq_ds.store.versions import Version

__all__ = ["check_artifacts"]


def check_artifacts(
    storage: Storage,
    stats: Iterable[Stat],
    writers: Sequence[Intent],
    index: ArtifactIndex | None,
    found: Notebook,
    *,
    deep: bool,
) -> None:
    """Add what is not as it should be with the saved artifacts of a store.

    Parameters
    ----------
    storage : Storage
        Of the store.
    stats : iterable of Stat
        What lies in ``artifacts``, as listed before `writers` were read.
    writers : sequence of Intent
        All intents.
    index : ArtifactIndex or None
        The rows.
    found : Notebook
        Gets the findings.
    deep : bool
        Read every byte of every blob.
    """
    alive = at_work(intent for intent in writers if seems_alive(storage, intent))
    known: list[Version] = []
    torn: set[tuple[str, int]] = set()
    n_unreadable = len(found.findings)
    for shelf in shelves_in(stats):
        if not shelf.is_ours and shelf.folder not in alive:
            size = sum(stat.size for stat in shelf.stats)
            found.note("self-managed", shelf.folder, size_bytes=size, detail=f"{len(shelf.stats)} files.")
            continue
        there = _check_shelf(storage, shelf, found, is_alive=shelf.folder in alive, deep=deep)
        known += there
        empty = {number for number, stat in shelf.versions.items() if not stat.size}
        torn |= {(shelf.folder, number) for number in empty - {version.number for version in there}}
    is_whole = not any(one.kind == "unreadable record" for one in found.findings[n_unreadable:])
    lost = _check_rows(storage, index, known, torn, found) if index is not None and is_whole else set()
    for folder, number in sorted(torn - lost):
        detail = "A save was killed there; nothing was lost, unless it was emptied later."
        found.note("torn commit", versions.version_key(folder, number), detail=detail)


def _check_shelf(storage: Storage, shelf: Shelf, found: Notebook, *, is_alive: bool, deep: bool) -> list[Version]:
    unreadable: list[str] = []

    def note(key: str, error: Exception) -> None:
        unreadable.append(key)
        found.add("unreadable record", key, detail=str(error))

    for stat in shelf.foreign:
        found.add("foreign file", stat.key, size_bytes=stat.size, detail="No part of an artifact.")
    if shelf.versions and shelf.meta is None:
        key = f"{shelf.folder}/{layout.META}"
        found.add("unreadable descriptor", key, detail="The mark of the folder is gone; save a new version to get one.")
    elif shelf.meta is not None and deep:
        _check_mark(storage, shelf, shelf.meta, found)
    all_versions = versions.read_all(storage, shelf.folder, note)
    used: set[str] = set()
    for version in all_versions:
        used |= version.keys
        if outside.waits(version) and not is_alive:
            found.add("unfinished delete", version.key, detail=outside.waiting(version))
        _check_blobs(storage, shelf, version, found, deep=deep)
    if not unreadable and not is_alive:
        for stat in shelf.blobs.values():
            if stat.key not in used and storage.exists(stat.key):
                found.add("orphan", stat.key, size_bytes=stat.size, detail="Nothing refers to it.")
        if not shelf.versions and shelf.meta is not None:
            detail = "A save was killed before anything was committed here."
            found.add("orphan", shelf.meta.key, size_bytes=shelf.meta.size, detail=detail)
    return all_versions


def _check_mark(storage: Storage, shelf: Shelf, stat: Stat, found: Notebook) -> None:
    """Check `_meta.json`, which no reader needs."""
    try:
        body = descriptors.from_bytes(storage.read(stat.key), "folder", stat.key)
    except KeyMissingError:
        return
    except MltraqDSError as error:
        found.add("unreadable descriptor", stat.key, size_bytes=stat.size, detail=str(error))
        return
    name = body.get("name")
    if not isinstance(name, str) or layout.artifact_folder(name) != shelf.folder:
        found.add(
            "unreadable descriptor", stat.key, size_bytes=stat.size, detail=f"It is that of artifact {name!r:.80}."
        )


def _check_blobs(storage: Storage, shelf: Shelf, version: Version, found: Notebook, *, deep: bool) -> None:
    for reference in version.blobs:
        stat = shelf.blobs.get(reference.key)
        if stat is None and storage.exists(reference.key):
            stat = storage.stat(reference.key)  # written since the files were listed
        if stat is None:
            if not versions.is_deleted(storage, version):
                detail = f"The {version.label} refers to this blob, and it is gone."
                found.add("dangling reference", reference.key, size_bytes=reference.size, detail=detail)
        elif stat.size != reference.size:
            detail = f"It has {stat.size} bytes, and {reference.size} were written."
            found.add("corrupt blob", reference.key, size_bytes=reference.size, detail=detail)
        elif deep:
            for sentence in references.damage_of_blob(storage, reference, ())[0]:
                found.add("corrupt blob", reference.key, size_bytes=reference.size, detail=sentence)


def _check_rows(
    storage: Storage, index: ArtifactIndex, known: Sequence[Version], torn: Set[tuple[str, int]], found: Notebook
) -> set[tuple[str, int]]:
    """Compare rows and files; return the versions that the index knows and no file has."""
    lost: set[tuple[str, int]] = set()
    try:
        rows = {row.key: row.is_deleted for row in index.rows()}
    except (*INDEX_ERRORS, MltraqDSError) as error:
        found.add("unreachable database", detail=f"{index.database.url}: {error}")
        return lost
    files = {row.key: row.is_deleted for row in map(row_of, known)}
    for key in sorted(files.keys() | rows.keys()):
        folder, number = key
        in_file, in_row = files.get(key), rows.get(key)
        is_same = in_file == in_row or (in_file is not False and in_row is not False)  # both gone is the same
        if is_same or folder in at_work(read_intents(storage).found):
            continue
        words = {None: "missing", True: "deleted", False: "there"}
        in_files = "empty" if key in torn else words[in_file]
        detail = f"Version {number} is {words[in_row]} in the index and {in_files} in the files."
        found.add("index drift", versions.version_key(folder, number), detail=detail)
        if in_row is False:
            lost.add(key)
    return lost
