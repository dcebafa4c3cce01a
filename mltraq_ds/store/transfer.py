"""Transfer: copy experiments from one store to another, whole and verified."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from mltraq_ds.errors import (
    ConflictError,
    KeyMissingError,
    MltraqDSError,
    NotFoundError,
    TransferError,
    UsageError,
)
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.places import path_from
from mltraq_ds.store import collection, generations, layout
from mltraq_ds.store.config import StoreConfig
from mltraq_ds.store.files import FileStore
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.locator import config_of
from mltraq_ds.store.transfer_copy import announced, check_arrived, copy, put_mark
from mltraq_ds.store.transfer_plan import (
    GENERATION,
    KINDS,
    Item,
    Plan,
    Selection,
    left_of_deleted,
    plan_experiment,
    plan_rest,
)
from mltraq_ds.store.transfer_verbs import transfer_by_verbs

__all__ = ["export_store"]

Progress = Callable[[int, int], None]

_THREADS = 16
_LOOKS = 8


def export_store(
    source: str | os.PathLike[str] | StoreConfig | Any,
    destination: str | os.PathLike[str] | StoreConfig | Any,
    *,
    experiment_id: str | None = None,
    include_derived: bool = True,
    include_logs: bool = True,
    include_results: bool = True,
    include_manifests: bool = True,
    include_artifacts: bool = True,
    overwrite: bool = False,
    progress_callback: Progress | None = None,
    **kwargs: Any,
) -> dict[str, int]:
    """Copy all experiments of a store, or one, to another store of any kind, on any storage.

    Files are copied byte by byte, and each is verified where it has arrived.  Bytes come first, the generation that
    refers to them last: killed at any point, the destination has what it had before, or the whole experiment.  The same
    call goes on where it was interrupted: what is there already is compared, and not copied again.

    Parameters
    ----------
    source, destination : str, path, StoreConfig or store
        Locators, configurations or stores.  The destination need not exist; it gets a store id of its own.
    experiment_id : str, optional
        Only this experiment; by default all of a collection (with saved artifacts and folders of the user's own), or
        the one that the source is scoped to.
    include_derived, include_logs, include_results, include_manifests, include_artifacts : bool
        Whether these are copied too.  Records, generations and blobs always are.
    overwrite : bool
        Replace records, logs and the like that differ, and an older version of an experiment by its newer one; what
        belongs to runs that the source has deleted is removed.
    progress_callback : callable, optional
        Called with how many files are done, and how many there are.
    **kwargs
        Further fields for the configuration of the source, if that is a locator.

    Returns
    -------
    dict
        How many were copied: ``experiments``, ``runs``, ``derived``, ``logs``, ``results``, ``manifests``,
        ``artifacts``, ``blobs``, ``generations``, ``others``, ``files``, ``bytes``.

    Raises
    ------
    ExperimentNotFoundError
        If the source has no such experiment, or none at all.  Nothing was copied.
    UsageError
        If source and destination are the same, or are scoped to different experiments.
    TransferError
        If something could not be copied; the text says what, and how much remains.  What was copied stays, whole.
    """
    wanted = Selection(include_derived, include_logs, include_results, include_manifests, include_artifacts)
    from_store, to_store = connected(source, **kwargs), connected(destination)
    scope = _scope(from_store, to_store, experiment_id)
    if not (isinstance(from_store, FileStore) and isinstance(to_store, FileStore)):
        return transfer_by_verbs(from_store, to_store, scope, wanted, overwrite=overwrite, progress=progress_callback)
    if from_store.storage.url == to_store.storage.url:
        raise UsageError(f"The store {from_store.storage.url} cannot be copied onto itself. Give another destination.")
    _refuse_places(from_store.storage, to_store.storage)
    if (link := getattr(to_store, "link", None)) is not None:
        link.prepare()  # an index that sees a store from its begin knows it whole
    work = _Transfer(from_store.storage, to_store.storage, wanted, overwrite, progress_callback)
    ids = [scope] if scope is not None else sorted(collection.experiments(from_store.storage))
    work.run(ids, with_rest=scope is None, told=partial(_tell, to_store))
    return work.counts


def _refuse_places(source: Storage, destination: Storage) -> None:
    """Refuse a source where there is nothing, as after a mistyped name, and stores inside each other."""
    if layout.read_store_id(source) is None and next(iter(source.list()), None) is None:
        raise NotFoundError(f"Nothing was copied because there is no store at {source.url}. Look at its name.")
    if source.is_local and destination.is_local:
        one, other = (f"{os.path.realpath(path_from(storage.url))}{os.sep}" for storage in (source, destination))
        if one.startswith(other) or other.startswith(one):
            raise UsageError(
                f"The store {source.url} cannot be copied to {destination.url}: one of them is in the other. Give "
                "another destination."
            )


def connected(store: Any, **kwargs: Any) -> Any:
    """Return the store that a locator, a configuration or a store means."""
    is_store = hasattr(store, "put_run_record") and hasattr(store, "list_run_records")
    return store if is_store else config_of(store, **kwargs).connect()


def _scope(source: Any, destination: Any, experiment_id: str | None) -> str | None:
    found = None
    for one in (experiment_id, getattr(source, "experiment_id", None), getattr(destination, "experiment_id", None)):
        if one is not None and found not in (None, one):
            raise UsageError(
                f"Experiment {found!r:.80} cannot be copied by way of a store that is scoped to {one!r:.80}. Leave one "
                "of them out."
            )
        found = one if found is None else found
    return found


def _tell(store: FileStore, id_experiment: str) -> None:
    tell = getattr(store, "tell_experiment", None)
    if tell is not None:
        tell(id_experiment)


class _Transfer:
    """One export between stores of files."""

    def __init__(
        self, source: Storage, target: Storage, wanted: Selection, overwrite: bool, progress: Progress | None
    ) -> None:
        self.source, self.target, self.wanted, self.overwrite = source, target, wanted, overwrite
        self.progress = progress
        self.counts = dict.fromkeys(("experiments", *KINDS, "files", "bytes"), 0)
        self.done = self.total = 0
        self.failed: dict[str, str] = {}

    def run(self, ids: list[str], *, with_rest: bool, told: Callable[[str], None]) -> None:
        """Copy experiments, and with `with_rest` what is beside them.

        Raises
        ------
        TransferError
            If something remains.
        """
        plans = {id_: plan_experiment(self.source, id_, self.wanted) for id_ in ids}
        rest = plan_rest(self.source) if with_rest else []
        self.total = sum(len(plan.items) for plan in plans.values()) + sum(map(len, rest))
        if self.total:
            layout.store_id(self.target)
        threads = 2 if self.source.is_local and self.target.is_local else _THREADS
        with ThreadPoolExecutor(threads) as pool:
            for id_, plan in plans.items():
                if self._copy_experiment(pool, id_, plan):
                    self.counts["experiments"] += 1
                told(id_)
            for step in rest:
                self._copy_step(pool, step)
        if self.failed:
            raise self._remaining()

    def _copy_experiment(self, pool: ThreadPoolExecutor, id_experiment: str, plan: Plan) -> bool:
        """Copy one experiment, and once more if it is persisted meanwhile; tell whether anything had to be copied."""
        before = self.counts["files"]
        try:
            with announced(self.target, id_experiment, plan.generation) as intent:
                failed = self._look_again(pool, intent, plan)
        except MltraqDSError as error:
            failed = {layout.folder_of(id_experiment): str(error)}
        self.failed.update(failed)
        return self.counts["files"] > before

    def _look_again(self, pool: ThreadPoolExecutor, intent: Intent, plan: Plan) -> dict[str, str]:
        folder = layout.folder_of(intent.id_experiment)
        for _ in range(_LOOKS):
            failed = self._attempt(pool, intent, folder, plan)
            now = generations.current(self.source, folder)
            if (now.ident if now else None) == (plan.generation.ident if plan.generation else None):
                break
            plan = plan_experiment(self.source, intent.id_experiment, self.wanted)
            self.total += len(plan.items)
        return failed

    def _attempt(self, pool: ThreadPoolExecutor, intent: Intent, folder: str, plan: Plan) -> dict[str, str]:
        try:
            older = self._refuse_other_version(folder, plan)
            put_mark(self.target, folder, intent.id_experiment)
        except MltraqDSError as error:
            return {folder: str(error)}
        for number, step in enumerate(plan.steps):
            if number == GENERATION and step:
                try:
                    check_arrived(self.target, intent, plan)
                except MltraqDSError as error:
                    return {folder: str(error)}
            failed = self._copy_step(pool, step, is_last_word=False)
            if failed:
                return failed  # nothing that refers to it is copied
        if plan.meta is not None:
            self.target.put(layout.meta_key(folder), [plan.meta], size=len(plan.meta), replace=True)
        if older is not None and plan.generation is not None:
            self.target.delete_many(sorted(older.keys - plan.generation.keys))
        if self.overwrite:
            left = left_of_deleted(self.source, self.target, intent.id_experiment, self.wanted)
            self.target.delete_many(left)
        return {}

    def _refuse_other_version(self, folder: str, plan: Plan) -> generations.Generation | None:
        """Return the version at the target that the source's one follows; None if there is none, or the same."""
        there = generations.current(self.target, folder)
        ours = plan.generation
        if there is None or (ours is not None and there.ident == ours.ident):
            return None
        is_older = False
        if ours is not None and there.number < ours.number:
            with suppress(KeyMissingError):
                is_older = generations.read(self.source, folder, there.number).ident == there.ident
        if not is_older:
            raise ConflictError(
                f"Experiment {there.id_experiment!r:.80} is at {self.target.url} in a version (generation "
                f"{there.number}) that the source does not know. Delete one of the two, or export to another place."
            )
        if not self.overwrite:
            raise ConflictError(
                f"Experiment {there.id_experiment!r:.80} is at {self.target.url} in an older version (generation "
                f"{there.number}). Use overwrite=True to replace it."
            )
        return there

    def _copy_step(self, pool: ThreadPoolExecutor, step: list[Item], *, is_last_word: bool = True) -> dict[str, str]:
        failed: dict[str, str] = {}
        for item, outcome in zip(step, pool.map(self._copy, step), strict=True):
            self.done += 1
            if isinstance(outcome, str):
                failed[item.key] = outcome
            elif outcome:
                self.counts[item.kind] += item.counts
                self.counts["files"] += 1
                self.counts["bytes"] += item.size
            if self.progress is not None:
                self.progress(self.done, self.total)
        if is_last_word:
            self.failed.update(failed)
        return failed

    def _copy(self, item: Item) -> bool | str:
        """Copy one file; returns whether it had to be, or what is in the way."""
        try:
            return copy(self.source, self.target, item, overwrite=self.overwrite)
        except (MltraqDSError, OSError) as error:
            return str(error)

    def _remaining(self) -> TransferError:
        first, reason = next(iter(sorted(self.failed.items())))
        return TransferError(
            f"{len(self.failed)} of {self.total} files were not copied from {self.source.url} to {self.target.url}: "
            f"{first}: {reason} What was copied ({self.counts['files']} files) stays; the same call goes on from there."
            + (f" The others are {', '.join(sorted(self.failed)[1:10])}." if len(self.failed) > 1 else "")
        )
