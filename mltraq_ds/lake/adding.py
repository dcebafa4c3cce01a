"""Adding: upload blobs, and put pointers beside them or in their place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mltraq_ds.errors import NotFoundError, RemotesError, UsageError
from mltraq_ds.lake import copying, dropping, modes
from mltraq_ds.lake.holding import held
from mltraq_ds.lake.modes import Mode
from mltraq_ds.lake.naming import Keys, Store, Urls, create_remotes, storage_of, urls_of
from mltraq_ds.lake.remotes import Remote
from mltraq_ds.lake.report import BlobRow, LakeReport
from mltraq_ds.lake.selection import Selected, Selection
from mltraq_ds.lake.uploading import Uploaded, Uploader, write_pointer
from mltraq_ds.lake.work import Failures, do
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.storage.pointer import pointer_key

__all__ = ["add", "upload", "upload_step"]


def add(
    store: Store,
    output: Store = None,
    *,
    remotes: Urls,
    keys: Keys = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    jobs: int | None = None,
    in_place: bool = False,
    num_copies: int = 1,
    prune: bool = False,
) -> LakeReport:
    """Upload blobs, and put pointers in their place: in a second store, or in this one.

    Parameters
    ----------
    store : Session, Storage, URL or path
        The store whose blobs are uploaded.
    output : Session, Storage, URL or path, optional
        A store that is written whole, with pointers for the selected blobs and copies of the others.
    remotes : URL or iterable of URL
        Where each blob goes, in the order in which readers will ask.
    keys : iterable of str, optional
        Names of fields; all by default.
    start, stop, step : int
        Slice of the runs, counted through the whole store; all by default.
    jobs : int, optional
        Number of threads; 8 by default.
    in_place : bool
        Instead of `output`: local bytes are removed when their pointer is durable and the remotes were seen to have
        them.
    num_copies : int
        On how many remotes a blob must be before its local bytes go.
    prune : bool
        Remove experiments from `output` that came from this store and are not here any more, unless somebody changed
        them there.  By default they are kept; either is in the notes of the report.

    Returns
    -------
    LakeReport
        One row per selected blob: ``uploaded``, ``found``, ``repaired`` or ``refreshed``.

    Raises
    ------
    UsageError
        If neither or both of `output` and `in_place` are given, `prune` without `output`, or `num_copies` is more than
        there are remotes.
    RemotesError
        If some blobs could not be uploaded.  Their local bytes stay; run it again to finish.
    """
    if (output is None) != in_place:
        raise UsageError("add() writes into output=… or works in place (in_place=True), and one of them only.")
    if prune and in_place:
        raise UsageError("add(prune=True) is refused: it removes from output=…, and in_place=True has none.")
    selection = Selection.of(keys, start, stop, step)
    storage, homes = storage_of(store), create_remotes(remotes)
    places = len({home.identity for home in homes})
    if not 1 <= num_copies <= places:
        raise UsageError(f"num_copies={num_copies} is refused: {places} different remotes are given.")
    selected = selection.read(storage)
    failures = Failures("uploaded")
    rows: list[BlobRow] = []
    notes: tuple[str, ...] = ()
    if in_place:
        removed = Failures("removed here")
        with held(storage) as guard:
            uploaded = _upload(storage, homes, selected, failures, jobs, is_trusting=False)
            local = [one for one in uploaded if one.is_local]
            do(
                lambda one: dropping.drop_seen(storage, one, homes, guard),
                local,
                lambda one: one.reference.key,
                removed,
                jobs,
            )
        failures.causes |= removed.causes
        rows = [one.row(is_local=one.reference.key in removed.causes) for one in uploaded]
    else:
        target = storage_of(output, is_new=True)
        rows, notes = _add_to_output(storage, target, homes, selected, failures, jobs, prune=prune)
    failures.raise_any(sum(len(one.blobs) for one in selected))
    return LakeReport("add", storage.url, tuple(rows), notes=notes)


def _add_to_output(
    storage: Storage,
    target: Storage,
    homes: Sequence[Remote],
    selected: Sequence[Selected],
    failures: Failures,
    jobs: int | None,
    *,
    prune: bool,
) -> tuple[list[BlobRow], tuple[str, ...]]:
    done: dict[str, Uploaded] = {}
    blobs = [blob for one in selected for blob in one.blobs]
    wanted = {blob.key for blob in blobs}

    def keep(batch: list[Uploaded]) -> None:
        for one in batch:
            done[one.reference.key] = one

    Uploader(storage, homes, is_trusting=False).upload(blobs, keep, failures, jobs)

    def place(reference: Reference) -> BlobRow:
        if reference.key in done:
            write_pointer(target, reference, done[reference.key].pointer, parents=True)
            return done[reference.key].row(is_local=False)
        if reference.key in wanted:
            raise RemotesError("It was not uploaded.")
        return modes.clone_blob(storage, target, reference, Mode.DEEP_COPY, fallback=False)

    placed = Failures("written")
    rows, notes = copying.clone_store(storage, target, selected, place, placed, jobs, prune=prune)
    failures.causes = {**placed.causes, **failures.causes}
    return [row for row in rows if row.key in done], notes


def upload(
    store: Store,
    *,
    remotes: Urls,
    keys: Keys = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    jobs: int | None = None,
) -> LakeReport:
    """Upload blobs and keep the local bytes, with a pointer beside them; parameters and errors as of `add`."""
    storage, homes = storage_of(store), create_remotes(remotes)
    selected = Selection.of(keys, start, stop, step).read(storage)
    failures = Failures("uploaded")
    uploaded = _upload(storage, homes, selected, failures, jobs, is_trusting=True)
    failures.raise_any(sum(len(one.blobs) for one in selected))
    return LakeReport("upload", storage.url, tuple(one.row() for one in uploaded))


def _upload(
    storage: Storage,
    homes: Sequence[Remote],
    selected: Sequence[Selected],
    failures: Failures,
    jobs: int | None,
    *,
    is_trusting: bool,
) -> list[Uploaded]:
    """Upload and write pointers, durably, before anything relies on them."""
    pointed: list[Uploaded] = []

    def write(one: Uploaded) -> Uploaded:
        if not one.is_written:
            write_pointer(storage, one.reference, one.pointer)
        return one

    def point(batch: list[Uploaded]) -> None:
        written = do(write, batch, lambda one: one.reference.key, failures, jobs, is_shown=False)
        storage.flush(pointer_key(one.reference.key) for one in written)  # also those that a kill left unflushed
        pointed.extend(written)

    blobs = [blob for one in selected for blob in one.blobs]
    Uploader(storage, homes, is_trusting=is_trusting).upload(blobs, point, failures, jobs)
    return pointed


def upload_step(remotes: Urls, keys: Keys = None) -> Callable[[Any], None]:
    """Return a step that uploads the blobs of a run and keeps the local bytes.

    What the run has in the store is uploaded at once, and what it has when it is persisted next right after that: in a
    new experiment ``execute([train, upload_step(…)])`` and then ``persist()`` are enough.  An upload that fails then is
    raised by ``persist()``; the experiment is persisted, and the next ``persist()`` tries again.

    Parameters
    ----------
    remotes : URL or iterable of URL
        Where each blob goes.
    keys : iterable of str, optional
        Names of fields; all by default.  A run that has none of a name fails with `NotFoundError`.
    """
    return _UploadStep(tuple(os.fspath(url) for url in urls_of(remotes)), Selection.of(keys, 0, None, 1).keys)


class _UploadStep:
    """A class, not a closure: workers get it pickled."""

    def __init__(self, remotes: tuple[str, ...], keys: tuple[str, ...]) -> None:
        self.remotes = remotes
        self.keys = keys

    def __call__(self, run: Any) -> None:
        known = {*run.params, *run.config, *run.fields}
        if unknown := set(self.keys) - known:
            raise NotFoundError(
                f"Run {run.id_run} has no field named {', '.join(map(repr, sorted(unknown)))}. It has "
                f"{', '.join(sorted(map(str, known))) or 'none'}."
            )
        run.after_persist.append(self.upload)
        with suppress(NotFoundError):  # not in the store yet
            self.upload(run, None)

    def upload(self, run: Any, store: Store) -> None:
        """Upload what the run has in the store."""
        storage = storage_of(store)
        selected = Selection(self.keys).read_run(storage, str(run.id_experiment), str(run.id_run))
        homes = create_remotes(self.remotes)
        failures = Failures("uploaded")
        _upload(storage, homes, [selected], failures, None, is_trusting=True)
        failures.raise_any(len(selected.blobs))
