"""Google Cloud Storage, as its emulator plays it: what fails once is repeated, small or large."""

import threading
import uuid

import pytest

from mltraq_ds.errors import KeyExistsError, StorageError
from mltraq_ds.storage import requests as storage_requests
from mltraq_ds.storage.clients import gcs as client
from mltraq_ds.storage.remote import RemoteStorage
from tests.servers.fault_proxy import FaultProxy, refusal

pytestmark = pytest.mark.server

LARGE = 20 * 2**20 + 7


@pytest.fixture
def proxy(gcs, monkeypatch):
    monkeypatch.setattr(storage_requests, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(storage_requests, "_JITTER_S", 0.01)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    with FaultProxy(gcs.port) as proxy:
        proxy.options = {**gcs.options, "endpoint_url": f"http://127.0.0.1:{proxy.port}"}
        yield proxy


@pytest.fixture
def storage(proxy):
    storage = RemoteStorage(f"gs://mltraq/{uuid.uuid4().hex}", storage_options=proxy.options, deadline_s=20)
    storage.put("first", [b"1"], size=1)
    return storage


def once(fault):
    """Return what makes each kind of request fail the first time."""
    seen, lock = set(), threading.Lock()

    def fails(request):
        with lock:
            is_new = request not in seen
            seen.add(request)
        return fault if is_new else None

    return fails


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("fault", ["reset", "lost", "cut", refusal(503, "SlowDown"), refusal(502, "BadGateway")])
def test_every_request_fails_once(fault, size, storage, proxy):
    """The answer comes soon, and the bytes are whole: parts that had arrived are not sent again as if they had not."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    proxy.fault = once(fault)
    storage.put("x", [data[:300], data[300:]], size=size)
    proxy.fault = lambda request: None
    assert storage.open("x").read(0, size) == data
    with pytest.raises(KeyExistsError):
        storage.put("x", [data], size=size)
    assert not list(storage.list_unfinished())


@pytest.mark.parametrize("size", [1000, LARGE])
def test_deadline(size, proxy, storage):
    """A service that is too slow is given up, large or small."""
    hasty = RemoteStorage(storage.url, storage_options=proxy.options, deadline_s=1)
    hasty.put("y", [b"1"], size=1, replace=True)
    proxy.fault = lambda request: "slow" if request.startswith(("POST", "PUT")) else None
    with pytest.raises(StorageError, match=r"put 'x' .*Timeout"):
        hasty.put("x", [bytes(size)], size=size, replace=True)


def test_broken_bytes_are_refused(storage, monkeypatch):
    """The service compares the checksum that bytes are sent with."""
    monkeypatch.setattr(client, "_crc32c", lambda body, crc=0: 7)
    with pytest.raises(StorageError):
        storage.put("x", [b"123"], size=3)
    assert not storage.exists("x")


def test_forbidden(storage, proxy):
    """A refusal is told in our words."""
    proxy.fault = lambda request: refusal(403, "Forbidden")
    with pytest.raises(StorageError, match="refuses these credentials"):
        storage.read("first")
    proxy.fault = lambda request: None
    assert storage.read("first") == b"1"
