"""Single records: one run put alone into ``runs/<run-id>.json``, by many workers at once and without a lock.

A single record has a random put id.  It is current unless the generation lists that id under ``folds``; a persist folds
exactly what it has read.  So its file is replaced, but never removed while the experiment lives: a sweep that removed
what it has seen folded could remove what was put a moment later under the same name.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mltraq_ds.errors import CorruptRecordError, DamageError, FormatError, KeyMissingError, MltraqDSError
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, layout, records
from mltraq_ds.store.tagged_values import is_scalar

__all__ = [
    "Single",
    "all_of",
    "deleted_bytes",
    "folds_of",
    "keys",
    "merged",
    "parse",
    "put_ids",
    "read",
    "read_many",
    "to_bytes",
    "unfolded",
]

_THREADS = 16
_TEXTS = ("put_id", "id_experiment", "id_run", "status")


class Single(NamedTuple):
    """One single record: its key, its put id, and what it says of the run; `body` is None if it says "deleted"."""

    key: str
    put_id: str
    id_run: str
    body: dict[str, Any] | None


def to_bytes(id_experiment: str, body: dict[str, Any]) -> bytes:
    """Return the bytes of a new single record; `body` is that of a run, its values as tagged JSON."""
    head = {"put_id": str(uuid.uuid4()), "id_experiment": id_experiment, "deleted": False}
    return descriptors.to_bytes("run", {**head, **body})


def deleted_bytes(id_experiment: str, id_run: str) -> bytes:
    """Return the bytes of a record that says that a run is gone, also from the generation."""
    body = {"put_id": str(uuid.uuid4()), "id_experiment": id_experiment, "deleted": True, "id_run": id_run}
    return descriptors.to_bytes("run", body)


def parse(data: bytes, key: str) -> Single:
    """Parse and verify a single record.

    Raises
    ------
    CorruptRecordError
        If it does not verify, or is that of another run than its name says.
    FormatError
        If a newer version of the library wrote it.
    """
    body = descriptors.from_bytes(data, "run", key)
    put_id, id_experiment, id_run = (body.get(name) for name in ("put_id", "id_experiment", "id_run"))
    if not (isinstance(put_id, str) and put_id and isinstance(id_experiment, str) and isinstance(id_run, str)):
        raise CorruptRecordError(f"{key} cannot be read because it is not the record of a run. Restore it from a copy.")
    if layout.run_record_key(layout.folder_of(id_experiment), id_run) != key:
        raise CorruptRecordError(
            f"{key} is the record of run {id_run!r:.80} of experiment {id_experiment!r:.80}, so it was moved here from "
            "elsewhere. Move it back."
        )
    if body.get("deleted") is True:
        return Single(key, put_id, id_run, None)
    records.check_run_body(body, key)
    return Single(key, put_id, id_run, body)


def keys(storage: Storage, folder: str) -> list[str]:
    """Return the keys of the single records of an experiment, sorted."""
    skip = len(folder) + len("/runs/")
    found = (stat.key for stat in storage.list(f"{folder}/runs"))
    return sorted(key for key in found if key.endswith(".json") and "/" not in key[skip:])


def read(storage: Storage, key: str) -> Single | None:
    """Read one single record; None if there is none."""
    try:
        return parse(storage.read(key, max_size=descriptors.RECORD_SIZE), key)
    except KeyMissingError:
        return None


def unfolded(
    storage: Storage,
    folder: str,
    folds: Collection[str],
    on_corrupt: Callable[[MltraqDSError], None] | None = None,
) -> Iterator[Single]:
    """Yield the current single records of an experiment in the order of their keys.

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : str
        Of the experiment.
    folds : collection of str
        Put ids that the current generation has taken in.
    on_corrupt : callable, optional
        Given the error of each record that cannot be read; without it the first one is raised.
    """
    yield from read_many(storage, keys(storage, folder), frozenset(folds), on_corrupt)


def read_many(
    storage: Storage,
    wanted: list[str],
    folded: Collection[str],
    on_corrupt: Callable[[MltraqDSError], None] | None = None,
) -> Iterator[Single]:
    """Yield the single records under these keys that the generation has not taken in; see `unfolded`."""
    for found in _each(storage, wanted):
        if isinstance(found, MltraqDSError):
            if on_corrupt is None:
                raise found
            on_corrupt(found)
        elif found is not None and found.put_id not in folded:
            yield found


def folds_of(storage: Storage, folder: str, before: Collection[str], taken: Collection[str]) -> tuple[str, ...]:
    """Return what a new generation lists under ``folds``.

    What its parent had folded and what its writer has read, as far as a file still says so: an id that was replaced
    never comes back.  With a file that cannot be read nobody knows, and all are listed.
    """
    known = {*before, *taken}
    if not known:
        return ()
    there: set[str] = set()
    for found in _each(storage, keys(storage, folder)):
        if isinstance(found, MltraqDSError):
            return tuple(sorted(known))
        if found is not None:
            there.add(found.put_id)
    return tuple(sorted(known & there))


def merged(body: dict[str, Any] | None, single: Single) -> dict[str, Any] | None:
    """Return the record of a run: what the single one says, and of the generation's what no single record can say.

    That is ``config``, params in a blob, and every field that is no scalar.  None if the run is deleted.
    """
    if single.body is None or body is None:
        return single.body
    new = dict(single.body)
    kept = {name: value for name, value in body["fields"].items() if not is_scalar(value)}
    unread = {name: value for name, value in body["params"].items() if _is_reference(value)}
    new["fields"] = {**kept, **new["fields"]}
    new["params"] = {**unread, **new["params"]}
    new["config"] = new["config"] or body["config"]
    return new


def all_of(storage: Storage, folder: str) -> list[Single]:
    """Return all single records of an experiment that can be read, folded or not."""
    return [one for one in _each(storage, keys(storage, folder)) if isinstance(one, Single)]


def put_ids(storage: Storage, folder: str) -> frozenset[str]:
    """Return the put ids of all single records that can be read."""
    return frozenset(one.put_id for one in all_of(storage, folder))


def _is_reference(tagged: Any) -> bool:
    return isinstance(tagged, dict) and next(iter(tagged), "") == "$ref"


def _each(storage: Storage, found: list[str]) -> Iterator[Single | MltraqDSError | None]:
    def attempt(key: str) -> Single | MltraqDSError | None:
        try:
            return read(storage, key)
        except (DamageError, FormatError) as error:
            return error

    if storage.is_local or len(found) < 2:
        yield from map(attempt, found)
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(attempt, found)
