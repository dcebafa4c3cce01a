"""A server that speaks SFTP passes the suite, and breaks off without loss."""

import pytest

from mltraq_ds.storage import Storage
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.testing.storage import StorageConformance

pytestmark = pytest.mark.server


class TestSftp(StorageConformance):
    has_folders = True
    racers = 4

    @pytest.fixture(autouse=True)
    def _service(self, sftp, _fresh_place):
        self.server, folder = sftp
        self.root = folder / self.folder.name / "the store"

    def make_storage(self) -> Storage:
        return RemoteStorage(f"sftp://127.0.0.1/{self.folder.name}/the store", storage_options=self.server.options)

    def raw_read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def raw_write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def raw_list(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()}
