"""Plan: everything a persist will write, encoded and checked before the first byte is written.

Encoding gives views, not copies, so a plan is small however large the values are.  What is refused here has changed
nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from mltraq_ds import codecs
from mltraq_ds.blob import StoredEntry, StoredMember
from mltraq_ds.codecs.base import Encoded, Member
from mltraq_ds.codecs.directory import AT_PATHS, is_at_path
from mltraq_ds.datastore import DataStore, Origin, Unread
from mltraq_ds.errors import (
    DamageError,
    MltraqDSError,
    StorageError,
    TooDeepError,
    UnsupportedTypeError,
    UsageError,
    ValueChangedError,
)
from mltraq_ds.lazy import LazyBunch, Placeholder
from mltraq_ds.objects import VALUE_KEY, Objects
from mltraq_ds.reference import Reference
from mltraq_ds.store.packing import group
from mltraq_ds.store.planned import Entries, PlannedBlob, UnreadValue
from mltraq_ds.store.tagged import NotInline, is_native, tag
from mltraq_ds.store.texts import NativeMapping, is_json_text

__all__ = ["Plan", "is_stored"]

_STEP = 1 << 20  # bytes compared at a time


@dataclass
class Plan:
    """What one persist will write.

    Parameters
    ----------
    objects : Objects
        Of the store that is written to.
    folder : str
        Of the experiment.
    keepable : set of (str, str)
        Keys and digests of the blobs that may be kept: those of the parent generation.  Anything else is copied under a
        fresh name, so that a blob which was dropped once never comes back.
    """

    objects: Objects
    folder: str
    keepable: AbstractSet[tuple[str, str]]
    blobs: list[PlannedBlob] = field(default_factory=list)
    _known: dict[int, PlannedBlob] = field(default_factory=dict)
    _active: list[int] = field(default_factory=list)

    def add_mapping(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Plan the values of params, config or fields.

        Parameters
        ----------
        values : mapping
            Names and values.
        where : str
            Experiment, run and mapping, for messages: ``experiment 'digits', run 0190…, fields``.

        Returns
        -------
        dict
            Tagged JSON, with a `PlannedBlob` in place of each reference.
        """
        kept = NativeMapping(values._peek_items() if isinstance(values, LazyBunch) else values)
        if not kept:
            return kept
        for name in () if "".join(kept).isascii() else kept:
            if not is_json_text(name):
                raise UsageError(
                    f"{where}: the name {name!a} cannot be persisted because its surrogates form a pair, which "
                    "JSON reads as one character. Use that character."
                )
        if is_native(kept):
            return kept  # ten thousand plain numbers need no walk in Python
        tagged = {name: self._add_value(name, value, where) for name, value in kept.items()}
        if isinstance(values, LazyBunch):
            for name, value in kept.items():
                if is_at_path(value):
                    tagged[name].at_paths.append((values, name, value))
        return tagged

    def _add_value(self, name: str, value: Any, where: str) -> Any:
        if isinstance(value, DataStore):
            return self._add_datastore(name, value, f"{where}.{name}", is_nested=False)
        if isinstance(value, UnreadValue):
            origin = value.origin
            if self._is_ours(origin.objects, origin.reference):
                planned = PlannedBlob(name, "value", reference=origin.reference, type_name=value.type_name)
                planned.nested = list(origin.closure())
                return self._append(planned)
            value = value.load()  # a record refers only to blobs of its own experiment
        try:
            return tag(value)
        except (NotInline, ValueChangedError):  # of the latter the message below says where it is
            entries: Entries = {VALUE_KEY: self._encode(VALUE_KEY, value, f"{where}.{name}", name)}
            planned = PlannedBlob(name, "value", entries=entries, type_name=type(value).__name__)
            self._set_nested(planned, entries)
            return self._append(planned)

    def _append(self, planned: PlannedBlob) -> PlannedBlob:
        self.blobs.append(planned)
        return planned

    def _add_datastore(self, name: str, datastore: DataStore, where: str, *, is_nested: bool) -> PlannedBlob:
        planned = self._known.get(id(datastore))
        if planned is not None:
            return self._nest(planned) if is_nested else planned
        if id(datastore) in self._active or len(self._active) > codecs.MAX_DEPTH:
            raise TooDeepError(
                f"{where} contains itself, or DataStores are nested deeper than {codecs.MAX_DEPTH}. Keep a name in "
                "place "
                "of the inner one."
            )
        self._active.append(id(datastore))
        try:
            planned = self._plan_datastore(name, datastore, where)
        finally:
            self._active.pop()
        self._known[id(datastore)] = planned
        return self._append(self._nest(planned) if is_nested else planned)

    def _nest(self, planned: PlannedBlob) -> PlannedBlob:
        # The reference of a part of a pack changes when the pack is written anew, which its container would not learn.
        planned.is_nested = True
        if planned.reference is not None and planned.reference.fragment:
            planned.entries, planned.reference = self.objects.entries(planned.reference), None
        return planned

    def _plan_datastore(self, name: str, datastore: DataStore, where: str) -> PlannedBlob:
        origin = datastore.origin
        kept = origin if origin is not None and self._is_ours(origin.objects, origin.reference) else None
        if kept is not None and datastore.is_untouched():
            planned = PlannedBlob(name, "datastore", reference=kept.reference, source=datastore)
            planned.nested = list(kept.closure())
            return planned
        items = dict(datastore._peek_items())
        entries = {
            key: self._entry(key, value, where, name)
            if isinstance(value, Placeholder)
            else self._encode(key, value, where, name, is_key=True)
            for key, value in items.items()
        }
        planned = PlannedBlob(name, "datastore", entries=entries, source=datastore)
        if not AT_PATHS.isdisjoint(map(type, items.values())):
            planned.at_paths = [(datastore, key, value) for key, value in items.items() if is_at_path(value)]
        if kept is not None and self._is_same(datastore, entries, kept):
            planned.entries, planned.reference = None, kept.reference
        self._set_nested(planned, entries)
        return planned

    def _entry(self, key: str, value: Placeholder, where: str, name: str) -> Encoded | StoredEntry:
        if isinstance(value, Unread):
            entry = value.entry
            if not entry.references or self._is_ours(value.origin.objects, value.origin.reference):
                return entry  # copied raw: neither decoded nor encoded
        return self._encode(key, value.load(), where, name, is_key=True)

    def _encode(self, key: str, value: Any, where: str, name: str, *, is_key: bool = False) -> Encoded:
        try:
            encoded = codecs.encode(value, name=key, is_nested=_is_datastore)
        except (UnsupportedTypeError, TooDeepError, ValueChangedError) as error:
            raise type(error)(f"{_place(where, key, is_key)} cannot be persisted. {error}") from error
        except MltraqDSError:
            raise
        except OSError as error:  # a File or Directory that is not there, or may not be read
            raise StorageError(
                f"{_place(where, key, is_key)} cannot be persisted because {error.filename!r} cannot be read: "
                f"{error.strerror}. Check the path."
            ) from error
        for inner in encoded.nested:
            self._add_datastore(name, inner, f"{where}[{key!r}]" if is_key else where, is_nested=True)
        return encoded

    def _is_ours(self, objects: Objects, reference: Reference) -> bool:
        # A record refers only to blobs of its own experiment, in this store; values from elsewhere are copied.
        return objects.storage.url == self.objects.storage.url and (reference.key, reference.digest) in self.keepable

    def references(self) -> tuple[Reference, ...]:
        """Return the references of all blobs of the new version, once each, without fragments."""
        found: dict[str, Reference] = {}
        for planned in self.blobs:
            for reference in (planned.reference, *planned.nested_references):
                if reference is not None and reference.key not in found:  # the parts of a pack have one key
                    found[reference.key] = replace(reference, fragment="")
        return tuple(found.values())

    def groups(self) -> list[list[PlannedBlob]]:
        """Return what is to be written, in order: each group is one file, a pack if it has several members."""
        self._repack()
        waiting = [planned for planned in self.blobs if planned.entries is not None]
        return group(waiting)

    def _repack(self) -> None:
        """Write the living parts of a pack anew if not all of them live: a pack is kept whole or not at all."""
        kept: dict[str, list[PlannedBlob]] = {}
        for planned in self.blobs:
            if planned.reference is not None and planned.reference.fragment:
                kept.setdefault(planned.reference.key, []).append(planned)
        for parts in kept.values():
            fragments = {planned.reference.fragment for planned in parts if planned.reference}
            if fragments != set(self.objects.open(_of(parts[0])).fragments):
                for planned in parts:
                    planned.entries, planned.reference = self.objects.entries(_of(planned)), None

    def _set_nested(self, planned: PlannedBlob, entries: Entries) -> None:
        nested: dict[Reference | PlannedBlob, None] = {}  # each once, however often it is shared
        for entry in entries.values():
            if isinstance(entry, StoredEntry):
                for reference in entry.references:
                    nested.update(dict.fromkeys([reference, *Origin(self.objects, reference).closure()]))
            else:
                for datastore in entry.nested:
                    inner = self._known[id(datastore)]
                    planned.inner[id(datastore)] = inner
                    nested.update(dict.fromkeys([inner, *inner.nested]))
        planned.nested = list(nested)

    def _is_same(self, datastore: DataStore, entries: Entries, origin: Origin) -> bool:
        """Compare what would be written with what is there, cheap things first, then byte for byte."""
        try:
            stored = origin.entries
            if list(entries) != list(stored):
                return False
            pairs = [(entries[key], stored[key]) for key in entries if not datastore.is_unread(key)]
            return all(self._is_alike(new, old) for new, old in pairs) and all(_equal_bytes(n, o) for n, o in pairs)
        except DamageError:
            return False  # what is there cannot be relied on; it is written anew from memory

    def _is_alike(self, new: Encoded | StoredEntry, old: StoredEntry) -> bool:
        if isinstance(new, StoredEntry):
            return False
        references = [self._known[id(inner)].reference for inner in new.nested]
        sizes = [member.size for member in new.members]
        return (
            bytes(new.tree) == bytes(old.tree)
            and sizes == [member.size for member in old.members]
            and references == list(old.references)
        )


