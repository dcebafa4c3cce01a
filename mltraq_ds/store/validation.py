"""Validation: everything that can be refused before the first byte is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mltraq_ds.errors import ConcurrentPersistError, DanglingReferenceError, ExperimentExistsError, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import RunRow
from mltraq_ds.pointed import read_pointer
from mltraq_ds.storage import Storage
from mltraq_ds.store import generations, layout, records, single_records
from mltraq_ds.store.generations import Generation, Ident
from mltraq_ds.store.plan import Plan
from mltraq_ds.store.records import ExperimentContent
from mltraq_ds.store.rows import index_rows

__all__ = ["NOTHING", "Valid", "check_kept", "lost", "validate"]

NOTHING: Ident = (0, "")

_LIST_FROM = 16  # kept blobs; below that a look at each is cheaper than a listing


class Valid(NamedTuple):
    """What a persist goes on with.

    Parameters
    ----------
    seen : Generation or None
        The current generation, an ended one too.
    parent : Generation or None
        The one whose blobs may be kept.
    plan : Plan
        What to write.
    tagged : list of dict
        The mappings of the experiment and its runs as tagged JSON.
    rows : list of RunRow
        Of the runs, as the index was asked about; none without an index.
    """

    seen: Generation | None
    parent: Generation | None
    plan: Plan
    tagged: list[dict[str, Any]]
    rows: list[RunRow]


def validate(objects: Objects, index: Index | None, content: ExperimentContent, base: Ident, if_exists: str) -> Valid:
    """Check everything that can be checked; nothing is changed anywhere.

    Raises
    ------
    UsageError and its kinds
        If a value has no codec, or a name or text cannot be stored.
    ExperimentExistsError
        If the name or the experiment exists and `if_exists` does not allow it.
    ConcurrentPersistError
        If somebody has persisted or deleted the experiment since `base`.
    StorageError
        If storage or database do not answer, or if the storage is only read.
    """
    _check(if_exists)
    folder = layout.folder_of(content.id_experiment)
    seen = generations.current(objects.storage, folder)
    parent = _parent(seen, content, base, if_exists)
    plan = Plan(objects, folder, {(blob.key, blob.digest) for blob in parent.blobs} if parent else frozenset())
    tagged = _add_values(plan, content)
    rows: list[RunRow] = []
    if index is not None:
        experiment, rows, _ = index_rows(content, tagged, None)
        index.validate_rows(experiment, rows)
        _refuse_taken_name(objects.storage, index, content, if_exists)
    return Valid(seen, parent, plan, tagged, rows)


def refuse_existing(
    storage: Storage, index: Index | None, content: ExperimentContent, base: Ident, if_exists: str
) -> None:
    """Check what can be checked before the values are known, as they are not before steps have been executed.

    Raises
    ------
    UsageError, ExperimentExistsError, ConcurrentPersistError
        As `validate`.
    """
    _check(if_exists)
    _parent(generations.current(storage, layout.folder_of(content.id_experiment)), content, base, if_exists)
    if index is not None:
        _refuse_taken_name(storage, index, content, if_exists)


def _check(if_exists: str) -> None:
    if if_exists not in ("fail", "replace", "update"):
        raise UsageError(f"if_exists={if_exists!r} is unknown. Use 'fail', 'replace' or 'update'.")


def lost(content: ExperimentContent, reason: str, *, is_deleted: bool = False) -> ConcurrentPersistError:
    """Return the error of the writer who came second."""
    remedy = "copy_to(name) to persist this one as a new experiment"
    if not is_deleted:
        remedy = "reload() to continue from it, or copy_to(name) to keep this one beside it"
    return ConcurrentPersistError(
        f"Experiment {content.name!r} (id {content.id_experiment}) was not persisted because {reason}. What is there "
        f"stands. Use {remedy}."
    )


def check_kept(storage: Storage, folder: str, kept: Mapping[str, int], label: str) -> None:
    """Look whether the blobs that a new version keeps from its parent are there, whole.

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : str
        Of the experiment.
    kept : mapping
        Keys and sizes (bytes).
    label : str
        Of the experiment, for the message.

    Raises
    ------
    DanglingReferenceError
        If one is gone or has another size.
    """
    there: dict[str, int] = {}
    if len(kept) > _LIST_FROM:
        there = {stat.key: stat.size for stat in storage.list(folder)}
    for key, size in sorted(kept.items()):
        if len(kept) <= _LIST_FROM and storage.exists(key):
            there[key] = storage.stat(key).size
        if key not in there and (pointer := read_pointer(storage, key)):
            there[key] = pointer.size
        if there.get(key) != size:
            found = f"has {there[key]} bytes, not {size}" if key in there else "is gone"
            raise DanglingReferenceError(
                f"The {label} cannot be persisted because blob {key}, which it keeps from the version before, {found}. "
                "Restore it from a copy, or remove the value."
            )


def _parent(seen: Generation | None, content: ExperimentContent, base: Ident, if_exists: str) -> Generation | None:
    if seen is None or seen.deleted:
        if base != NOTHING:
            raise lost(content, f"it was deleted after generation {base[0]}", is_deleted=True)
        return None
    if if_exists == "fail":
        raise ExperimentExistsError(
            f"Experiment {content.name!r} (id {content.id_experiment}) has been persisted before, as generation "
            f"{seen.number}. Use if_exists='update' to persist its new state."
        )
    if if_exists == "update" and not seen.stands_on(base):
        raise lost(content, f"generation {seen.number} was committed by another writer at {seen.created}")
    return seen


def _add_values(plan: Plan, content: ExperimentContent) -> list[dict[str, Any]]:
    label = f"experiment {content.name!r}"
    tagged: list[dict[str, Any]] = [{"fields": plan.add_mapping(content.fields, f"{label}, fields")}]
    for run in content.runs:
        where = f"{label}, run {run.id_run}"
        tagged.append({part: plan.add_mapping(getattr(run, part), f"{where}, {part}") for part in records.MAPPINGS})
    return tagged


def _refuse_taken_name(storage: Storage, index: Index, content: ExperimentContent, if_exists: str) -> None:
    claim = index.owner(content.name)
    owner = claim.id_experiment if claim is not None else None
    if claim is None or owner in (None, content.id_experiment):
        return
    if if_exists != "replace":
        raise ExperimentExistsError(
            f"Experiment {content.name!r} cannot be persisted because another one has this name (id {owner}). Use "
            "another "
            "name, or if_exists='replace' to put this one in its place."
        )
    if claim.store_id != index.store_id:
        raise ExperimentExistsError(
            f"Experiment {content.name!r} cannot take the place of the one of this name (id {owner}) because that "
            "one is "
            "in another store. Use another name, or delete it there."
        )
    refuse_beside(storage, owner, content.name)


def refuse_beside(storage: Storage, id_experiment: str, name: str) -> None:
    """Raise `ExperimentExistsError` if an experiment that is to be replaced has what others have put beside it."""
    folder = layout.folder_of(id_experiment)
    there = [stat.key for stat in storage.list(folder)]  # one look: most have nothing but what persist has written
    keys = [key for key in there if key.split("/")[1] in layout.BESIDE]
    if any(key.startswith(f"{folder}/runs/") and key.endswith(".json") for key in there):
        current = generations.current(storage, folder)
        keys += [one.key for one in single_records.unfolded(storage, folder, current.folds if current else ())]
    if keys:
        raise ExperimentExistsError(
            f"Experiment {name!r} cannot take the place of the one of this name (id {id_experiment}) because that one "
            f"has what a run store has put there, such as {min(keys)}, which would be removed. Load that one and "
            "persist "
            "it with if_exists='update'; use another name; or delete it first."
        )
