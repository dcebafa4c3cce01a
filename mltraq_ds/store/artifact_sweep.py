"""Sweeping saved artifacts, in two steps: all roots are read before anything is removed from anywhere.

Roots are all versions that are not deleted.  As with experiments files are listed first, then intents are read, then
versions: what a writer moves meanwhile it moves from its intent to a version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mltraq_ds.errors import CorruptRecordError, FormatError
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import outside, versions
from mltraq_ds.store.report import Finding, Notebook
from mltraq_ds.store.shelves import Shelf, at_work, shelves_in
from mltraq_ds.store.survey import read_intents
from mltraq_ds.store.versions import Version

__all__ = ["ArtifactPlan", "plan_artifacts"]


@dataclass
class ArtifactPlan:
    """What goes from the folders of artifacts, as far as the roots say that were read for it.

    Parameters
    ----------
    storage : Storage
        Of the store.
    lost : set of (str, int)
        Folder and number of the versions that must have a file, since the index knows them.
    before : float
        Only what was changed before this time goes (s since 1970, storage's clock).
    young : int
        How many files stay only because they are too young.
    waiting : list of Version
        Deleted versions whose backends have not let go of the value.
    """

    storage: Storage
    lost: set[tuple[str, int]]
    before: float
    young: int = 0
    going: list[tuple[Shelf, list[Stat]]] = field(default_factory=list, init=False)
    waiting: list[Version] = field(default_factory=list, init=False)

    def add(self, shelf: Shelf) -> None:
        """Read the roots of one artifact, and plan for it."""
        known = _known(self.storage, shelf, self.lost)
        self.waiting += filter(outside.waits, known)
        going = _orphans(self.storage, shelf, known)
        old = [stat for stat in going if stat.modified <= self.before]
        self.young += len(going) - len(old)
        if old:
            self.going.append((shelf, old))

    def remove(self, shelf: Shelf, old: Iterable[Stat], report: Notebook, *, dry_run: bool) -> None:
        """Look at intents and roots again, then remove by name.

        Raises
        ------
        CorruptRecordError, FormatError
            If a version was damaged or lost since it was planned.  Nothing was removed from there.
        """
        if shelf.folder in at_work(read_intents(self.storage).found):
            report.note("at work", shelf.folder, detail="A writer is at work; nothing is removed there.")
            return
        still = {stat.key for stat in _orphans(self.storage, shelf, _known(self.storage, shelf, self.lost))}
        old = [stat for stat in old if stat.key in still]
        report.findings += [Finding("orphan", stat.key, "", stat.size) for stat in old]
        if not dry_run:
            self.storage.delete_many(stat.key for stat in old)
            if not shelf.versions:
                self.storage.prune(f"{shelf.folder}/versions")
                self.storage.prune(shelf.folder)


def plan_artifacts(
    storage: Storage, stats: Iterable[Stat], index: ArtifactIndex | None, *, before: float
) -> ArtifactPlan:
    """Choose what goes: blobs that no version refers to, and folders without any version.

    Parameters
    ----------
    storage : Storage
        Of the store.
    stats : iterable of Stat
        What lies in ``artifacts``, as listed before this is called.
    index : ArtifactIndex or None
        Its rows tell whether files of versions were lost.
    before : float
        Only what was changed before this time goes (s since 1970, storage's clock).

    Raises
    ------
    CorruptRecordError, FormatError
        If a version cannot be read or its file was lost, so that it is not known what it refers to.
    """
    lost = {row.key for row in index.rows() if not row.is_deleted} if index is not None else set()
    plan = ArtifactPlan(storage, lost, before)
    for shelf in shelves_in(stats):
        if shelf.is_ours:
            plan.add(shelf)
    return plan


def _known(storage: Storage, shelf: Shelf, lost: set[tuple[str, int]]) -> list[Version]:
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
                "no such file, or it is empty. Restore it from a copy; or, if it is to go, use rebuild_index()."
            )
    return known


def _orphans(storage: Storage, shelf: Shelf, known: Sequence[Version]) -> list[Stat]:
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
