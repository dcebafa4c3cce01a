"""Shelves: the files of saved artifacts, sorted by artifact and by what they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mltraq_ds.storage.base import Stat
from mltraq_ds.store import layout, versions
from mltraq_ds.store.intents import Intent

__all__ = ["Shelf", "at_work", "shelves_in"]

_BLOB = re.compile(r"[0-9a-f]{32}")


@dataclass
class Shelf:
    """The files of one artifact."""

    folder: str
    stats: list[Stat] = field(default_factory=list)
    blobs: dict[str, Stat] = field(default_factory=dict)
    versions: dict[int, Stat] = field(default_factory=dict)
    meta: Stat | None = None
    foreign: list[Stat] = field(default_factory=list)

    def add(self, stat: Stat) -> None:
        """Sort in one file."""
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
        """Whether it is an artifact, and not a folder of the user's."""
        return self.meta is not None or bool(self.versions)


def shelves_in(stats: Iterable[Stat]) -> list[Shelf]:
    """Return the artifacts that listed files belong to, sorted."""
    shelves: dict[str, Shelf] = {}
    for stat in stats:
        folder = "/".join(stat.key.split("/")[:2])
        shelves.setdefault(folder, Shelf(folder)).add(stat)
    return [shelves[folder] for folder in sorted(shelves)]


def at_work(writers: Iterable[Intent]) -> set[str]:
    """Return the folders of the artifacts that writers are at work on."""
    return {layout.artifact_folder(intent.name) for intent in writers if intent.is_of_artifact}
