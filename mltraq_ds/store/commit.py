"""Commit: persist one experiment.  Validate, intent, blobs, records, generation (the commit), index, retire.

Blobs first, commit second, index third, removal last: a failure in between leaves an orphan, never a dangling
reference, and whatever was current before stays complete.  The order is that of the design, checked by the model in
``tests/model``; change neither without the other.
"""

from __future__ import annotations

import hashlib
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mltraq_ds import ids
from mltraq_ds.errors import (
    ConcurrentPersistError,
    DanglingReferenceError,
    ExperimentExistsError,
    IndexBehindWarning,
    KeyExistsError,
    KeyMissingError,
    LeftoversWarning,
    UsageError,
)
from mltraq_ds.ids import fresh_uuid
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import NameClaim
from mltraq_ds.reference import Reference
from mltraq_ds.store import generations, intents, layout, records
from mltraq_ds.store.generations import Generation
from mltraq_ds.store.intents import Intent, Keeper
from mltraq_ds.store.packing import write_group
from mltraq_ds.store.plan import Plan
from mltraq_ds.store.planned import PlannedBlob
from mltraq_ds.store.reading import Watch
from mltraq_ds.store.records import ExperimentContent
from mltraq_ds.store.retire import end_experiment, remove_files, retire
from mltraq_ds.store.rows import index_rows

__all__ = ["SEAMS", "Committed", "Persist"]

#: The seams of a persist, in order: `on_seam` is called with each name just before the step it names.
SEAMS = (
    "validate",
    "intent",
    "claim",
    "folder",
    "blobs",
    "records",
    "commit",
    "end_replaced",
    "index",
    "retire",
    "done",
)

COMMIT_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Committed:
    """What a persist has committed: the generation, and where each DataStore is now."""

    generation: Generation
    blobs: list[PlannedBlob]


