"""Every door opens a storage as options say."""

import pytest

from mltraq_ds import options
from mltraq_ds.place import place_of
from mltraq_ds.storage import open_storage
from mltraq_ds.storage.local import LocalStorage
from mltraq_ds.storage.remote_urls import forget_remotes, open_remote
from mltraq_ds.store import FileStoreConfig
from mltraq_ds.tracking.transfer_bar import transfer_bar

pytestmark = pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning")

DOORS = {
    "open_storage": open_storage,
    "store=": lambda url: place_of(url).objects.storage,
    "config": lambda url: FileStoreConfig(root=url).open_storage(),
    "remote": open_remote,
}


@pytest.fixture(autouse=True)
def _anew():
    forget_remotes()
    yield
    forget_remotes()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("secret", [False, True])
def test_client_and_bars(door, secret, monkeypatch):
    """The client of option `datastore.client`, and a bar for long transfers, whichever door was taken."""
    pytest.importorskip("obstore")
    pytest.importorskip("s3fs")
    if secret:
        monkeypatch.setenv("MINIO_ACCESS_KEY", "AK")
        monkeypatch.setenv("MINIO_SECRET_KEY", "SK")
    for client in ("obstore", "fsspec"):
        forget_remotes()
        options.set("datastore.client", client)
        storage = DOORS[door]("s3://bucket/x")
        assert storage._access.client == client
        assert storage._on_transfer is transfer_bar


@pytest.mark.parametrize("door", DOORS)
def test_folders(door, tmp_path):
    """Whether files are flushed is what `datastore.durability` says."""
    options.set("datastore.durability", "relaxed")
    storage = DOORS[door](str(tmp_path))
    assert isinstance(storage, LocalStorage)
    assert storage._durability == "relaxed"
    assert open_storage(tmp_path, durability="full")._durability == "full"


def test_storage_options_are_for_one_service():
    """`store=` finds the credentials of `datastore.url` where scheme and bucket are the same, and nowhere else."""
    pytest.importorskip("s3fs")
    given = {"key": "AK", "secret": "SK"}
    options.set("datastore.storage_options", given)
    options.set("datastore.url", "s3://bucket/lab")
    for url, expected in {
        "s3://bucket/lab": given,
        "s3://bucket/other": given,
        "s3://bucket": given,
        "s3://bucket2/lab": {},
        "s3://buck/lab": {},
        "memory://bucket/lab": {},
    }.items():
        assert place_of(url).objects.storage._access._options == expected, url
