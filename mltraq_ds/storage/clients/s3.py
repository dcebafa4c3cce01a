"""S3 and what speaks like it, by s3fs: its configuration and credentials, our own requests."""

from __future__ import annotations

import base64
import builtins
import hashlib
from collections.abc import Iterator
from typing import Any

from fsspec.asyn import sync

from mltraq_ds.errors import KeyMissingError, StorageError
from mltraq_ds.storage.base import TEMPORARY, Stat
from mltraq_ds.storage.body import Body
from mltraq_ds.storage.clients.base import Client
from mltraq_ds.storage.requests import Requests

__all__ = ["S3Client"]

_STAMP = "mltraq-put"
_BATCH = 1000  # keys that one request may remove
_UPLOAD = f"{TEMPORARY}upload-"
_PIECE = 2**20  # taken from the socket at a time (bytes)


class S3Client(Client):
    """Requests to a bucket.  Bytes are sent with their CRC-32, which the service compares."""

    asks_if_absent = True

    def __init__(self, filesystem: Any, root: str, requests: Requests, url: str) -> None:
        super().__init__(filesystem, root, requests, url)
        filesystem.retries = 1  # we repeat, and know when to stop
        self._bucket, _, self._prefix = root.partition("/")
        config = filesystem.config_kwargs or {}
        self._sends_crc = config.get("request_checksum_calculation") != "when_required"

    def _name(self, key: str) -> str:
        return "/".join(part for part in (self._prefix, key) if part)

    def _call(self, method: str, left: float, **arguments: Any) -> Any:
        call = self.filesystem._call_s3
        answer = sync(self.filesystem.loop, call, method, Bucket=self._bucket, timeout=left, **arguments)
        self.note_clock(answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date"))
        return answer

    def _crc(self, body: Body) -> dict[str, str]:
        if not self._sends_crc:
            return {}
        return {"ChecksumCRC32": base64.b64encode(body.crc32().to_bytes(4, "big")).decode()}

    def _put(self, key: str, body: Body, stamp: str, create: bool, left: float) -> None:
        self._call(
            "put_object",
            left,
            Key=self._name(key),
            Body=_sent(body),
            Metadata={_STAMP: stamp},
            **self._crc(body),
            **_condition(create),
        )

    def _stamp_of(self, key: str, left: float) -> str:
        try:
            return str(self._call("head_object", left, Key=self._name(key))["Metadata"].get(_STAMP, ""))
        except FileNotFoundError:
            return ""

    def _begin(self, key: str, stamp: str, left: float) -> str:
        algorithm = {"ChecksumAlgorithm": "CRC32"} if self._sends_crc else {}
        name = self._name(key)
        answer = self._call("create_multipart_upload", left, Key=name, Metadata={_STAMP: stamp}, **algorithm)
        return str(answer["UploadId"])

    def _part(self, key: str, upload: str, number: int, body: Body, left: float) -> dict[str, object]:
        crc = self._crc(body)
        answer = self._call(
            "upload_part",
            left,
            Key=self._name(key),
            UploadId=upload,
            PartNumber=number,
            Body=_sent(body),
            **crc,
        )
        return {"PartNumber": number, "ETag": answer["ETag"], **crc}

    def _finish(self, key: str, upload: str, pieces: builtins.list[Any], stamp: str, create: bool, left: float) -> None:
        self._call(
            "complete_multipart_upload",
            left,
            Key=self._name(key),
            UploadId=upload,
            MultipartUpload={"Parts": pieces},
            **_condition(create),
        )

    def _abort(self, key: str, upload: str, left: float) -> None:
        try:
            self._call("abort_multipart_upload", left, Key=self._name(key), UploadId=upload)
        except FileNotFoundError:
            return

    def _read(self, key: str, left: float) -> bytes:
        async def fetch() -> bytes:
            answer = await self.filesystem._call_s3("get_object", Bucket=self._bucket, Key=self._name(key))
            self.note_clock(answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date"))
            async with answer["Body"] as stream:
                return bytes(await stream.read())

        data: bytes = sync(self.filesystem.loop, fetch, timeout=left)
        return data

    def _get(self, key: str, start: int, into: memoryview, size: int, left: float) -> int:
        range_ = f"bytes={start}-{start + into.nbytes - 1}"

        async def fetch() -> int:
            answer = await self.filesystem._call_s3(
                "get_object", Bucket=self._bucket, Key=self._name(key), Range=range_
            )
            total = int(str(answer.get("ContentRange", "")).rpartition("/")[2] or answer["ContentLength"])
            async with answer["Body"] as stream:
                if total == size and answer["ContentLength"] == into.nbytes:
                    await _pour(stream, into)
            return total

        try:
            total: int = sync(self.filesystem.loop, fetch, timeout=left)
        except OSError as error:
            if "InvalidRange" not in str(getattr(error.__cause__, "response", "")):
                raise
            return self._stat(key, left).size
        return total

    def _stat(self, key: str, left: float) -> Stat:
        answer = self._call("head_object", left, Key=self._name(key))
        return Stat(key, int(answer["ContentLength"]), answer["LastModified"].timestamp())

    def _delete(self, key: str, left: float) -> None:
        folder, _, last = key.rpartition("/")
        if last.startswith(_UPLOAD):
            for found, name, upload in self._uploads(folder):
                if found.key == key:
                    self._call("abort_multipart_upload", left, Key=name, UploadId=upload)
        else:
            self._call("delete_object", left, Key=self._name(key))

    def delete_many(self, keys: builtins.list[str]) -> None:
        # docstring inherited
        plain = [key for key in keys if not key.rpartition("/")[2].startswith(_UPLOAD)]
        for start in range(0, len(plain), _BATCH):
            self._delete_batch(plain[start : start + _BATCH])
        for key in set(keys) - set(plain):
            self.delete(key)

    def _delete_batch(self, keys: builtins.list[str]) -> None:
        objects = {"Objects": [{"Key": self._name(key)} for key in keys], "Quiet": True}
        answer = self.requests.ask("delete", keys[0], lambda left: self._call("delete_objects", left, Delete=objects))
        for failed in answer.get("Errors", ()):
            if failed.get("Code") not in ("NoSuchKey", "NoSuchVersion"):
                # One by one: each has the repetitions and the error that it deserves.
                self.delete(failed["Key"].removeprefix(self._name("") + "/" if self._prefix else ""))

    def list(self, prefix: str) -> Iterator[Stat]:
        # docstring inherited
        start = self._name(prefix) + "/" if self._name(prefix) else ""
        skip = len(self._prefix) + 1 if self._prefix else 0
        for answer in self._pages(prefix, Prefix=start):
            for found in answer.get("Contents", ()):
                if not found["Key"].endswith("/"):  # a folder that another tool has marked
                    yield Stat(found["Key"][skip:], int(found["Size"]), found["LastModified"].timestamp())

    def folders(self, prefix: str) -> builtins.list[str]:
        # docstring inherited
        start = self._name(prefix) + "/" if self._name(prefix) else ""
        pages = self._pages(prefix, Prefix=start, Delimiter="/")
        found = [entry["Prefix"] for answer in pages for entry in answer.get("CommonPrefixes", ())]
        return sorted({name[len(start) :].rstrip("/") for name in found} - {""})

    def _pages(self, prefix: str, **arguments: Any) -> Iterator[Any]:
        more: dict[str, str] = {}
        while True:
            answer = self._listed("list_objects_v2", prefix, {**arguments, **more})
            yield answer
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _listed(self, method: str, prefix: str, arguments: dict[str, str]) -> Any:
        return self.requests.ask("list", prefix, lambda left: self._call(method, left, **arguments))

    def unfinished(self, prefix: str) -> Iterator[Stat]:
        # docstring inherited
        return (found for found, _, _ in self._uploads(prefix))

    def _uploads(self, prefix: str) -> Iterator[tuple[Stat, str, str]]:
        """Yield uploads in parts that were begun below a folder: under a key of ours, their name and their id."""
        start = self._name(prefix) + "/" if self._name(prefix) else ""
        skip = len(self._prefix) + 1 if self._prefix else 0
        more: dict[str, str] = {}
        while True:
            try:
                answer = self._listed("list_multipart_uploads", prefix, {"Prefix": start, **more})
            except StorageError as error:
                if not isinstance(error, KeyMissingError) and "does not offer that" not in str(error):
                    raise
                return  # not every service that speaks S3 lists uploads; those remove them by themselves
            for found in answer.get("Uploads", ()):
                folder = found["Key"][skip:].rpartition("/")[0]
                mark = hashlib.sha256(f"{found['Key']}\n{found['UploadId']}".encode()).hexdigest()[:32]
                key = "/".join(part for part in (folder, _UPLOAD + mark) if part)
                yield Stat(key, 0, found["Initiated"].timestamp()), found["Key"], found["UploadId"]
            if not answer.get("IsTruncated"):
                return
            more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}


def _sent(body: Body) -> Any:
    return body if body.size else b""


def _condition(create: bool) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if create else {}


async def _pour(stream: Any, into: memoryview) -> None:
    done = 0
    while done < into.nbytes:
        data = await stream.read(min(_PIECE, into.nbytes - done))
        if not data:
            raise ConnectionResetError(f"the answer ended after {done} of {into.nbytes} bytes")
        into[done : done + len(data)] = data
        done += len(data)
