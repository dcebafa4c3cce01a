"""Generations: the committed versions of an experiment.  Creating generation n+1 *is* the commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mltraq_ds.errors import CorruptRecordError, KeyMissingError
from mltraq_ds.ids import validate_key
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, layout

__all__ = ["Generation", "Ident", "Replaced", "TornGeneration", "current", "numbers", "read"]


#: Number and writer of a generation; (0, "") is none.
Ident = tuple[int, str]


class Replaced(NamedTuple):
    """The end of another experiment, pinned to the version that was seen: a later one is not meant."""

    id_experiment: str
    number: int
    writer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One committed version of an experiment.

    Parameters
    ----------
    id_experiment, name : str
        Of the experiment.
    number : int
        1, 2, …; never given twice.
    writer : str
        Random id of the writer: after a lost response it tells our own commit from another's, and it tells this
        generation from one of the same number in another life of the same id.
    parent : int
        The generation this one was made from, 0 for none.
    parent_writer : str
        The writer of that one.
    records : tuple of Reference
        Record files (the digest is that of the whole file).
    blobs : tuple of Reference
        Every blob that this version refers to, once each, without fragments.
    folds : tuple of str
        Put ids of the single records that this version has taken in.
    replaces : tuple of Replaced
        Experiments that count as deleted since this commit.
    deleted : bool
        Whether this version is the end of the experiment.
    retires : tuple of str
        Keys of the files that ended with the experiment, if `deleted`.
    fences : str
        Id of a writer that was taken for dead and whose number this generation takes, so that it can no longer commit.
        Everything else is as in the parent.
    created : str
        ISO 8601, for people.
    """

    id_experiment: str
    name: str
    number: int
    writer: str
    parent: int = 0
    parent_writer: str = ""
    records: tuple[Reference, ...] = ()
    blobs: tuple[Reference, ...] = ()
    folds: tuple[str, ...] = ()
    replaces: tuple[Replaced, ...] = ()
    deleted: bool = False
    retires: tuple[str, ...] = ()
    fences: str = ""
    created: str = field(default_factory=layout.now_text)

    def to_bytes(self) -> bytes:
        """Return the bytes of the generation file."""
        body: dict[str, Any] = {
            "id_experiment": self.id_experiment,
            "name": self.name,
            "generation": self.number,
            "parent": self.parent,
            "parent_writer": self.parent_writer,
            "writer": self.writer,
            "created": self.created,
            "deleted": self.deleted,
            "retires": list(self.retires),
            "fences": self.fences,
            "replaces": [list(replaced) for replaced in self.replaces],
            "folds": list(self.folds),
            "records": [reference.to_list() for reference in self.records],
            "blobs": [reference.to_list() for reference in self.blobs],
        }
        return descriptors.to_bytes("generation", body)

    @property
    def ident(self) -> Ident:
        """Number and writer."""
        return (self.number, self.writer)

    @property
    def parent_ident(self) -> Ident:
        """Number and writer of the parent."""
        return (self.parent, self.parent_writer)

    def stands_on(self, base: Ident) -> bool:
        """Tell whether the content is that of generation `base`: it is that one, or a fence put on top of it."""
        return self.ident == base or (self.fences != "" and self.parent_ident == base)

    @property
    def keys(self) -> set[str]:
        """All keys that this version refers to."""
        return {reference.key for reference in (*self.records, *self.blobs)}


def _parse(data: bytes, key: str, folder: str, number: int) -> Generation:
    body = descriptors.from_bytes(data, "generation", key)
    try:
        generation = Generation(
            id_experiment=_text(body["id_experiment"]),
            name=_text(body["name"]),
            number=int(body["generation"]),
            parent=int(body["parent"]),
            writer=_text(body["writer"]),
            created=_text(body["created"]),
            deleted=body["deleted"] is True,
            replaces=tuple(
                Replaced(_text(id_), int(number), _text(writer)) for id_, number, writer in body["replaces"]
            ),
            retires=tuple(validate_key(_text(key), "key in a generation") for key in body["retires"]),
            fences=_text(body["fences"]),
            parent_writer=_text(body["parent_writer"]),
            folds=tuple(map(_text, body["folds"])),
            records=tuple(map(Reference.from_list, body["records"])),
            blobs=tuple(map(Reference.from_list, body["blobs"])),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptRecordError(f"{key} cannot be read: {error!r:.80}. Restore it from a copy.") from error
    if generation.number != number or layout.folder_of(generation.id_experiment) != folder:
        raise CorruptRecordError(
            f"{key} belongs to generation {generation.number} of experiment {generation.id_experiment!r}, so it was "
            "moved here from elsewhere. Move it back."
        )
    if any(not key.startswith(f"{folder}/") for key in (*generation.keys, *generation.retires)):
        raise CorruptRecordError(f"{key} refers to files of another experiment. Restore it from a copy.")
    return generation


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a string")
    return value


def check_readable(generation: Generation, data: bytes) -> None:
    """Refuse what no reader would accept, before it becomes the current version.

    Raises
    ------
    CorruptRecordError
        If it cannot be read back, or reads otherwise.  Nothing was committed.
    """
    folder = layout.folder_of(generation.id_experiment)
    key = layout.generation_key(folder, generation.number)
    try:
        is_same = _parse(data, key, folder, generation.number) == generation
        reason = "it would read otherwise"
    except CorruptRecordError as error:
        is_same, reason = False, str(error)
    if not is_same:
        raise CorruptRecordError(
            f"Generation {generation.number} of experiment {generation.name!r} was not committed because it could not "
            f"be read back: {reason} A damaged blob may refer to what is not there; 'mltraq-ds check' lists such."
        )


class TornGeneration(CorruptRecordError):  # noqa: N818 - an answer inside this package
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
    data = storage.read(key, max_size=descriptors.MAX_SIZE)
    if not data:
        raise TornGeneration(f"{key} is empty: a commit was killed there. Nothing was lost; sweep removes it.")
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
        except TornGeneration:
            continue
        except KeyMissingError:
            continue  # pruned or deleted since it was listed
    return None


def last_in(storage: Storage, place: str) -> Generation | None:
    """Return the highest generation in a folder that was renamed, whatever experiment it is of; None if there is none.

    Raises
    ------
    CorruptRecordError
        If it does not verify: then nobody can tell whether the experiment has ended.
    """
    for number in numbers(storage, place):
        key = layout.generation_key(place, number)
        try:
            data = storage.read(key, max_size=descriptors.MAX_SIZE)
        except KeyMissingError:
            continue  # somebody else is removing the folder, the end last
        if data:
            body = descriptors.from_bytes(data, "generation", key)
            return _parse(data, key, layout.folder_of(str(body.get("id_experiment"))), number)
    return None


def _climb(storage: Storage, folder: str, generation: Generation) -> Generation:
    for number in _from(generation.number + 1):
        try:
            generation = read(storage, folder, number)
        except KeyMissingError:
            return generation
        except TornGeneration:
            continue  # it never was current; the next writer takes the number after it
    raise AssertionError("unreachable")


def _from(number: int) -> Iterator[int]:
    while True:
        yield number
        number += 1
