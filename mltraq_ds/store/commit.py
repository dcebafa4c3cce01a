"""Commit: persist one experiment.  Validate, intent, blobs, records, generation (the commit), index, retire.

Blobs first, commit second, index third, removal last: a failure in between leaves an orphan, never a dangling
reference, and whatever was current before stays complete.  The order is that of the design, checked by the model in
``tests/model``; change neither without the other.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from mltraq_ds import ids
from mltraq_ds.errors import ConflictError, DanglingReferenceError, ExperimentExistsError, KeyMissingError
from mltraq_ds.ids import fresh_uuid
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.reference import Reference
from mltraq_ds.store import claims, follow_up, generations, intents, layout, records, single_records, slots
from mltraq_ds.store.folder import make_folder, unmake_folder
from mltraq_ds.store.generations import Generation, Ident, Replaced
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.store.packing import write_group
from mltraq_ds.store.planned import PlannedBlob
from mltraq_ds.store.reading import Watch
from mltraq_ds.store.records import ExperimentContent
from mltraq_ds.store.rows import index_rows
from mltraq_ds.store.validation import NOTHING, check_kept, lost, validate

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
    base : (int, str)
        Number and writer of the generation that the caller's object was loaded from or last persisted as; (0, "") if
        it never was.
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
    base: Ident = (0, "")
    if_exists: str = "fail"
    new_uuid: Callable[[], uuid.UUID] = ids.new_uuid
    on_seam: Callable[[str], None] = lambda name: None
    written: list[str] = field(default_factory=list, init=False)
    seen: Generation | None = field(default=None, init=False)
    parent: Generation | None = field(default=None, init=False)
    replaces: tuple[Replaced, ...] = field(default=(), init=False)
    attempted: Generation | None = field(default=None, init=False)
    is_marked: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.storage = self.objects.storage
        self.folder = layout.folder_of(self.content.id_experiment)
        self.label = f"experiment {self.content.name!r}"

    def run(self) -> Committed:
        """Persist.

        Raises
        ------
        UsageError and its kinds, ExperimentExistsError, StorageError
            If it is refused beforehand.  Nothing was changed anywhere.
        ConcurrentPersistError
            If another writer committed first.  Theirs stands, ours was removed again.
        UnknownOutcomeError
            If the storage does not say whether it was committed.  Nothing was removed.
        Exception
            Whatever else stops it before the commit: what was current stays current, what was written is removed.
        """
        self.on_seam("validate")
        layout.store_id(self.storage)
        valid = validate(self.objects, self.index, self.content, self.base, self.if_exists)
        self.seen, self.parent, self.plan, self.tagged, self.rows = valid
        self.on_seam("intent")
        intent = Intent(
            writer=str(uuid.uuid4()),
            action="persist",
            id_experiment=self.content.id_experiment,
            name=self.content.name,
            parent=self.seen.number if self.seen else 0,
            number=max(generations.numbers(self.storage, self.folder), default=0) + 1,
        )
        with Keeper(self.storage, intent) as keeper:
            is_finished = False
            try:
                generation = self._write(intent)
                is_finished = self._follow_up(intent, generation)
            except BaseException as error:  # also KeyboardInterrupt: cleans up, then goes on its way
                is_finished = self._undo(intent, error)
                raise
            finally:
                if not is_finished:
                    keeper.leave()
        if is_finished:
            follow_up.remove_intent(self.storage, intent, f"The {self.label} is persisted")
        self.on_seam("done")
        return Committed(generation, self.plan.blobs)

    def _write(self, intent: Intent) -> Generation:
        layout.refuse_moved(self.storage)
        intents.refuse_others(self.storage, intent)
        self.on_seam("claim")
        if self.index is not None:
            self._claim(self.index, intent)
        try:
            self.on_seam("folder")
            if self.parent is None:
                self.is_marked = make_folder(self.storage, self.content.id_experiment, self.content.name)
            self.on_seam("blobs")
            self._write_blobs()
            self.on_seam("records")
            record = self._write_records()
            self.storage.flush(self.written)
            kept = {blob.key: blob.size for blob in self.plan.references() if blob.key not in self.written}
            try:
                check_kept(self.storage, self.folder, kept, self.label)
            except DanglingReferenceError:
                self._verify(intent)  # whoever has committed meanwhile has removed it: that is no damage
                raise
            return self._commit(intent, record)
        except KeyMissingError as error:
            raise lost(self.content, "it was deleted meanwhile", is_deleted=True) from error

    def _claim(self, index: Index, intent: Intent) -> None:
        replaced = self._owner(index)
        while True:
            try:
                index.claim(
                    intent.name,
                    intent.id_experiment,
                    intent.key,
                    replacing=replaced,
                    is_alive=lambda claim: claims.is_alive(self.objects, index, claim),
                )
                break
            except ExperimentExistsError:
                # The work of a dead writer may have been finished just now, and that is what has to be replaced.
                before, replaced = replaced, self._owner(index)
                if replaced in (None, before):
                    raise
        if replaced is not None:
            # Looked at only now: whoever persists it after this is not what the user meant, and lives on.
            there = generations.current(self.storage, layout.folder_of(replaced))
            if there is not None and not there.deleted:
                self.replaces = (Replaced(replaced, *there.ident),)

    def _owner(self, index: Index) -> str | None:
        """Return the experiment whose place is to be taken."""
        owner = index.owner(self.content.name) if self.if_exists == "replace" else None
        return None if owner is None or owner.id_experiment == self.content.id_experiment else owner.id_experiment

    def _write_blobs(self) -> None:
        for members in self.plan.groups():
            key = layout.blob_key(self.folder, fresh_uuid(self.new_uuid, self._is_taken))
            self.written.append(key)
            write_group(self.objects, members, key)

    def _is_taken(self, candidate: uuid.UUID) -> bool:
        # Only predictable names meet those of earlier processes; asking costs a look at the storage.
        return self.new_uuid is not ids.new_uuid and self.storage.exists(layout.blob_key(self.folder, candidate))

    def _write_records(self) -> Reference:
        key = layout.records_key(self.folder)
        text = b"".join(records.to_lines(self.content, self.tagged))
        self.written.append(key)
        self.storage.put(key, [text], size=len(text), flush=False)
        return Reference(key, len(text), f"sha256:{hashlib.sha256(text).hexdigest()}")

    def _commit(self, intent: Intent, record: Reference) -> Generation:
        generation = Generation(
            id_experiment=intent.id_experiment,
            name=intent.name,
            number=intent.number,
            parent=self.seen.number if self.seen else 0,
            parent_writer=self.seen.writer if self.seen else "",
            writer=intent.writer,
            records=(record,),
            blobs=self.plan.references(),
            folds=single_records.folds_of(
                self.storage, self.folder, self.seen.folds if self.seen else (), self.content.folds
            ),
            replaces=self.replaces,
        )
        self.on_seam("commit")
        self.attempted = generation
        try:
            slots.create(self.storage, generation, verify=lambda: self._verify(intent))
        except slots.SlotTaken as error:
            self.attempted = None
            there = f"generation {generation.number} was committed by another writer"
            raise lost(self.content, f"{there} at {error.there.created}" if error.there else there) from error
        except ConflictError:
            self.attempted = None
            raise
        later = [number for number in generations.numbers(self.storage, self.folder) if number > generation.number]
        if later and generations.read(self.storage, self.folder, later[-1]).parent_ident != generation.ident:
            raise lost(self.content, f"generation {later[-1]} was committed while this writer slept")
        return generation

    def _verify(self, intent: Intent) -> None:
        """Look again, at the last moment: what we build on is current, and nobody has taken us for dead."""
        is_next = slots.leaves_no_gap(self.storage, self.folder, intent.number, self.seen.number if self.seen else 0)
        current = generations.current(self.storage, self.folder)
        if (current.ident if current else NOTHING) != (self.seen.ident if self.seen else NOTHING):
            raise lost(
                self.content,
                f"generation {current.number} was committed by another writer at {current.created}"
                if current
                else "it was deleted meanwhile",
            )
        if not is_next or (self.parent is None and self.written and not self.storage.exists(self.written[0])):
            # The link that follows goes into the folder that is there now, which may be another of that name.
            raise lost(self.content, "it was deleted meanwhile", is_deleted=True)
        if self.storage.exists(intent.fence_key) or not self.storage.exists(intent.key):
            raise lost(self.content, "this writer did not renew its intent in time and was taken for dead")

    def _follow_up(self, intent: Intent, generation: Generation) -> bool:
        watched = self.objects.watched(Watch(self.storage, self.folder, generation.ident))
        for planned in self.plan.blobs:
            planned.rebind(watched)
        return follow_up.after_persist(
            self.storage,
            self.index,
            generation,
            self.parent,
            rows=lambda: index_rows(self.content, self.tagged, generation, self.rows),
            intent=intent.key,
            on_seam=self.on_seam,
        )

    def _undo(self, intent: Intent, cause: BaseException) -> bool:
        """Remove what was written, since nothing refers to it; failures are noted on the error that is on its way.

        Tells whether nothing is left to do for others.
        """
        try:
            if self.attempted is not None and slots.is_committed(self.storage, self.attempted):
                cause.add_note(
                    f"Generation {self.attempted.number} of the {self.label} may have been committed, so nothing was "
                    "undone; the next session finds out and goes on."
                )
                return False
            self.storage.delete_many(reversed(self.written))
            if self.parent is None:
                unmake_folder(self.storage, intent.id_experiment, is_marked=self.is_marked)
            if self.index is not None:
                self.index.release(intent.name, intent.key)
            if not self.storage.exists(intent.fence_key):
                intents.remove_intent(self.storage, intent)  # else it is the recoverer's
        except Exception as error:  # noqa: BLE001 - another error is on its way; sweep removes what is left
            cause.add_note(f"Cleaning up failed too: {error} What is left is an orphan, which sweep removes.")
            return False
        return True
