"""What an export of an experiment has to copy, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mltraq_ds.errors import ExperimentNotFoundError
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.storage.pointer import blob_of
from mltraq_ds.store import file_layout, generations, layout, single_records
from mltraq_ds.store import references as found_in
from mltraq_ds.store.generations import Generation

__all__ = [
    "GENERATION",
    "KINDS",
    "Item",
    "Plan",
    "Selection",
    "left_of_deleted",
    "plan_experiment",
    "plan_rest",
    "unclaimed",
]

#: What is counted.
KINDS = ("runs", "derived", "logs", "results", "manifests", "artifacts", "blobs", "generations", "others")

#: The step that makes the experiment visible.
GENERATION = 2

_FOLDERS = {"derived": "derived", "logs": "logs", "results": "results", "experiments": "manifests"}
_DESCRIPTORS = {"derived": "derived", "results": "result", "experiments": "manifest"}
_BLOB = re.compile(r"[0-9a-f]{32}")
_RECORDS = re.compile(r"runs/[0-9a-f]{32}\.jsonl")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which parts of an experiment are copied; records, their blobs and generations always are."""

    derived: bool = True
    logs: bool = True
    results: bool = True
    manifests: bool = True
    artifacts: bool = True

    def takes(self, kind: str) -> bool:
        """Tell whether files of a kind are copied."""
        return bool(getattr(self, kind, True))


