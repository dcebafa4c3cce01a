"""The bytes of blobs, verified on the way: from a store or a remote into another one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from mltraq_ds.blob import open_blob
from mltraq_ds.errors import CorruptBlobError, CorruptRecordError, KeyMissingError, MltraqDSError, RemotesError
from mltraq_ds.lake.remotes import STEP, pieces
from mltraq_ds.pointed import read_pointer
from mltraq_ds.reference import Reference
from mltraq_ds.storage.base import Buffer, Source, Storage
from mltraq_ds.storage.pointer import Pointer, pointer_key
from mltraq_ds.storage.remote_urls import open_remote

__all__ = ["Bytes", "Unverified", "Verified", "local_source", "pointer_of", "put_from_remotes", "require_intact"]


class Unverified:
    """All bytes of a source, to be iterated as often as needed."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Buffer]:
        return pieces(self._source)


class Verified:
    """All bytes of a source, to be iterated as often as needed; the last ones only if all together are right.

    So whatever writes them has not finished when it turns out that they are wrong, and nothing becomes visible.
    """

    def __init__(self, source: Source, digest: str) -> None:
        self._source = source
        self._digest = digest

    def __iter__(self) -> Iterator[Buffer]:
        sha = hashlib.sha256()
        for start in range(0, max(1, self._source.size), STEP):
            view = self._source.read(start, min(STEP, self._source.size - start))
            sha.update(view)
            if start + STEP >= self._source.size and f"sha256:{sha.hexdigest()}" != self._digest:
                raise CorruptBlobError(f"The bytes of {self._source.key} are not those of {self._digest}.")
            yield view


#: What a put takes.
Bytes: TypeAlias = Unverified | Verified


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


def local_source(storage: Storage, reference: Reference) -> Source | None:
    """Return the bytes of a blob if the store itself has them."""
    try:
        return storage.open(reference.key, size=reference.size)
    except KeyMissingError:
        return None


def require_intact(source: Source, reference: Reference) -> None:
    """Compare every byte of a blob with its index, by CRC-32: damage must not spread.

    Raises
    ------
    CorruptBlobError
        If it is damaged.
    """
    if damage := open_blob(source, digest=reference.digest).check_crc():
        raise CorruptBlobError(damage[0])


def put_from_remotes(
    pointer: Pointer,
    put: Callable[[Verified], None],
    opener: Callable[[str], Storage] = open_remote,
) -> str:
    """Hand the bytes of a blob to `put`, from the first remote that has them.

    Returns
    -------
    str
        URL of the remote.

    Raises
    ------
    RemotesError
        If none has them; the text has the cause of each.
    """
    causes: list[str] = []
    for url in pointer.remotes:
        try:
            source = opener(url).open(pointer.name, size=pointer.size)
        except (MltraqDSError, OSError) as error:
            causes.append(f"{url}: {error}")
            continue
        try:
            put(Verified(source, pointer.digest))
            return url
        except CorruptBlobError as error:
            causes.append(f"{url}: {error}")
        finally:
            source.close()
    raise RemotesError(f"No remote delivers {pointer.digest} ({pointer.size} bytes). {' '.join(causes)}")
