"""What lies beside the records of an experiment, for check and sweep: artifacts, derived metrics, results and so on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial

from mltraq_ds.errors import KeyMissingError, MltraqDSError
from mltraq_ds.storage.base import Stat, Storage
from mltraq_ds.store import descriptors, file_layout, run_mapping
from mltraq_ds.store.report import Notebook
from mltraq_ds.store.types import ArtifactDescriptor

__all__ = ["check_beside", "is_artifact", "kept_artifacts"]

_KINDS = {"derived": "derived", "results": "result", "experiments": "manifest"}
_STEP = 1 << 20


def is_artifact(folder: str, key: str) -> bool:
    """Tell whether a key is that of the bytes of an artifact."""
    return file_layout.entry_of(folder, key) is not None


def kept_artifacts(storage: Storage, folder: str) -> set[str]:
    """Return the keys of all bytes that an entry of a manifest names.

    Raises
    ------
    CorruptRecordError, FormatError
        If one cannot be read: it might name anything.
    """
    kept = set()
    for stat in storage.list(f"{folder}/{file_layout.ARTIFACTS}"):
        if file_layout.is_entry(folder, stat.key):
            entry = _read_entry(storage, stat.key)
            kept |= {entry.uri} if entry is not None else set()
    return kept


def check_beside(
    storage: Storage, folder: str, stats: Iterable[Stat], found: Notebook, experiment: str, *, deep: bool
) -> None:
    """Check everything beside the records that has a form of ours; logs have none.

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : str
        Of the experiment.
    stats : iterable of Stat
        What lies there, as listed.
    found : Notebook
        Where findings go.
    experiment : str
        Id of the experiment, if it is known.
    deep : bool
        Read every byte of every artifact.
    """
    artifacts, entries = {}, []
    for stat in stats:
        if is_artifact(folder, stat.key):
            artifacts[stat.key] = stat
        elif file_layout.is_entry(folder, stat.key):
            entries.append(stat)
        elif kind := file_layout.kind_of(folder, stat.key):
            _check_document(storage, _KINDS[kind], stat, found, experiment)
    known = set()
    for stat in entries:
        add = partial(found.add, key=stat.key, experiment=experiment, size_bytes=stat.size)
        try:
            entry = _read_entry(storage, stat.key)
        except MltraqDSError as error:
            add("unreadable record", detail=str(error))
            known |= {key for key in artifacts if file_layout.entry_of(folder, key) == stat.key}
            continue
        if entry is not None:
            known.add(entry.uri)
            _check_artifact(storage, entry, artifacts.get(entry.uri), found, experiment, deep=deep)
    for key in artifacts.keys() - known:
        if _is_orphan(storage, folder, key):
            found.add("orphan", key, experiment, artifacts[key].size, "No entry of a manifest names it.")


def _check_document(storage: Storage, kind: str, stat: Stat, found: Notebook, experiment: str) -> None:
    try:
        body = descriptors.from_bytes(storage.read(stat.key, max_size=descriptors.RECORD_SIZE), kind, stat.key)
    except KeyMissingError:
        return
    except MltraqDSError as error:
        found.add("unreadable record", stat.key, experiment, stat.size, str(error))
        return
    home = file_layout.home_of(stat.key.partition("/")[0], kind, body)
    if home != stat.key:
        detail = f"It was moved here from {home or 'elsewhere'}: move it back."
        found.add("unreadable record", stat.key, experiment, stat.size, detail)


def _check_artifact(
    storage: Storage, entry: ArtifactDescriptor, stat: Stat | None, found: Notebook, experiment: str, *, deep: bool
) -> None:
    size = entry.size_bytes or 0
    if stat is None and not storage.exists(entry.uri):
        detail = f"It is artifact {entry.name!r:.80} of run {entry.run_id!r:.80}, and it is gone."
        found.add("dangling reference", entry.uri, experiment, detail=detail)
    elif stat is not None and stat.size != size:
        found.add("corrupt blob", entry.uri, experiment, size, f"It has {stat.size} bytes, and {size} were written.")
    elif deep and _digest(storage, entry.uri) != entry.content_hash:
        found.add("corrupt blob", entry.uri, experiment, size, "Its bytes differ from those that were written.")


def _digest(storage: Storage, key: str) -> str:
    hashed, source = hashlib.sha256(), storage.open(key)
    try:
        for start in range(0, source.size, _STEP):
            hashed.update(source.read(start, min(_STEP, source.size - start)))
    finally:
        source.close()
    return f"sha256:{hashed.hexdigest()}"


def _is_orphan(storage: Storage, folder: str, key: str) -> bool:
    """Look again: it may have been put, or replaced, since the files were listed."""
    entry = file_layout.entry_of(folder, key)
    try:
        known = _read_entry(storage, entry) if entry else None
    except MltraqDSError:
        return False  # a finding of its own
    return (known is None or known.uri != key) and storage.exists(key)


def _read_entry(storage: Storage, key: str) -> ArtifactDescriptor | None:
    try:
        return run_mapping.entry_from(descriptors.from_bytes(storage.read(key), "artifact", key), key)
    except KeyMissingError:
        return None
