"""Remote: one flat folder of files named by the SHA-256 of their bytes, anywhere a storage reaches."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from mltraq_ds.blob.reader import find_index
from mltraq_ds.errors import (
    CorruptRecordError,
    KeyExistsError,
    KeyMissingError,
    NotFoundError,
    RemotesError,
    UsageError,
)
from mltraq_ds.storage.base import Buffer, Source, Stat, Storage
from mltraq_ds.storage.pointer import Pointer
from mltraq_ds.storage.remote_urls import open_remote, parse_remote
from mltraq_ds.store import descriptors, layout

__all__ = ["GRACE_S", "LAKE", "STEP", "Remote", "open_all", "pieces", "sha256_of"]

#: What a remote is; created if absent.
LAKE = "_lake.json"
#: What nothing refers to stays so long (s); whoever relies on an object older than half of it makes it young again.
GRACE_S = 86_400.0
#: Bytes that are read and hashed at a time.
STEP = 4 * 1024 * 1024

_NAME = re.compile(r"[0-9a-f]{64}")


def pieces(source: Source) -> Iterator[memoryview]:
    """Yield all bytes of a source, some at a time."""
    for start in range(0, source.size, STEP):
        yield source.read(start, min(STEP, source.size - start))


def sha256_of(buffers: Iterable[Buffer]) -> str:
    """Return the hexadecimal SHA-256 of all bytes."""
    sha = hashlib.sha256()
    for buffer in buffers:
        sha.update(buffer)
    return sha.hexdigest()


class Remote:
    """A content-addressed home of blobs.

    Parameters
    ----------
    url : str
        As kept in pointers, without secrets.
    storage : Storage
        What reaches it.
    """

    def __init__(self, url: str, storage: Storage) -> None:
        self.url = url
        self.storage = storage

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"

    @classmethod
    def open(cls, url: str | os.PathLike[str], opener: Callable[..., Storage] = open_remote) -> Remote:
        """Return the remote at a URL; nothing is asked yet."""
        return cls(parse_remote(url).public_url, opener(url))

    def create(self) -> Remote:
        """Make it a remote if it is none yet.

        Raises
        ------
        UsageError
            If it is a store: two layouts in one folder would be taken for each other's garbage.
        CorruptRecordError, FormatError
            If what says that it is a remote cannot be read.
        """
        if self._identity() is None:
            if self.storage.exists(layout.STORE):
                raise UsageError(f"The remote {self.url} is refused because it is a store. Use another folder.")
            body = {"id": str(uuid.uuid4()), "digest": "sha256", "created": layout.now_text()}
            data = descriptors.to_bytes("lake", body)
            with suppress(KeyExistsError):  # somebody else was first
                self.storage.put(LAKE, [data], size=len(data), parents=True)
            self._identity()
        return self

    def require(self) -> Remote:
        """Return the remote if it is one.

        Raises
        ------
        NotFoundError
            If nothing says that it is a remote.
        """
        if self._identity() is None:
            raise NotFoundError(f"{self.url} is no remote: there is no {LAKE}. 'mltraq-ds remote add' makes one.")
        return self

    @property
    def identity(self) -> str:
        """Id in ``_lake.json``: two URLs of one place have the same; the URL where there is none."""
        return self._identity() or self.url

    def _identity(self) -> str | None:
        try:
            body = descriptors.from_bytes(self.storage.read(LAKE), "lake", LAKE)
        except KeyMissingError:
            return None
        if body.get("digest") != "sha256":
            raise CorruptRecordError(f"{LAKE} of {self.url} names no digest that is known. Restore it from a copy.")
        return str(body.get("id"))

    def stat(self, name: str) -> Stat | None:
        """Return size and time of an object, or None if it is not there."""
        try:
            return self.storage.stat(name)
        except KeyMissingError:
            return None

    def is_old(self, name: str) -> bool:
        """Tell whether an object is so old that a sweep under way may take it; one that is gone is."""
        stat = self.stat(name)
        return stat is None or self.storage.now() - stat.modified > GRACE_S / 2

    def objects(self) -> dict[str, Stat]:
        """Return all objects by their names; other files are nobody's business."""
        return {stat.key: stat for stat in self.storage.list() if _NAME.fullmatch(stat.key)}

    def unfinished(self) -> list[Stat]:
        """Return what uploads have begun and not ended, maybe because they were killed."""
        return [stat for stat in self.storage.list_unfinished() if "/" not in stat.key]

    def is_intact(self, name: str, size: int) -> bool:
        """Read an object whole and tell whether its bytes are those that its name says."""
        try:
            source = self.storage.open(name)
        except KeyMissingError:
            return False
        try:
            return source.size == size and sha256_of(pieces(source)) == name
        finally:
            source.close()

    def require_index(self, pointer: Pointer) -> None:
        """Raise `RemotesError` if an object that was verified is another blob than the pointer stands for.

        Pointers are merged by people: digest and index may be of two blobs.
        """
        source = self.storage.open(pointer.name, size=pointer.size)
        try:
            _, packed, _ = find_index(source)
        finally:
            source.close()
        if f"sha256:{sha256_of([packed])}" != pointer.index:
            raise RemotesError(f"Object {pointer.name} of {self.url} is another blob. Restore its pointer from a copy.")

    def put(self, name: str, buffers: Iterable[Buffer], size: int) -> None:
        """Upload bytes as they are; an object that is there is replaced in one step.  `flush` makes it durable."""
        self.storage.put(name, buffers, size=size, replace=True, flush=False)

    def require_seen(self, name: str, size: int) -> None:
        """Look whether an object is there, before something is removed on the strength of it.

        Raises
        ------
        RemotesError
            If it is not, or has another size.
        """
        stat = self.stat(name)
        if stat is None or stat.size != size:
            found = "is not there" if stat is None else f"has {stat.size} bytes, not {size}"
            raise RemotesError(f"Object {name} of {self.url} {found}. Upload it again.")


def open_all(urls: Iterable[str | os.PathLike[str]], opener: Callable[..., Storage] = open_remote) -> list[Remote]:
    """Return the remotes at URLs, each once, in the order given."""
    remotes = {remote.url: remote for remote in (Remote.open(url, opener) for url in urls)}
    if not remotes:
        raise UsageError("No remote was named. Pass at least one URL, such as 's3://bucket' or a shared folder.")
    return list(remotes.values())
