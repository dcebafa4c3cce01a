"""A server that speaks SFTP, by fsspec's filesystem on paramiko."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

from mltraq_ds.storage.access import RemoteFailing
from mltraq_ds.storage.base import TEMPORARY
from mltraq_ds.storage.clients.anything import AnyClient
from mltraq_ds.storage.requests import Requests

__all__ = ["SftpClient"]

_EXTENDED = 200  # SSH_FXP_EXTENDED
_LINK = "hardlink@openssh.com"
_SILENT_S = 60.0


class SftpClient(AnyClient):
    """Requests to one connection, one at a time: paramiko mixes up the answers of several threads.

    A key is written under a temporary name and linked to its own, which never replaces.  On servers without links the
    name is taken first (``O_EXCL``); killed in between, an empty file is left, which verifies as nothing.
    """

    most_requests: ClassVar[int | None] = 1

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        super().__init__(filesystem, root, requests, url)
        self.asks_if_absent = True
        requests.prepare = self._reconnect
        self._limit()

    def _reconnect(self) -> None:
        transport = self.filesystem.client.get_transport()
        if transport is None or not transport.is_active() or self.filesystem.ftp.get_channel().closed:
            self.filesystem._connect()
            self._limit()

    def _limit(self) -> None:
        self.filesystem.ftp.get_channel().settimeout(min(_SILENT_S, self.requests.deadline_s))

    def _write(self, key: str, views: Iterable[memoryview], size: int, failing: RemoteFailing, replace: bool) -> None:
        path = self.path(key)
        temporary = f"{path.rpartition('/')[0]}/{TEMPORARY}{uuid.uuid4().hex}"
        ftp = self.filesystem.ftp
        with failing:
            if not replace:
                self._refuse_taken(path)
            file = ftp.open(temporary, "wbx")
        try:
            with failing:
                file.set_pipelined(True)
            for view in views:
                with failing:
                    file.write(view)
            with failing:
                file.close()
                self._publish(temporary, path, replace)
        except BaseException:
            with suppress(Exception):  # another error is on its way
                file.close()
                ftp.remove(temporary)
            raise

    def _publish(self, temporary: str, path: str, replace: bool) -> None:
        ftp = self.filesystem.ftp
        if replace:
            if self.filesystem.isdir(path):
                raise IsADirectoryError(path)
            ftp.posix_rename(temporary, path)
            return
        try:
            ftp._request(_EXTENDED, _LINK, temporary.encode(), path.encode())
        except OSError:
            self._refuse_taken(path)  # servers say "failure" for all that fails
            ftp.open(path, "wbx").close()
            ftp.posix_rename(temporary, path)
        else:
            ftp.remove(temporary)

    def _refuse_taken(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.ftp.lstat(path)
            raise FileExistsError(path)

    def _read(self, key: str, left: float) -> bytes:
        if self.filesystem.isdir(self.path(key)):  # servers say "failure" for that
            raise IsADirectoryError(key)
        with self.filesystem.ftp.open(self.path(key), "rb") as file:
            file.prefetch(file.stat().st_size)
            return bytes(file.read())

    def _get(self, key: str, start: int, into: memoryview, size: int, left: float) -> int:
        with self.filesystem.ftp.open(self.path(key), "rb") as file:
            found = int(file.stat().st_size)
            if found == size:
                (data,) = file.readv([(start, into.nbytes)])
                into[:] = data
        return found
