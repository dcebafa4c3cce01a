"""Checking one experiment: its generations, records and blobs against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mltraq_ds.errors import KeyMissingError, MltraqDSError, RemotesError
from mltraq_ds.pointed import read_pointer
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import descriptors, generations, layout, references
from mltraq_ds.store.beside import check_beside
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.report import Notebook
from mltraq_ds.store.survey import Folder, seems_alive

__all__ = ["Examined", "examine"]


@dataclass
class Examined(Notebook):
    """What was found about one folder.

    Parameters
    ----------
    generation : Generation or None
        The current one, if there is one and it can be read.
    is_unreadable : bool
        Whether there is one that cannot be read: then nobody can tell what is an orphan.
    n_runs : int
        How many runs the records have; -1 if they cannot be read.
    """

    generation: Generation | None = None
    is_unreadable: bool = False
    n_runs: int = -1
    used: set[str] = field(default_factory=set)

    @property
    def id_experiment(self) -> str:
        """Id of the experiment; empty if it is not known."""
        return self.generation.id_experiment if self.generation else ""


def examine(storage: Storage, folder: Folder, writers: Sequence[Intent], *, deep: bool) -> Examined:
    """Check one managed folder.

    Parameters
    ----------
    storage : Storage
        Of the store.
    folder : Folder
        What was listed *before* the intents were read.
    writers : sequence of Intent
        All intents, read before this is called: what moves meanwhile moves from an intent to a generation, so nothing
        that is in use is taken for an orphan.
    deep : bool
        Read every byte of every blob.
    """
    found = Examined()
    _read_generations(storage, folder, found)
    is_ours = found.generation is not None or found.is_unreadable or _is_experiment(storage, folder, found)
    for stat in folder.foreign:
        found.add("foreign file", stat.key, found.id_experiment, stat.size, "No part of an experiment.")
    if not is_ours:
        return found
    if found.generation is not None and not found.generation.deleted:
        _check_live(storage, folder, found.generation, found, deep=deep)
    check_beside(storage, folder.name, folder.beside, found, found.id_experiment, deep=deep)
    folded = found.generation.folds if found.generation else ()
    for key in folder.singles:
        _check_single(storage, folder, key, folded, found)
    # Who replaces an experiment ends it under an intent that names another one.
    ended_by = found.generation.writer if found.generation and found.generation.deleted else ""
    ours = (one for one in writers if layout.folder_of(one.id_experiment) == folder.name or one.writer == ended_by)
    if not found.is_unreadable and not any(seems_alive(storage, intent) for intent in ours):
        _find_orphans(folder, found)
    return found


def _read_generations(storage: Storage, folder: Folder, found: Examined) -> None:
    for number in sorted(folder.generations, reverse=True):
        stat = folder.generations[number]
        if not stat.size:
            found.note("torn commit", stat.key, detail="A commit was killed there; nothing was lost.")
            continue
        try:
            generation = generations.read(storage, folder.name, number)
        except KeyMissingError:
            continue  # pruned since it was listed
        except MltraqDSError as error:
            is_current = found.generation is None and not found.is_unreadable
            found.is_unreadable |= is_current
            history = "" if is_current else " It is not the current one."
            found.add("unreadable generation", stat.key, found.id_experiment, stat.size, f"{error}{history}")
        else:
            if found.generation is None and not found.is_unreadable:
                found.generation = generation


def _is_experiment(storage: Storage, folder: Folder, found: Examined) -> bool:
    """Tell whether a folder without a generation is an experiment's; note what else it is."""
    if folder.meta is None:
        if folder.singles:
            detail = "The mark of a managed folder is gone; the next sweep, or record that is put, gives a new one."
            found.add("unreadable descriptor", layout.meta_key(folder.name), detail=detail)
        return True  # an intent names it, or it has records that were put alone
    try:
        body = descriptors.from_bytes(storage.read(folder.meta.key), "folder", folder.meta.key)
    except KeyMissingError:
        return True
    except MltraqDSError as error:
        found.add("unreadable descriptor", folder.meta.key, size_bytes=folder.meta.size, detail=str(error))
        return False
    if body.get("kind") != "experiment":
        found.note("managed elsewhere", folder.name, size_bytes=folder.size_bytes, detail=f"Kind {body.get('kind')!r}.")
        return False
    if body.get("generation"):
        found.is_unreadable = True
        where, id_experiment = f"{folder.name}/generations", str(body.get("id_experiment", ""))
        detail = f"{layout.META} speaks of generation {body['generation']}, and there is no generation at all."
        found.add("unreadable generation", where, id_experiment, detail=detail)
    return True


def _check_mark(storage: Storage, folder: Folder, generation: Generation, found: Examined, *, deep: bool) -> None:
    """Check the copy in `_meta.json`; no reader needs it, and the next persist renews it."""
    key = layout.meta_key(folder.name)
    add = partial(found.add, "unreadable descriptor", key, generation.id_experiment)
    if folder.meta is None:
        add(detail="The mark of a managed folder is gone; persist the experiment again to get a new one.")
    elif deep:
        try:
            body = descriptors.from_bytes(storage.read(key), "folder", key)
        except KeyMissingError:
            return
        except MltraqDSError as error:
            add(detail=f"{error} Or persist the experiment again, which renews it.")
            return
        if body.get("id_experiment") != generation.id_experiment:
            add(detail=f"It is that of experiment {body.get('id_experiment')!r:.80}; persist again to get a new one.")
        elif isinstance(number := body.get("generation"), int) and number > generation.number:
            detail = f"{layout.META} speaks of generation {number}, and the newest is {generation.number}."
            found.add("unreadable generation", f"{folder.name}/generations", generation.id_experiment, detail=detail)


