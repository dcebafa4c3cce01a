"""What a plan consists of: one blob to write or to keep, and a field that stays in its blob until it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mltraq_ds.blob import StoredEntry
from mltraq_ds.codecs.base import Encoded
from mltraq_ds.datastore import DataStore, Origin, Unread
from mltraq_ds.lazy import LazyBunch, Placeholder
from mltraq_ds.objects import VALUE_KEY, Objects
from mltraq_ds.reference import Reference
from mltraq_ds.store.texts import is_json_text

__all__ = ["Entries", "PlannedBlob", "UnreadValue"]

Entries = Mapping[str, Encoded | StoredEntry]


class UnreadValue(Placeholder):
    """A field that is a blob of its own and has not been read."""

    __slots__ = ("origin", "type_name")

    def __init__(self, origin: Origin, type_name: str = "value") -> None:
        self.origin = origin
        self.type_name = type_name

    def load(self) -> Any:
        # docstring inherited
        return self.origin.decode(VALUE_KEY)

    def summary(self) -> dict[str, Any]:
        # docstring inherited
        return {"type": self.type_name, "bytes": self.origin.reference.size}

    @property
    def is_shareable(self) -> bool:
        # docstring inherited
        return self.origin.objects.storage.is_shareable

    def __reduce__(self) -> tuple[Any, ...]:
        return (UnreadValue, (self.origin, self.type_name))


@dataclass(eq=False, slots=True)
class PlannedBlob:
    """One blob that the new version will refer to.

    Parameters
    ----------
    field_name : str
        The field it was met under; a pack holds blobs of one field.
    kind : {"datastore", "value"}
        What it holds.
    entries : mapping or None
        What to write; None if the blob of the parent version is kept.
    reference : Reference or None
        Where it is, once written or if kept.
    source : DataStore or None
        The DataStore that it was made from, which is told where it is now.
    type_name : str
        Type of a value, for `repr` before it is read.
    is_nested : bool
        Whether another blob refers to it, so that it must be written before that and cannot share a pack.
    inner : dict
        The DataStores directly inside, by identity.
    nested : list
        The DataStores inside, at any depth.
    at_paths : list
        Files and folders at a path, with bunch and key; once stored, the bunch reads them from this blob.
    """

    field_name: str
    kind: str
    entries: Entries | None = None
    reference: Reference | None = None
    source: DataStore | None = None
    type_name: str = ""
    is_nested: bool = False
    inner: dict[int, PlannedBlob] = field(default_factory=dict)
    nested: list[Reference | PlannedBlob] = field(default_factory=list)
    at_paths: list[tuple[LazyBunch, str, object]] = field(default_factory=list)

    def nested_reference(self, datastore: object) -> Reference:
        """Return where a DataStore inside was written."""
        reference = self.inner[id(datastore)].reference
        if reference is None:
            raise AssertionError("a nested DataStore is written before what contains it")
        return reference

    def to_write(self) -> Entries:
        """Return what is to be written."""
        if self.entries is None:
            raise AssertionError(f"the blob of field {self.field_name!r} is kept, not written")
        return self.entries

    @property
    def nested_references(self) -> list[Reference]:
        """References of all DataStores inside, at any depth: they live as long as this blob does."""
        if not self.nested:
            return []
        found = (inner.reference if isinstance(inner, PlannedBlob) else inner for inner in self.nested)
        return list(dict.fromkeys(reference for reference in found if reference is not None))

    @property
    def size_bytes(self) -> int:
        """Size of what is to be written, without the index (bytes)."""
        size = 0
        for entry in (self.entries or {}).values():
            size += len(entry.tree)
            for member in entry.members:
                size += member.size
        return size

    def rebind(self, objects: Objects) -> None:
        """Tell the DataStore where it is now, and let go of the paths that its files and folders came from."""
        if self.reference is None:
            return
        if self.at_paths:
            self._let_go(Origin(objects, self.reference, nested=self.nested_references))
        if self.source is not None:
            self.source.rebind(Origin(objects, self.reference, list(self.source), self.nested_references))

    def _let_go(self, origin: Origin) -> None:
        for bunch, key, value in self.at_paths:
            if dict.get(bunch, key) is value:  # else another thread has put something there meanwhile
                bunch._place(key, UnreadValue(origin, self.type_name) if self.source is None else Unread(origin, key))

    def to_plain(self) -> dict[str, Any]:
        """Return what the index shows in its place."""
        return {"$ref": self.reference.to_list() if self.reference else None, "kind": self.kind}

    def to_json(self) -> dict[str, Any]:
        """Return what stays in the record in its place."""
        if self.reference is None:
            raise AssertionError(f"the blob of field {self.field_name!r} has not been written")
        tagged: dict[str, Any] = {"$ref": self.reference.to_list(), "kind": self.kind}
        if self.source is not None:
            names = list(dict.keys(self.source))
            if "".join(names).isascii() or all(map(is_json_text, names)):
                tagged["names"] = names
        else:
            tagged["type"] = self.type_name
        if self.nested:
            tagged["nested"] = [reference.to_list() for reference in self.nested_references]
        return tagged
