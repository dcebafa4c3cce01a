"""Keeping: which bytes stay here, and which remotes pointers name."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from mltraq_ds.errors import UsageError
from mltraq_ds.lake import dropping
from mltraq_ds.lake.holding import held
from mltraq_ds.lake.naming import Keys, Store, Urls, each_blob, storage_of, urls_of
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.lake.report import BlobRow, LakeReport
from mltraq_ds.lake.selection import Selection
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.remote_urls import parse_remote

__all__ = ["drop", "pull", "remove"]


def remove(
    store: Store,
    *,
    remotes: Urls,
    keys: Keys = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    jobs: int | None = None,
) -> LakeReport:
    """Forget remotes: pointers no longer name them.  Nothing is done on the remotes.

    Raises
    ------
    RemotesError
        If a blob would be nowhere any more.  Its pointer stays; those of the others have forgotten the remotes.
    """
    urls = [parse_remote(url).public_url for url in urls_of(remotes)]
    selection = Selection.of(keys, start, stop, step)
    with held(storage_of(store)) as guard:
        report = each_blob(
            "remove", store, selection, "forgotten", lambda s, r: dropping.forget(s, r, urls, guard), jobs
        )
    return report or replace(report, notes=(f"No pointer names {' or '.join(urls)}.",))


def drop(
    store: Store,
    *,
    num_copies: int = 1,
    keys: Keys = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    jobs: int | None = None,
) -> LakeReport:
    """Remove the local bytes of blobs that at least `num_copies` remotes have, each read whole and verified now.

    Raises
    ------
    RemotesError
        If some have fewer copies.  Their bytes stay.
    """
    if num_copies < 1:
        raise UsageError(f"num_copies={num_copies} is refused: without a copy the bytes would be lost.")
    open_one = cache(Remote.open)
    selection = Selection.of(keys, start, stop, step)

    with held(storage_of(store)) as guard:

        def drop_one(storage: Storage, blob: Reference) -> BlobRow | None:
            return dropping.drop_blob(storage, blob, num_copies, open_one, guard)

        return each_blob("drop", store, selection, "dropped", drop_one, jobs)


def pull(
    store: Store,
    *,
    keys: Keys = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    jobs: int | None = None,
) -> LakeReport:
    """Fetch the bytes of blobs that live on remotes only, or are damaged here, verified; pointers stay beside them.

    Raises
    ------
    RemotesError
        If no remote delivers some of them.  The others are here; run it again to finish.
    """
    down: set[str] = set()
    selection = Selection.of(keys, start, stop, step)
    return each_blob("pull", store, selection, "pulled", lambda s, r: dropping.pull_blob(s, r, down), jobs)
