"""Google Cloud Storage, by gcsfs: its configuration and credentials, our own uploads."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from fsspec.asyn import sync

from mltraq_ds.storage.body import Body, parts_of
from mltraq_ds.storage.clients.anything import AnyClient
from mltraq_ds.storage.clients.base import Client, Progress
from mltraq_ds.storage.remote_writing import Failing, write_whole
from mltraq_ds.storage.requests import Requests

__all__ = ["GcsClient"]

_STAMP = "mltraq-put"
_BOUNDARY = "==mltraq-ds=="
_INCOMPLETE = 308
_TYPE = "application/octet-stream"


@dataclass
class _Part:
    """A part of an upload: where it begins in the whole of `total` bytes, and whether it was sent before."""

    upload: str
    start: int
    body: Body
    total: int
    crc: int
    is_repeated: bool = False

    @property
    def end(self) -> int:
        return self.start + self.body.size


class GcsClient(AnyClient):
    """Requests to a bucket.  Bytes are sent with their CRC-32C, which the service compares.

    What is large is one resumable upload, which knows no parallel parts: each part is a request, and before one is
    repeated the service is asked how much of it has arrived.
    """

    whole_up_to = 8 * 2**20

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        super().__init__(filesystem, root, requests, url)
        self.asks_if_absent = True
        self._bucket = root.partition("/")[0]
        once = getattr(type(filesystem)._request, "__wrapped__", None)
        if once is not None:  # we repeat, and know when to stop
            filesystem._request = once.__get__(filesystem)

    def put(
        self,
        key: str,
        views: Iterable[memoryview],
        size: int,
        *,
        replace: bool,
        parents: bool = False,
        before_publish: Callable[[], None] | None = None,
        progress: Progress = lambda count: None,
    ) -> None:
        # docstring inherited
        put = AnyClient.put if self._is_zonal else Client.put
        put(self, key, views, size, replace=replace, before_publish=before_publish, progress=progress)

    @cached_property
    def _is_zonal(self) -> bool:
        """Whether the bucket is of the kind that is written by another protocol, which gcsfs knows."""
        asked = getattr(self.filesystem, "_is_zonal_bucket", None)
        if asked is None:
            return False
        return bool(self.requests.ask("stat", "", lambda left: self._sync(left, partial(asked, self._bucket))))

    def _write(self, key: str, views: Iterable[memoryview], size: int, failing: Failing, replace: bool) -> None:
        mode = "xb" if self.creates and not replace else "wb"
        write_whole(self.filesystem, self.path(key), views, size, failing, replace=replace, mode=mode)

    def _sync(self, left: float, request: Callable[[], Awaitable[Any]]) -> Any:
        return sync(self.filesystem.loop, request, timeout=left)

    def _call(
        self, left: float, method: str, url: str, headers: dict[str, str], **arguments: Any
    ) -> tuple[int, Mapping[str, str]]:
        """Send a request; returns status and headers of its answer."""
        body = arguments.get("data")
        sized = {"Content-Length": str(body.size)} if isinstance(body, Body) else {}

        async def call() -> tuple[int, Mapping[str, str]]:
            answer = await self.filesystem._request(method, url, headers={**headers, **sized}, **arguments)
            self.note_clock(answer[1].get("Date"))
            return answer[0], answer[1]

        found: tuple[int, Mapping[str, str]] = self._sync(left, call)
        return found

    def _begin_as(
        self, uploads: str, headers: dict[str, str], create: bool, left: float, **arguments: Any
    ) -> Mapping[str, str]:
        url = f"{self.filesystem._location}/upload/storage/v1/b/{urllib.parse.quote(self._bucket)}/o"
        condition = {"ifGenerationMatch": "0"} if create else {}
        return self._call(left, "POST", url, headers, uploadType=uploads, **condition, **arguments)[1]

    def _about(self, key: str, stamp: str) -> dict[str, Any]:
        return {"name": self.path(key).partition("/")[2], "metadata": {_STAMP: stamp}}

    def _put(self, key: str, body: Body, stamp: str, create: bool, left: float) -> None:
        about = json.dumps({**self._about(key, stamp), "crc32c": _encoded(_crc32c(body))})
        head = f"--{_BOUNDARY}\nContent-Type: application/json; charset=UTF-8\n\n{about}\n"
        head += f"--{_BOUNDARY}\nContent-Type: {_TYPE}\n\n"
        tail = f"\n--{_BOUNDARY}--"
        data = Body([memoryview(head.encode()), *body.pieces(), memoryview(tail.encode())])
        headers = {"Content-Type": f'multipart/related; boundary="{_BOUNDARY}"'}
        self._begin_as("multipart", headers, create, left, data=data)

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
        headers, about = {"X-Upload-Content-Type": _TYPE}, self._about(key, stamp)
        begun = self.requests.ask(
            "put", key, lambda left: self._begin_as("resumable", headers, create, left, json=about)
        )
        upload, start, crc = str(begun["Location"]), 0, 0
        try:
            for body in parts_of(views, self.part_size):
                crc = _crc32c(body, crc)
                part = _Part(upload, start, body, size, crc)
                start = part.end
                if start < size:
                    self.requests.ask("put", key, partial(self._send_part, part))
                else:
                    check()
                    self._create(key, stamp, partial(self._send_part, part))
                progress(body.size)
        except BaseException:
            with suppress(Exception), self.requests.room("put", key):  # another error is on its way
                self._call(1.0, "DELETE", upload, {})
            raise

    def _send_part(self, part: _Part, left: float) -> None:
        """Send one part, or what is missing of it; the last one makes the key."""
        skip = 0
        if part.is_repeated:
            arrived = _arrived(*self._call(left, "PUT", part.upload, {"Content-Range": f"bytes */{part.total}"}))
            if arrived is None:
                return  # the key is made
            skip = min(max(0, arrived - part.start), part.body.size)
        part.is_repeated = True
        rest = part.body.after(skip)
        if not rest.size:
            return
        headers = {"Content-Type": _TYPE, "Content-Range": f"bytes {part.start + skip}-{part.end - 1}/{part.total}"}
        if part.end == part.total:
            headers["X-Goog-Hash"] = f"crc32c={_encoded(part.crc)}"
        arrived = _arrived(*self._call(left, "PUT", part.upload, headers, data=rest))
        if arrived is not None and arrived < part.end:
            raise ConnectionResetError(f"{arrived} of {part.end} bytes have arrived")

    def _stamp_of(self, key: str, left: float) -> str:
        try:
            details = self.filesystem.info(self.path(key), timeout=left)
        except FileNotFoundError:
            return ""
        return str((details.get("metadata") or {}).get(_STAMP, ""))


def _arrived(status: int, headers: Mapping[str, str]) -> int | None:
    """Return how many bytes of an upload the service has; None if it has all, and has made the key."""
    if status != _INCOMPLETE:
        return None
    last = int(headers.get("Range", "0").rpartition("-")[2])
    return last + 1 if last else 0  # nothing is told by no range, or by "0-0"


def _crc32c(body: Body, crc: int = 0) -> int:
    import google_crc32c

    for piece in body.pieces():
        crc = google_crc32c.extend(crc, bytes(piece))
    return crc


def _encoded(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
