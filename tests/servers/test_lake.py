"""Blobs on real S3 services: byte for byte, verified on the way, with credentials that are written nowhere."""

import contextlib
import hashlib
import json
import socket
import sys
import threading
import uuid
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "lake"))

from lake_scene import RUNS, Files, build, expected, open_session, values_of

from mltraq_ds import lake
from mltraq_ds.errors import RemoteFailedWarning, RemotesError
from mltraq_ds.storage import remote_urls
from tests.fixtures_storages import KEY, SECRET
from tests.servers.fault_proxy import FaultProxy

s3fs = pytest.importorskip("s3fs")
pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning"),
]

BLOBS = 2 * RUNS + 1


@pytest.fixture(autouse=True)
def _credentials(monkeypatch):
    """Readers bring their own credentials, under the names of MinIO; no test finds those of the machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MINIO_ACCESS_KEY", KEY)
    monkeypatch.setenv("MINIO_SECRET_KEY", SECRET)
    remote_urls.forget_remotes()
    yield
    remote_urls.forget_remotes()


@pytest.fixture
def session(tmp_path):
    return build(tmp_path)


class Bucket:
    """A bucket as s3fs sees it, and its URL with and without credentials."""

    def __init__(self, server, bucket):
        self.path = f"{bucket}/{uuid.uuid4().hex}"
        self.public = f"s3://127.0.0.1:{server.port}/{self.path}?secure=false"
        self.url = self.public.replace("s3://", f"s3://{KEY}:{SECRET}@")
        self.client = s3fs.S3FileSystem(**server.options, skip_instance_cache=True, use_listings_cache=False)
        with contextlib.suppress(FileExistsError):
            self.client.call_s3("create_bucket", Bucket=bucket)

    def objects(self):
        names = [path for path in self.client.find(self.path) if not path.endswith("_lake.json")]
        found = {path.rpartition("/")[2]: self.client.cat_file(path) for path in names}
        assert all(hashlib.sha256(data).hexdigest() == name for name, data in found.items())
        return found

    def overwrite(self, change):
        for path in self.client.find(self.path):
            if not path.endswith("_lake.json"):
                self.client.pipe_file(path, change(self.client.cat_file(path)))


@pytest.fixture
def first(seaweedfs):
    return Bucket(seaweedfs, "mltraq")


@pytest.fixture
def second(seaweedfs):
    return Bucket(seaweedfs, "second")


def no_secret_in(folder):
    return not any(SECRET.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_two_buckets(session, first, second, tmp_path):
    """Uploaded to two buckets the bytes are those of the blobs, and pointers name both, without a credential."""
    before = Files(tmp_path / "store").blobs()
    report = lake.add(session, remotes=[first.url, second.url], in_place=True, num_copies=2)
    assert report.actions() == {"uploaded": BLOBS}
    assert set(first.objects().values()) == set(second.objects().values()) == set(before.values())
    pointers = Files(tmp_path / "store").pointers()
    assert {tuple(one["remotes"]) for one in pointers.values()} == {(first.public, second.public)}
    assert no_secret_in(tmp_path)
    remote_urls.forget_remotes()
    assert values_of(open_session(tmp_path / "store")) == expected()
    assert session.check(deep=True).kinds() == {}
    assert lake.verify(session).actions() == {"intact": 2 * BLOBS}
    assert lake.pull(session).actions() == {"pulled": BLOBS}
    assert Files(tmp_path / "store").blobs() == before


def test_a_light_service(session, moto, tmp_path):
    """The same on another implementation of S3, and the sweep there."""
    bucket = Bucket(moto, "mltraq")
    lake.add(session, tmp_path / "out", remotes=bucket.url)
    before = Files(tmp_path / "store").blobs()
    assert bucket.objects() == {hashlib.sha256(data).hexdigest(): data for data in before.values()}
    lake.clone(tmp_path / "out", tmp_path / "local")
    assert Files(tmp_path / "local").blobs() == before
    assert values_of(open_session(tmp_path / "out")) == expected()
    assert lake.upload(session, remotes=bucket.url).actions() == {"found": BLOBS}
    lake.remove(session, remotes=bucket.url)
    lake.pull(tmp_path / "out")
    lake.remove(tmp_path / "out", remotes=bucket.url, keys="weights")
    report = lake.sweep(bucket.url, refs=[session, tmp_path / "out"], grace_s=0, dry_run=False)
    assert report.actions() == {"removed": RUNS}
    assert len(bucket.objects()) == BLOBS - RUNS


LIES = {"flipped": lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:], "short": lambda data: data[:-1]}


@pytest.mark.parametrize("lie", LIES)
def test_a_bucket_that_lies(session, first, second, lie):
    """Wrong bytes of the first bucket are noticed, the second delivers, and uploading repairs the first."""
    lake.upload(session, remotes=[first.url, second.url])
    lake.drop(session, num_copies=2)
    first.overwrite(LIES[lie])
    with pytest.warns(RemoteFailedWarning):
        assert values_of(session) == expected()
    with pytest.raises(RemotesError, match=f"{BLOBS} of {2 * BLOBS}"):
        lake.verify(session)
    with pytest.warns(RemoteFailedWarning):
        lake.pull(session)
    lake.remove(session, remotes=first.url)
    assert lake.upload(session, remotes=first.url).actions() == {"repaired": BLOBS}
    assert len(first.objects()) == BLOBS


@pytest.mark.parametrize("trouble", ["down", "denied"])
def test_a_bucket_that_does_not_deliver(session, first, second, monkeypatch, tmp_path, trouble):
    """One remote is down or denies: the other delivers. Both: one error lists each cause, with no credential in it."""
    lake.add(session, remotes=[second.url], in_place=True)
    if trouble == "down":
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        bad = f"s3://127.0.0.1:{port}/mltraq/x?secure=false"
    else:
        bad = first.public.replace("/mltraq/", "/nobodys-bucket/")
    for path in (tmp_path / "store").glob("*/*.remote"):
        document = json.loads(path.read_text())
        document["remotes"] = [bad, *document["remotes"]]
        path.chmod(0o644)
        path.write_text(json.dumps(document))
    with pytest.warns(RemoteFailedWarning):
        values = session.load_experiment("digits").runs.first().fields.weights.w
        assert values.tolist() == expected()[1][1]
    if trouble == "denied":
        monkeypatch.setenv("MINIO_SECRET_KEY", "wrong-" + SECRET)
        remote_urls.forget_remotes()
        with warnings.catch_warnings(), pytest.raises(RemotesError) as caught:
            warnings.simplefilter("ignore", RemoteFailedWarning)
            _ = session.load_experiment("digits").runs.first().fields.weights.w
        assert bad in str(caught.value)
        assert second.public in str(caught.value)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("trouble", ["slow", "reset", "cut"])
def test_a_bucket_behind_a_bad_network(session, seaweedfs, second, tmp_path, trouble):
    """A bucket that is slow, or whose connections break: pull, clone and upload come to their end, byte for byte."""
    before = Files(tmp_path / "store").blobs()
    with FaultProxy(seaweedfs.port) as proxy:
        bucket = Bucket(seaweedfs, "mltraq")
        bad = bucket.url.replace(f":{seaweedfs.port}/", f":{proxy.port}/")
        lake.add(session, remotes=[bad, second.url], in_place=True)
        proxy.fault = lambda request: trouble if request.startswith("GET") and "list-type" not in request else None
        if trouble == "slow":
            lake.clone(session, tmp_path / "clone")
        else:
            with pytest.warns(RemoteFailedWarning, match=str(proxy.port)):
                lake.clone(session, tmp_path / "clone")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RemoteFailedWarning)
            lake.upload(session, remotes=tmp_path / "third")
            assert lake.pull(session).actions() == {"pulled": BLOBS}
    assert Files(tmp_path / "clone").blobs() == Files(tmp_path / "store").blobs() == before
    assert set(Files(tmp_path / "third").objects().values()) == set(before.values())


def test_two_clients_at_once(session, first, tmp_path):
    """Two clients upload the same objects at the same time: both succeed, and each object is there once and right."""
    lake.clone(session, tmp_path / "copy")
    failures = []

    def upload(store):
        try:
            lake.upload(store, remotes=first.url)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=upload, args=(store,)) for store in (tmp_path / "store", tmp_path / "copy")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(first.objects()) == BLOBS
    for store in ("store", "copy"):
        lake.drop(tmp_path / store)
        assert values_of(open_session(tmp_path / store)) == expected()


def test_one_key_of_a_large_blob(tmp_path, first):
    """One value is fetched and verified without the rest of its blob."""
    import numpy as np

    from mltraq_ds import DataStore

    session = build(tmp_path)
    experiment = session.create_experiment("large")
    with experiment.run() as run:
        run.fields.ds = DataStore(small=np.arange(1000.0), large=np.zeros(3_000_000))
    experiment.persist()
    lake.add(session, remotes=first.url, in_place=True, keys="ds")
    read = []
    storage = remote_urls.open_remote(first.public)
    original = storage.open

    def opened(key, *, size=None):
        source = original(key, size=size)
        inner = source.read
        source.read = lambda offset, size: (read.append(size), inner(offset, size))[1]
        return source

    storage.open = opened
    try:
        ds = session.load_experiment("large").runs.first().fields.ds
        assert ds.small.tolist() == np.arange(1000.0).tolist()
    finally:
        del storage.open
    assert len(read) <= 3
    assert sum(read) < 200_000
