"""Google Cloud Storage, by gcsfs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mltraq_ds.storage.access import RemoteFailing
from mltraq_ds.storage.body import Body
from mltraq_ds.storage.clients.anything import AnyClient
from mltraq_ds.storage.clients.base import Client, Progress
from mltraq_ds.storage.remote_writing import SMALL, write_whole
from mltraq_ds.storage.requests import Requests

__all__ = ["GcsClient"]

_STAMP = "mltraq-put"


class GcsClient(AnyClient):
    """Requests to a bucket.  What is large is one resumable upload, which knows no parallel parts."""

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        super().__init__(filesystem, root, requests, url)
        self.asks_if_absent = True

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
        put = Client.put if size <= SMALL else AnyClient.put
        put(self, key, views, size, replace=replace, before_publish=before_publish, progress=progress)

    def _write(self, key: str, views: Iterable[memoryview], size: int, failing: RemoteFailing, replace: bool) -> None:
        mode = "xb" if self.creates and not replace else "wb"
        write_whole(self.filesystem, self.path(key), views, size, failing, replace=replace, mode=mode)

    def _put(self, key: str, body: Body, stamp: str, create: bool, left: float) -> None:
        self.filesystem.pipe_file(
            self.path(key),
            bytes(body.joined()),
            metadata={_STAMP: stamp},
            mode="create" if create else "overwrite",
            timeout=left,
        )

    def _stamp_of(self, key: str, left: float) -> str:
        try:
            details = self.filesystem.info(self.path(key), timeout=left)
        except FileNotFoundError:
            return ""
        return str((details.get("metadata") or {}).get(_STAMP, ""))
