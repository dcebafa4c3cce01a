"""Objects: values to blobs and back.  Joins codecs, blob and storage, which know nothing of each other."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from mltraq_ds import blob as blobs
from mltraq_ds import codecs
from mltraq_ds.anywhere import is_on_disk, open_anywhere
from mltraq_ds.blob import Blob, StoredEntry
from mltraq_ds.cached import open_cached
from mltraq_ds.codecs.base import Encoded
from mltraq_ds.errors import CorruptBlobError, DanglingReferenceError, KeyMissingError, MltraqDSError, UsageError
from mltraq_ds.reference import Reference
from mltraq_ds.storage import Storage, open_storage
from mltraq_ds.storage.base import Source
from mltraq_ds.storage.cache import ReadCache

__all__ = ["VALUE_KEY", "Objects", "objects_of"]

#: The one key of a blob that holds a single value; its members are named ``value.npy`` …
VALUE_KEY = "value"


class Objects:
    """Values at a storage.  Pickles as far as its storage does; safe in threads.

    Parameters
    ----------
    storage : Storage
        Where the blobs are.
    verify : {"crc", "none", "digest"}
        What is checked when a member is first used.
    compression : {"uncompressed", "zstd"}
        How members are written.
    allow_pickle : bool
        Whether this reader lets pickled values run code.
    explain_missing : callable, optional
        Turns a missing blob's reference into the error to raise: the caller may know that another writer has replaced
        the version it belongs to.
    cache : ReadCache, optional
        Where what is read from remotes is kept.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        verify: Literal["crc", "none", "digest"] = "crc",
        compression: str = "uncompressed",
        allow_pickle: bool = False,
        explain_missing: Callable[[Reference], MltraqDSError | None] | None = None,
        cache: ReadCache | None = None,
    ) -> None:
        self.storage = storage
        self.verify = verify
        self.compression = compression
        self.allow_pickle = allow_pickle
        self.explain_missing = explain_missing
        self.cache = cache
        self._forget_blobs()

    def _forget_blobs(self) -> None:
        # Weak: a blob stays open as long as one of its values is still lazy, so that the thousand DataStores of a pack
        # share one index, and no longer.
        self._open: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_blobs()

    def with_pickle(self, allow_pickle: bool | None) -> Objects:
        """Return the same objects for a reader with another opinion on pickle; None keeps it."""
        return self if allow_pickle is None else self._changed(allow_pickle=allow_pickle)

    def watched(self, explain_missing: Callable[[Reference], MltraqDSError | None]) -> Objects:
        """Return the same objects with another explanation of missing blobs."""
        return self._changed(explain_missing=explain_missing)

    def _changed(self, **changes: Any) -> Objects:
        return Objects(**{**self.__getstate__(), **changes})

    def put(
        self,
        value: object,
        key: str,
        *,
        parents: bool = False,
        is_nested: Callable[[object], bool] | None = None,
    ) -> Reference:
        """Write one value as a blob of its own.

        Parameters
        ----------
        value : object
            Of a supported type; DataStores inside are refused, since they need blobs of their own.
        key : str
            Store-relative, new.
        parents : bool
            Make missing folders.
        is_nested : callable, optional
            Asked for what no codec takes; raises `UnsupportedTypeError` with a better reason, or returns False.

        Raises
        ------
        UnsupportedTypeError, TooDeepError
            If no codec takes the value.  Nothing was written.
        ValueChangedError
            If another thread changed the value meanwhile.  The blob was removed again.
        StorageError
            If the storage refuses.  Nothing is visible.
        """
        entries = {VALUE_KEY: codecs.encode(value, name=VALUE_KEY, is_nested=is_nested)}
        return self.put_entries(entries, key, kind="value", nested=_refuse_nested, parents=parents)

    def put_entries(
        self,
        entries: Mapping[str, Encoded | StoredEntry],
        key: str,
        *,
        kind: str,
        nested: Callable[[object], Reference],
        parents: bool = False,
        flush: bool = True,
    ) -> Reference:
        """Write one blob of encoded values; `nested` gives the references of DataStores inside, written before."""
        packed = blobs.pack(entries, kind=kind, nested=nested, compression=self._compression)
        return self._write(packed, key, parents=parents, flush=flush)

    def put_pack(
        self, fragments: Mapping[str, Mapping[str, Encoded | StoredEntry]], key: str, *, flush: bool = True
    ) -> Reference:
        """Write one pack; the reference of each subtree is the one returned with its fragment added."""
        packed = blobs.pack_many(fragments, nested=_refuse_nested, compression=self._compression)
        return self._write(packed, key, parents=False, flush=flush)

    @property
    def _compression(self) -> str | None:
        return None if self.compression == "uncompressed" else self.compression

    def _write(self, packed: blobs.Packed, key: str, *, parents: bool, flush: bool) -> Reference:
        try:
            self.storage.put(key, packed, size=packed.size, parents=parents, flush=flush)
            try:
                packed.check_unchanged()
            except MltraqDSError:
                self.storage.delete(key)  # born corrupt: nobody has seen it
                raise
            return Reference(key, packed.size, packed.digest)
        finally:
            packed.close()

    def get(self, reference: Reference) -> Any:
        """Read a blob that holds one value.

        Returns
        -------
        object
            Equal to the value stored.

        Raises
        ------
        DanglingReferenceError
            If the blob is gone.  ``mltraq-ds check`` lists all of them.
        StaleReferenceError
            If another writer has replaced the version that the reference belongs to.
        CorruptBlobError
            If size, CRC or digest differ.
        """
        return self.decode(self.entries(reference), VALUE_KEY, reference.key)

    def entries(self, reference: Reference) -> Mapping[str, StoredEntry]:
        """Return the entries of a blob, or of the subtree of a pack; only its index is read."""
        return self.open(reference).entries(reference.fragment)

    def kind(self, reference: Reference) -> str:
        """Return what a blob holds: ``value``, ``datastore`` or ``pack``."""
        return self.open(reference).kind

    def decode(
        self,
        entries: Mapping[str, StoredEntry],
        name: str,
        key: str,
        nested: Callable[[Reference], Any] | None = None,
    ) -> Any:
        """Decode one entry; `nested` makes DataStores of the references inside, `key` is the blob for messages."""
        try:
            entry = entries[name]
        except KeyError as error:
            raise CorruptBlobError(f"Blob {key} has no value named {name!r}. Restore it from a copy.") from error
        try:
            return codecs.decode(
                entry.tree, entry.members, nested=partial(_resolve, key, entry, nested), allow_pickle=self.allow_pickle
            )
        except KeyMissingError as error:  # removed since it was opened, where each read is a request
            raise self._missing(Reference(key, 0, "")) from error
        except CorruptBlobError as error:
            if key in str(error):
                raise
            raise CorruptBlobError(f"Value {name!r} of blob {key} cannot be read. {error}") from error

    def open(self, reference: Reference) -> Blob:
        """Open a blob, or return the one that is open already."""
        with self._lock:
            known = self._open.get(reference.key)
        if known is not None and known.digest == reference.digest:
            return known
        try:
            source = open_anywhere(self.storage, reference.key, size=reference.size or None)
            try:
                blob = self._blob(source, reference)
            except CorruptBlobError as error:
                spare = source.spare(error)
                if spare is None:
                    raise
                blob = self._blob(spare, reference)
        except KeyMissingError as error:
            raise self._missing(reference) from error
        with self._lock:
            self._open[reference.key] = blob
        return blob

    def _blob(self, source: Source, reference: Reference) -> Blob:
        if self.cache is None or not reference.digest or is_on_disk(source):
            return blobs.open_blob(source, digest=reference.digest or None, verify=self.verify)
        return open_cached(source, self.cache, digest=reference.digest, verify=self.verify)

    def _missing(self, reference: Reference) -> MltraqDSError:
        explained = self.explain_missing(reference) if self.explain_missing else None
        return explained or DanglingReferenceError(
            f"Blob {reference.key} is gone from {self.storage.url}, but something still "
            "refers to "
            "it. Restore it from a copy; 'mltraq-ds check' lists all such references."
        )


def objects_of(store: Objects | Storage | str | os.PathLike[str]) -> Objects:
    """Return the objects of a store that is named in any way.

    Raises
    ------
    UsageError
        If it is something else, or a URL that cannot be understood.
    """
    if isinstance(store, Objects):
        return store
    if not isinstance(store, (Storage, str, os.PathLike)):
        raise UsageError(
            f"A store is given by its URL, path, Storage or Objects, not by {type(store).__name__}. A session has "
            "methods of its own: check(), sweep(), rebuild_index()."
        )
    return Objects(store if isinstance(store, Storage) else open_storage(store))


def _resolve(key: str, entry: StoredEntry, nested: Callable[[Reference], Any] | None, position: int) -> Any:
    """Return the DataStore at a position of an entry."""
    if nested is None or not 0 <= position < len(entry.references):
        raise CorruptBlobError(f"Blob {key} refers to a DataStore that it does not list. Restore it from a copy.")
    return nested(entry.references[position])


def _refuse_nested(value: object) -> Reference:
    raise AssertionError("DataStores get blobs of their own before what contains them")
