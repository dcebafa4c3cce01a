"""Leftovers: what a sweep removes beside the files of experiments."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

from mltraq_ds.orm import overview
from mltraq_ds.orm.index import Index
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store.index_check import is_dead_claim
from mltraq_ds.store.report import Finding, Notebook
from mltraq_ds.store.survey import (
    Intents,
    Survey,
    is_being_written,
    is_valid,
    may_be_of_a_writer,
    read_intents,
    read_pending,
)

__all__ = ["Leftovers", "prune"]

#: The row of a deleted experiment stays at least so long (s): it keeps out a rebuild that has read the files before.
_LATE_S = 3600.0
_UNFINISHED = re.compile(r"\.tmp-(?:probe-|upload-)?[0-9a-f]{32}")


class Leftovers:
    """What is removed, or in a dry run only told, from `_pending`, the index, and wherever a write was killed."""

    def __init__(
        self, storage: Storage, index: Index | None, report: Notebook, *, dry_run: bool, before: float
    ) -> None:
        self.storage, self.index, self.report = storage, index, report
        self.dry_run, self.before = dry_run, before

    def sweep_pending(self, seen: Survey) -> None:
        """Remove marks whose intent is gone; the mark of a recovery under way is younger than any grace.

        An old note of what an index has met goes too: its index may never come again, as that of each container does
        not; one that does catches up once more.  What it has met stays: only the index of that name can know its files.
        """
        pending = read_pending(seen.pending)
        known = {intent.writer for intent in read_intents(self.storage).found}
        marks = [
            stat
            for owner, stat in pending.marks
            if owner not in known and stat.modified <= self.before and not stat.key.endswith(".lease")
        ]
        marks += [stat for stat in pending.seen if stat.modified <= self.before]
        self._add(("leftover", stat) for stat in marks)
        if not self.dry_run:
            self.storage.delete_many(stat.key for stat in marks)
        for place, stats in pending.moved.items():
            size = sum(stat.size for stat in stats)
            self.report.note("unfinished delete", place, size_bytes=size, detail="Somebody is at work; see check().")

    def sweep_unfinished(self, seen: Survey, writers: Intents) -> None:
        at_work = writers.by_folder()
        going = [
            stat
            for stat in seen.unfinished
            if stat.modified <= self.before
            and not may_be_of_a_writer(stat, at_work)
            and not is_being_written(stat, seen.now)
            and _UNFINISHED.fullmatch(stat.key.rpartition("/")[2])
            and is_valid(stat.key)
        ]
        self._add(("unfinished write", stat) for stat in going)
        if not self.dry_run:
            self.storage.delete_many(stat.key for stat in going)

    def sweep_index(self, grace_s: float) -> None:
        if self.index is None:
            return
        for claim in overview.claims(self.index):
            if is_dead_claim(self.storage, claim):
                self.report.findings.append(Finding("dead claim", "", str(claim.claimed_by), detail=claim.name))
                if not self.dry_run:
                    self.index.release(claim.name, str(claim.claim_intent))
        before = datetime.now(UTC) - timedelta(seconds=max(grace_s, _LATE_S))
        count = partial(overview.count_deleted, self.index) if self.dry_run else self.index.forget_deleted
        if number := count(before):
            self.report.note("rows of deleted experiments", detail=f"{number} of the index.")

    def prune(self, names: Iterable[str], writers: Intents) -> None:
        """Remove what killed writers have made of folders before they wrote a file."""
        at_work = writers.by_folder()
        if not self.dry_run:
            prune(self.storage, [name for name in names if name not in at_work])

    def _add(self, going: Iterable[tuple[str, Stat]]) -> None:
        self.report.findings += [Finding(kind, stat.key, "", stat.size) for kind, stat in going]


def prune(storage: Storage, names: Iterable[str]) -> None:
    """Remove folders of experiments that have nothing in them."""
    for name in names:
        inside = set(storage.folders(name)) if is_valid(name) else {""}
        if inside <= {"generations", "runs"} and (inside or _is_uuid(name)):
            for folder in (f"{name}/generations", f"{name}/runs", name):
                storage.prune(folder)


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