def is_stored(planned: PlannedBlob, stored: Mapping[str, StoredEntry]) -> bool:
    """Tell whether a blob that would be written has no other bytes than one that is there, and no DataStores inside."""
    entries = planned.entries or {}
    if planned.nested or list(entries) != list(stored):
        return False
    for key, new in entries.items():
        old = stored[key]
        sizes = [member.size for member in new.members]
        if bytes(new.tree) != bytes(old.tree) or sizes != [member.size for member in old.members]:
            return False
        if not _equal_bytes(new, old):
            return False
    return True


def _place(where: str, key: str, is_key: bool) -> str:
    """Say where a value is, at the beginning of a sentence."""
    return f"{where[:1].upper()}{where[1:]}{f'[{key!r}]' if is_key else ''}"


def _of(planned: PlannedBlob) -> Reference:
    if planned.reference is None:
        raise AssertionError("only kept blobs come here")
    return planned.reference


def _is_datastore(value: object) -> bool:
    return isinstance(value, DataStore)


def _equal_bytes(new: Encoded | StoredEntry, old: StoredEntry) -> bool:
    members: Sequence[Member | StoredMember] = new.members
    return all(_equal_members(member, stored) for member, stored in zip(members, old.members, strict=True))


def _equal_members(member: Member | StoredMember, stored: StoredMember) -> bool:
    there, position = stored.read(), 0
    for buffer in member.buffers():
        view = memoryview(buffer).cast("B")
        for start in range(0, len(view), _STEP):
            piece = view[start : start + _STEP]
            if piece.tobytes() != there[position : position + len(piece)].tobytes():
                return False
            position += len(piece)
    return True
