"""Azure Blob Storage, by adlfs: its configuration and credentials, our own requests."""

from __future__ import annotations

import base64
import builtins
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from fsspec.asyn import sync

from mltraq_ds.storage.base import Stat
from mltraq_ds.storage.body import Body
from mltraq_ds.storage.clients.base import Client
from mltraq_ds.storage.requests import Requests

__all__ = ["AzureClient"]

_STAMP = "mltraq_put"  # names of metadata are identifiers there


class AzureClient(Client):
    """Requests to a container.  Bytes are sent with their MD5, which the service compares.

    Blocks that were never committed are removed by the service after a week.
    """

    asks_if_absent = True
    whole_up_to = 2**20  # above that aiohttp, to which the bytes are given in one piece, warns that it blocks

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        super().__init__(filesystem, root, requests, url)
        self._container, _, self._prefix = root.partition("/")
        self._once = {"retry_total": 0, "raw_response_hook": self._note}  # we repeat, and know when to stop

    def _note(self, response: Any) -> None:
        self.note_clock(response.http_response.headers.get("Date"))

    def _name(self, key: str) -> str:
        return "/".join(part for part in (self._prefix, key) if part)

    def _call(self, key: str, left: float, request: Callable[[Any], Awaitable[Any]]) -> Any:
        blob = self.filesystem.service_client.get_blob_client(self._container, self._name(key))

        async def call() -> Any:
            return await request(blob)

        return sync(self.filesystem.loop, call, timeout=left)

    def _put(self, key: str, body: Body, stamp: str, create: bool, left: float) -> None:
        data = bytes(body.joined())
        how = {"overwrite": not create, "metadata": {_STAMP: stamp}, "headers": _digest(body)}
        self._call(key, left, lambda blob: blob.upload_blob(data, **how, **self._once))

    def _stamp_of(self, key: str, left: float) -> str:
        properties = self._call(key, left, lambda blob: blob.get_blob_properties(**self._once))
        return str((properties.metadata or {}).get(_STAMP, ""))

    def _begin(self, key: str, stamp: str, left: float) -> str:
        return stamp

    def _part(self, key: str, upload: str, number: int, body: Body, left: float) -> str:
        name = base64.b64encode(f"{upload}-{number:06}".encode()).decode()
        headers = _digest(body)
        self._call(
            key, left, lambda blob: blob.stage_block(name, body, length=body.size, headers=headers, **self._once)
        )
        return name

    def _finish(self, key: str, upload: str, pieces: builtins.list[Any], stamp: str, create: bool, left: float) -> None:
        from azure.core import MatchConditions
        from azure.storage.blob import BlobBlock

        condition = {"match_condition": MatchConditions.IfMissing} if create else {}
        blocks = [BlobBlock(name) for name in pieces]
        self._call(
            key,
            left,
            lambda blob: blob.commit_block_list(blocks, metadata={_STAMP: stamp}, **condition, **self._once),
        )

    def _abort(self, key: str, upload: str, left: float) -> None:
        pass  # blocks cannot be removed; see the class

    def _read(self, key: str, left: float) -> bytes:
        async def fetch(blob: Any) -> bytes:
            return bytes(await (await blob.download_blob(**self._once)).readall())

        data: bytes = self._call(key, left, fetch)
        return data

    def _get(self, key: str, start: int, into: memoryview, size: int, left: float) -> int:
        async def fetch(blob: Any) -> int:
            stream = await blob.download_blob(offset=start, length=into.nbytes, **self._once)
            data = await stream.readall()
            if len(data) == into.nbytes:
                into[:] = data
            return int(str(stream.properties.content_range or stream.properties.size).rpartition("/")[2])

        try:
            total: int = self._call(key, left, fetch)
        except Exception as error:
            if getattr(error, "status_code", None) != 416:
                raise
            return self._stat(key, left).size
        return total

    def _stat(self, key: str, left: float) -> Stat:
        found = self._call(key, left, lambda blob: blob.get_blob_properties(**self._once))
        return Stat(key, int(found.size), found.last_modified.timestamp())

    def _delete(self, key: str, left: float) -> None:
        self._call(key, left, lambda blob: blob.delete_blob(**self._once))

    def list(self, prefix: str) -> Iterator[Stat]:
        # docstring inherited
        skip = len(self._prefix) + 1 if self._prefix else 0
        found = self._listing(prefix, "list_blobs")
        return (Stat(blob.name[skip:], int(blob.size), blob.last_modified.timestamp()) for blob in found)

    def folders(self, prefix: str) -> builtins.list[str]:
        # docstring inherited
        found = [blob.name for blob in self._listing(prefix, "walk_blobs")]
        return sorted({name.rstrip("/").rpartition("/")[2] for name in found if name.endswith("/")})

    def _listing(self, prefix: str, verb: str) -> builtins.list[Any]:
        start = self._name(prefix) + "/" if self._name(prefix) else ""
        container = self.filesystem.service_client.get_container_client(self._container)

        async def collect() -> builtins.list[Any]:
            return [found async for found in getattr(container, verb)(name_starts_with=start, **self._once)]

        found: builtins.list[Any] = self.requests.ask(
            "list", prefix, lambda left: sync(self.filesystem.loop, collect, timeout=left)
        )
        return found


def _digest(body: Body) -> dict[str, str]:
    """Return the header of the checksum; taken here, since the package would do so on the thread of all requests."""
    found = hashlib.md5(usedforsecurity=False)
    for piece in body.pieces():
        found.update(piece)
    return {"Content-MD5": base64.b64encode(found.digest()).decode()}