def _check_live(storage: Storage, folder: Folder, generation: Generation, found: Examined, *, deep: bool) -> None:
    _check_mark(storage, folder, generation, found, deep=deep)
    listed = {reference.key: reference for reference in generation.blobs}
    mentioned: dict[str, set[str]] = {}
    n_runs = 0
    for record in generation.records:
        content = _check_record(storage, folder, record, generation, found)
        if content is None:
            n_runs = -1
            continue
        n_runs += len(content[1]) if n_runs >= 0 else 0
        for reference in content[2]:
            mentioned.setdefault(reference.key, set()).add(reference.fragment)
            _check_listed(reference, listed, record.key, generation, found)
    found.n_runs = n_runs
    found.used |= generation.keys | mentioned.keys()
    for reference in generation.blobs:
        add = partial(found.add, key=reference.key, experiment=generation.id_experiment, size_bytes=reference.size)
        if not _is_there(storage, folder, reference, found):
            add("dangling reference", detail=f"Generation {generation.number} refers to this blob, and it is gone.")
        elif (stat := folder.blobs.get(reference.key)) and stat.size != reference.size:
            add("corrupt blob", detail=f"It has {stat.size} bytes, and {reference.size} were written.")
        elif deep:
            try:
                damage, nested = references.damage_of_blob(storage, reference, sorted(mentioned.get(reference.key, ())))
            except RemotesError as error:
                add("unreachable remote", detail=str(error))
                continue
            for sentence in damage:
                add("corrupt blob", detail=sentence)
            for inner in nested:
                _check_listed(inner, listed, reference.key, generation, found)


def _is_there(storage: Storage, folder: Folder, reference: Reference, found: Examined) -> bool:
    """Tell whether a blob is here or on remotes; note what is wrong with its pointer."""
    stat = folder.pointers.get(reference.key)
    if stat is not None:
        add = partial(found.add, "unreadable pointer", stat.key, found.id_experiment, stat.size)
        try:
            pointer = read_pointer(storage, reference.key)
        except MltraqDSError as error:
            add(str(error))
        else:
            if pointer is not None and (pointer.size, pointer.index) != (reference.size, reference.digest):
                add("It stands for another blob than the one that is referred to.")
    return stat is not None or reference.key in folder.blobs


def _check_record(
    storage: Storage, folder: Folder, record: Reference, generation: Generation, found: Examined
) -> tuple[dict[str, Any], list[dict[str, Any]], list[Reference]] | None:
    add = partial(found.add, key=record.key, experiment=generation.id_experiment, size_bytes=record.size)
    if record.key not in folder.records:
        add("dangling reference", detail=f"Generation {generation.number} refers to this record, and it is gone.")
        return None
    try:
        data = storage.read(record.key)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != record.digest:
            add("unreadable record", detail="Its bytes differ from those that were written.")
            return None
        content = references.in_record(data, record.key)
    except MltraqDSError as error:
        add("unreadable record", detail=str(error))
        return None
    if content[0]["id_experiment"] != generation.id_experiment:
        add("unreadable record", detail=f"It is that of experiment {content[0]['id_experiment']!r:.80}.")
    return content


def _check_listed(
    reference: Reference, listed: dict[str, Reference], by: str, generation: Generation, found: Examined
) -> None:
    known = listed.get(reference.key)
    if known is None or (known.size, known.digest) != (reference.size, reference.digest):
        detail = f"{by} refers to this blob; generation {generation.number} does not, or to another version of it."
        found.add("unlisted reference", reference.key, generation.id_experiment, reference.size, detail)


def _check_single(storage: Storage, folder: Folder, key: str, folded: Sequence[str], found: Examined) -> None:
    try:
        put_id, inside = references.in_single(storage.read(key, max_size=descriptors.RECORD_SIZE), key)
    except KeyMissingError:
        return
    except MltraqDSError as error:
        found.is_unreadable = True
        found.add("unreadable record", key, found.id_experiment, folder.singles[key].size, str(error))
        return
    found.used.add(key)  # whoever removed one that was folded could meet one that was put just now
    if put_id in folded:
        return
    for reference in inside:
        found.used.add(reference.key)
        if not _is_there(storage, folder, reference, found):
            detail = f"Record {key} refers to this blob, and it is gone."
            found.add("dangling reference", reference.key, found.id_experiment, reference.size, detail)
        elif (stat := folder.blobs.get(reference.key)) and stat.size != reference.size:
            detail = f"It has {stat.size} bytes, and {reference.size} were written."
            found.add("corrupt blob", reference.key, found.id_experiment, reference.size, detail)


def _find_orphans(folder: Folder, found: Examined) -> None:
    files = (*folder.blobs.items(), *folder.pointers.items(), *folder.records.items())
    for key, stat in files:
        if key not in found.used:
            found.add("orphan", stat.key, found.id_experiment, stat.size, "Nothing refers to it.")
    if found.generation is None and folder.meta is not None and not found.used and not folder.beside:
        detail = "A persist was killed before anything was committed here."
        found.add("orphan", folder.meta.key, size_bytes=folder.meta.size, detail=detail)
