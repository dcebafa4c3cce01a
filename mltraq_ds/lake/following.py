"""Following: what has gone from the source since it was cloned, and bytes that pointers have replaced."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from mltraq_ds.lake import dropping
from mltraq_ds.lake.holding import held
from mltraq_ds.lake.lineage import Lineage
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.lake.report import BlobRow
from mltraq_ds.lake.selection import Selected, blobs_of
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, layout
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.retire import end_experiment, remove_files

__all__ = ["drop_replaced", "follow_gone"]


def follow_gone(source: Storage, lineage: Lineage, selected: Sequence[Selected], *, prune: bool) -> list[str]:
    """Look what came from this source and is not there any more; say of each experiment what became of it.

    A source says nothing of what was deleted, so that this cannot be told from what was lost there: the clone may have
    the only copy.  Nothing goes unless somebody asks for it, and nothing ever that somebody went on with here.  What
    another experiment replaces counts as deleted wherever that one is.
    """
    replaced = {end.id_experiment: (end.number, end.writer) for one in selected for end in one.generation.replaces}
    there = {one.generation.id_experiment for one in selected}
    notes: list[str] = []
    for id_experiment in lineage.known():
        folder = layout.folder_of(id_experiment)
        if id_experiment in there or _is_alive(source, folder):
            continue
        last = generations.current(lineage.target, folder)
        is_here = last is not None and not last.deleted
        what = f"experiment {last.name!r} ({id_experiment})" if last is not None else ""
        is_asked = prune or (last is not None and replaced.get(id_experiment) == last.ident)
        reason = _reason_to_keep(source, lineage, last, folder, is_asked=is_asked)
        if not reason and _end(lineage.target, last):
            lineage.forget(id_experiment)
            notes += [f"removed: {what}, gone from the source"] if is_here else []
        elif is_here:
            notes.append(f"kept: {what}, gone from the source{reason or ', but persisted here just now'}")
    return notes


def _is_alive(storage: Storage, folder: str) -> bool:
    generation = generations.current(storage, folder)
    return generation is not None and not generation.deleted


def _reason_to_keep(source: Storage, lineage: Lineage, last: Generation | None, folder: str, *, is_asked: bool) -> str:
    if not is_asked:
        return "; prune=True (--prune) removes it, if nobody changed it here"
    if last is not None and not lineage.is_untouched(last, folder):
        return ", but changed here since it was cloned"
    rest = (stat.key for stat in source.list(folder) if stat.key != layout.meta_key(folder))
    if any(layout.generation_number(folder, key) is None for key in rest):
        return ", which still has files of it"
    return ""


def _end(target: Storage, last: Generation | None) -> bool:
    """End an experiment in the target; tell whether it is gone from there."""
    if last is not None and not last.deleted:
        last = end_experiment(target, last.id_experiment, str(uuid.uuid4()), only=last.ident)
        if last is None:
            return False  # somebody went on with it just now
    if last is not None:
        remove_files(target, last)
    return True


def drop_replaced(target: Storage, one: Selected, rows: Sequence[BlobRow], failures: Failures) -> None:
    """Remove the bytes in the target of blobs that are to be pointers, where an earlier clone has put bytes.

    As with `drop` a remote is read whole before, so that a blob is never without a copy.
    """
    pointed = {row.key for row in rows if not row.is_local}
    here = {stat.key for stat in target.list(one.folder)} & pointed if pointed else set()
    going = [blob for blob in blobs_of(target, one.folder) if blob.key in here]
    if not going:
        return
    with held(target) as guard:

        def drop(blob: Reference) -> BlobRow | None:
            return dropping.drop_blob(target, blob, 1, Remote.open, guard)

        do(drop, going, lambda blob: blob.key, failures, is_shown=False)
