"""S3, Google Cloud Storage and Azure by obstore, a library in Rust: one kind of requests for all of them."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mltraq_ds.errors import StorageError
from mltraq_ds.storage.base import Stat
from mltraq_ds.storage.body import Body
from mltraq_ds.storage.clients.base import Client, Progress
from mltraq_ds.storage.requests import Requests

__all__ = ["ObstoreClient"]

_BATCH = 1000  # keys that S3 removes in one request
_PIECE = 2**20  # handed to obstore at a time (bytes)
_KEPT = 256 * 2**20  # an upload in parts up to here is sent again as a whole if it breaks off (bytes)
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_NO_ANSWER = re.compile(r"HTTP error|error sending request|error decoding|timed out|connection", re.IGNORECASE)


def _obstore() -> Any:
    """Return the library, which is loaded when the first client is used."""
    import obstore

    return obstore


class Answer(Exception):  # noqa: N818 - it never leaves this module but as a cause
    """What a service has answered, as `mltraq_ds.storage.answers` looks at it."""

    def __init__(self, text: str, status_code: int | None = None, error_code: str = "") -> None:
        super().__init__(text, status_code, error_code)
        self.status_code = status_code
        self.error_code = error_code

    def __str__(self) -> str:
        return str(self.args[0])


class ObstoreClient(Client):
    """Requests by obstore.

    It sends parts without a condition.  So what is large and must be new takes its name first, by an empty key that is
    created only if absent; killed in between, the empty key is left, which verifies as nothing.  It does not list the
    uploads in parts that killed processes have left: a rule of the bucket has to end them.
    """

    asks_if_absent = True

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        super().__init__(filesystem, root, requests, url)
        self._store, self._patient = filesystem
        # Names of metadata are identifiers on Azure.
        self._stamp = "mltraq_put" if requests.scheme.startswith("a") else "mltraq-put"

    def _name(self, key: str) -> str:
        return "/".join(part for part in (self.root, key) if part)

    def _put_in_parts(
        self,
        key: str,
        views: Iterable[memoryview],
        size: int,
        stamp: str,
        create: bool,
        check: Callable[[], None],
        progress: Progress,
    ) -> None:
        if create:
            self._create(key, stamp, lambda left: self._put(key, Body([]), stamp, True, left))
        body = _Kept(views, check, progress)

        def send(left: float) -> None:
            try:
                with _answers():
                    self._stream(key, stamp, body.pieces(), size)
            except Exception:
                if body.failure is not None:
                    raise Answer("the buffers failed") from None  # whatever it was, it is not to be repeated
                raise

        try:
            if size <= _KEPT:
                self.requests.ask("put", key, send, takes_room=False)  # the buffers may come from this storage
            else:
                with self.requests.failing("put", key):
                    send(self.requests.deadline_s)
        except BaseException:
            if create:
                with suppress(Exception):  # another error is on its way
                    self.delete(key)
            if body.failure is not None:
                raise body.failure from None  # an error of the buffers, as it is
            raise

    def _stream(self, key: str, stamp: str, pieces: Iterator[memoryview], size: int) -> None:
        _obstore().put(
            self._patient,
            self._name(key),
            pieces,
            attributes={self._stamp: stamp},
            use_multipart=True,
            chunk_size=max(self.part_size, -(-size // self.max_parts)),
            max_concurrency=self.parts_at_a_time,
        )

    def _put(self, key: str, body: Body, stamp: str, create: bool, left: float) -> None:
        with _answers():
            _obstore().put(
                self._store,
                self._name(key),
                body.pieces() if body.size else b"",
                attributes={self._stamp: stamp},
                mode="create" if create else "overwrite",
                use_multipart=False,
            )

    def _stamp_of(self, key: str, left: float) -> str:
        try:
            with _answers():
                found = _obstore().get(self._store, self._name(key), options={"head": True})
        except Answer as answer:
            if answer.status_code != 404:
                raise
            return ""
        attributes: Any = found.attributes
        return str(attributes.get(self._stamp, ""))

    def _read(self, key: str, left: float) -> bytes:
        with _answers():
            return bytes(_obstore().get(self._store, self._name(key)).bytes())

    def _get(self, key: str, start: int, into: memoryview, size: int, left: float) -> int:
        try:
            with _answers():
                found = _obstore().get(self._store, self._name(key), options={"range": (start, start + into.nbytes)})
                total = int(found.meta["size"])
                if total == size:
                    data = memoryview(found.bytes())
                    if data.nbytes != into.nbytes:
                        raise ConnectionResetError(f"the answer ended after {data.nbytes} of {into.nbytes} bytes")
                    into[:] = data
        except Answer as answer:
            if answer.status_code != 416:
                raise
            return self._stat(key, left).size
        return total

    def _stat(self, key: str, left: float) -> Stat:
        with _answers():
            found = _obstore().head(self._store, self._name(key))
        return Stat(key, int(found["size"]), found["last_modified"].timestamp())

    def _delete(self, key: str, left: float) -> None:
        with _answers():
            _obstore().delete(self._store, self._name(key))

    def delete_many(self, keys: builtins.list[str]) -> None:
        # docstring inherited
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            try:
                self.requests.ask("delete", batch[0], lambda left, batch=batch: self._delete_batch(batch))  # type: ignore[misc]
            except StorageError:
                # One by one: each has the repetitions and the error that it deserves.
                super().delete_many(batch)

    def _delete_batch(self, keys: builtins.list[str]) -> None:
        with _answers():
            _obstore().delete(self._store, [self._name(key) for key in keys])

    def list(self, prefix: str) -> Iterator[Stat]:
        # docstring inherited
        skip = len(self.root) + 1 if self.root else 0

        def collect(left: float) -> builtins.list[Stat]:
            with _answers():
                return [
                    Stat(str(found["path"])[skip:], int(found["size"]), found["last_modified"].timestamp())
                    for page in _obstore().list(self._store, prefix=self._name(prefix) or None)
                    for found in page
                ]

        return iter(self.requests.ask("list", prefix, collect))

    def folders(self, prefix: str) -> builtins.list[str]:
        # docstring inherited
        def collect(left: float) -> builtins.list[str]:
            with _answers():
                return list(
                    _obstore().list_with_delimiter(self._store, prefix=self._name(prefix) or None)["common_prefixes"]
                )

        found = self.requests.ask("list", prefix, collect)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


class _Kept:
    """Buffers that can be sent again.  `check` is called once, when all of them were sent the first time."""

    def __init__(self, views: Iterable[memoryview], check: Callable[[], None], progress: Progress) -> None:
        self.failure: BaseException | None = None
        self._more = iter(views)
        self._kept: builtins.list[memoryview] = []
        self._size = 0
        self._check: Callable[[], None] | None = check
        self._progress = progress

    def pieces(self) -> Iterator[memoryview]:
        """Yield all bytes in small pieces, first those that were sent before."""
        if self.failure is not None:  # what raised has no more to give, and would seem to be at its end
            raise self.failure
        try:
            for view in builtins.list(self._kept):
                yield from _cut(view)
            for view in self._more:
                self._size += view.nbytes
                if self._size <= _KEPT:
                    self._kept.append(view)
                for piece in _cut(view):
                    yield piece
                    self._progress(piece.nbytes)
            if self._check is not None:
                self._check()
                self._check = None
        except GeneratorExit:  # obstore has given up
            raise
        except BaseException as error:
            self.failure = error
            raise


def _cut(view: memoryview) -> Iterator[memoryview]:
    return (view[start : start + _PIECE] for start in range(0, view.nbytes, _PIECE))


@contextmanager
def _answers() -> Iterator[None]:
    """Turn what obstore raises into what a service has answered; its own texts go on for pages."""
    try:
        yield
    except (_obstore().exceptions.BaseError, FileNotFoundError, PermissionError) as error:
        text = str(error).partition("\n\nDebug source")[0]
        status, code = _STATUS.search(text), _CODE.search(text)
        said = text.partition("<?xml")[0].strip()[:300]
        if status is None and _NO_ANSWER.search(text):
            raise ConnectionError(said) from None
        absent = 404 if isinstance(error, FileNotFoundError) else None
        taken = 412 if isinstance(error, _obstore().exceptions.AlreadyExistsError) else None
        raise Answer(said, int(status[1]) if status else absent or taken, code[1] if code else "") from None
