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
from mltraq_ds.store.retire import end_experiment, remove_files

__all__ = ["drop_replaced", "end_gone"]


def end_gone(source: Storage, lineage: Lineage, selected: Sequence[Selected]) -> None:
    """End the experiments that came from this source and have ended there, unless somebody went on with them here."""
    there = {one.generation.id_experiment for one in selected}
    for id_experiment in lineage.known():
        if id_experiment not in there and not _is_alive(source, id_experiment) and _end(lineage, id_experiment):
            lineage.forget(id_experiment)


def _is_alive(storage: Storage, id_experiment: str) -> bool:
    generation = generations.current(storage, layout.folder_of(id_experiment))
    return generation is not None and not generation.deleted


def _end(lineage: Lineage, id_experiment: str) -> bool:
    """End an experiment in the target; tell whether it is gone from there."""
    target, folder = lineage.target, layout.folder_of(id_experiment)
    last: generations.Generation | None = generations.current(target, folder)
    if last is None:
        return True
    if not last.deleted:
        if not lineage.is_untouched(last, folder):
            return False
        last = end_experiment(target, id_experiment, str(uuid.uuid4()), only=last.ident)
    if last is None:
        return False  # somebody went on with it just now
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
