"""Generations: the committed versions of an experiment.  Creating generation n+1 *is* the commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mltraq_ds.errors import CorruptRecordError, KeyMissingError
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, layout

__all__ = ["Generation", "current", "numbers", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One committed version of an experiment.

    Parameters
    ----------
    id_experiment, name : str
        Of the experiment.
    number : int
        1, 2, …; never given twice.
    parent : int
        The generation this one was made from, 0 for none.
    writer : str
        Random id of the writer: after a lost response it tells our own commit from another's.
    records : tuple of Reference
        Record files (the digest is that of the whole file).
    blobs : tuple of Reference
        Every blob that this version refers to, once each, without fragments.
    folds : tuple of str
        Put ids of the single records that this version has taken in.
    replaces : tuple of str
        Ids of experiments that count as deleted since this commit.
    deleted : bool
        Whether this version is the end of the experiment.
    created : str
        ISO 8601, for people.
    """

    id_experiment: str
    name: str
    number: int
    writer: str
    parent: int = 0
    records: tuple[Reference, ...] = ()
    blobs: tuple[Reference, ...] = ()
    folds: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    deleted: bool = False
    created: str = field(default_factory=layout.now_text)

    def dump(self) -> bytes:
        """Return the bytes of the generation file."""
        body: dict[str, Any] = {
            "id_experiment": self.id_experiment,
            "name": self.name,
            "generation": self.number,
            "parent": self.parent,
            "writer": self.writer,
            "created": self.created,
            "deleted": self.deleted,
            "replaces": list(self.replaces),
            "folds": list(self.folds),
            "records": [reference.to_list() for reference in self.records],
            "blobs": [reference.to_list() for reference in self.blobs],
        }
        return descriptors.dump("generation", body)

    @property
    def keys(self) -> set[str]:
        """All keys that this version refers to."""
        return {reference.key for reference in (*self.records, *self.blobs)}


def _parse(data: bytes, key: str, folder: str, number: int) -> Generation:
    body = descriptors.load(data, "generation", key)
    try:
        generation = Generation(
            id_experiment=_text(body["id_experiment"]),
            name=_text(body["name"]),
            number=int(body["generation"]),
            parent=int(body["parent"]),
            writer=_text(body["writer"]),
            created=_text(body["created"]),
            deleted=body["deleted"] is True,
            replaces=tuple(map(_text, body["replaces"])),
            folds=tuple(map(_text, body["folds"])),
            records=tuple(map(Reference.from_list, body["records"])),
            blobs=tuple(map(Reference.from_list, body["blobs"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptRecordError(f"{key} cannot be read: {error!r:.80}. Restore it from a copy.") from error
    if generation.number != number or layout.folder_of(generation.id_experiment) != folder:
        raise CorruptRecordError(
            f"{key} belongs to generation {generation.number} of experiment {generation.id_experiment!r}, so it was "
            "moved here from elsewhere. Move it back."
        )
    if any(not reference.key.startswith(f"{folder}/") for reference in (*generation.records, *generation.blobs)):
        raise CorruptRecordError(f"{key} refers to files of another experiment. Restore it from a copy.")
    return generation


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a string")
    return value


class TornGenerationError(CorruptRecordError):
    """A commit was killed between claiming its number and publishing its content; it never was current."""


def read(storage: Storage, folder: str, number: int) -> Generation:
    """Read one generation.

    Raises
    ------
    KeyMissingError
        If there is none of that number.
    CorruptRecordError
        If it does not verify.
    """
    key = layout.generation_key(folder, number)
    data = storage.read(key)
    if not data:
        raise TornGenerationError(f"{key} is empty: a commit was killed there. Nothing was lost; sweep removes it.")
    return _parse(data, key, folder, number)


def numbers(storage: Storage, folder: str) -> list[int]:
    """Return the numbers of all generation files, torn ones included, highest first."""
    found = (layout.generation_number(folder, stat.key) for stat in storage.list(f"{folder}/generations"))
    return sorted((number for number in found if number is not None), reverse=True)


def current(storage: Storage, folder: str, at_least: int = 0) -> Generation | None:
    """Return the current generation: the highest that was wholly written; None if there is none at all.

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : str
        Of the experiment.
    at_least : int
        A number known to exist, from the index: then one look whether the next exists replaces a listing.

    Raises
    ------
    CorruptRecordError
        If the highest does not verify.  An older one is not served in its place.  Only an empty file is passed over:
        where there are no hard links, a commit claims its name first, and being killed then leaves that.
    """
    if at_least:
        try:
            return _climb(storage, folder, read(storage, folder, at_least))
        except KeyMissingError:
            pass  # the index is ahead of or beside the files, which are the truth: list them
    for number in numbers(storage, folder):
        try:
            return read(storage, folder, number)
        except TornGenerationError:
            continue
        except KeyMissingError:
            continue  # pruned or deleted since it was listed
    return None


def _climb(storage: Storage, folder: str, generation: Generation) -> Generation:
    for number in _from(generation.number + 1):
        try:
            generation = read(storage, folder, number)
        except KeyMissingError:
            return generation
    raise AssertionError("unreachable")


def _from(number: int) -> Iterator[int]:
    while True:
        yield number
        number += 1
