"""What a sweep may remove from one folder.  Whatever cannot be read stops the sweep: it might refer to anything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mltraq_ds.errors import CorruptRecordError, DanglingReferenceError, KeyMissingError
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import beside, descriptors, generations, reading, references
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.survey import Folder

__all__ = ["Plan", "Roots", "plan_folder", "read_roots"]


@dataclass(frozen=True)
class Roots:
    """What one folder must keep.

    Parameters
    ----------
    generation : Generation or None
        The current one.
    keys : set of str
        Records and blobs that the current version or a record put alone refers to.
    artifacts : set of str
        Bytes that the entry of an artifact names.
    elsewhere : str
        Kind of a folder that something else than `persist` manages; empty for an experiment.
    """

    generation: Generation | None = None
    keys: AbstractSet[str] = frozenset()
    artifacts: AbstractSet[str] = frozenset()
    elsewhere: str = ""

    @property
    def is_live(self) -> bool:
        """Whether there is an experiment."""
        return bool(self.keys) or (self.generation is not None and not self.generation.deleted)


@dataclass
class Plan:
    """What goes from one folder, in this order: each file with its kind.

    Parameters
    ----------
    folder : Folder
        As listed.
    roots : Roots
        As read after the intents.
    remove : list of (str, Stat)
        Kind and file.
    young : list of Stat
        What would go if it were older.
    is_whole : bool
        Whether the folder goes in one step, whatever is in it.
    """

    folder: Folder
    roots: Roots
    remove: list[tuple[str, Stat]] = field(default_factory=list)
    young: list[Stat] = field(default_factory=list)
    is_whole: bool = False


def read_roots(storage: Storage, folder: Folder) -> Roots:
    """Read what a folder must keep.

    Raises
    ------
    CorruptRecordError, DanglingReferenceError, FormatError
        If a generation or record cannot be read.
    StorageError
        If the storage does not answer.
    """
    while True:
        generation = generations.current(storage, folder.name)
        keys: set[str] = set()
        if generation is None:
            elsewhere = _kind_of(storage, folder)
            if elsewhere:
                return Roots(elsewhere=elsewhere)
        elif not generation.deleted:
            keys |= generation.keys
            try:
                for key, data in reading.read_records(storage, generation):
                    keys.update(reference.key for reference in references.in_record(data, key)[2])
            except DanglingReferenceError:
                now = generations.current(storage, folder.name)
                if now is not None and now.ident == generation.ident:
                    raise
                continue  # replaced between the two reads
        _read_singles(storage, folder, generation, keys)
        return Roots(generation, keys, beside.kept_artifacts(storage, folder.name) if folder.beside else frozenset())


def _kind_of(storage: Storage, folder: Folder) -> str:
    """Return what manages a folder without a generation; empty for a persist that never committed."""
    if folder.meta is None:
        return ""
    try:
        body = descriptors.from_bytes(storage.read(folder.meta.key), "folder", folder.meta.key)
    except KeyMissingError:
        return ""
    if body.get("kind") != "experiment":
        return str(body.get("kind"))
    if body.get("generation"):
        raise CorruptRecordError(
            f"{folder.meta.key} speaks of generation {body['generation']} and there is no generation at all, so "
            "nobody knows what the folder must keep. Restore 'generations' from a copy, or remove the folder."
        )
    return ""


def _read_singles(storage: Storage, folder: Folder, generation: Generation | None, keys: set[str]) -> None:
    """Add the current single records.  Folded ones stay too: one that is put now has the same name."""
    folds = set(generation.folds if generation else ())
    for key in folder.singles:
        try:
            put_id, inside = references.in_single(storage.read(key, max_size=descriptors.RECORD_SIZE), key)
        except KeyMissingError:
            continue
        if put_id not in folds:
            keys.add(key)
            keys.update(reference.key for reference in inside)


def plan_folder(
    folder: Folder,
    roots: Roots,
    in_index: AbstractSet[str],
    before: float,
    *,
    has_folders: bool,
    settled: float = math.inf,
) -> Plan:
    """Choose what goes from a folder that no intent names.

    Parameters
    ----------
    folder : Folder
        As listed before the intents were read.
    roots : Roots
        As read after them.
    in_index : set of str
        Keys that the database refers to.
    before : float
        Only what was changed before this time goes (s since 1970, storage's clock).
    has_folders : bool
        Whether the storage has folders that can be renamed in one step.
    settled : float
        Bytes of an artifact go only if they were put before this time: no intent announces them, and their entry comes
        after them.
    """
    plan = Plan(folder, roots)
    if roots.elsewhere:
        return plan
    # A fence ends a persist, not what has been put beside it: its folder is never renamed away.
    is_fenced = roots.generation is not None and roots.generation.deleted and bool(roots.generation.fences)
    if roots.generation is not None and roots.generation.deleted:
        in_index = frozenset()  # rows of an experiment that has ended are behind
        if has_folders and not roots.keys and not is_fenced:
            _take_whole(plan, before)
            return plan
    for key, stat in (*folder.blobs.items(), *folder.pointers.items(), *folder.records.items()):
        if key not in roots.keys and key not in in_index:
            _take(plan, "orphan", stat, before)
    for stat in folder.beside:
        if beside.is_artifact(folder.name, stat.key) and stat.key not in roots.artifacts:
            _take(plan, "orphan", stat, min(before, settled))
    if roots.generation is not None and not (is_fenced and has_folders):
        _take_history(plan, roots.generation.number, before)
    elif not roots.keys:
        _take_bare(plan, before, has_folders=has_folders)
    return plan


def _take(plan: Plan, kind: str, stat: Stat, before: float) -> None:
    if stat.modified <= before:
        plan.remove.append((kind, stat))
    else:
        plan.young.append(stat)


def _take_whole(plan: Plan, before: float) -> None:
    plan.is_whole = all(stat.modified <= before for stat in plan.folder.stats)
    if plan.is_whole:
        plan.remove = [("ended experiment", stat) for stat in plan.folder.stats]
    else:
        plan.young = plan.folder.stats


def _take_history(plan: Plan, current: int, before: float) -> None:
    """Take generations that were superseded before a time, lowest first: a reader climbs from one to the next."""
    numbers = sorted(number for number in plan.folder.generations if number <= current)
    for number, successor in itertools.pairwise(numbers):
        if plan.folder.generations[successor].modified > before:
            break
        plan.remove.append(("old generation", plan.folder.generations[number]))


def _take_bare(plan: Plan, before: float, *, has_folders: bool) -> None:
    """Take what a persist left that never committed; the mark goes last, so that the folder stays ours until then."""
    folder = plan.folder
    torn = list(folder.generations.values())
    if torn and not has_folders:
        return  # its number is taken, which keeps the late writer from committing over somebody else's work
    rest = [*torn, *([folder.meta] if folder.meta else [])]
    is_last = len(plan.remove) + len(rest) == len(folder.stats) and all(stat.modified <= before for stat in rest)
    if is_last:
        plan.remove += [("orphan", stat) for stat in rest]
    else:
        plan.young += [stat for stat in rest if stat.modified > before]
