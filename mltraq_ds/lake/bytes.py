"""The bytes of blobs, verified on the way: from a store or a remote into another one."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from typing import TypeAlias

from mltraq_ds.blob import open_blob
from mltraq_ds.errors import (
    CorruptBlobError,
    CorruptRecordError,
    FormatError,
    KeyExistsError,
    KeyMissingError,
    MltraqDSError,
    RemoteFailedWarning,
    RemotesError,
    StorageError,
)
from mltraq_ds.lake.remotes import STEP, pieces
from mltraq_ds.pointed import read_pointer
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Buffer, Source, Storage
from mltraq_ds.storage.pointer import Pointer, pointer_key
from mltraq_ds.storage.remote_urls import open_remote

__all__ = [
    "Bytes",
    "Held",
    "Unverified",
    "Verified",
    "is_here",
    "is_intact",
    "local_source",
    "pointer_of",
    "put_blob",
    "put_from_places",
    "require_intact",
]


class Unverified:
    """All bytes of a source, to be iterated as often as needed."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Buffer]:
        return pieces(self._source)


class Verified:
    """All bytes of a source, to be iterated as often as needed; the last ones only if all together are right.

    So whatever writes them has not finished when it turns out that they are wrong, and nothing becomes visible.

    Attributes
    ----------
    failure : Exception or None
        Why the source did not deliver: what a put raises may as well be the other side's.
    """

    def __init__(self, source: Source, digest: str) -> None:
        self.failure: Exception | None = None
        self._source = source
        self._digest = digest

    def __iter__(self) -> Iterator[Buffer]:
        self.failure = None
        sha = hashlib.sha256()
        try:
            for start in range(0, max(1, self._source.size), STEP):
                view = self._source.read(start, min(STEP, self._source.size - start))
                sha.update(view)
                if start + STEP >= self._source.size and f"sha256:{sha.hexdigest()}" != self._digest:
                    raise CorruptBlobError(f"The bytes of {self._source.key} are not those of {self._digest}.")
                yield view
        except (MltraqDSError, OSError) as error:
            self.failure = error
            raise


class Held:
    """All bytes of a blob in memory, of which the digest was computed."""

    failure: Exception | None = None

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __iter__(self) -> Iterator[Buffer]:
        yield self._view


#: What a put takes.
Bytes: TypeAlias = Unverified | Verified | Held


def pointer_of(storage: Storage, reference: Reference) -> Pointer | None:
    """Return the pointer of a blob if it has one.

    Raises
    ------
    CorruptRecordError
        If it cannot be read, or stands for another blob.
    """
    pointer = read_pointer(storage, reference.key)
    if pointer is not None and (pointer.size, pointer.index) != (reference.size, reference.digest):
        raise CorruptRecordError(
            f"The pointer {pointer_key(reference.key)} stands for another blob than the one that is referred to. "
            "Restore it from a copy, or remove it if the bytes are there."
        )
    return pointer


def local_source(storage: Storage, reference: Reference, pointer: Pointer | None = None) -> Source | None:
    """Return the bytes of a blob if the store itself has them; not those that are wrong at a glance and elsewhere too.

    Raises
    ------
    CorruptBlobError, StorageError
        If they cannot be opened, or have another size, and there is no pointer.
    """
    try:
        return storage.open(reference.key, size=reference.size)
    except KeyMissingError:
        return None
    except (CorruptBlobError, StorageError) as error:
        if pointer is None:
            raise
        _warn(f"Blob {reference.key} of {storage.url}", error)
        return None


def is_here(storage: Storage, reference: Reference) -> bool:
    """Tell whether a store has something under the key of a blob, right or wrong."""
    return storage.exists(reference.key)


def is_intact(storage: Storage, reference: Reference) -> bool:
    """Tell whether a store has the right bytes of a blob; all are read."""
    try:
        source = storage.open(reference.key, size=reference.size)
    except (KeyMissingError, CorruptBlobError):
        return False
    try:
        require_intact(source, reference)
    except (CorruptBlobError, FormatError):
        return False
    finally:
        source.close()
    return True


def require_intact(source: Source, reference: Reference) -> None:
    """Compare every byte of a blob with its index, by CRC-32: damage must not spread.

    Raises
    ------
    CorruptBlobError
        If it is damaged.
    """
    if damage := open_blob(source, digest=reference.digest).check_crc():
        raise CorruptBlobError(damage[0])


def put_blob(storage: Storage, reference: Reference, buffers: Bytes, *, is_damaged: bool, parents: bool) -> None:
    """Write a blob in a store; what is there already stays, unless it `is_damaged` or a link to nothing."""
    try:
        storage.put(reference.key, buffers, size=reference.size, replace=is_damaged, parents=parents, flush=False)
    except KeyExistsError:  # another one was first: names are never reused, so it is the same blob
        if not is_here(storage, reference):
            put_blob(storage, reference, buffers, is_damaged=True, parents=parents)


def put_from_places(
    pointer: Pointer,
    put: Callable[[Bytes], None],
    here: Bytes | None = None,
    down: set[str] | None = None,
    opener: Callable[[str], Storage] = open_remote,
) -> None:
    """Hand the bytes of a blob to `put`: those that are here, else those of the first remote that has them.

    Parameters
    ----------
    pointer : Pointer
        Of the blob.
    put : callable
        Takes the bytes; called again with those of the next place, if they turn out to be wrong.
    here : Bytes, optional
        Those of the store.
    down : set of str, optional
        URLs of remotes that do not answer: they are asked last, or every blob would wait for them.
    opener : callable
        Opens the storage of a remote by its URL.

    Raises
    ------
    RemotesError
        If nobody has them; the text has the cause of each.
    MltraqDSError, OSError
        What `put` raises for other reasons than the bytes that it was given.

    Warns
    -----
    RemoteFailedWarning
        For each place that did not deliver, if a later one did.
    """
    causes: dict[str, Exception] = {}
    if here is not None:
        if (failure := _attempt(put, here)) is None:
            return
        causes["here"] = failure
    down = set() if down is None else down
    for url in sorted(pointer.remotes, key=down.__contains__):
        try:
            source = opener(url).open(pointer.name, size=pointer.size)
        except (MltraqDSError, OSError) as error:
            causes[url] = error
            if not isinstance(error, KeyMissingError | CorruptBlobError):
                down.add(url)
            continue
        try:
            failed = _attempt(put, Verified(source, pointer.digest))
        finally:
            source.close()
        if failed is None:
            for place, cause in causes.items():
                _warn(f"{pointer.digest} on {place}", cause)
            return
        causes[url] = failed
        if not isinstance(failed, KeyMissingError | CorruptBlobError):
            down.add(url)
    raise RemotesError(
        f"No remote delivers {pointer.digest} ({pointer.size} bytes). "
        + " ".join(f"{place}: {cause}" for place, cause in causes.items())
    )


def _attempt(put: Callable[[Bytes], None], buffers: Bytes) -> Exception | None:
    """Put, and return why the bytes could not be had; None if it is done."""
    try:
        put(buffers)
    except (MltraqDSError, OSError):
        if isinstance(buffers, Unverified) or buffers.failure is None:
            raise  # where they were to go
        return buffers.failure
    return None


def _warn(what: str, error: Exception) -> None:
    warnings.warn(f"{what} was passed over, the next place is asked: {error}", RemoteFailedWarning, stacklevel=3)
