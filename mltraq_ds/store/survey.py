"""Survey: what lies in a store, from one listing, sorted by what it is.

Reads no file but intents, and records in a folder without a mark.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from mltraq_ds.errors import InvalidNameError, KeyMissingError, MltraqDSError
from mltraq_ds.ids import validate_key
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.storage.pointer import SUFFIX, blob_of
from mltraq_ds.store import intents, layout, single_records
from mltraq_ds.store.intents import Intent

__all__ = [
    "Folder",
    "Intents",
    "Pending",
    "Survey",
    "is_being_written",
    "is_valid",
    "may_be_of_a_writer",
    "read_intents",
    "read_pending",
    "seems_alive",
    "survey",
]

_MOMENT_S = 5.0
_BLOB = re.compile(r"[0-9a-f]{32}")
_RECORDS = re.compile(r"runs/[0-9a-f]{32}\.jsonl")
_SINGLE = re.compile(r"runs/[^/]+\.json")
_MOVED = re.compile(r"deleted-[^/]+")
_SEEN = re.compile(r"index-[0-9a-f]{16}\.seen")
_MARK = re.compile(r"([^/]+)\.(?:fenced|lease|probe)")


def is_being_written(stat: Stat, now: float) -> bool:
    """Tell whether an unfinished write may be that of an intent: a moment old, and nothing else announces it."""
    return stat.key.startswith(f"{layout.PENDING}/") and now - stat.modified < _MOMENT_S


def may_be_of_a_writer(stat: Stat, at_work: Collection[str]) -> bool:
    """Tell whether an unfinished write may be that of a writer at work; `at_work` are the folders of all of them.

    Beside its own folder a writer touches two places: the intents, and the generations of what it replaces.
    """
    folder, _, rest = stat.key.partition("/")
    return folder in at_work or (bool(at_work) and (folder == layout.PENDING or rest.startswith("generations/")))


def is_valid(key: str) -> bool:
    """Tell whether a listed name may be used as a key; foreign files are listed whatever their name."""
    try:
        validate_key(key)
    except InvalidNameError:
        return False
    return True


@dataclass
class Folder:
    """The files of one folder at the root, as far as they are ours.

    Parameters
    ----------
    name : str
        The folder.
    stats : list of Stat
        All files in it, as listed.

    Attributes
    ----------
    blobs, pointers : dict
        By the key of the blob.
    beside : list of Stat
        What is put there beside persist: artifacts, logs …
    has_records : bool
        Whether there is no mark, but a record that was put alone.
    """

    name: str
    stats: list[Stat]
    meta: Stat | None = field(default=None, init=False)
    generations: dict[int, Stat] = field(default_factory=dict, init=False)
    blobs: dict[str, Stat] = field(default_factory=dict, init=False)
    pointers: dict[str, Stat] = field(default_factory=dict, init=False)
    records: dict[str, Stat] = field(default_factory=dict, init=False)
    singles: dict[str, Stat] = field(default_factory=dict, init=False)
    beside: list[Stat] = field(default_factory=list, init=False)
    foreign: list[Stat] = field(default_factory=list, init=False)
    has_records: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        skip = len(self.name) + 1
        for stat in self.stats:
            rest = stat.key[skip:]
            if _BLOB.fullmatch(rest):
                self.blobs[stat.key] = stat
            elif rest.endswith(SUFFIX) and _BLOB.fullmatch(blob_of(rest)):
                self.pointers[blob_of(stat.key)] = stat
            elif _RECORDS.fullmatch(rest):
                self.records[stat.key] = stat
            elif rest == layout.META:
                self.meta = stat
            elif number := layout.generation_number(self.name, stat.key):
                self.generations[number] = stat
            elif _SINGLE.fullmatch(rest) and is_valid(stat.key):
                self.singles[stat.key] = stat
            elif rest.partition("/")[0] in layout.BESIDE and is_valid(stat.key):
                self.beside.append(stat)
            else:
                self.foreign.append(stat)

    @property
    def is_marked(self) -> bool:
        """Whether it is managed, as far as its files say; an intent may say so too."""
        return self.meta is not None or bool(self.generations) or self.has_records

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes (bytes)."""
        return sum(stat.size for stat in self.stats)


