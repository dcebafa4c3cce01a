"""Checking and sweeping saved artifacts.

Roots are all versions that are not deleted.  As with experiments files are listed first, then intents are read, then
versions: what a writer moves meanwhile it moves from its intent to a version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mltraq_ds.errors import CorruptRecordError, FormatError, MltraqDSError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import layout, outside, references, versions
from mltraq_ds.store.artifact_rows import row_of
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.report import Finding, Notebook
from mltraq_ds.store.survey import read_intents, seems_alive
from mltraq_ds.store.versions import Version

__all__ = ["check_artifacts", "sweep_artifacts"]

_BLOB = re.compile(r"[0-9a-f]{32}")


@dataclass
class _Shelf:
    """The files of one artifact."""

    folder: str
    stats: list[Stat] = field(default_factory=list)
    blobs: dict[str, Stat] = field(default_factory=dict)
    versions: dict[int, Stat] = field(default_factory=dict)
    meta: Stat | None = None
    foreign: list[Stat] = field(default_factory=list)

    def add(self, stat: Stat) -> None:
        self.stats.append(stat)
        rest = stat.key[len(self.folder) + 1 :]
        number = versions.version_number(self.folder, stat.key)
        if _BLOB.fullmatch(rest):
            self.blobs[stat.key] = stat
        elif number is not None:
            self.versions[number] = stat
        elif rest == layout.META:
            self.meta = stat
        else:
            self.foreign.append(stat)

    @property
    def is_ours(self) -> bool:
        return self.meta is not None or bool(self.versions)


def _sorted(stats: Iterable[Stat]) -> list[_Shelf]:
    shelves: dict[str, _Shelf] = {}
    for stat in stats:
        folder = "/".join(stat.key.split("/")[:2])
        shelves.setdefault(folder, _Shelf(folder)).add(stat)
    return [shelves[folder] for folder in sorted(shelves)]


def _at_work(writers: Iterable[Intent]) -> set[str]:
    return {layout.artifact_folder(intent.name) for intent in writers if intent.is_of_artifact}


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
    alive = _at_work(intent for intent in writers if seems_alive(storage, intent))
    known: list[Version] = []
    n_unreadable = len(found.findings)
    for shelf in _sorted(stats):
        if not shelf.is_ours and shelf.folder not in alive:
            size = sum(stat.size for stat in shelf.stats)
            found.note("self-managed", shelf.folder, size_bytes=size, detail=f"{len(shelf.stats)} files.")
            continue
        known += _check_shelf(storage, shelf, found, is_alive=shelf.folder in alive, deep=deep)
    is_whole = not any(one.kind == "unreadable record" for one in found.findings[n_unreadable:])
    if index is not None and is_whole:
        _check_rows(storage, index, known, found)


def _check_shelf(storage: Storage, shelf: _Shelf, found: Notebook, *, is_alive: bool, deep: bool) -> list[Version]:
    unreadable: list[str] = []

    def note(key: str, error: Exception) -> None:
        unreadable.append(key)
        found.add("unreadable record", key, detail=str(error))

    for stat in shelf.foreign:
        found.add("foreign file", stat.key, size_bytes=stat.size, detail="No part of an artifact.")
    for stat in shelf.versions.values():
        if not stat.size:
            found.note("torn commit", stat.key, detail="A save was killed there; nothing was lost.")
    if shelf.versions and shelf.meta is None:
        key = f"{shelf.folder}/{layout.META}"
        found.add("unreadable descriptor", key, detail="The mark of the folder is gone; save a new version to get one.")
    all_versions = versions.read_all(storage, shelf.folder, note)
    used: set[str] = set()
    for version in all_versions:
        used |= version.keys
        if _waits(version) and not is_alive:
            found.add("unfinished delete", version.key, detail=_waiting(version))
        _check_blobs(storage, shelf, version, found, deep=deep)
    if not unreadable and not is_alive:
        for stat in shelf.blobs.values():
            if stat.key not in used and storage.exists(stat.key):
                found.add("orphan", stat.key, size_bytes=stat.size, detail="Nothing refers to it.")
        if not shelf.versions and shelf.meta is not None:
            detail = "A save was killed before anything was committed here."
            found.add("orphan", shelf.meta.key, size_bytes=shelf.meta.size, detail=detail)
    return all_versions


def _waits(version: Version) -> bool:
    """Tell whether a version was deleted and its backend has not let go of the value."""
    return version.deleted and bool(version.metadata)


def _waiting(version: Version) -> str:
    return f"Deleted, but the storage backend {version.storage_backend!a:.80} has not let go of its value."


def _check_blobs(storage: Storage, shelf: _Shelf, version: Version, found: Notebook, *, deep: bool) -> None:
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


def _check_rows(storage: Storage, index: ArtifactIndex, known: Sequence[Version], found: Notebook) -> None:
    try:
        rows = {row.key: row.is_deleted for row in index.rows()}
    except (*INDEX_ERRORS, MltraqDSError) as error:
        found.add("unreachable database", detail=f"{index.database.url}: {error}")
        return
    files = {row.key: row.is_deleted for row in map(row_of, known)}
    for folder, number in sorted(files.keys() | rows.keys()):
        in_file, in_row = files.get((folder, number)), rows.get((folder, number))
        is_same = in_file == in_row or (in_file is not False and in_row is not False)  # both gone is the same
        if is_same or folder in _at_work(read_intents(storage).found):
            continue
        words = {None: "missing", True: "deleted", False: "there"}
        detail = f"Version {number} is {words[in_row]} in the index and {words[in_file]} in the files."
        found.add("index drift", versions.version_key(folder, number), detail=detail)


def sweep_artifacts(
    objects: Objects,
    stats: Iterable[Stat],
    index: ArtifactIndex | None,
    report: Notebook,
    *,
    before: float,
    dry_run: bool,
) -> int:
    """Remove blobs in folders of artifacts that no version refers to, and folders without any version.

    Backends that have not let go of what was deleted are asked again.

    Parameters
    ----------
    objects : Objects
        Of the store.
    stats : iterable of Stat
        What lies in ``artifacts``, as listed before this is called.
    index : ArtifactIndex or None
        Its rows tell whether files of versions were lost.
    report : Notebook
        Gets one finding for each file.
    before : float
        Only what was changed before this time goes (s since 1970, storage's clock).
    dry_run : bool
        Remove nothing.

    Returns
    -------
    int
        How many files stay only because they are too young.

    Raises
    ------
    CorruptRecordError, FormatError
        If a version cannot be read or its file was lost, so that it is not known what it refers to.  Nothing was
        removed from there.
    """
    storage, n_young = objects.storage, 0
    lost = {row.key for row in index.rows() if not row.is_deleted} if index is not None else set()
    for shelf in _sorted(stats):
        if not shelf.is_ours:
            continue
        known = _known(storage, shelf, lost)
        for version in filter(_waits, known):
            if dry_run or outside.let_go(version, objects):
                report.findings.append(Finding("unfinished delete", version.key, "", detail=_waiting(version)))
        going = _orphans(storage, shelf, known)
        old = [stat for stat in going if stat.modified <= before]
        n_young += len(going) - len(old)
        if not old:
            continue
        if shelf.folder in _at_work(read_intents(storage).found):
            report.note("at work", shelf.folder, detail="A writer is at work; nothing is removed there.")
            continue
        still = {stat.key for stat in _orphans(storage, shelf, _known(storage, shelf, lost))}
        old = [stat for stat in old if stat.key in still]
        report.findings += [Finding("orphan", stat.key, "", stat.size) for stat in old]
        if not dry_run:
            storage.delete_many(stat.key for stat in old)
            if not shelf.versions:
                storage.prune(f"{shelf.folder}/versions")
                storage.prune(shelf.folder)
    return n_young


def _known(storage: Storage, shelf: _Shelf, lost: set[tuple[str, int]]) -> list[Version]:
    """Return all versions of an artifact; raise if it is not known what one of them refers to."""
    try:
        known = versions.read_all(storage, shelf.folder)
    except (CorruptRecordError, FormatError) as error:
        raise type(error)(f"The sweep was stopped because it is not known what must be kept: {error}") from error
    there = {version.number for version in known}
    for folder, number in sorted(lost):
        if folder == shelf.folder and number not in there:
            raise CorruptRecordError(
                f"The sweep was stopped because the database has {versions.version_key(folder, number)} and there is "
                "no such file. Restore it from a copy; or, if it is to go, use rebuild_index()."
            )
    return known


def _orphans(storage: Storage, shelf: _Shelf, known: Sequence[Version]) -> list[Stat]:
    used = set().union(*(version.keys for version in known))
    going = [stat for stat in shelf.blobs.values() if stat.key not in used]
    if (
        not known
        and not shelf.versions
        and shelf.meta is not None
        and not storage.exists(f"{shelf.folder}/versions/1.json")
    ):
        going.append(shelf.meta)
    return going
