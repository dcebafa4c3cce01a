"""Layout: which key holds what in a store (design: "On disk").  Keys are made here and nowhere else."""

from __future__ import annotations

import re
import unicodedata
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from mltraq_ds.errors import ConflictError, CorruptRecordError, InvalidNameError, KeyExistsError, KeyMissingError
from mltraq_ds.ids import escape_name, validate_key
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors
from mltraq_ds.store.no_place import refuse_file, refuse_no_place

__all__ = [
    "ARTIFACTS",
    "BESIDE",
    "CLONE",
    "META",
    "MOVING",
    "PENDING",
    "STORE",
    "VERIFIED",
    "artifact_folder",
    "artifact_meta_bytes",
    "blob_key",
    "experiment_folders",
    "folder_of",
    "generation_key",
    "generation_number",
    "has_experiments",
    "is_managed",
    "meta_bytes",
    "meta_key",
    "now_text",
    "read_store_id",
    "records_key",
    "refuse_moved",
    "run_record_key",
    "store_id",
    "validate_prefix",
]

STORE = "_store.json"
PENDING = "_pending"
#: When remotes were last verified from here; for people.
VERIFIED = "_verified.json"
#: Which versions of its experiments a clone got from its source.
CLONE = "_clone.json"
META = "_meta.json"
ARTIFACTS = "artifacts"
#: A place that a store is being moved to, or was: see `mltraq_ds.store.moving`.
MOVING = "_moving.json"
#: Folders inside that of an experiment, for what is put there beside persist.
BESIDE = ("artifacts", "derived", "experiments", "logs", "results")

_GENERATION = re.compile(r"generations/([1-9][0-9]{0,17})\.json")


def now_text() -> str:
    """Return the present time as ISO 8601 in UTC (microseconds), for people; no decision depends on it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def folder_of(id_experiment: str) -> str:
    """Return the folder of an experiment: its id, escaped so that different ids never share one."""
    return escape_name(id_experiment)


def artifact_folder(name: str) -> str:
    """Return the folder of a saved artifact: its name, escaped so that different names never share one."""
    return f"{ARTIFACTS}/{escape_name(name)}"


def blob_key(folder: str, name: uuid.UUID) -> str:
    """Return the key of a blob: the hexadecimal id directly inside the experiment's folder."""
    return f"{folder}/{name.hex}"


def generation_key(folder: str, number: int) -> str:
    """Return the key of a generation."""
    return f"{folder}/generations/{number}.json"


def generation_number(folder: str, key: str) -> int | None:
    """Return the number if `key` is a generation of this experiment."""
    match = _GENERATION.fullmatch(key[len(folder) + 1 :])
    return int(match.group(1)) if match else None


def records_key(folder: str) -> str:
    """Return a fresh key for all records of one persist."""
    return f"{folder}/runs/{uuid.uuid4().hex}.jsonl"


def run_record_key(folder: str, id_run: str) -> str:
    """Return the key of a record that was put alone."""
    return f"{folder}/runs/{escape_name(id_run)}.json"


def meta_key(folder: str) -> str:
    """Return the key of the file that marks a managed folder."""
    return f"{folder}/{META}"


def meta_bytes(id_experiment: str, name: str, generation: int) -> bytes:
    """Return the bytes of `_meta.json`: what this folder is, for people, and for tools that list a store."""
    body = {"kind": "experiment", "id_experiment": id_experiment, "name": name, "generation": generation}
    return descriptors.to_bytes("folder", body)


def artifact_meta_bytes(name: str) -> bytes:
    """Return the bytes of `_meta.json` in the folder of a saved artifact."""
    return descriptors.to_bytes("folder", {"kind": "artifact", "name": name})


def names_generation(storage: Storage, folder: str) -> bool:
    """Tell whether `_meta.json` says that there was a generation; a folder without that mark never had one."""
    try:
        body = descriptors.from_bytes(storage.read(meta_key(folder)), "folder", meta_key(folder))
    except KeyMissingError:
        return False
    return bool(body.get("generation"))


def is_managed(storage: Storage, segment: str) -> bool:
    """Tell whether a folder at the root is ours: reserved by its name or marked by `_meta.json`."""
    # Whatever the file system makes of capitals and wide letters.
    folded = unicodedata.normalize("NFKC", segment).casefold()
    return folded.startswith("_") or folded == ARTIFACTS or storage.exists(f"{segment}/{META}")


