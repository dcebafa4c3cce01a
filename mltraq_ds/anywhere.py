"""Reading a blob where it is: the first place that delivers *verified* bytes wins, the store before its remotes."""

from __future__ import annotations

import threading
import warnings

from mltraq_ds.errors import (
    CorruptBlobError,
    DamageError,
    FormatError,
    KeyMissingError,
    RemoteFailedWarning,
    StorageError,
)
from mltraq_ds.pointed import PointedSource, read_pointer
from mltraq_ds.storage.base import Source, SourceCopy, Storage
from mltraq_ds.storage.pointer import pointer_key
from mltraq_ds.storage.sources import FileSource

__all__ = ["StoredSource", "is_on_disk", "open_anywhere", "open_as_it_is"]


def open_anywhere(storage: Storage, key: str, *, size: int | None = None) -> Source:
    """Open a blob where it is: here, or on the remotes that its pointer names; on those too if what is here is wrong.

    Raises
    ------
    As `open_as_it_is`, where there is no pointer.
    """
    try:
        return StoredSource(storage, key, storage.open(key, size=size))
    except KeyMissingError:
        return open_as_it_is(storage, key, size=size)
    except (CorruptBlobError, StorageError) as error:
        spare = _spare_of(storage, key, size, error)
        if spare is None:
            raise
        return spare


def open_as_it_is(storage: Storage, key: str, *, size: int | None = None) -> Source:
    """Open a blob where it is; what is here is what is meant, right or wrong: for those who look for damage.

    Raises
    ------
    KeyMissingError
        If there is neither blob nor pointer.
    CorruptBlobError
        If the blob here, or the one that the pointer stands for, has another size.
    CorruptRecordError, FormatError
        If the pointer cannot be read.
    """
    try:
        return storage.open(key, size=size)
    except KeyMissingError:
        pointer = read_pointer(storage, key)
        if pointer is None:
            raise
    if size is not None and pointer.size != size:
        raise CorruptBlobError(
            f"The pointer {pointer_key(key)} stands for a blob of {pointer.size} bytes, and {size} were written. It "
            "belongs to another blob: restore it from a copy."
        )
    return PointedSource(storage, key, pointer)


def is_on_disk(source: Source) -> bool:
    """Tell whether bytes are read from a file of this machine."""
    return isinstance(source, FileSource) or (isinstance(source, StoredSource) and source.is_file)


def _spare_of(storage: Storage, key: str, size: int | None, error: Exception) -> PointedSource | None:
    """Return the remotes of a blob that is wrong here, if it has any."""
    try:
        pointer = read_pointer(storage, key)
    except (DamageError, FormatError, StorageError):
        return None  # what is wrong with the blob is said
    if pointer is None or size not in (None, pointer.size):
        return None
    warnings.warn(
        f"Blob {key} of {storage.url} cannot be read here, so its remotes are asked. 'mltraq-ds remote pull' repairs "
        f"it. {error}",
        RemoteFailedWarning,
        stacklevel=2,
    )
    return PointedSource(storage, key, pointer, here=str(error))


class StoredSource(Source):
    """The bytes of a blob that is here; those of its remotes where these fail.  Safe in threads; pickles as a name."""

    def __init__(self, storage: Storage, key: str, opened: Source) -> None:
        self.key = key
        self.size = opened.size
        self._storage = storage
        self._opened = opened
        self._spare: PointedSource | None = None
        self._lock = threading.Lock()

    @property
    def home(self) -> Storage | None:
        # docstring inherited
        return self._opened.home

    @property
    def is_file(self) -> bool:
        """Whether it is a file of this machine."""
        return isinstance(self._opened, FileSource)

    def __reduce__(self) -> tuple[object, ...]:
        super().__reduce__()  # refuses where another process could not reach it
        return (StoredSource, (self._storage, self.key, SourceCopy(self._storage, self.key, self.size)))

    def read(self, offset: int, size: int) -> memoryview:
        # docstring inherited
        try:
            return self._opened.read(offset, size)
        except (CorruptBlobError, StorageError) as error:
            spare = self.spare(error)
            if spare is None:
                raise
            return spare.read(offset, size)

    def spare(self, error: Exception) -> Source | None:
        # docstring inherited
        with self._lock:
            if self._spare is None:
                self._spare = _spare_of(self._storage, self.key, self.size, error)
            return self._spare

    def close(self) -> None:
        # docstring inherited
        self._opened.close()
