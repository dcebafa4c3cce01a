"""Reading a blob through its pointer: the first remote that delivers *verified* bytes wins.

Nothing that a remote sends is believed.  The index of the blob is compared with the digest in the pointer, and every
member with the SHA-256s in that index, so one key of a large blob is verified by reading only it.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from mltraq_ds.blob.hashing import PIECE
from mltraq_ds.blob.index import Row
from mltraq_ds.blob.parsing import parse_index
from mltraq_ds.blob.reader import find_index
from mltraq_ds.errors import (
    CorruptBlobError,
    DamageError,
    FormatError,
    KeyMissingError,
    MltraqDSError,
    RemoteFailedWarning,
    RemotesError,
)
from mltraq_ds.storage.base import Source, Storage
from mltraq_ds.storage.pointer import MAX_SIZE, Pointer, pointer_key
from mltraq_ds.storage.remote_urls import open_remote
from mltraq_ds.storage.sources import check_range

__all__ = ["PointedSource", "read_pointer"]


def read_pointer(storage: Storage, key: str) -> Pointer | None:
    """Return the pointer of a blob, or None if it has none.

    Raises
    ------
    CorruptRecordError, FormatError
        If it cannot be read.
    """
    try:
        return Pointer.from_bytes(storage.read(pointer_key(key), max_size=MAX_SIZE), pointer_key(key))
    except KeyMissingError:
        return None


@dataclass(frozen=True, slots=True)
class _Opened:
    """A blob on one remote, whose index was verified."""

    source: Source
    rows: list[Row]


class PointedSource(Source):
    """The bytes of a blob that lives on remotes; safe in threads.

    A range inside one member is verified before it is handed out.  Other ranges are structure (headers, index, end):
    what decides in them is verified by whoever parses it.

    Parameters
    ----------
    storage : Storage
        The store that the pointer belongs to.
    key : str
        Of the blob.
    pointer : Pointer
        What stands in its place.
    opener : callable
        Opens the storage of a remote by its URL.
    here : str
        Why the store itself does not deliver, if it has the blob.
    """

    def __init__(
        self,
        storage: Storage,
        key: str,
        pointer: Pointer,
        opener: Callable[[str], Storage] = open_remote,
        here: str = "",
    ) -> None:
        self.key = key
        self.size = pointer.size
        self._storage = storage
        self._pointer = pointer
        self._opener = opener
        self._here = here
        self._opened: dict[str, _Opened] = {}
        self._causes: dict[str, str] = {}
        self._last: tuple[int, memoryview] = (0, memoryview(b""))
        self._lock = threading.Lock()

    @property
    def home(self) -> Storage:
        # docstring inherited
        return self._storage

    def __reduce__(self) -> tuple[object, ...]:
        super().__reduce__()  # refuses where another process could not reach the pointer
        return (PointedSource, (self._storage, self.key, self._pointer))

    def read(self, offset: int, size: int) -> memoryview:
        """Return verified bytes from the first remote that has them.

        Raises
        ------
        RemotesError
            If no remote delivers them; the text has the cause of each.
        CorruptBlobError
            If the range leaves the blob.
        """
        check_range(self.key, offset, size, self.size)
        found = self._from_last(offset, size)
        return self._try_each(lambda opened: self._read(opened, offset, size)) if found is None else found

    def close(self) -> None:
        # docstring inherited
        with self._lock:
            opened, self._opened = self._opened, {}
            self._last = (0, memoryview(b""))
        for one in opened.values():
            one.source.close()

    def _try_each(self, work: Callable[[_Opened], memoryview]) -> memoryview:
        """Return what the first remote gives; those that have failed before are asked last."""
        for url in sorted(self._pointer.remotes, key=self._causes.__contains__):
            try:
                return work(self._open(url))
            except (MltraqDSError, OSError) as error:
                with self._lock:
                    self._opened.pop(url, None)
                    is_new = url not in self._causes
                    self._causes[url] = str(error)
                if is_new and len(self._causes) < len(self._pointer.remotes):
                    warnings.warn(
                        f"Remote {url} did not deliver blob {self.key}, the next one is asked: {error}",
                        RemoteFailedWarning,
                        stacklevel=2,
                    )
        causes = " ".join([self._here, *(f"{url}: {self._causes[url]}" for url in self._pointer.remotes)]).strip()
        raise RemotesError(
            f"No remote delivers blob {self.key} ({self.size} bytes, {self._pointer.digest}). {causes} Look whether "
            "they are there and at the credentials; 'mltraq-ds remote verify' asks for every blob."
        )

    def _open(self, url: str) -> _Opened:
        with self._lock:
            known = self._opened.get(url)
        if known is not None:
            return known
        source = self._opener(url).open(self._pointer.name, size=self.size)
        try:
            index_offset, packed, _ = find_index(source)
            if f"sha256:{hashlib.sha256(packed).hexdigest()}" != self._pointer.index:
                raise CorruptBlobError("the index of what is there is another one.")
            opened = _Opened(source, parse_index(packed, index_offset, self.key).rows)
        except (DamageError, FormatError):
            source.close()
            raise
        with self._lock:
            return self._opened.setdefault(url, opened)

    def _read(self, opened: _Opened, offset: int, size: int) -> memoryview:
        row = next(
            (row for row in opened.rows if row.offset <= offset and offset + size <= row.offset + row.stored_size),
            None,
        )
        if row is None or not size:
            return opened.source.read(offset, size)
        first = (offset - row.offset) // PIECE
        start = row.offset + first * PIECE
        last = -(-(offset + size - row.offset) // PIECE)
        end = min(row.offset + last * PIECE, row.offset + row.stored_size)
        view = opened.source.read(start, end - start)
        for number in range(first, last):
            piece = view[(number - first) * PIECE : (number - first + 1) * PIECE]
            if hashlib.sha256(piece).digest() != row.sha256[32 * number : 32 * number + 32]:
                raise CorruptBlobError(f"the SHA-256 of member {row.name!r} differs.")
        if end - start > size:  # streamed in steps smaller than what can be verified: the next one comes from here
            with self._lock:
                self._last = (end - PIECE if end - start > PIECE else start, view[-PIECE:])
        return _private(view, offset - start, size)

    def _from_last(self, offset: int, size: int) -> memoryview | None:
        with self._lock:
            start, view = self._last
        if start <= offset and offset + size <= start + view.nbytes and size:
            return memoryview(bytearray(view[offset - start : offset - start + size]))
        return None


def _private(view: memoryview, skip: int, size: int) -> memoryview:
    """Return a part of a view; one that may be handed out again is copied."""
    return view if size == view.nbytes else memoryview(bytearray(view[skip : skip + size]))
