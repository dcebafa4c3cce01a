"""Looking: where every blob is, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from mltraq_ds.errors import CorruptBlobError, KeyMissingError
from mltraq_ds.lake.bytes import pointer_of
from mltraq_ds.lake.naming import Store, Url, storage_of
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.lake.report import BlobRow, LakeReport
from mltraq_ds.lake.selection import Selection
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import Pointer
from mltraq_ds.storage.remote_urls import parse_remote
from mltraq_ds.store import descriptors, layout

__all__ = ["status", "verify"]


def verify(store: Store, *, remote: Url | None = None, jobs: int | None = None) -> LakeReport:
    """Read every object that the pointers of a store name, whole, and compare its digest.

    The time of a verification without a finding is kept in ``_verified.json`` of the store; `status` shows it.

    Parameters
    ----------
    remote : URL, optional
        Only this remote; by default all that pointers name.
    jobs : int, optional
        Number of threads; 8 by default.

    Returns
    -------
    LakeReport
        One row per blob and remote: ``intact``.

    Raises
    ------
    RemotesError
        If some are missing or wrong; the text names them.  `upload` from a store that has the bytes repairs them.
    """
    storage = storage_of(store)
    only = parse_remote(remote).public_url if remote is not None else None
    open_one = cache(Remote.open)
    waiting = [
        (blob, pointer, url) for blob, pointer in _pointers(storage) for url in pointer.remotes if only in (None, url)
    ]

    def look(job: tuple[Reference, Pointer, str]) -> BlobRow:
        blob, pointer, url = job
        if not open_one(url).is_intact(pointer.name, pointer.size):
            raise CorruptBlobError("The object is missing, or its bytes are wrong.")
        return BlobRow(blob.key, blob.size, "intact", (url,))

    failures = Failures("verified")
    rows = do(look, waiting, lambda job: f"{job[0].key} on {job[2]}", failures, jobs)
    failed = {job[2] for job in waiting if f"{job[0].key} on {job[2]}" in failures.causes}
    _note_verified(storage, {url for _, _, url in waiting} - failed)
    failures.raise_any(len(waiting))
    return LakeReport("verify", storage.url, tuple(rows))


def status(store: Store) -> LakeReport:
    """Say where every blob is, from the store alone; `verify` asks the remotes.

    Returns
    -------
    LakeReport
        One row per blob: ``local``, ``local and remote``, ``remote`` or ``nowhere``; ``df()`` has its copies.  A note
        for each remote says when it was verified.
    """
    storage = storage_of(store)
    rows: list[BlobRow] = []
    urls: dict[str, None] = {}
    for selected in Selection().read(storage):
        here = {stat.key for stat in storage.list(selected.folder)}
        for blob in selected.generation.blobs:
            pointer = pointer_of(storage, blob)
            remotes = pointer.remotes if pointer else ()
            urls |= dict.fromkeys(remotes)
            rows.append(BlobRow(blob.key, blob.size, _where(blob.key in here, remotes), remotes, blob.key in here))
    times = _verified(storage)
    notes = (f"{url} was {f'verified {times[url]}' if url in times else 'never verified from here'}." for url in urls)
    return LakeReport("status", storage.url, tuple(rows), notes=tuple(notes))


def _where(is_local: bool, remotes: tuple[str, ...]) -> str:
    if is_local:
        return "local and remote" if remotes else "local"
    return "remote" if remotes else "nowhere"


def _pointers(storage: Storage) -> Iterator[tuple[Reference, Pointer]]:
    for selected in Selection().read(storage):
        for blob in selected.generation.blobs:
            pointer = pointer_of(storage, blob)
            if pointer is not None:
                yield blob, pointer


def _verified(storage: Storage) -> dict[str, str]:
    try:
        body = descriptors.from_bytes(storage.read(layout.VERIFIED), "verified", layout.VERIFIED)
    except KeyMissingError:
        return {}
    times = body.get("remotes")
    return {str(url): str(time) for url, time in times.items()} if isinstance(times, dict) else {}


def _note_verified(storage: Storage, urls: set[str]) -> None:
    if urls:
        times = dict(sorted({**_verified(storage), **dict.fromkeys(urls, layout.now_text())}.items()))
        data = descriptors.to_bytes("verified", {"remotes": times})
        storage.put(layout.VERIFIED, [data], size=len(data), replace=True)
