"""A server that speaks SFTP, by fsspec's filesystem on paramiko."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from mltraq_ds.storage.base import TEMPORARY
from mltraq_ds.storage.body import Body, parts_of
from mltraq_ds.storage.clients.anything import AnyClient
from mltraq_ds.storage.remote_writing import SMALL
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

    def _send(self, key: str, views: Iterable[memoryview], size: int, replace: bool) -> None:
        """Write a temporary file part by part, each a request that may be repeated, then give it its name."""
        path = self.path(key)
        temporary = f"{path.rpartition('/')[0]}/{TEMPORARY}{uuid.uuid4().hex}"

        def ask(request: Callable[[], object]) -> None:
            self.requests.ask("put", key, lambda left: request())

        if not replace:
            ask(lambda: self._refuse_taken(path))  # before all bytes are sent; the link decides
        try:
            if size > SMALL:
                ask(lambda: self.filesystem.ftp.open(temporary, "wb").close())  # its folder is found before bytes are
            start = 0
            for body in parts_of(views, self.part_size) if size else [Body([])]:
                ask(partial(self._part_at, temporary, start, body))
                start += body.size
            if replace:
                written = self.requests.ask("put", key, lambda left: self.filesystem.ftp.lstat(temporary))
                ask(lambda: self._rename(temporary, path, written))
            else:
                ask(lambda: self._link(temporary, path))
                ask(lambda: self._remove(temporary))
        except BaseException:
            with suppress(Exception):  # another error is on its way
                ask(lambda: self._remove(temporary))
            raise

    def _part_at(self, temporary: str, start: int, body: Body) -> None:
        with self.filesystem.ftp.open(temporary, "r+b" if start else "wb") as file:
            file.set_pipelined(True)
            file.seek(start)
            for piece in body.pieces():
                file.write(piece)
            while file._reqs:  # paramiko leaves the last hundred answers unread, and closing hides every error
                file.sftp._read_response(file._reqs.popleft())
            found = int(file.stat().st_size)
        if found != start + body.size:
            raise ConnectionResetError(f"{found} of {start + body.size} bytes have arrived")

    def _rename(self, temporary: str, path: str, written: Any) -> None:
        if self.filesystem.isdir(path):
            raise IsADirectoryError(path)
        try:
            self.filesystem.ftp.posix_rename(temporary, path)
        except FileNotFoundError:  # unless a former attempt, whose answer was lost, has done it
            found = self.filesystem.ftp.lstat(path)
            if (found.st_size, found.st_mtime) != (written.st_size, written.st_mtime):
                raise

    def _link(self, temporary: str, path: str) -> None:
        ftp = self.filesystem.ftp
        try:
            ftp._request(_EXTENDED, _LINK, temporary.encode(), path.encode())
        except OSError:  # servers say "failure" for all that fails
            if self._is_linked(temporary, path):
                return
            self._refuse_taken(path)
            ftp.open(path, "wbx").close()
            ftp.posix_rename(temporary, path)

    def _is_linked(self, temporary: str, path: str) -> bool:
        """Tell whether a former attempt, whose answer was lost, has done it: two names of one file have one time."""
        ftp = self.filesystem.ftp
        mark = int(time.time()) + 1000 + secrets.randbelow(100_000)  # to come: nobody else's is, and sweep waits
        try:
            ftp.lstat(path)
            ftp.utime(temporary, (mark, mark))
            is_linked = bool(ftp.lstat(path).st_mtime == mark)
            ftp.utime(temporary, None)
        except OSError:
            return False
        return is_linked

    def _remove(self, temporary: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.ftp.remove(temporary)

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