@dataclass(frozen=True)
class Survey:
    """What a store holds.

    Parameters
    ----------
    now : float
        Time on the storage's clock, before anything was listed (s since 1970).
    files : list of Stat
        What lies directly at the root.
    folders : dict
        The folders at the root that may hold an experiment, the user's own among them.
    artifacts, pending : list of Stat
        What lies in the reserved folders.
    unfinished : list of Stat
        Temporary files of writes that were killed, or are going on.
    """

    now: float
    files: list[Stat]
    folders: dict[str, Folder]
    artifacts: list[Stat]
    pending: list[Stat]
    unfinished: list[Stat]


def survey(storage: Storage) -> Survey:
    """List a store once and sort what is there."""
    now = storage.now()
    unfinished = list(storage.list_unfinished())
    files: list[Stat] = []
    folders: dict[str, list[Stat]] = {}
    for stat in storage.list():
        first, _, rest = stat.key.partition("/")
        if not rest or (first.startswith("_") and first != layout.PENDING):
            files.append(stat)
        else:
            folders.setdefault(first, []).append(stat)
    pending, artifacts = folders.pop(layout.PENDING, []), folders.pop(layout.ARTIFACTS, [])
    sorted_folders = {name: Folder(name, folders[name]) for name in sorted(folders)}
    for folder in sorted_folders.values():
        folder.has_records = not folder.is_marked and _has_record(storage, folder)
    return Survey(now, files, sorted_folders, artifacts, pending, unfinished)


def _has_record(storage: Storage, folder: Folder) -> bool:
    """Tell whether a folder without a mark has a record that was put alone: somebody who was to mark it has died."""
    for key in folder.singles:
        with suppress(MltraqDSError):
            if single_records.read(storage, key) is not None:
                return True
    return False


@dataclass(frozen=True)
class Intents:
    """All intents of a store at one moment, and what keeps others from being read."""

    found: list[Intent]
    unreadable: dict[str, MltraqDSError]

    def by_folder(self) -> dict[str, list[Intent]]:
        """Return the intents by the folder that they protect."""
        folders: dict[str, list[Intent]] = {}
        for intent in self.found:
            folder = layout.ARTIFACTS if intent.is_of_artifact else layout.folder_of(intent.id_experiment)
            folders.setdefault(folder, []).append(intent)
        return folders


def read_intents(storage: Storage, pending: Iterable[Stat] | None = None) -> Intents:
    """Read all intents, or those among `pending`; one that disappears meanwhile has been finished."""
    found, unreadable = [], {}
    for stat in storage.list(layout.PENDING) if pending is None else pending:
        if stat.key.endswith(".json") and stat.key.count("/") == 1 and is_valid(stat.key):
            try:
                found.append(intents.read_intent(storage, stat.key))
            except KeyMissingError:
                continue
            except MltraqDSError as error:
                unreadable[stat.key] = error
    return Intents(found, unreadable)


def seems_alive(storage: Storage, intent: Intent) -> bool:
    """Tell whether a writer is at work; one that cannot be asked for is."""
    try:
        return intents.is_alive(storage, intent)
    except OSError:
        return True


@dataclass
class Pending:
    """What lies beside the intents: marks by the part of their name that they belong to, and folders renamed away.

    `seen` are the notes of indexes, which marks of others they have met.
    """

    marks: list[tuple[str, Stat]] = field(default_factory=list)
    seen: list[Stat] = field(default_factory=list)
    moved: dict[str, list[Stat]] = field(default_factory=dict)
    foreign: list[Stat] = field(default_factory=list)


def read_pending(stats: Iterable[Stat]) -> Pending:
    """Sort what lies in `_pending`, without the intents."""
    found = Pending()
    for stat in stats:
        first, _, inside = stat.key.partition("/")[2].partition("/")
        if inside and _MOVED.fullmatch(first) and is_valid(f"{layout.PENDING}/{first}"):
            found.moved.setdefault(f"{layout.PENDING}/{first}", []).append(stat)
        elif not inside and (mark := _MARK.fullmatch(first)) and is_valid(stat.key):
            found.marks.append((mark.group(1), stat))
        elif not inside and _SEEN.fullmatch(first):
            found.seen.append(stat)
        elif inside or not first.endswith((".json", ".behind", ".seen")):  # the latter are those of `index_marks`
            found.foreign.append(stat)
    return found
