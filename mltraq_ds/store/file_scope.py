"""Scope: the experiment, or the collection, that a FileStore is about; and how its files are written and read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from mltraq_ds.errors import CorruptRecordError, DamageError, KeyExistsError, KeyMissingError, UsageError
from mltraq_ds.storage.base import Buffer, Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import collection, descriptors, generations, layout
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.intents import DONE, Intent
from mltraq_ds.store.no_place import refuse_file
from mltraq_ds.store.retire import remove_files
from mltraq_ds.store.run_mapping import check_text

__all__ = ["FileScope"]


class FileScope:
    """Where the files of an experiment are.  Nothing is made before the first write; safe in threads and processes.

    Parameters
    ----------
    storage : Storage
        Of the collection's root.
    experiment_id : str or None
        The experiment that it is scoped to; None for the collection.
    root : str
        Path or URL of the root, as given, for people.
    """

    def __init__(self, storage: Storage, *, experiment_id: str | None = None, root: str = "") -> None:
        self.storage = storage
        self.experiment_id = None if experiment_id is None else check_text(experiment_id, "id of the experiment")
        self.root = root or storage.url
        self._looked: list[bool] = []  # shared with the stores of its experiments

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.storage.url!r}, experiment_id={self.experiment_id!r})"

    @property
    def is_scoped(self) -> bool:
        """Whether it is about one experiment."""
        return self.experiment_id is not None

    def scoped(self, experiment_id: str) -> Self:
        """Return the store of one experiment of this collection, which need not exist yet.

        Raises
        ------
        UsageError
            If this store is about one experiment already.
        """
        if self.experiment_id is not None:
            raise UsageError(
                f"A store scoped to {self.experiment_id!r:.80} cannot be scoped to {experiment_id!r:.80}. Use the "
                "store "
                "of the collection."
            )
        scoped = type(self)(self.storage, experiment_id=experiment_id, root=self.root)
        scoped._looked = self._looked
        return scoped

    def for_experiment(self, experiment_id: str) -> Self:
        """Return the store of one experiment of this collection, as `scoped`."""
        return self.scoped(experiment_id)

    def list_experiments(self) -> list[str]:
        """Return the ids of all experiments of the collection, sorted: persisted ones and those known by records only.

        Raises
        ------
        UsageError
            If this store is about one experiment.
        CorruptRecordError
            If what is in a folder cannot be told.
        """
        if self.experiment_id is not None:
            raise UsageError(
                f"list_experiments() is about a collection, and this store is scoped to {self.experiment_id!r:.80}. "
                "Use "
                "the store of the collection."
            )
        self._look()
        return sorted(collection.experiments(self.storage))

    def get_working_directory(self) -> Path:
        """Return the folder of the experiment, or of the collection; it may not exist yet.

        Raises
        ------
        UsageError
            If the files are in no folder of this machine.
        """
        return self._path(layout.folder_of(self.experiment_id) if self.experiment_id is not None else "")

    def _path(self, key: str) -> Path:
        if not self.storage.is_local:
            raise UsageError(
                f"The files of {self.storage.url} are in no folder of this machine, so they have no path. Use the "
                "verbs of the store, such as get_log() and open_artifact()."
            )
        return Path(path_from(self.storage.url)) / key

    @property
    def _id(self) -> str:
        if self.experiment_id is None:
            raise UsageError(
                f"The store {self.storage.url} is a collection, and this is about one experiment. Use "
                "store.scoped(experiment_id) first."
            )
        return self.experiment_id

    @property
    def _folder(self) -> str:
        self._look()
        return layout.folder_of(self._id)

    def _look(self) -> None:
        """Look once whether the store can be read: not one of a newer version, or one that has moved away."""
        if not self._looked:
            with suppress(DamageError):  # a store without its id has all the rest; check tells of it
                if layout.read_store_id(self.storage) is None:
                    refuse_file(self.storage)
            self._looked.append(True)

    def _current(self) -> Generation | None:
        return generations.current(self.storage, self._folder)

    def _write(self, put: Callable[[], str]) -> None:
        """Call `put`, which puts files and returns the key of the last, until they are in a living folder."""
        self._prepare()
        while True:
            with suppress(KeyMissingError):  # the folder was renamed away just now: the experiment was deleted
                if self._is_settled(put()):
                    return
            self._prepare()

    def _prepare(self) -> None:
        layout.store_id(self.storage)
        self._finish_end()
        self._mark()

    def _is_settled(self, key: str) -> bool:
        """Look again: an experiment that is being deleted takes everything along, and a mark may just have gone."""
        if self._finish_end():
            return False
        self._mark()
        layout.refuse_moved(self.storage)
        return not self.storage.is_local or self._is_there(key)

    def _is_there(self, key: str) -> bool:
        return self.storage.exists(key)

    def _finish_end(self) -> bool:
        """Remove the folder of an experiment that was deleted, where folders are; a new one begins after that."""
        if not self.storage.is_local:
            return False
        end = self._current()
        if end is None or not end.deleted or end.fences:
            return False
        # Whoever ended it was killed, or is about to remove it; who knows the index has to be told that it is gone.
        note = Intent(
            writer=str(uuid.uuid4()),
            action="delete",
            id_experiment=end.id_experiment,
            name=end.name,
            parent=end.parent,
            number=end.number,
            process=DONE,
        )
        self._put(note.key, descriptors.to_bytes("intent", asdict(note)))
        remove_files(self.storage, end)
        return True

    def _mark(self) -> None:
        key = layout.meta_key(self._folder)
        if not self.storage.exists(key):
            data = layout.meta_bytes(self._id, self._id, 0)
            with suppress(KeyExistsError):
                self.storage.put(key, [data], size=len(data), parents=True)

    def _put(self, key: str, data: bytes) -> str:
        buffers: Iterable[Buffer] = [data]
        self.storage.put(key, buffers, size=len(data), replace=True, parents=True)
        return key

    def _put_document(self, kind: str, key: str, body: dict[str, Any]) -> None:
        data = descriptors.to_bytes(kind, body)
        self._write(lambda: self._put(key, data))

    def _read_document(self, kind: str, key: str, **expected: str) -> dict[str, Any] | None:
        """Return what a file says, verified; None if there is none."""
        try:
            body = descriptors.from_bytes(self.storage.read(key, max_size=descriptors.RECORD_SIZE), kind, key)
        except KeyMissingError:
            return None
        for name, value in expected.items():
            if body.get(name) != value:
                raise CorruptRecordError(
                    f"{key} belongs to {name} {body.get(name)!r:.80}, so it was moved here from elsewhere. Move it "
                    "back."
                )
        return body
