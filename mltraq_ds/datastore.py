"""DataStore: a dictionary whose values live in a blob."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mltraq_ds.blob import Blob, StoredEntry
from mltraq_ds.codecs import encode, prepare_to_decode
from mltraq_ds.codecs.naming import type_name
from mltraq_ds.errors import CorruptBlobError, DanglingReferenceError, MltraqDSError, UsageError
from mltraq_ds.ids import key_from_url
from mltraq_ds.lazy import LazyBunch, Placeholder, read_many
from mltraq_ds.objects import Objects
from mltraq_ds.place import place_of
from mltraq_ds.reference import Reference

__all__ = ["DataStore", "Origin", "Unread", "found_at"]


class Origin:
    """Where a DataStore was loaded from or persisted to.

    Parameters
    ----------
    objects : Objects
        Open the blob.
    reference : Reference
        Of the blob, or of the subtree of a pack.
    names : sequence of str, optional
        The keys, if known from the record; otherwise they are read from the index of the blob.
    nested : sequence of Reference, optional
        All DataStores inside, at any depth, if known from the record.
    """

    __slots__ = ("_entries", "_names", "_nested", "objects", "reference")

    def __init__(
        self,
        objects: Objects,
        reference: Reference,
        names: Sequence[str] | None = None,
        nested: Sequence[Reference] | None = None,
    ) -> None:
        self.objects = objects
        self.reference = reference
        self._names = names
        self._nested = nested
        self._entries: Mapping[str, StoredEntry] | None = None
        prepare_to_decode()

    @property
    def names(self) -> Sequence[str]:
        """The keys, in order."""
        if self._names is None:
            self._names = list(self.entries)
        return self._names

    def closure(self) -> Sequence[Reference]:
        """Return the references of all DataStores inside, at any depth."""
        if self._nested is None:
            found: dict[Reference, None] = {}
            waiting = [self.entries]
            while waiting:  # each one once: many may share one, and a hostile blob may nest them beyond any stack
                for entry in waiting.pop().values():
                    for reference in entry.references:
                        if reference not in found:
                            found[reference] = None
                            waiting.append(self.objects.entries(reference))
            self._nested = list(found)
        return self._nested

    @property
    def entries(self) -> Mapping[str, StoredEntry]:
        """The entries of the blob; only its index is read, once."""
        if self._entries is None:
            self._entries = self.objects.entries(self.reference)
        return self._entries

    def entry(self, name: str) -> StoredEntry:
        """Return what the index says of one value."""
        try:
            return self.entries[name]
        except KeyError as error:
            raise CorruptBlobError(
                f"Blob {self.reference.key} has no value named {name!r}, which the record lists. Restore it from a "
                "copy."
            ) from error

    def decode(self, name: str) -> Any:
        """Read and decode one value."""
        return self.objects.decode(self.entries, name, self.reference.key, self.datastore)

    def datastore(self, reference: Reference) -> DataStore:
        """Return the DataStore that a reference inside the blob stands for; nothing of it is read."""
        return DataStore.from_origin(Origin(self.objects, reference))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Origin, (self.objects, self.reference, self._names, self._nested))


class Unread(Placeholder):
    """A value of a DataStore that is still in its blob."""

    __slots__ = ("name", "origin")

    def __init__(self, origin: Origin, name: str) -> None:
        self.origin = origin
        self.name = name

    @property
    def entry(self) -> StoredEntry:
        """What the index of the blob says of it."""
        return self.origin.entry(self.name)

    def load(self) -> Any:
        return self.origin.decode(self.name)

    def summary(self) -> dict[str, Any]:
        return dict(self.entry.summary)

    @property
    def is_shareable(self) -> bool:
        return self.origin.objects.storage.is_shareable

    def __reduce__(self) -> tuple[Any, ...]:
        return (Unread, (self.origin, self.name))


class DataStore(LazyBunch):
    """A dictionary of values that live in a blob instead of the database.

    Values are kept as they are until the experiment is persisted; after loading, each is read when it is first asked
    for, and only it.  Code in C that looks into the memory of a dictionary, past its methods, sees what has not been
    read yet as `Unread`: ``orjson.dumps``, ``holder.__dict__ = ds``, ``dict.items(ds)``.  Give it ``dict(ds)``.

    Examples
    --------
    >>> ds = DataStore(a=[1, 2], b=None)
    >>> ds.a, ds["b"], len(ds)
    ([1, 2], None, 2)
    """

    __slots__ = ("_origin",)

    _origin: Origin | None

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "_origin", None)
        super().__init__(*args, **kwargs)

    @classmethod
    def from_origin(cls, origin: Origin) -> DataStore:
        """Return the DataStore kept in a blob, with no value read; its index is read if the names are not known."""
        datastore = cls()
        for name in origin.names:
            datastore._place(name, Unread(origin, name))
        datastore._set_origin(origin)
        return datastore

    @classmethod
    def from_url(cls, url: str, store: Any = None) -> DataStore:
        """Return the DataStore that `to_url` named; values are read when they are asked for.

        Parameters
        ----------
        url : str
            ``<scheme>:///<key>[#fragment]``; the scheme is ignored, so that the URL holds after the store was moved.
        store : Session, Storage or URL, optional
            The store; by default that of the run whose steps are executing, else of the default session.

        Raises
        ------
        DanglingReferenceError
            If there is no such blob.
        CorruptBlobError
            If it is not a blob or does not hold a DataStore.
        """
        key, fragment = key_from_url(url)
        objects = place_of(store).objects
        blob = found_at(url, objects)  # held, so that it is opened once
        if blob.kind == "value":
            raise CorruptBlobError(
                f"{url} holds a single value, not a DataStore. Use DataStoreIO(url).read_deserialize()."
            )
        return cls.from_origin(Origin(objects, Reference(key, blob.size, blob.digest, fragment)))

    def to_url(self) -> str:
        """Return the URL of the blob, relative to its store; the DataStore must have been persisted.

        Raises
        ------
        UsageError
            If it has not been persisted yet.
        """
        if self._origin is None:
            raise UsageError(
                "This DataStore has no URL because it has not been persisted. Call experiment.persist() first; for a "
                "value outside an experiment use DataStoreIO.serialize_write(value, prefix)."
            )
        return self._origin.reference.url

    @property
    def origin(self) -> Origin | None:
        """Where it was loaded from or persisted to, if anywhere."""
        return self._origin

    def is_untouched(self) -> bool:
        """Tell whether no key was read, set or removed since it was loaded."""
        return self._origin is not None and list(self) == list(self._origin.names) and all(map(self.is_unread, self))

    def is_unread(self, key: str) -> bool:
        """Tell whether the value of a key is still in the blob that this was loaded from, under the same key."""
        kept = self._peek(key)
        return isinstance(kept, Unread) and kept.origin is self._origin and kept.name == key

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return what is known of every value, the same before and after it is stored; only the index is read.

        Returns
        -------
        dict
            For each key ``type``, ``codec``, ``bytes``, and ``shape``, ``length``, ``dtype`` … as far as they apply.
            ``bytes`` is the encoded size, before compression.  A value that cannot be stored has ``type``, and None
            as its codec.
        """
        return {key: _described(key, kept) for key, kept in self._peek_items()}

    def load(self, keys: Iterable[str] | None = None, n_jobs: int | None = None) -> DataStore:
        """Read many values at once, in parallel.

        Parameters
        ----------
        keys : iterable of str, optional
            Those to read; all by default.
        n_jobs : int, optional
            Number of threads; by default one for each value up to 8.

        Returns
        -------
        DataStore
            Itself.
        """
        wanted = [key for key in (self if keys is None else keys) if isinstance(self._peek(key), Placeholder)]
        read_many([(self, key) for key in wanted], n_jobs)
        return self

    def _empty(self) -> DataStore:
        clone = type(self)()
        clone._set_origin(self._origin)
        return clone

    def _get_origin(self) -> Origin | None:
        return self._origin if self._origin is not None and self._origin.objects.storage.is_shareable else None

    def rebind(self, origin: Origin) -> None:
        """Take a new blob as the origin: what has not been read is read from there from now on."""
        for name, kept in list(self._peek_items()):
            if isinstance(kept, Placeholder):
                self._place(name, Unread(origin, name))
        self._set_origin(origin)

    def _set_origin(self, origin: Origin | None) -> None:
        object.__setattr__(self, "_origin", origin)


def found_at(url: str, objects: Objects) -> Blob:
    """Return the blob that a URL names; a URL may be mistyped, which a reference in a record cannot be.

    Raises
    ------
    DanglingReferenceError
        If there is no such blob.
    """
    try:
        return objects.open(Reference(key_from_url(url)[0], 0, ""))
    except DanglingReferenceError as error:
        raise DanglingReferenceError(
            f"There is no blob at {url} in {objects.storage.url}: it was deleted, or never was there. Check the URL, "
            "and pass store=… if it is one of another store."
        ) from error


def _described(key: str, kept: Any) -> dict[str, Any]:
    if isinstance(kept, Placeholder):
        return kept.summary()
    try:
        return encode(kept, name=key, is_nested=lambda value: isinstance(value, DataStore)).summary
    except MltraqDSError:  # persist() says why; a description of the other values must not fail over it
        return {"type": type_name(kept), "codec": None}
