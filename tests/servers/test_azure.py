"""Azure Blob Storage, as Azurite speaks it, passes the suite."""

import uuid
from pathlib import Path
from typing import ClassVar

import pytest

from mltraq_ds.errors import StorageError
from mltraq_ds.storage import Storage
from mltraq_ds.storage.clients import azure
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.testing.storage import StorageConformance

pytestmark = pytest.mark.server


class TestAzurite(StorageConformance):
    pytestmark = pytest.mark.slow
    racers = 4
    names: ClassVar[dict[Path, str]] = {}

    @pytest.fixture(autouse=True)
    def _service(self, azurite, _fresh_place):
        import adlfs  # there, since the fixture needs it

        self.options = azurite.options
        self.prefix = f"mltraq/{self.names.setdefault(self.folder, uuid.uuid4().hex)}"
        self.raw = adlfs.AzureBlobFileSystem(
            **self.options, skip_instance_cache=True, use_listings_cache=False
        ).service_client.get_container_client("mltraq")

    def ask(self, request):
        from fsspec.asyn import get_loop, sync

        return sync(get_loop(), request)

    def name(self, key: str) -> str:
        return f"{self.prefix}/{key}".partition("/")[2]

    def make_storage(self) -> Storage:
        return RemoteStorage(f"az://{self.prefix}", storage_options=self.options)

    def raw_read(self, key: str) -> bytes:
        async def read():
            return await (await self.raw.download_blob(self.name(key))).readall()

        return self.ask(read)

    def raw_write(self, key: str, data: bytes) -> None:
        async def write():
            await self.raw.upload_blob(self.name(key), data, overwrite=True)

        self.ask(write)

    def raw_list(self) -> set[str]:
        async def names():
            return {blob.name async for blob in self.raw.list_blobs(name_starts_with=self.name(""))}

        return {name.removeprefix(self.name("")) for name in self.ask(names)}


@pytest.mark.parametrize("size", [3, 20 * 2**20])
def test_broken_bytes_are_refused(azurite, monkeypatch, size):
    """The service compares the checksum that bytes are sent with, whole or in blocks."""
    storage = RemoteStorage(f"az://mltraq/{uuid.uuid4().hex}", storage_options=azurite.options)
    storage.put("x", [b"1"], size=1)
    monkeypatch.setattr(azure, "_digest", lambda body: {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    with pytest.raises(StorageError, match="put 'y'"):
        storage.put("y", [bytes(size)], size=size)
    monkeypatch.undo()
    assert not storage.exists("y")
    storage.put("y", [bytes(size)], size=size)
    assert storage.stat("y").size == size
