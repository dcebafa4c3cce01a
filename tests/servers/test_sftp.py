"""A server that speaks SFTP passes the suite, and breaks off without loss."""

import pytest

from mltraq_ds.errors import KeyExistsError, StorageError
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


def test_connection_that_breaks(sftp):
    """A connection that was cut is made anew by the next request."""
    server, folder = sftp
    storage = RemoteStorage("sftp://127.0.0.1/broken", storage_options=server.options)
    storage.put("x", [b"1"], size=1, parents=True)
    storage._client().filesystem.client.close()
    assert storage.read("x") == b"1"
    storage._client().filesystem.ftp.close()
    storage.put("y", [b"2"], size=1)
    assert (folder / "broken" / "y").read_bytes() == b"2"


def test_wrong_password(sftp):
    """A wrong password is one clear sentence, and is not repeated in it."""
    server, _ = sftp
    options = {**server.options, "password": "canary-77"}
    with pytest.raises(StorageError, match="does not accept these credentials") as failed:
        RemoteStorage("sftp://127.0.0.1/x", storage_options=options).read("x")
    assert "canary-77" not in str(failed.value)


def test_server_without_links(sftp, monkeypatch):
    """Where the server knows no links, the name is taken first; of several writers one wins all the same."""
    from mltraq_ds.storage.clients import sftp as client

    monkeypatch.setattr(client, "_LINK", "nothing@example.org")
    server, folder = sftp
    storage = RemoteStorage("sftp://127.0.0.1/unlinked", storage_options=server.options)
    assert storage.creates_if_absent
    storage.put("x", [b"1"], size=1, parents=True)
    with pytest.raises(KeyExistsError):
        storage.put("x", [b"2"], size=1)
    assert [path.name for path in (folder / "unlinked").iterdir()] == ["x"]
    assert storage.read("x") == b"1"