@dataclass(frozen=True, slots=True)
class Item:
    """One file to copy: what it counts as, by what it is verified beside its bytes, whether its name is used once."""

    key: str
    size: int
    kind: str
    reference: Reference | None = None
    counts: int = 1
    is_fresh: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether nobody writes another file under this name, so that it is never replaced; pointers change."""
        is_blob = self.kind == "blobs" and blob_of(self.key) == self.key
        return self.is_fresh or is_blob or self.reference is not None or self.kind == "generations"

    @property
    def descriptor(self) -> str:
        """The kind of descriptor that it is; empty if it is none that can be told by its name."""
        folder = self.key.partition("/")[0]
        place = file_layout.kind_of(folder, self.key)
        return _DESCRIPTORS.get(place, "") if self.kind == _FOLDERS.get(place) else ""


@dataclass
class Plan:
    """The files of an experiment, in steps: those of a step may be copied in any order, and refer to earlier ones only.

    Parameters
    ----------
    generation : Generation or None
        The version that is copied.
    meta : bytes or None
        The mark of the folder.
    steps : list of list of Item
        Bytes first, then what refers to them, the generation last.
    """

    generation: Generation | None = None
    meta: bytes | None = None
    steps: list[list[Item]] = field(default_factory=lambda: [[], [], [], []])

    @property
    def items(self) -> list[Item]:
        """All files."""
        return [item for step in self.steps for item in step]


def plan_experiment(storage: Storage, id_experiment: str, wanted: Selection) -> Plan:
    """Return what is to be copied of an experiment.

    Raises
    ------
    ExperimentNotFoundError
        If there is none.
    CorruptRecordError
        If its generation cannot be read.
    """
    folder = layout.folder_of(id_experiment)
    current = generations.current(storage, folder)
    plan = Plan(generation=current)
    stats = list(storage.list(folder))
    by_key = {stat.key: stat for stat in stats}
    references = {one.key: one for one in (*current.records, *current.blobs)} if current else {}
    is_living = current is not None and not current.deleted
    if not is_living and not any(key.startswith(f"{folder}/runs/") and key.endswith(".json") for key in by_key):
        raise ExperimentNotFoundError(
            f"No experiment with id {id_experiment!r:.80} is in {storage.url}, so nothing was copied. Use "
            "list_experiments() to see what is there."
        )
    if layout.meta_key(folder) in by_key:
        plan.meta = storage.read(layout.meta_key(folder))
    in_singles = _in_singles(storage, folder)
    for stat in stats:
        _sort(plan, stat, folder, references, in_singles, wanted)
    for reference in references.values():  # what is gone is told when it is copied
        if reference.key not in by_key and f"{reference.key}.remote" not in by_key:
            plan.steps[0].append(Item(reference.key, reference.size, "blobs", reference))
    return plan


def _in_singles(storage: Storage, folder: str) -> set[str]:
    """Return the keys of blobs that single records refer to; one that cannot be read is told when it is copied."""
    found = single_records.unfolded(storage, folder, (), on_corrupt=lambda error: None)
    return {one.key for single in found if single.body is not None for one in found_in.in_tagged(single.body)}


def _sort(
    plan: Plan,
    stat: Stat,
    folder: str,
    references: dict[str, Reference],
    in_singles: set[str],
    wanted: Selection,
) -> None:
    rest = stat.key[len(folder) + 1 :]
    first = rest.partition("/")[0]
    number = layout.generation_number(folder, stat.key)
    if rest == layout.META:
        return
    if number is not None:
        is_current = plan.generation is not None and number == plan.generation.number
        if stat.size:  # an empty one is a commit that never was
            plan.steps[GENERATION if is_current else GENERATION + 1].append(Item(stat.key, stat.size, "generations"))
    elif _BLOB.fullmatch(blob_of(rest)) or _RECORDS.fullmatch(rest):
        # A blob that nothing refers to is an orphan, or somebody's work in progress.
        key = blob_of(stat.key)
        if key in references or key in in_singles:
            reference = references.get(key) if key == stat.key else None
            kind = "others" if rest.endswith(".jsonl") else "blobs"
            plan.steps[0].append(Item(stat.key, stat.size, kind, reference))
    elif first == "runs" and rest.endswith(".json"):
        plan.steps[1].append(Item(stat.key, stat.size, "runs"))
    elif first == "artifacts":
        if wanted.artifacts:
            if "/_manifest/" in rest:
                plan.steps[1].append(Item(stat.key, stat.size, "artifacts"))
            else:
                is_fresh = file_layout.entry_of(folder, stat.key) is not None
                plan.steps[0].append(Item(stat.key, stat.size, "others", is_fresh=is_fresh))
    elif wanted.takes(kind := _FOLDERS.get(first, "others")):
        plan.steps[0].append(Item(stat.key, stat.size, kind))


def unclaimed(storage: Storage, id_experiment: str, run_ids: Iterable[str], wanted: Selection) -> list[str]:
    """Return the keys of what is put beside run records and belongs to none of these runs, sorted."""
    folder = layout.folder_of(id_experiment)
    logs, keys, places = [], set(), []
    for run_id in run_ids:
        logs.append(file_layout.logs_prefix(folder, run_id))
        keys.add(file_layout.derived_key(folder, run_id))
        places += [f"{place}/" for place in file_layout.run_folders(folder, run_id)]
    own = (*logs, *places)
    found = []
    for stat in storage.list(folder):
        kind = stat.key[len(folder) + 1 :].partition("/")[0]
        is_beside = kind in ("artifacts", "derived", "logs", "results") and wanted.takes(kind)
        if is_beside and stat.key not in keys and not stat.key.startswith(own):
            found.append(stat.key)
    return sorted(found)


def left_of_deleted(source: Storage, target: Storage, id_experiment: str, wanted: Selection) -> list[str]:
    """Return the keys of what the target has beside runs that were deleted at the source; entries before bytes."""
    folder = layout.folder_of(id_experiment)
    gone = [one.id_run for one in single_records.all_of(source, folder) if one.body is None]
    if not gone:
        return []
    there = {stat.key for stat in source.list(folder)}
    kept = set(unclaimed(target, id_experiment, gone, wanted))
    beside = set(unclaimed(target, id_experiment, (), wanted))
    return sorted(beside - kept - there, key=lambda key: (not key.endswith(".json"), key))


def plan_rest(storage: Storage) -> list[list[Item]]:
    """Return what a store has beside experiments: saved artifacts, and folders of the user's own."""
    first: list[Item] = []
    last: list[Item] = []
    for folder in [layout.ARTIFACTS, *_own_folders(storage)]:
        for stat in storage.list(folder):
            # A version of a saved artifact is there when its file is.
            is_commit = folder == layout.ARTIFACTS and "/versions/" in stat.key
            (last if is_commit else first).append(Item(stat.key, stat.size, "others"))
    return [first, last]


def _own_folders(storage: Storage) -> Iterable[str]:
    return [name for name in layout.experiment_folders(storage) if not storage.exists(layout.meta_key(name))]
