"""Checking the index against the files, in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mltraq_ds.errors import KeyMissingError, MltraqDSError
from mltraq_ds.orm import overview
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.overview import Summary
from mltraq_ds.orm.rows import NameClaim
from mltraq_ds.storage.base import Storage
from mltraq_ds.store import generations, intents, layout
from mltraq_ds.store.experiment_check import Examined
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.rebuilding import is_replaced, pins
from mltraq_ds.store.report import Notebook
from mltraq_ds.store.survey import read_intents, seems_alive

__all__ = ["check_index", "is_dead_claim"]

_LOOKS = 8


def check_index(storage: Storage, index: Index, examined: Sequence[Examined], found: Notebook) -> None:
    """Add what the rows of a store say otherwise than its files; a database that does not answer is a finding."""
    try:
        _check(storage, index, examined, found)
    except (*INDEX_ERRORS, MltraqDSError) as error:
        found.add("unreachable database", detail=f"{index.database.url}: {error}")


def _check(storage: Storage, index: Index, examined: Sequence[Examined], found: Notebook) -> None:
    current = [one.generation for one in examined if one.generation]
    pinned = pins(current)
    living = {
        one.generation.id_experiment: one
        for one in examined
        if one.generation and not one.generation.deleted and not is_replaced(one.generation, pinned)
    }
    # Those without a generation have nothing but records that were put alone, see `single_check`.
    rows = {id_: row for id_, row in overview.summaries(index).items() if row.generation or id_ in living}
    alone = overview.single_counts(index)
    if living and not rows and not index.knows_store():
        detail = f"{index.database.url} has never read this store (id {index.store_id}), which is not empty."
        found.add("index drift", detail=detail)
        return
    blobs = _blob_keys(index)
    for id_experiment in sorted(living.keys() | rows.keys()):
        one, row = living.get(id_experiment), rows.get(id_experiment)
        difference = _difference(one, row, blobs.get(id_experiment, set()), alone.get(id_experiment, 0))
        if difference and _is_drift(storage, index, id_experiment, one, row):
            found.add("index drift", _key(one, id_experiment), id_experiment, detail=difference)
    names = overview.owners(index)
    for id_experiment in _check_names(living, rows, names, found):
        _check_owner(storage, index, id_experiment, living, found)
    for claim in names.values():
        if claim.store_id == index.store_id and is_dead_claim(storage, claim) and index.owner(claim.name) == claim:
            detail = f"The name {claim.name!r} is claimed by {claim.claim_intent}, which is gone."
            found.add("dead claim", experiment=str(claim.claimed_by), detail=detail)


def _key(one: Examined | None, id_experiment: str) -> str:
    folder = layout.folder_of(id_experiment)
    return layout.generation_key(folder, one.generation.number) if one and one.generation else folder


def _blob_keys(index: Index) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for id_experiment, blob in index.blob_references():
        found.setdefault(id_experiment, set()).add(blob.key)
    return found


def _difference(one: Examined | None, row: Summary | None, blobs: set[str], alone: int) -> str:
    """Return in words what differs; empty if nothing does.  Each record put alone may stand for a run."""
    if one is None or one.generation is None:
        return f"The index has generation {row.generation if row else 0}; there is no such experiment."
    generation = one.generation
    if row is None:
        return f"The index does not have it; it is at generation {generation.number}."
    if row.generation != generation.number:
        return f"The index has generation {row.generation}; it is at generation {generation.number}."
    if row.name != generation.name:
        return f"The index has the name {row.name!r}; it is {generation.name!r}."
    if row.run_rows != row.n_runs or (one.n_runs >= 0 and not one.n_runs - alone <= row.n_runs <= one.n_runs):
        return f"The index has {row.run_rows} runs of {row.n_runs}; the records have {max(one.n_runs, 0)}."
    if blobs != {blob.key for blob in generation.blobs}:
        return f"The index has {len(blobs)} blobs; generation {generation.number} has {len(generation.blobs)} others."
    return ""


def _is_drift(storage: Storage, index: Index, id_experiment: str, one: Examined | None, row: Summary | None) -> bool:
    """Look again at files, intents, row and files, in this order, so that no writer at work is taken for drift."""
    folder = layout.folder_of(id_experiment)
    for _ in range(_LOOKS):
        now, is_read = _current(storage, folder)
        intents = read_intents(storage).found
        known = index.get(id_experiment)
        after, is_read_again = _current(storage, folder)
        if not (is_read and is_read_again):
            return False  # that is a finding of its own
        if _ident(now) != _ident(after):
            continue
        names = {thing.name for thing in (now, known) if thing is not None}
        ours = (intent for intent in intents if intent.id_experiment == id_experiment or intent.name in names)
        if any(seems_alive(storage, intent) for intent in ours):
            return False
        number = now.number if now is not None and not now.deleted else 0
        if number != (known.generation if known else 0):
            return True
        # What else differs was seen of these versions, or will be by the next check.
        return _ident(now) == _ident(one.generation if one else None) and number == (row.generation if row else 0)
    return False


def _current(storage: Storage, folder: str) -> tuple[Generation | None, bool]:
    """Return the current generation, and whether it could be read."""
    try:
        return generations.current(storage, folder), True
    except MltraqDSError:
        return None, False


def _ident(generation: Generation | None) -> object:
    return generation.ident if generation else None


def _check_names(
    living: dict[str, Examined], rows: dict[str, Summary], names: dict[str, NameClaim], found: Notebook
) -> Iterator[str]:
    """Note names that several experiments have; yield the ids of those whose name nobody has."""
    shared: dict[str, list[str]] = {}
    for id_experiment, one in living.items():
        if one.generation is None or id_experiment not in rows:
            continue
        name = one.generation.name
        shared.setdefault(name, []).append(id_experiment)
        if name not in names or names[name].id_experiment is None:
            yield id_experiment
    for name, ids in shared.items():
        if len(ids) > 1:
            found.note("ambiguous name", experiment=", ".join(ids), detail=f"{name!r}: load these by id.")


def _check_owner(
    storage: Storage, index: Index, id_experiment: str, living: dict[str, Examined], found: Notebook
) -> None:
    one, row = living[id_experiment], index.get(id_experiment)
    name = one.generation.name if one.generation else ""
    intents = [intent for intent in read_intents(storage).found if intent.name == name]
    owner = index.owner(name)
    is_owned = owner is not None and owner.id_experiment is not None
    if row is not None and row.name == name and not is_owned and not any(seems_alive(storage, i) for i in intents):
        detail = f"The index does not know that it has the name {name!r}."
        found.add("index drift", _key(one, id_experiment), id_experiment, detail=detail)


def is_dead_claim(storage: Storage, claim: NameClaim) -> bool:
    """Tell whether a name is claimed by a writer whose intent is gone."""
    if claim.claim_intent is None:
        return False
    try:
        intents.read_intent(storage, claim.claim_intent)
    except KeyMissingError:
        return True
    except MltraqDSError:
        return False  # that is a finding of its own
    return False
