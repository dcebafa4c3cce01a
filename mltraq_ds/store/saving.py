"""Saving an artifact: validate, intent, blobs, version (the commit), index.

The order is that of `commit`, and for the same reasons; it is simpler, because a version stands on no other one and
shares no bytes with it.  Whoever finds the number taken takes the next.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mltraq_ds import ids
from mltraq_ds.errors import (
    ConcurrentPersistError,
    IndexBehindWarning,
    KeyMissingError,
    UnknownOutcomeError,
    UsageError,
)
from mltraq_ds.ids import fresh_uuid
from mltraq_ds.objects import Objects
from mltraq_ds.orm.artifacts import ArtifactIndex
from mltraq_ds.orm.failures import INDEX_ERRORS
from mltraq_ds.store import intents, layout, records, versions
from mltraq_ds.store.artifact_rows import row_of
from mltraq_ds.store.follow_up import remove_intent
from mltraq_ds.store.intents import Intent
from mltraq_ds.store.keeper import Keeper
from mltraq_ds.store.keeping import Kept, make_folder, unmake_folder
from mltraq_ds.store.packing import write_group
from mltraq_ds.store.plan import Plan
from mltraq_ds.store.texts import is_json_text
from mltraq_ds.store.versions import Version

__all__ = ["SEAMS", "Save"]

#: The seams of a save, in order: `on_seam` is called with each name just before the step it names.
SEAMS = ("validate", "intent", "blobs", "commit", "index", "done")


@dataclass
class Save:
    """One save, from the first check to the row.

    Parameters
    ----------
    objects : Objects
        Of the store.
    index : ArtifactIndex or None
        The SQL side; without it the next session writes the row.
    name : str
        Of the artifact.
    storage_backend : str
        Who keeps the value.
    type_name : str
        Type of the value.
    code : mapping
        Where it is saved from: JSON.
    place : str, optional
        Where the backend keeps the value outside of the store; None if it does not.
    new_uuid : callable
        Gives the names of blobs.
    on_seam : callable
        Called with the name of each step before it (`SEAMS`), for tests.
    """

    objects: Objects
    index: ArtifactIndex | None
    name: str
    storage_backend: str
    type_name: str = ""
    code: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None
    new_uuid: Callable[[], uuid.UUID] = ids.new_uuid
    on_seam: Callable[[str], None] = lambda name: None
    written: list[str] = field(default_factory=list, init=False)
    attempted: Version | None = field(default=None, init=False)
    #: Set by a backend that raises and could not remove what it had kept: the next save or sweep asks it to.
    has_leftovers: bool = field(default=False, init=False)
    _keeper: Keeper | None = field(default=None, init=False)
    _above: int = field(default=0, init=False)
    _has_folder: bool = field(default=False, init=False)
    _is_marked: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.storage = self.objects.storage
        self.folder = layout.artifact_folder(self.name)
        self.label = f"artifact {self.name!a:.200}"
        self.intent = Intent(
            writer=str(uuid.uuid4()),
            action=intents.SAVE,
            id_experiment=self.folder,
            name=self.name,
            parent=0,
            number=0,
            storage_backend="" if self.place is None else self.storage_backend,
            place=self.place or "",
            store="" if self.place is None else self.storage.url,
        )

    def run(self, keep: Callable[[Save], Kept], undo: Callable[[Kept], None]) -> Version:
        """Save.

        Parameters
        ----------
        keep : callable
            Has the value kept; it refuses what it cannot keep before it calls `write`.
        undo : callable
            Undoes that, if the version cannot be committed.

        Raises
        ------
        UsageError and its kinds, StorageError
            If it is refused beforehand.  Nothing was changed anywhere.
        ConflictError
            If the store moves.  What was written is removed.
        ConcurrentPersistError
            If this writer was taken for dead meanwhile.  What was written is removed.
        UnknownOutcomeError
            If the storage does not say whether it was committed.  Nothing was removed.
        Exception
            Whatever else stops it before the commit: what was written is removed.
        """
        self.on_seam("validate")
        self._validate()
        kept: Kept | None = None
        is_finished = False
        try:
            if self.place is not None:
                self._announce()  # first: else nobody would know what a killed writer has left outside of the store
            kept = keep(self)
            self._begin()
            version = self._commit(kept)
            is_finished = self._tell(version)
        except BaseException as error:  # also KeyboardInterrupt: cleans up, then goes on its way
            is_finished = self._undo(kept, undo, error)
            raise
        finally:
            self._end(is_finished)
        if is_finished:
            remove_intent(self.storage, self.intent, f"The {version.label} is saved")
        self.on_seam("done")
        return version

    def write(self, value: object) -> Kept:
        """Write a value to the folder of the artifact: small plain values as JSON, everything else as blobs.

        Raises
        ------
        UnsupportedTypeError, TooDeepError
            If no codec takes it.  Nothing was written.
        """
        plan = Plan(self.objects, self.folder, frozenset())
        tagged = plan.add_mapping({"value": value}, self.label)
        self._begin()
        self.on_seam("blobs")
        for members in plan.groups():
            key = layout.blob_key(self.folder, fresh_uuid(self.new_uuid, self._is_taken))
            self.written.append(key)
            write_group(self.objects, members, key)
        self.storage.flush(self.written)
        return Kept(value=json.loads(records.to_json(tagged))["value"], blobs=plan.references())

    def _validate(self) -> None:
        if not isinstance(self.name, str):
            raise UsageError(f"The name of an artifact is a string, not {type(self.name).__name__}. Use str(...).")
        if not is_json_text(self.name):
            raise UsageError(
                f"The {self.label} cannot be saved because surrogates in its name form a pair, which JSON reads as one "
                "character. Use that character."
            )
        layout.store_id(self.storage)
        if self.index is not None:
            self._above = self.index.highest(self.folder)  # and a database that does not answer is refused here

    def _is_taken(self, candidate: uuid.UUID) -> bool:
        # Only predictable names meet those of earlier processes; asking costs a look at the storage.
        return self.new_uuid is not ids.new_uuid and self.storage.exists(layout.blob_key(self.folder, candidate))

    def _announce(self) -> None:
        """Write the intent, unless that has been done."""
        if self._keeper is not None:
            return
        self.on_seam("intent")
        keeper = Keeper(self.storage, self.intent)
        keeper.__enter__()
        self._keeper = keeper
        layout.refuse_moved(self.storage)
        intents.refuse_others(self.storage, self.intent)  # they could get one number

    def _begin(self) -> None:
        """Write the intent and make the folder, unless that has been done."""
        self._announce()
        if self._has_folder:
            return
        self._has_folder = True
        self._is_marked = make_folder(self.storage, self.name)

    def _end(self, is_finished: bool) -> None:
        if self._keeper is not None:
            if not is_finished:
                self._keeper.leave()
            self._keeper.__exit__(None, None, None)

    def _commit(self, kept: Kept) -> Version:
        number = max(self._above, *versions.numbers(self.storage, self.folder), 0) + 1
        version = Version(
            name=self.name,
            number=number,
            writer=self.intent.writer,
            storage_backend=self.storage_backend,
            type_name=self.type_name,
            size_bytes=kept.size_bytes or sum(blob.size for blob in kept.blobs),
            digest=kept.digest,
            value=kept.value,
            metadata=kept.metadata,
            blobs=kept.blobs,
            code=self.code,
        )
        self.on_seam("commit")
        while True:
            self.attempted = version
            if versions.create(self.storage, version, self._verify):
                break
            version = replace(version, number=version.number + 1)  # somebody has it: the next is free, or taken too
        if self._is_given_up():
            # A sweep may have begun to remove our blobs while we slept between the last look and the commit.
            versions.bury(self.storage, replace(version, deleted=True, value=None, code={}, blobs=(), metadata={}))
            self.attempted = None
            raise self._lost()
        return version

    def _verify(self) -> None:
        """Look again, at the last moment: nobody has taken us for dead, so what we wrote is safe from sweep."""
        if self._is_given_up():
            self.attempted = None
            raise self._lost()

    def _is_given_up(self) -> bool:
        return self.storage.exists(self.intent.fence_key) or not self.storage.exists(self.intent.key)

    def _lost(self) -> ConcurrentPersistError:
        return ConcurrentPersistError(
            f"The {self.label} was not saved because this writer did not renew its intent in time and was taken for "
            "dead. Save it again."
        )

    def _tell(self, version: Version) -> bool:
        """Write the row; a failure is a warning, since the artifact is saved."""
        self.on_seam("index")
        if self.index is None:
            return False  # the next session finds the intent and writes the row
        try:
            self.index.write([row_of(version)])
        except INDEX_ERRORS as error:
            warnings.warn(
                f"The {version.label} is saved, but the database could not be told: {error} get() finds it; the next "
                "session, or rebuild_index(), catches up.",
                IndexBehindWarning,
                stacklevel=6,
            )
            return False
        return True

    def _undo(self, kept: Kept | None, undo: Callable[[Kept], None], cause: BaseException) -> bool:
        """Remove what was written, since nothing refers to it; failures are noted on the error that is on its way."""
        try:
            if self.attempted is not None and self._may_be_committed(self.attempted):
                cause.add_note(
                    f"The {self.attempted.label} may have been saved, so nothing was undone; the next session sees."
                )
                return False
            self.storage.delete_many(reversed(self.written))
            if kept is not None:
                undo(kept)
            if self.has_leftovers:
                return False
            if self._keeper is not None:
                if self._is_marked:
                    unmake_folder(self.storage, self.name)
                if not self.storage.exists(self.intent.fence_key):
                    intents.remove_intent(self.storage, self.intent)  # last; else it is the recoverer's
        except Exception as error:  # noqa: BLE001 - another error is on its way; what is left is found
            cause.add_note(f"Cleaning up failed too: {error} The next session goes on; sweep removes orphans.")
            return False
        return True

    def _may_be_committed(self, version: Version) -> bool:
        try:
            there = versions.read(self.storage, self.folder, version.number)
        except KeyMissingError:
            return not self.storage.is_local
        except (OSError, UnknownOutcomeError):
            return True
        return there is None or there.writer == version.writer
