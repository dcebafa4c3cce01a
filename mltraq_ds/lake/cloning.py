"""Cloning: a second store with the same experiments."""

from __future__ import annotations

from mltraq_ds.errors import UsageError
from mltraq_ds.lake import copying, linking, modes
from mltraq_ds.lake.modes import Mode
from mltraq_ds.lake.naming import Store, storage_of
from mltraq_ds.lake.report import LakeReport
from mltraq_ds.lake.selection import Selection
from mltraq_ds.lake.work import Failures

__all__ = ["clone"]


def clone(
    store: Store,
    output: Store,
    *,
    mode: Mode | str = Mode.CREATE_NEW_FILE,
    fallback: bool = False,
    jobs: int | None = None,
    prune: bool = False,
) -> LakeReport:
    """Write a second store with the same experiments.

    Parameters
    ----------
    output : Storage, URL or path
        Gets a store id of its own; one that a killed clone has begun is finished.
    mode : Mode
        What stands there for each blob.
    fallback : bool
        Where a mode cannot work, take the next of SYM_LINK, HARD_LINK, DEEP_COPY; REMOTE_FILE falls back to DEEP_COPY.
    prune : bool
        Remove experiments that came from this source and are not there any more, unless somebody changed them in the
        output.  By default they are kept; either is in the notes of the report.

    Raises
    ------
    UsageError
        If there is no such mode.
    RemotesError
        If some blobs could not be cloned, each with its reason; an experiment that needs one is not there yet.
    """
    try:
        chosen = Mode(str(mode).upper())
    except ValueError as error:
        raise UsageError(f"There is no mode {mode!r}. Use {', '.join(Mode)}.") from error
    storage, target = storage_of(store), storage_of(output, is_new=True)
    selected = Selection().read(storage)
    failures = Failures("cloned")
    down: set[str] = set()
    if chosen is Mode.SYM_LINK and storage.is_local and target.is_local:
        linking.list_links(storage, target, [blob for one in selected for blob in one.generation.blobs])
    rows, gone = copying.clone_store(
        storage,
        target,
        selected,
        lambda blob: modes.clone_blob(storage, target, blob, chosen, fallback=fallback, down=down),
        failures,
        jobs,
        prune=prune,
    )
    failures.raise_any(sum(len(one.generation.blobs) for one in selected))
    is_bound = any(row.action == "sym-linked" for row in rows)
    bound = (f"{target.url} has links into {storage.url}: neither can be moved.",) if is_bound else ()
    return LakeReport("clone", target.url, tuple(rows), notes=(*bound, *gone))
