"""Sweeping: remove what nothing refers to.

The order carries it, and the model in ``tests/model`` shows that each part is needed: what may go is listed first, then
intents are read, then generations.  What a writer moves meanwhile it moves from its intent to a generation, so it is
seen in one of them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial

from mltraq_ds.errors import CorruptRecordError, MltraqDSError, UsageError
from mltraq_ds.objects import Objects
from mltraq_ds.orm import overview
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import layout
from mltraq_ds.store.index_check import is_dead_claim
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.lease import Lease
from mltraq_ds.store.rebuilding import each
from mltraq_ds.store.recovery import recover, update_index
from mltraq_ds.store.report import Finding, Notebook, SweepReport
from mltraq_ds.store.retire import remove_files
from mltraq_ds.store.survey import Folder, Intents, Survey, is_valid, read_intents, read_pending, survey
from mltraq_ds.store.sweep_plan import Plan, Roots, plan_folder, read_roots

__all__ = ["GRACE_S", "sweep"]

#: What was changed more recently than this stays (s).
GRACE_S = 86_400.0
_UNFINISHED = re.compile(r"\.tmp-(?:probe-)?[0-9a-f]{32}")


def sweep(objects: Objects, index: Index | None, dry_run: bool = True, grace_s: float = GRACE_S) -> SweepReport:
    """Remove what nothing refers to: orphans, old generations, leftovers of writers that died.

    First the work of dead writers is finished, as opening a session does, also in a dry run.  Safe beside writers and
    readers; killed in the middle, run it again.  Files of users (`DataStoreIO`) and whatever is not known stay.

    Parameters
    ----------
    objects : Objects
        Of the store.
    index : Index or None
        Its rows, whose references are kept too; None for a store without an index.
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
    ConflictError
        If another sweep is at work.  Nothing was removed.
    DamageError, FormatError
        If an intent, a generation or a record cannot be read, so that it is not known what it refers to.  Nothing was
        removed.  `check` lists all of them.
    StorageError, DatabaseUnavailableError
        If store or database do not answer.  What was removed before is garbage.
    """
    if grace_s < 0:
        raise UsageError(f"grace_s={grace_s!r} is refused because it is negative. Use 0 to spare nothing.")
    storage = objects.storage
    report = Notebook()
    with nullcontext() if dry_run else Lease(storage) as lease:
        run = _Sweep(objects, index, report, lease, dry_run=dry_run, grace_s=grace_s)
        run.sweep()
    return SweepReport(**report.parts(), store=storage.url, dry_run=dry_run)


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

    def sweep(self) -> None:
        for intent in self._recover():
            self.report.note(
                "finished", intent.key, intent.id_experiment, detail=f"The {intent.action} of a dead writer."
            )
        seen = survey(self.storage)
        empty = [name for name in layout.experiment_folders(self.storage) if name not in seen.folders]
        self.before = seen.now - self.grace_s
        writers = self._intents()
        plans = self._plan(seen, writers)
        for plan in plans:
            self._keep_lease()
            self._remove(plan)
        self._sweep_pending(seen)
        self._sweep_unfinished(seen, writers)
        self._sweep_index()
        if not self.dry_run:
            self._prune(empty, writers)

    def _recover(self) -> list[Intent]:
        try:
            return recover(self.objects, self.index)
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
            if roots.generation is None and not roots.is_live and not roots.elsewhere and folder.name in rows:
                raise CorruptRecordError(
                    f"The sweep was stopped because the database has experiment {rows[folder.name]!r} and there is no "
                    f"generation in {folder.name}. Restore it from a copy; or, if it is to go, use rebuild_index()."
                )
            plan = plan_folder(folder, roots, in_index, self.before, has_folders=self.storage.is_local)
            self._note(plan)
            plans.append(plan)
        plans = [plan for plan in plans if plan.remove]
        if plans and rows and not has_root:
            raise CorruptRecordError(
                f"The sweep was stopped because no file of {self.storage.url} refers to anything, and the database has "
                f"{len(rows)} experiments of it. Look whether the store is whole; if it is, use rebuild_index()."
            )
        return plans

    def _read_roots(self, folder: Folder) -> Roots:
        try:
            return read_roots(self.storage, folder)
        except MltraqDSError as error:
            raise type(error)(f"The sweep was stopped because it is not known what must be kept: {error}") from error

    def _note(self, plan: Plan) -> None:
        size = sum(stat.size for stat in plan.young)
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
        roots = self._read_roots(plan.folder)
        if (roots.generation and roots.generation.ident) != (plan.roots.generation and plan.roots.generation.ident):
            self.report.note(
                "at work", plan.folder.name, detail="It was persisted meanwhile; nothing is removed there."
            )
            return
        going = [(kind, stat) for kind, stat in plan.remove if stat.key not in roots.keys]
        self._take(going, roots.generation.id_experiment if roots.generation else "")
        if self.dry_run:
            return
        if roots.generation is not None and roots.generation.deleted:
            update_index(self.objects, self.index, roots.generation.id_experiment)
            if plan.is_whole:
                remove_files(self.storage, roots.generation)
                return
        history = [stat.key for kind, stat in going if kind == "old generation"]
        last = [stat.key for _, stat in going if stat is plan.folder.meta]
        self.storage.delete_many(stat.key for _, stat in going if stat.key not in {*history, *last})
        for key in (*history, *last):  # in order, one by one
            self.storage.delete(key)
        if last:
            self._prune([plan.folder.name], None)

    def _take(self, going: Iterable[tuple[str, Stat]], id_experiment: str = "") -> None:
        self.report.findings += [Finding(kind, stat.key, id_experiment, stat.size) for kind, stat in going]

    def _sweep_pending(self, seen: Survey) -> None:
        """Remove marks whose intent is gone; the mark of a recovery under way is younger than any grace."""
        pending = read_pending(seen.pending)
        known = {intent.writer for intent in self._intents().found}
        marks = [
            stat
            for owner, stat in pending.marks
            if owner not in known and stat.modified <= self.before and not stat.key.endswith(".lease")
        ]
        self._take(("leftover", stat) for stat in marks)
        if not self.dry_run:
            self.storage.delete_many(stat.key for stat in marks)
        for place, stats in pending.moved.items():
            size = sum(stat.size for stat in stats)
            self.report.note("unfinished delete", place, size_bytes=size, detail="Somebody is at work; see check().")

    def _sweep_unfinished(self, seen: Survey, writers: Intents) -> None:
        at_work = {*writers.by_folder(), *([layout.PENDING] if writers.found else [])}
        going = [
            stat
            for stat in seen.unfinished
            if stat.modified <= self.before
            and stat.key.partition("/")[0] not in at_work
            and _UNFINISHED.fullmatch(stat.key.rpartition("/")[2])
            and is_valid(stat.key)
        ]
        self._take(("unfinished write", stat) for stat in going)
        if not self.dry_run:
            self.storage.delete_many(stat.key for stat in going)

    def _sweep_index(self) -> None:
        if self.index is None:
            return
        for claim in overview.claims(self.index):
            if is_dead_claim(self.storage, claim):
                self.report.findings.append(Finding("dead claim", "", str(claim.claimed_by), detail=claim.name))
                if not self.dry_run:
                    self.index.release(claim.name, str(claim.claim_intent))
        before = datetime.now(UTC) - timedelta(seconds=self.grace_s)
        count = partial(overview.count_deleted, self.index) if self.dry_run else self.index.forget_deleted
        if number := count(before):
            self.report.note("rows of deleted experiments", detail=f"{number} of the index.")

    def _prune(self, names: Iterable[str], writers: Intents | None) -> None:
        """Remove folders of experiments that have nothing in them."""
        at_work = writers.by_folder() if writers else {}
        for name in names:
            inside = set(self.storage.folders(name)) if is_valid(name) else {""}
            if name not in at_work and inside <= {"generations", "runs"} and (inside or _is_uuid(name)):
                for folder in (f"{name}/generations", f"{name}/runs", name):
                    self.storage.prune(folder)


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