@dataclass
class Persist:
    """One persist, from the first check to the last removal.

    Parameters
    ----------
    objects : Objects
        Of the store.
    index : Index or None
        The SQL side; None for a store without one, where names are not unique.
    content : ExperimentContent
        What to persist.
    base : int
        The generation that the caller's object was loaded from or last persisted as; 0 if it never was.
    base_ended : bool
        Whether `base` is the end that the caller's own delete committed.
    if_exists : {"fail", "replace", "update"}
        What to do if the experiment or its name exists.
    new_uuid : callable
        Gives the names of blobs.
    on_seam : callable
        Called with the name of each step before it (`SEAMS`), for tests.
    """

    objects: Objects
    index: Index | None
    content: ExperimentContent
    base: int = 0
    base_ended: bool = False
    if_exists: str = "fail"
    new_uuid: Callable[[], uuid.UUID] = uuid.uuid4
    on_seam: Callable[[str], None] = lambda name: None
    written: list[str] = field(default_factory=list, init=False)
    parent: Generation | None = field(default=None, init=False)
    replaces: tuple[str, ...] = field(default=(), init=False)
    folds: tuple[str, ...] = field(default=(), init=False)
    outcome_known: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.if_exists not in ("fail", "replace", "update"):
            raise UsageError(f"if_exists={self.if_exists!r} is unknown. Use 'fail', 'replace' or 'update'.")
        self.storage = self.objects.storage
        self.folder = layout.folder_of(self.content.id_experiment)
        self.plan = Plan(self.objects, self.folder)
        self.number = 0

    def run(self) -> Committed:
        """Persist.

        Raises
        ------
        UsageError and its kinds, ExperimentExistsError, StorageError
            If it is refused beforehand.  Nothing was changed anywhere.
        ConcurrentPersistError
            If another writer committed first.  Theirs stands, ours was removed again.
        Exception
            Whatever else stops it before the commit: what was current stays current, what was written is removed.
        """
        self.on_seam("validate")
        tagged = self._validate()
        self.on_seam("intent")
        intent = Intent(
            writer=str(uuid.uuid4()),
            action="persist",
            id_experiment=self.content.id_experiment,
            name=self.content.name,
            parent=self.parent.number if self.parent else 0,
            number=self.number,
            replaces=self.replaces,
        )
        with Keeper(self.storage, intent):
            try:
                generation = self._write(intent, tagged)
            except BaseException as error:  # also KeyboardInterrupt: cleans up, then goes on its way
                self._undo(intent, error)
                raise
            finished = self._follow_up(intent, generation, tagged)
        if finished:
            intents.remove_intent(self.storage, intent)
        self.on_seam("done")
        return Committed(generation, self.plan.blobs)

    def _validate(self) -> list[dict[str, Any]]:
        name, id_experiment = self.content.name, self.content.id_experiment
        label = f"experiment {name!r}"
        tagged: list[dict[str, Any]] = [{"fields": self.plan.add_mapping(self.content.fields, f"{label}, fields")}]
        for run in self.content.runs:
            where = f"{label}, run {run.id_run}"
            tagged.append(
                {part: self.plan.add_mapping(getattr(run, part), f"{where}, {part}") for part in records.MAPPINGS}
            )
        layout.store_id(self.storage)
        self._find_parent()
        if self.index is not None:
            self.index.validate_rows(*index_rows(self.content, tagged, None)[:2])
            claim = self.index.owner(name)
            if claim is not None and claim.id_experiment not in (None, id_experiment):
                if self.if_exists != "replace":
                    raise ExperimentExistsError(
                        f"Experiment {name!r} cannot be persisted because another one has this name (id "
                        f"{claim.id_experiment}). Use another name, or if_exists='replace' to put this one in its "
                        "place."
                    )
                self._replace(claim)
        return tagged

    def _replace(self, claim: NameClaim) -> None:
        if self.index is not None and claim.store_id != self.index.store_id:
            raise ExperimentExistsError(
                f"Experiment {self.content.name!r} cannot take the place of the one of this name (id "
                f"{claim.id_experiment}) because that one is in another store. Use another name, or delete it there."
            )
        self.replaces = (str(claim.id_experiment),)

    def _is_claim_alive(self, claim: NameClaim) -> bool:
        if self.index is not None and claim.store_id != self.index.store_id:
            return True  # its intent is in another store, which cannot be asked
        if claim.claim_intent is None:
            return False
        try:
            return intents.is_alive(self.storage, intents.read_intent(self.storage, claim.claim_intent))
        except KeyMissingError:
            return False

    def _find_parent(self) -> None:
        current = generations.current(self.storage, self.folder)
        highest = max(generations.numbers(self.storage, self.folder), default=0)
        # Numbers go on after a delete: a slow writer of before must never hit the number of a new life.
        self.number = max(self.base, highest) + 1
        if current is None or current.deleted:
            if self.base and not self.base_ended:
                raise self._lost(f"it was deleted after generation {self.base}")
            return
        if self.if_exists == "fail":
            raise ExperimentExistsError(
                f"Experiment {self.content.name!r} (id {self.content.id_experiment}) has been persisted before, as "
                f"generation {current.number}. Use if_exists='update' to persist its new state."
            )
        if self.if_exists == "update" and current.number != self.base:
            raise self._lost(f"generation {current.number} was committed by another writer at {current.created}")
        self.parent = current

    def _lost(self, reason: str) -> ConcurrentPersistError:
        return ConcurrentPersistError(
            f"Experiment {self.content.name!r} (id {self.content.id_experiment}) was not persisted because {reason}. "
            "Theirs stands. Use reload() to continue from it, or copy_to() to keep this one beside it."
        )

    def _write(self, intent: Intent, tagged: list[dict[str, Any]]) -> Generation:
        self.on_seam("claim")
        if self.index is not None:
            self.index.claim(
                intent.name,
                intent.id_experiment,
                intent.key,
                replacing=self.replaces[0] if self.replaces else None,
                is_alive=self._is_claim_alive,
            )
        self.on_seam("folder")
        if self.parent is None:
            self._make_folder()
        try:
            self.on_seam("blobs")
            self._write_blobs()
            self.on_seam("records")
            record = self._write_records(tagged)
            self.storage.flush(self.written)
            self._check_kept()
        except KeyMissingError as error:
            raise self._lost("it was deleted meanwhile") from error
        generation = Generation(
            id_experiment=intent.id_experiment,
            name=intent.name,
            number=self.number,
            parent=intent.parent,
            writer=intent.writer,
            records=(record,),
            blobs=self.plan.references(),
            folds=self.folds,
            replaces=intent.replaces,
        )
        self.on_seam("commit")
        self._commit(generation)
        return generation

    def _make_folder(self) -> None:
        # Only the first persist of an experiment makes its folder, so that a late writer cannot revive a deleted one.
        for folder in (self.folder, f"{self.folder}/generations", f"{self.folder}/runs"):
            try:
                self.storage.make_folder(folder)
            except KeyExistsError:
                continue  # another first writer is at work or was killed: the generation decides
        data = layout.dump_meta(self.content.id_experiment, self.content.name, 0)
        key = layout.meta_key(self.folder)
        try:
            self.storage.put(key, [data], size=len(data), flush=False)
            self.written.append(key)
        except KeyExistsError:
            pass

    def _write_blobs(self) -> None:
        for group in self.plan.groups():
            key = layout.blob_key(self.folder, fresh_uuid(self.new_uuid, self._is_taken))
            self.written.append(key)
            write_group(self.objects, group, key)

    def _is_taken(self, candidate: uuid.UUID) -> bool:
        return self.new_uuid is not ids.new_uuid and self.storage.exists(layout.blob_key(self.folder, candidate))

    def _write_records(self, tagged: list[dict[str, Any]]) -> Reference:
        key = layout.records_key(self.folder)
        lines = list(records.dump(self.content, tagged))
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line)
        size = sum(map(len, lines))
        self.written.append(key)
        self.storage.put(key, [b"".join(lines)], size=size, flush=False)
        return Reference(key, size, f"sha256:{digest.hexdigest()}")

    def _check_kept(self) -> None:
        kept = {reference.key for reference in self.plan.references()} - set(self.written)
        if len(kept) > 16:
            kept -= {stat.key for stat in self.storage.list(self.folder)}
        for key in sorted(kept):
            if not self.storage.exists(key):
                raise DanglingReferenceError(
                    f"Experiment {self.content.name!r} cannot be persisted because blob {key}, which it keeps from "
                    "generation "
                    f"{self.parent.number if self.parent else 0}, is gone. Restore it from a copy, or remove the value."
                )

    def _commit(self, generation: Generation) -> None:
        """Create the generation file if absent; afterwards it is known whether we or another writer did."""
        key = layout.generation_key(self.folder, generation.number)
        data = generation.dump()
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                self.storage.put(key, [data], size=len(data))
                return
            except KeyExistsError as error:
                there = generations.read(self.storage, self.folder, generation.number)
                if there.writer == generation.writer:
                    return  # the response to an earlier attempt was lost
                raise self._lost(
                    f"generation {there.number} was committed by another writer at {there.created}"
                ) from error
            except KeyMissingError as error:
                raise self._lost("it was deleted meanwhile") from error
            except OSError as error:
                # The outcome is unknown until it is read back.  Never undo on a guess.
                if self._is_committed(generation, error):
                    return
                if self.storage.is_local or attempt + 1 == COMMIT_ATTEMPTS:
                    self.outcome_known = self.storage.is_local
                    raise
                time.sleep(0.1 * 4**attempt)

    def _is_committed(self, generation: Generation, error: OSError) -> bool:
        try:
            return generations.read(self.storage, self.folder, generation.number).writer == generation.writer
        except KeyMissingError:
            return False
        except OSError as second:
            self.outcome_known = False
            second.add_note(
                f"It is not known whether generation {generation.number} of experiment {generation.name!r} was "
                "committed. "
                "Nothing was undone; the next session that reaches the storage finds out."
            )
            raise second from error

    def _follow_up(self, intent: Intent, generation: Generation, tagged: list[dict[str, Any]]) -> bool:
        """Do what follows from a commit; a failure here is a warning, since the persist has happened."""
        watched = self.objects.watched(Watch(self.storage, self.folder, generation.number))
        for planned in self.plan.blobs:
            planned.rebind(watched)
        try:
            self.on_seam("end_replaced")
            for id_experiment in generation.replaces:
                end_experiment(self.storage, id_experiment, intent.writer)
            self.on_seam("index")
            if not self._write_index(intent, generation, tagged):
                return False
            self.on_seam("retire")
            retire(self.storage, self.parent, generation)
            for id_experiment in generation.replaces:
                remove_files(self.storage, id_experiment)
        except OSError as error:
            warnings.warn(
                f"Experiment {generation.name!r} is persisted as generation {generation.number}, but what it "
                "replaced is "
                f"not all removed: {error} The next session goes on.",
                LeftoversWarning,
                stacklevel=5,
            )
            return False
        return True

    def _write_index(self, intent: Intent, generation: Generation, tagged: list[dict[str, Any]]) -> bool:
        if self.index is None:
            return True
        try:
            rows = index_rows(self.content, tagged, generation)
            self.index.write(*rows, intent=intent.key, replaces=generation.replaces)
        except (SQLAlchemyError, OSError) as error:
            warnings.warn(
                f"Experiment {generation.name!r} is persisted as generation {generation.number}, but the database "
                "could "
                f"not be told: {error} Loading by id works; the next session, or rebuild_index(), catches up.",
                IndexBehindWarning,
                stacklevel=6,
            )
            return False
        return True

    def _undo(self, intent: Intent, cause: BaseException) -> None:
        """Remove what was written, since nothing refers to it; failures are noted on the error that is on its way."""
        if not self.outcome_known:
            return
        try:
            self.storage.delete_many(reversed(self.written))
            if self.parent is None:
                for folder in (f"{self.folder}/generations", f"{self.folder}/runs", self.folder):
                    self.storage.prune(folder)
            if self.index is not None:
                self.index.release(intent.name, intent.key)
            intents.remove_intent(self.storage, intent)
        except Exception as error:  # noqa: BLE001 - another error is on its way; sweep removes what is left
            cause.add_note(f"Cleaning up failed too: {error} What is left is an orphan, which sweep removes.")
