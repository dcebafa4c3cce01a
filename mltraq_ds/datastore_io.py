"""DataStoreIO: bytes and values in folders of the user's own, beside the experiments."""

from __future__ import annotations

from typing import Any, BinaryIO

from mltraq_ds.datastore import DataStore, Origin, found_at
from mltraq_ds.errors import KeyExistsError, UnsupportedTypeError, UsageError
from mltraq_ds.ids import key_from_url, url_from_key, validate_key
from mltraq_ds.objects import Objects
from mltraq_ds.place import Place, Unreachable, place_of, shareable
from mltraq_ds.reference import Reference
from mltraq_ds.storage import Stat, stream_of
from mltraq_ds.storage.base import Buffer
from mltraq_ds.store.layout import refuse_moved, validate_prefix

__all__ = ["DataStoreIO"]


class DataStoreIO:
    """One file in a store, written directly and named by a URL.

    Its files belong to the user: `persist` never wipes and `sweep` never removes them.

    Parameters
    ----------
    url : str
        ``<scheme>:///<key>``, as returned by `write`; the scheme is ignored, so that it holds when the store has moved.
    store : Session, Storage, URL or folder, optional
        The store; by default that of the run whose steps or ``with`` block is executing, else of the default session.

    Raises
    ------
    InvalidNameError
        If the URL could leave the store.
    """

    __slots__ = ("_store", "url")

    _store: Place | Unreachable | None

    def __init__(self, url: str, store: Any = None) -> None:
        key_from_url(url)
        self.url = url
        # Now, not at each use: a relative folder must not follow the working directory.
        self._store = None if store is None else place_of(store)

    def __repr__(self) -> str:
        return f"DataStoreIO({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataStoreIO) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default is found anew in the other process; a store that was named is never replaced by it.
        return _unpickled, (type(self), self.url, None if self._store is None else shareable(self._store))

    @property
    def key(self) -> str:
        """Store-relative name."""
        return key_from_url(self.url)[0]

    @property
    def _objects(self) -> Objects:
        return place_of(self._store).objects

    def read(self) -> bytes:
        """Return all bytes.

        Raises
        ------
        KeyMissingError
            If there is no such file.
        """
        return self._objects.storage.read(self.key)

    def read_deserialize(self, expected_type: type | None = None, allow_pickle: bool | None = None) -> Any:
        """Return the value written by `serialize_write`.

        Parameters
        ----------
        expected_type : type, optional
            Refuse a value of another type.
        allow_pickle : bool, optional
            Whether a pickled value may run code; by default option ``serialization.allow_pickle`` of the reader.

        Raises
        ------
        DanglingReferenceError
            If there is no such file.
        CorruptBlobError
            If the file is damaged, or was written by `write` and so is not a blob.
        UsageError
            If the value is not of the expected type.
        """
        objects = self._objects.with_pickle(allow_pickle)
        key, fragment = key_from_url(self.url)
        blob = found_at(self.url, objects)  # held, so that it is opened once
        reference = Reference(key, blob.size, blob.digest, fragment)
        if blob.kind == "value":
            value = objects.get(reference)
        else:
            value = DataStore.from_origin(Origin(objects, reference))
        if expected_type is not None and not isinstance(value, expected_type):
            raise UsageError(
                f"{self.url} holds a value of type {type(value).__name__}, not {expected_type.__name__} as expected. "
                "Change expected_type, or check the URL."
            )
        return value

    def open(self) -> BinaryIO:
        """Return a seekable, buffered stream over the bytes."""
        source = self._objects.storage.open(self.key)
        return stream_of(source.read, source.size)

    def exists(self) -> bool:
        """Tell whether the file is there."""
        return self._objects.storage.exists(self.key)

    def stat(self) -> Stat:
        """Return key, size (bytes) and time of change (s since 1970) of the file."""
        return self._objects.storage.stat(self.key)

    @classmethod
    def serialize_write(cls, value: object, relative_path_prefix: str, store: Any = None) -> DataStoreIO:
        """Write any supported value as a blob.

        Parameters
        ----------
        value : object
            Of a supported type.
        relative_path_prefix : str
            A folder of your own inside the store, made if it is missing.
        store : Session, Storage, URL or folder, optional
            As for the class.

        Raises
        ------
        InvalidNameError
            If the prefix is empty, leaves the store, or is a folder managed by `persist`.  Nothing was written.
        ConflictError
            If the store has moved, or is being moved.
        UnsupportedTypeError
            If no codec takes the value.  Nothing was written.
        """
        if isinstance(value, DataStore):
            raise UnsupportedTypeError(
                "A DataStore cannot be written by serialize_write() because it belongs on a run, whose persist() "
                "writes "
                "it. Use run.fields.<name> = ds, or serialize_write(dict(ds), …)."
            )
        place = place_of(store)
        prefix = validate_prefix(place.objects.storage, relative_path_prefix)
        key = _put_fresh(place, prefix, lambda key: place.objects.put(value, key, parents=True, is_nested=_refuse))
        return cls(_url(place, key), None if store is None else place)

    @classmethod
    def write(cls, content: Buffer, relative_path_prefix: str, store: Any = None) -> DataStoreIO:
        """Write bytes as they are.

        Parameters
        ----------
        content : bytes-like
            The whole file.
        relative_path_prefix, store
            As for `serialize_write`.

        Raises
        ------
        InvalidNameError
            As for `serialize_write`.
        UsageError
            If `content` is not bytes-like.  Nothing was written.
        """
        try:
            view = memoryview(content)
        except (TypeError, ValueError, BufferError) as error:
            raise UsageError(
                f"write() takes bytes, not {type(content).__name__}. Use serialize_write() for other values."
            ) from error
        try:
            flat = view.cast("B")
        except (TypeError, ValueError):  # gaps, the order of Fortran, or items that memoryview knows no code for
            flat = memoryview(view.tobytes())
        place = place_of(store)
        prefix = validate_prefix(place.objects.storage, relative_path_prefix)
        storage = place.objects.storage
        key = _put_fresh(place, prefix, lambda key: storage.put(key, [flat], size=flat.nbytes, parents=True))
        return cls(_url(place, key), None if store is None else place)

    @classmethod
    def delete(cls, relative_path_prefix: str, store: Any = None) -> None:
        """Remove a folder of your own with everything in it, or one file; nothing to do if it is gone.

        Parameters
        ----------
        relative_path_prefix : str
            A folder, or the `key` of one file.
        store : Session, Storage, URL or folder, optional
            As for the class.

        Raises
        ------
        InvalidNameError
            If the prefix is empty, leaves the store, or is a folder managed by `persist`.  Nothing was removed.
        ConflictError
            If the store has moved, or is being moved.  Nothing was removed.
        """
        storage = place_of(store).objects.storage
        prefix = validate_prefix(storage, relative_path_prefix)
        refuse_moved(storage)
        if storage.exists(prefix):
            storage.delete(prefix)
        else:
            storage.delete_folder(prefix)

    @classmethod
    def list(cls, relative_path_prefix: str, store: Any = None) -> list[DataStoreIO]:
        """Return the files below a folder of your own, sorted by name."""
        place = place_of(store)
        prefix = validate_prefix(place.objects.storage, relative_path_prefix)
        given = None if store is None else place
        return [cls(_url(place, key), given) for key in sorted(stat.key for stat in place.objects.storage.list(prefix))]


def _refuse(value: object) -> bool:
    if isinstance(value, DataStore):
        raise UnsupportedTypeError(
            "a DataStore belongs on a run, whose persist() writes it; use dict(ds) in its place, which reads its values"
        )
    return False


def _unpickled(kind: type[DataStoreIO], url: str, store: Place | Unreachable | None) -> DataStoreIO:
    file = kind(url)
    file._store = store
    return file


def _put_fresh(place: Place, prefix: str, put: Any) -> str:
    storage = place.objects.storage
    refuse_moved(storage)
    while True:
        key = validate_key(f"{prefix}/{place.new_uuid().hex}")
        try:
            put(key)
        except KeyExistsError:
            continue  # a predictable sequence met a name of an earlier process
        refuse_moved(storage)  # a move that began meanwhile may not have seen it
        return key


def _url(place: Place, key: str) -> str:
    return url_from_key(key, place.objects.storage.scheme)