def experiment_folders(storage: Storage) -> list[str]:
    """Return the folders at the root that may hold an experiment, sorted; the user's own folders are among them."""
    return [name for name in storage.folders() if not name.startswith("_") and name != ARTIFACTS]


def has_experiments(storage: Storage) -> bool:
    """Tell whether there is an experiment or a saved artifact, or was one, in a store."""
    folders = experiment_folders(storage)
    if any(storage.exists(meta_key(folder)) for folder in folders):
        return True
    # The marks may be lost, and a store that is not empty must not be taken for a new one.
    found = ((folder, stat.key) for folder in folders for stat in storage.list(f"{folder}/generations"))
    if any(generation_number(folder, key) for folder, key in found):
        return True
    return any(storage.exists(f"{ARTIFACTS}/{name}/{META}") for name in storage.folders(ARTIFACTS))


def validate_prefix(storage: Storage, prefix: object) -> str:
    """Return a prefix of DataStoreIO if it is a place of the user's own inside the store.

    Raises
    ------
    InvalidNameError
        If it is missing, empty, leaves the store, or lies in a folder that `persist` manages.  Nothing was changed.
    """
    if not isinstance(prefix, str) or not prefix:
        raise InvalidNameError(
            f"relative_path_prefix is required and was {prefix!r}: without one the whole store would be meant. Use a "
            "folder of your own, such as 'self_managed/x'."
        )
    validate_key(prefix, "relative_path_prefix")
    first = prefix.partition("/")[0]
    if _looks_like_experiment(first) or is_managed(storage, first):
        raise InvalidNameError(
            f"relative_path_prefix {prefix!r} is refused because the folder {first!r} is managed by persist() or "
            "reserved. Use a folder of your own, such as 'self_managed/x'."
        )
    return prefix


def _looks_like_experiment(segment: str) -> bool:
    # An experiment of that id may be persisted later, and would find the folder taken.
    try:
        return str(uuid.UUID(segment)) == segment.lower() or len(segment) == 32
    except ValueError:
        return False


def read_store_id(storage: Storage, *, is_writing: bool = False) -> str | None:
    """Return the id in `_store.json`, or None if this is not a store yet.

    Raises
    ------
    ConflictError
        If the store has moved; for those who are writing, also if it is being moved.
    CorruptRecordError
        If it cannot be read.
    """
    try:
        data = storage.read(STORE)
    except KeyMissingError:
        return None
    body = descriptors.from_bytes(data, "store", STORE)
    if "moved_to" in body:
        raise ConflictError(
            f"The store that was at {storage.url} has moved to {body['moved_to']!s:.500}. Set 'datastore.url' to that "
            "place; what is left here is a copy of before, to be removed."
        )
    if is_writing and "moving_to" in body:
        raise ConflictError(
            f"Nothing can be written to {storage.url} because the store is being moved to {body['moving_to']!s:.500}. "
            "Use that place when it is there; if the move was killed, call move_store() with that place again."
        )
    identity = body.get("store_id")
    if not isinstance(identity, str):
        raise CorruptRecordError(f"{STORE} has no store id. It was damaged; restore it from a copy.")
    return identity


def refuse_moved(storage: Storage) -> None:
    """Raise if the store has moved, or is being moved.

    Writers call it when their intent is there, those without an intent when their file is there too: a move that does
    not see it has marked the store before, and is seen here.

    Raises
    ------
    ConflictError
        Nothing was changed here.
    """
    read_store_id(storage, is_writing=True)


def store_id(storage: Storage) -> str:
    """Return the id of a store that can be written to, which is made now if it is new.

    One of several makers wins, all get the same id.

    Raises
    ------
    UsageError
        If no store can be here.  Nothing was changed.
    """
    refuse_file(storage)
    known = read_store_id(storage, is_writing=True)
    if known is None:
        refuse_no_place(storage)
    while known is None:
        body: dict[str, Any] = {"store_id": str(uuid.uuid4()), "created": now_text()}
        data = descriptors.to_bytes("store", body)
        with suppress(KeyExistsError):  # another maker was first; its id is read back
            storage.put(STORE, [data], size=len(data), parents=True)
        known = read_store_id(storage, is_writing=True)
    return known
