"""Looking: where every blob is, and whether it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from mltraq_ds.errors import CorruptBlobError, DamageError, FormatError, MltraqDSError, NotFoundError
from mltraq_ds.lake import verified
from mltraq_ds.lake.bytes import pointer_of
from mltraq_ds.lake.naming import Store, Url, storage_of
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.lake.report import BlobRow, LakeReport
from mltraq_ds.lake.selection import blobs_of
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import Pointer
from mltraq_ds.storage.remote_urls import parse_remote
from mltraq_ds.store import layout

__all__ = ["status", "verify"]


def verify(store: Store, *, remote: Url | None = None, jobs: int | None = None) -> LakeReport:
    """Read every object that the pointers of a store name, whole, and compare its digest.

    The time of a verification without a finding is kept in ``_verified.json`` of the store, and so are the names of
    wrong objects: `status` shows the one, and the next `upload` repairs the others.

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
    NotFoundError
        If no pointer names the remote that was asked for.
    RemotesError
        If some are missing or wrong, or a pointer or generation cannot be read; the text names them.  `upload` from a
        store that has the bytes repairs the objects.
    """
    storage = storage_of(store)
    only = parse_remote(remote).public_url if remote is not None else None
    open_one = cache(Remote.open)
    failures = Failures("verified")
    waiting: list[_Job] = []
    for found in _blobs(storage):
        if found.problem:
            failures.causes[found.key] = found.problem
        elif found.pointer is not None:
            waiting += [_Job(found.key, found.pointer, url) for url in found.pointer.remotes if only in (None, url)]
    if only is not None and not waiting and not failures.causes:
        raise NotFoundError(f"No pointer of {storage.url} names {only}. 'mltraq-ds remote status' lists the remotes.")
    wrong: dict[str, set[str]] = {job.url: set() for job in waiting}

    def look(job: _Job) -> BlobRow:
        if not open_one(job.url).is_intact(job.pointer.name, job.pointer.size):
            wrong[job.url].add(job.pointer.name)
            raise CorruptBlobError("The object is missing, or its bytes are wrong.")
        return BlobRow(job.key, job.pointer.size, "intact", (job.url,))

    rows = do(look, waiting, str, failures, jobs)
    failed = {job.url for job in waiting if str(job) in failures.causes}
    verified.note(storage, set(wrong) - failed, wrong, _ids(open_one, wrong))
    failures.raise_any(len(rows) + len(failures.causes))
    return LakeReport("verify", storage.url, tuple(rows))


@dataclass(frozen=True, slots=True)
class _Job:
    """One object to be looked at."""

    key: str
    pointer: Pointer
    url: str

    def __str__(self) -> str:
        return f"{self.key} on {self.url}"


def _ids(open_one: Callable[[str], Remote], urls: Iterable[str]) -> dict[str, str]:
    """Return the ids of remotes: two URLs of one place have the same."""
    found: dict[str, str] = {}
    for url in urls:
        with suppress(MltraqDSError, OSError):  # down: it has failed for every blob already
            found[url] = open_one(url).identity
    return found


def status(store: Store) -> LakeReport:
    """Say where every blob is, from the store alone; `verify` asks the remotes.

    Returns
    -------
    LakeReport
        One row per blob: ``local``, ``local and remote``, ``remote`` or ``nowhere``; ``unreadable`` for a pointer or a
        version that cannot be read.  ``df()`` has the copies on remotes; two URLs that `verify` found to be one place
        are one.  A note for each remote says when it was verified.
    """
    storage = storage_of(store)
    ids = verified.ids(storage)
    rows: list[BlobRow] = []
    urls: dict[str, None] = {}
    notes: list[str] = []
    for found in _blobs(storage):
        if found.problem:
            rows.append(BlobRow(found.key, found.size, "unreadable", is_local=found.is_local))
            notes.append(found.problem)
            continue
        remotes = found.pointer.remotes if found.pointer else ()
        urls |= dict.fromkeys(remotes)
        copies = len({ids.get(url, url) for url in remotes})
        rows.append(BlobRow(found.key, found.size, _where(found.is_local, remotes), remotes, found.is_local, copies))
    times = verified.times(storage)
    notes += [f"{url} was {f'verified {times[url]}' if url in times else 'never verified from here'}." for url in urls]
    return LakeReport("status", storage.url, tuple(rows), notes=tuple(notes))


def _where(is_local: bool, remotes: tuple[str, ...]) -> str:
    if is_local:
        return "local and remote" if remotes else "local"
    return "remote" if remotes else "nowhere"


@dataclass(frozen=True, slots=True)
class _Found:
    """A blob of a store, or what cannot be read of it."""

    key: str
    size: int = 0
    pointer: Pointer | None = None
    is_local: bool = False
    problem: str = ""


def _blobs(storage: Storage) -> Iterator[_Found]:
    for folder in layout.experiment_folders(storage):
        try:
            blobs = blobs_of(storage, folder)
        except (DamageError, FormatError) as error:
            yield _Found(folder, problem=str(error))
            continue
        here = {stat.key for stat in storage.list(folder)} if blobs else set()
        for blob in blobs:
            try:
                yield _Found(blob.key, blob.size, pointer_of(storage, blob), blob.key in here)
            except (DamageError, FormatError) as error:
                yield _Found(blob.key, blob.size, is_local=blob.key in here, problem=str(error))
