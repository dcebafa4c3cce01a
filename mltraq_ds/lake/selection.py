"""Selection: which blobs of a store are meant.  Keys name fields, slices count runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mltraq_ds.errors import DanglingReferenceError, NotFoundError, UsageError
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout, reading, references
from mltraq_ds.store.generations import Generation

__all__ = ["Selected", "Selection", "blobs_of", "require_store"]


@dataclass(frozen=True)
class Selected:
    """The blobs of one experiment that are meant.

    Parameters
    ----------
    generation : Generation
        The version that was read.
    blobs : list of Reference
        In the order of the generation.
    """

    generation: Generation
    blobs: list[Reference]

    @property
    def folder(self) -> str:
        """Folder of the experiment."""
        return layout.folder_of(self.generation.id_experiment)


@dataclass(frozen=True)
class Selection:
    """Which blobs are meant; without arguments all of them.

    Parameters
    ----------
    keys : tuple of str
        Names of fields, of runs and of experiments; empty for all.
    start, stop, step : int or None
        A slice of the runs, counted through the whole store: experiments in the order of their folders, runs in that
        of their records.  An experiment without a run counts as one, and its own fields belong to its first run.
    """

    keys: tuple[str, ...] = ()
    start: int = 0
    stop: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop < 0) or self.step < 1:
            raise UsageError(
                f"The slice {self.start}:{self.stop}:{self.step} is refused: start and stop are not negative, and step "
                "is at least 1."
            )

    @classmethod
    def of(cls, keys: Iterable[str] | str | None, start: int, stop: int | None, step: int) -> Selection:
        """Return the selection that the arguments of a command mean."""
        return cls((keys,) if isinstance(keys, str) else tuple(keys or ()), start, stop, step)

    def read(self, storage: Storage) -> list[Selected]:
        """Read all experiments of a store and choose their blobs.

        Raises
        ------
        NotFoundError
            If a key is no field of any experiment or run.
        DamageError, FormatError
            If a generation or record cannot be read.
        """
        if self == Selection():
            return [Selected(one, list(one.blobs)) for one in _living(storage)]
        place = itertools.count()
        found: list[Selected] = []
        known: set[str] = set()
        for folder in layout.experiment_folders(storage):
            loaded = _read(storage, folder)
            if loaded is None:
                continue
            generation, head, bodies = loaded
            wanted: set[str] = set()
            for mapping in _by_run(head, bodies):
                known.update(mapping)
                if self._has(next(place)):
                    wanted |= {reference.key for reference in self._references(mapping)}
            found.append(Selected(generation, [blob for blob in generation.blobs if blob.key in wanted]))
        if unknown := set(self.keys) - known:
            raise NotFoundError(
                f"{storage.url} has no field named {', '.join(map(repr, sorted(unknown)))}. It has "
                f"{', '.join(sorted(known)) or 'none'}."
            )
        return found

    def read_run(self, storage: Storage, id_experiment: str, id_run: str) -> Selected:
        """Choose the blobs of one run.

        Raises
        ------
        NotFoundError
            If the run has not been persisted.
        """
        loaded = _read(storage, layout.folder_of(id_experiment))
        if loaded is not None:
            generation, _, bodies = loaded
            for values in _by_run({"fields": {}}, [body for body in bodies if body.get("id_run") == id_run]):
                wanted = {reference.key for reference in self._references(values)}
                if wanted or any(body.get("id_run") == id_run for body in bodies):
                    return Selected(generation, [blob for blob in generation.blobs if blob.key in wanted])
        raise NotFoundError(
            f"Run {id_run} of experiment {id_experiment} is not in {storage.url}: there is nothing to upload. Persist "
            "the experiment first."
        )

    def _has(self, position: int) -> bool:
        is_inside = position >= self.start and (self.stop is None or position < self.stop)
        return is_inside and (position - self.start) % self.step == 0

    def _references(self, mapping: Mapping[str, list[Any]]) -> Iterator[Reference]:
        for name, values in mapping.items():
            if not self.keys or name in self.keys:
                yield from references.in_tagged(values)


def blobs_of(storage: Storage, folder: str) -> tuple[Reference, ...]:
    """Return the blobs of the current version of an experiment; none if there is none, or it has ended.

    Raises
    ------
    DamageError, FormatError
        If it cannot be read.
    """
    generation = generations.current(storage, folder)
    return () if generation is None or generation.deleted else generation.blobs


def _living(storage: Storage) -> Iterator[Generation]:
    for folder in layout.experiment_folders(storage):
        generation = generations.current(storage, folder)
        if generation is not None and not generation.deleted:
            yield generation


def _read(storage: Storage, folder: str) -> tuple[Generation, dict[str, Any], list[dict[str, Any]]] | None:
    """Return the current version of an experiment and its records; None if there is none, or it has ended."""
    while True:
        generation = generations.current(storage, folder)
        if generation is None or generation.deleted:
            return None
        try:
            parts = [references.in_record(data, key)[:2] for key, data in reading.read_records(storage, generation)]
        except DanglingReferenceError:
            now = generations.current(storage, folder)
            if now is not None and now.ident == generation.ident:
                raise
            continue  # persisted between the two reads
        return generation, parts[0][0] if parts else {"fields": {}}, [body for _, bodies in parts for body in bodies]


def _by_run(head: dict[str, Any], bodies: list[dict[str, Any]]) -> Iterator[dict[str, list[Any]]]:
    """Yield the values of each run by name; those of the experiment itself are with the first."""
    of_experiment = [head["fields"]]
    for body in bodies or [{}]:
        values: dict[str, list[Any]] = {}
        for mapping in (*of_experiment, *(body.get(name) or {} for name in ("params", "config", "fields"))):
            for name, value in mapping.items():
                values.setdefault(name, []).append(value)
        yield values
        of_experiment = []


def require_store(storage: Storage) -> None:
    """Raise `NotFoundError` if there is no store."""
    if layout.read_store_id(storage) is None:
        raise NotFoundError(f"There is no store at {storage.url}: it has no {layout.STORE}. Look at the URL.")
