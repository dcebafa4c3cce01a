"""S3 services pass the suite that we offer to others: a true one and a light one."""

import uuid
from pathlib import Path
from typing import ClassVar

import pytest

from mltraq_ds.storage import Storage
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.testing.storage import StorageConformance

s3fs = pytest.importorskip("s3fs")
pytestmark = [pytest.mark.server, pytest.mark.slow]

CLIENTS: dict[int, object] = {}


class OnS3(StorageConformance):
    racers = 4  # SeaweedFS makes more of them wait for each other, a second each
    names: ClassVar[dict[Path, str]] = {}

    def use(self, service) -> None:
        self.service = service
        self.prefix = f"{self.names.setdefault(self.folder, uuid.uuid4().hex)}/deep/"
        if service.port not in CLIENTS:
            CLIENTS[service.port] = s3fs.S3FileSystem(**service.options, skip_instance_cache=True)

    def call(self, method: str, **arguments) -> dict:
        return CLIENTS[self.service.port].call_s3(method, Bucket="mltraq", **arguments)

    def make_storage(self) -> Storage:
        return RemoteStorage(f"s3://mltraq/{self.prefix}", storage_options=self.service.options)

    def raw_read(self, key: str) -> bytes:
        return CLIENTS[self.service.port].cat_file(f"mltraq/{self.prefix}{key}")

    def raw_write(self, key: str, data: bytes) -> None:
        self.call("put_object", Key=self.prefix + key, Body=data)

    def raw_list(self) -> set[str]:
        names: set[str] = set()
        more: dict[str, str] = {}
        while True:
            answer = self.call("list_objects_v2", Prefix=self.prefix, **more)
            names |= {found["Key"].removeprefix(self.prefix) for found in answer.get("Contents", ())}
            if not answer.get("IsTruncated"):
                return names
            more = {"ContinuationToken": answer["NextContinuationToken"]}


class TestSeaweedFS(OnS3):
    forgets_folders = False

    @pytest.fixture(autouse=True)
    def _service(self, seaweedfs, _fresh_place):
        self.use(seaweedfs)


class TestMoto(OnS3):
    @pytest.fixture(autouse=True)
    def _service(self, moto, _fresh_place):
        self.use(moto)
