"""Sweeping: remove what nothing refers to.

The order carries it, and the model in ``tests/model`` shows that each part is needed: what may go is listed first, then
intents are read, then generations.  What a writer moves meanwhile it moves from its intent to a generation, so it is
seen in one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from numbers import Real

from mltraq_ds.errors import CorruptRecordError, MltraqDSError, UsageError
from mltraq_ds.objects import Objects, objects_of
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.storage.pointer import blob_of
from mltraq_ds.store import generations, layout, outside
from mltraq_ds.store.artifact_sweep import ArtifactPlan, plan_artifacts
from mltraq_ds.store.collection import mark_anew
from mltraq_ds.store.folder import remove_mark
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.lease import Lease
from mltraq_ds.store.rebuilding import each
from mltraq_ds.store.recovery import recover, update_index
from mltraq_ds.store.report import Finding, Notebook, SweepReport
from mltraq_ds.store.retire import remove_files
from mltraq_ds.store.survey import (
    Folder,
    Intents,
    Survey,
    read_intents,
    survey,
)
from mltraq_ds.store.sweep_leftovers import Leftovers
from mltraq_ds.store.sweep_plan import Plan, Roots, plan_folder, read_roots

__all__ = ["GRACE_S", "sweep"]

#: What was changed more recently than this stays (s).
GRACE_S = 86_400.0
#: Longest grace (s): times before the year 1 cannot be computed with.
_MAX_GRACE_S = 1e9
#: The entry of an artifact is put at most so long (s) after its bytes.
_SETTLED_S = 3600.0


def sweep(
    store: Objects | Storage | str | os.PathLike[str],
    index: Index | None = None,
    dry_run: bool = True,
    grace_s: float = GRACE_S,
) -> SweepReport:
    """Remove what nothing refers to: orphans, old generations, leftovers of writers that died.

    First the work of dead writers is finished, as opening a session does, also in a dry run; and storage backends are
    asked to remove what they keep for them.  Safe beside writers and
    readers; killed in the middle, run it again.  Files of users (`DataStoreIO`) and whatever is not known stay.

    Parameters
    ----------
    store : Objects, Storage, URL or path
        The store.
    index : Index, optional
        Its rows, whose references are kept too; without it the files alone say what is kept.
    dry_run : bool
        Remove nothing, and say what would be.
    grace_s : float
        What was changed more recently stays (s), by the storage's clock.

    Returns
    -------
    SweepReport
        One finding for each file.

    Raises
    ------
    UsageError
        If `store` or `grace_s` cannot be used.  Nothing was removed.
    ConflictError
        If another sweep is at work.  Nothing was removed.
    DamageError, FormatError
        If an intent, a generation, a record or a version of an artifact cannot be read, so that it is not known what it
        refers to.  Nothing was removed, or only garbage if it was damaged after the sweep had read it.  `check` lists
        all of them.
    StorageError, DatabaseUnavailableError
        If store or database do not answer.  What was removed before is garbage.
    """
    _check_grace(grace_s)
    objects = objects_of(store)
    storage = objects.storage
    report = Notebook()
    with nullcontext() if dry_run else Lease(storage) as lease:
        run = _Sweep(objects, index, report, lease, dry_run=dry_run, grace_s=grace_s)
        run.sweep()
    return SweepReport(**report.parts(), store=storage.url, dry_run=dry_run, young=run.n_young)


def _check_grace(grace_s: object) -> None:
    if not isinstance(grace_s, Real) or isinstance(grace_s, bool) or not abs(float(grace_s)) <= _MAX_GRACE_S:
        raise UsageError(
            f"grace_s={grace_s!r:.80} is refused because it is no number of seconds up to {_MAX_GRACE_S:g}. Use "
            "86400 for a day, or 0 to spare nothing."
        )
    if float(grace_s) < 0:
        raise UsageError(f"grace_s={grace_s!r} is refused because it is negative. Use 0 to spare nothing.")


class _Sweep:
    def __init__(
        self,
        objects: Objects,
        index: Index | None,
        report: Notebook,
        lease: Lease | None,
        *,
        dry_run: bool,
        grace_s: float,
    ) -> None:
        self.objects, self.index, self.report, self.lease = objects, index, report, lease
        self.storage: Storage = objects.storage
        self.dry_run, self.grace_s = dry_run, grace_s
        self.before = 0.0
        self.n_young = 0
        self.emptied: list[str] = []

    def sweep(self) -> None:
        for intent in self._recover():
            self.report.note(
                "finished", intent.key, intent.id_experiment, detail=f"The {intent.action} of a dead writer."
            )
        seen = survey(self.storage)
        empty = [name for name in layout.experiment_folders(self.storage) if name not in seen.folders]
        self.before = seen.now - self.grace_s
        writers = self._intents()
        plans, artifacts = self._plan(seen, writers), self._plan_artifacts(seen)
        # All roots have been read: from here on files go.
        rest = Leftovers(self.storage, self.index, self.report, dry_run=self.dry_run, before=self.before)
        rest.sweep_unfinished(seen, writers)  # first: they would keep folders from being pruned
        for plan in plans:
            self._keep_lease()
            self._remove(plan)
        for version in artifacts.waiting:
            if self.dry_run or outside.let_go(version, self.objects):
                self.report.add("unfinished delete", version.key, detail=outside.waiting(version))
        for shelf, old in artifacts.going:
            self._keep_lease()
            artifacts.remove(shelf, old, self.report, dry_run=self.dry_run)
        self.n_young += artifacts.young
        rest.sweep_pending(seen)
        rest.sweep_index(self.grace_s)
        rest.prune([*empty, *self.emptied], writers)

    def _recover(self) -> list[Intent]:
        try:
            return recover(self.objects, self.index, asks_backends=True)
        except MltraqDSError as error:
            raise type(error)(
                f"The sweep was stopped because the work of a dead writer cannot be finished: {error}"
            ) from error

    def _keep_lease(self) -> None:
        if self.lease is not None:
            self.lease.keep()

    def _intents(self) -> Intents:
        writers = read_intents(self.storage)
        for error in writers.unreadable.values():
            raise type(error)(f"The sweep was stopped because it is not known what a writer is doing: {error}")
        return writers

    def _plan(self, seen: Survey, writers: Intents) -> list[Plan]:
        """Read all roots before anything is removed."""
        in_index: set[str] = set()
        rows: dict[str, str] = {}
        if self.index is not None:
            in_index = {blob.key for _, blob in self.index.blob_references()}
            rows = {layout.folder_of(id_): id_ for id_ in self.index.all_generations()}
        at_work = writers.by_folder()
        managed: list[Folder] = []
        for folder in seen.folders.values():
            if folder.name in at_work:
                self.report.note("at work", folder.name, detail="A writer is at work; nothing is removed there.")
            if folder.name in at_work or folder.is_marked:
                managed.append(folder)
                if folder.has_records and not self.dry_run:
                    mark_anew(self.storage, folder.name)
            else:
                self.report.note(
                    "self-managed", folder.name, size_bytes=folder.size_bytes, detail=f"{len(folder.stats)} files."
                )
        plans: list[Plan] = []
        has_root = bool(at_work)
        for folder, roots in zip(managed, each(self.storage, self._read_roots, managed), strict=True):
            self._keep_lease()
            has_root |= roots.is_live
            if folder.name in at_work:
                continue
            is_bare = roots.generation is None and not roots.is_live and not roots.elsewhere
            if is_bare and folder.name in rows and self._is_lost(folder, rows[folder.name]):
                raise CorruptRecordError(
                    f"The sweep was stopped because the database has experiment {rows[folder.name]!r} and there is no "
                    f"generation in {folder.name}. Restore it from a copy; or, if it is to go, use rebuild_index()."
                )
            plan = plan_folder(
                folder,
                roots,
                in_index,
                self.before,
                has_folders=self.storage.is_local,
                settled=seen.now - _SETTLED_S,
            )
            self._note(plan)
            plans.append(plan)
        plans = [plan for plan in plans if plan.remove]
        if plans and rows and not has_root and any(self._has_no_files(id_) for id_ in rows.values()):
            raise CorruptRecordError(
                f"The sweep was stopped because no file of {self.storage.url} refers to anything, and the database has "
                f"{len(rows)} experiments of it. Look whether the store is whole; if it is, use rebuild_index()."
            )
        return plans

    def _plan_artifacts(self, seen: Survey) -> ArtifactPlan:
        rows = ArtifactIndex(self.index.database, self.index.store_id) if self.index is not None else None
        return plan_artifacts(self.storage, seen.artifacts, rows, before=self.before)

    def _is_lost(self, folder: Folder, id_experiment: str) -> bool:
        """Tell whether files and row still disagree: somebody may have deleted the experiment since both were read."""
        return any(True for _ in self.storage.list(folder.name)) and self._has_no_files(id_experiment)

    def _has_no_files(self, id_experiment: str) -> bool:
        """Tell whether the database has an experiment that has no generation, not even its end."""
        is_known = self.index is not None and self.index.get(id_experiment) is not None
        return is_known and generations.current(self.storage, layout.folder_of(id_experiment)) is None

    def _read_roots(self, folder: Folder) -> Roots:
        try:
            return read_roots(self.storage, folder)
        except MltraqDSError as error:
            raise type(error)(f"The sweep was stopped because it is not known what must be kept: {error}") from error

    def _note(self, plan: Plan) -> None:
        size = sum(stat.size for stat in plan.young)
        self.n_young += len(plan.young)
        if plan.young:
            self.report.note(
                "young", plan.folder.name, size_bytes=size, detail=f"{len(plan.young)} files are too young."
            )
        if plan.roots.elsewhere:
            kind = plan.roots.elsewhere
            self.report.note("managed elsewhere", plan.folder.name, size_bytes=plan.folder.size_bytes, detail=kind)

    def _remove(self, plan: Plan) -> None:
        """Look at the roots again, then remove by name."""
        if plan.folder.name in self._intents().by_folder():
            self.report.note("at work", plan.folder.name, detail="A writer came; nothing is removed there.")
            return
        # Taken hold of before the last look: where an ended experiment leaves no tombstone, one that is made anew under
        # its id counts from 1 again, and its first version has the name of one that has been history for long.
        numbered = f"{plan.folder.name}/generations"
        with self.storage.holding(numbered) as forget:
            self._remove_by(plan, f"{numbered}/", forget)

    def _remove_by(self, plan: Plan, numbered: str, forget: Callable[[str], None]) -> None:
        roots = self._read_roots(plan.folder)
        if (roots.generation and roots.generation.ident) != (plan.roots.generation and plan.roots.generation.ident):
            self.report.note(
                "at work", plan.folder.name, detail="It was persisted meanwhile; nothing is removed there."
            )
            return
        kept = roots.keys | roots.artifacts
        going = [(kind, stat) for kind, stat in plan.remove if blob_of(stat.key) not in kept]
        self._take(going, roots.generation.id_experiment if roots.generation else "")
        if self.dry_run:
            return
        if roots.generation is not None and roots.generation.deleted:
            update_index(self.objects, self.index, roots.generation.id_experiment)
            if plan.is_whole:
                remove_files(self.storage, roots.generation)
                return
        history = [stat.key for _, stat in going if stat.key.startswith(numbered)]
        last = [stat.key for _, stat in going if stat is plan.folder.meta]
        self.storage.delete_many(stat.key for _, stat in going if stat.key not in {*history, *last})
        for key in history:  # in order, one by one
            forget(key)
        if last:
            remove_mark(self.storage, plan.folder.name)
            self.emptied.append(plan.folder.name)  # but for a write that was killed, which goes later

    def _take(self, going: Iterable[tuple[str, Stat]], id_experiment: str = "") -> None:
        self.report.findings += [Finding(kind, stat.key, id_experiment, stat.size) for kind, stat in going]
