"""Storages whose requests obstore sends: the same suite, the same promises, on the same servers."""

import multiprocessing
import sys
import uuid

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session, options
from mltraq_ds.errors import KeyExistsError, KeyMissingError, MissingExtraError, StorageError, UsageError
from mltraq_ds.storage import Storage, obstore_options, open_storage
from mltraq_ds.storage.clients.obstore_client import Answer
from mltraq_ds.storage.failures import failure_of
from mltraq_ds.storage.remote import RemoteStorage
from tests.servers.test_azure import TestAzurite as OnAzurite
from tests.servers.test_s3_conformance import OnS3

pytest.importorskip("obstore")
pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning"),
]


class OnObstore(OnS3):
    def make_storage(self) -> Storage:
        return RemoteStorage(f"s3://mltraq/{self.prefix}", storage_options=self.service.options, client="obstore")


class TestSeaweedFS(OnObstore):
    pytestmark = pytest.mark.slow
    forgets_folders = False

    @pytest.fixture(autouse=True)
    def _service(self, seaweedfs, _fresh_place):
        self.use(seaweedfs)


class TestMoto(OnObstore):
    pytestmark = pytest.mark.slow

    @pytest.fixture(autouse=True)
    def _service(self, moto, _fresh_place):
        self.use(moto)


class TestAzurite(OnAzurite):
    pytestmark = pytest.mark.slow

    def make_storage(self) -> Storage:
        return RemoteStorage(f"az://{self.prefix}", storage_options=self.options, client="obstore")


def test_on_azure(azurite):
    """What obstore puts on Azure whole or in parts is read by both clients; a rival is refused, both are removed."""
    ours, other = both((f"az://mltraq/{uuid.uuid4().hex}", azurite.options))
    data = np.random.default_rng(1).bytes(20 * 2**20 + 7)
    ours.put("small", [b"12"], size=2)
    ours.put("deep/x", [data], size=len(data))
    for storage in (ours, other):
        assert storage.read("small") == b"12"
        assert storage.open("deep/x", size=len(data)).read(0, len(data)) == data
        assert storage.folders() == ["deep"]
    for key in ("small", "deep/x"):
        with pytest.raises(KeyExistsError):
            ours.put(key, [data], size=len(data))
    ours.delete_many(["small", "deep/x", "nothing"])
    assert list(other.list()) == []


@pytest.fixture
def place(seaweedfs):
    return f"s3://mltraq/{uuid.uuid4().hex}", seaweedfs.options


def both(place):
    """Return a storage by obstore and one by s3fs, at the same place."""
    return [open_storage(place[0], storage_options=place[1], client=client) for client in ("obstore", "fsspec")]


def test_parts_and_ranges_are_read_by_the_other_client(place):
    """What is sent in parts is there byte for byte, ranges of it as another client reads them; a rival is refused."""
    ours, other = both(place)
    data = np.random.default_rng(1).bytes(40 * 2**20 + 7)
    ours.put("deep/x", [data[:1000], data[1000:]], size=len(data))
    source = ours.open("deep/x", size=len(data))
    assert other.open("deep/x").read(0, len(data)) == data
    assert source.read(0, len(data)) == data
    assert source.read(20 * 2**20 - 3, 9 * 2**20) == data[20 * 2**20 - 3 :][: 9 * 2**20]
    with pytest.raises(KeyExistsError):
        ours.put("deep/x", [data], size=len(data))
    assert other.read("deep/x") == data


def test_parts_that_fail_leave_nothing(place):
    """An upload that breaks off leaves neither key nor upload, and what was there before stays."""
    ours, other = both(place)
    block = bytes(30 * 2**20)

    def buffers():
        yield block
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ours.put("x", buffers(), size=2 * len(block))
    assert list(other.list()) == list(other.list_unfinished()) == []
    ours.put("x", [b"former"], size=6)
    with pytest.raises(ZeroDivisionError):
        ours.put("x", buffers(), size=2 * len(block), replace=True)
    assert other.read("x") == b"former"
    assert list(other.list_unfinished()) == []


def test_whole_life(place, tmp_path):
    """Experiments persisted, replaced and deleted by obstore are those that s3fs loads and checks."""
    options.set("datastore.client", "obstore")
    session = create_session(f"sqlite:///{tmp_path}/a.db", *place)
    experiment = session.create_experiment("e", x=1)
    with experiment.run() as run:
        run.fields.ds = DataStore(weights=np.arange(3000.0))
    experiment.persist()
    session.create_experiment("doomed").persist().delete()
    loaded = create_session(f"sqlite:///{tmp_path}/a.db", *place).load_experiment("e")
    loaded.fields.x = 2
    loaded.persist(if_exists="update")
    session.sweep(dry_run=False, grace_s=0)
    options.set("datastore.client", "fsspec")
    other = create_session(f"sqlite:///{tmp_path}/b.db", *place)
    other.rebuild_index()
    assert other.ls()["name"].tolist() == ["e"]
    assert other.load_experiment("e").runs.first().fields.ds.weights[-1] == 2999
    assert not list(other.check(deep=True))


def refusal(place, **changes):
    storage = open_storage(place[0], storage_options={**place[1], **changes}, client="obstore")
    with pytest.raises(StorageError) as found:
        storage.read("nothing")
    return str(found.value)


def test_refusals_are_said_in_our_words(place):
    """Wrong keys, a missing bucket, a server that is down: one sentence each, without the secret."""
    assert "does not know this access key" in refusal(place, key="unknown")
    assert "the secret key is wrong" in refusal(place, secret="canary-secret")
    assert "canary" not in refusal(place, secret="canary-secret")
    assert "no such bucket" in refusal(("s3://nobucket-here/x", place[1]))
    storage = open_storage(place[0], storage_options=place[1], client="obstore")
    with pytest.raises(KeyMissingError):
        storage.read("nothing")
    down = {**place[1], "endpoint_url": "http://127.0.0.1:9"}
    storage = RemoteStorage(place[0], storage_options=down, client="obstore", deadline_s=1)
    with pytest.raises(StorageError, match="read 'nothing'"):
        storage.read("nothing")


def test_credentials_of_the_environment_and_of_profiles(place, tmp_path, monkeypatch):
    """Without keys in the options the provider's own chain is asked, and a profile is found as AWS_PROFILE is."""
    url, given = place
    bare = {name: value for name, value in given.items() if name not in ("key", "secret")}
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {given['key']}\naws_secret_access_key = {given['secret']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match="no credentials were found"):
        open_storage(url, storage_options=bare, client="obstore").read("x")
    open_storage(url, storage_options={**bare, "profile": "lab"}, client="obstore").put("x", [b"1"], size=1)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert open_storage(url, storage_options=bare, client="obstore").read("x") == b"1"
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["secret"])
    assert open_storage(url, storage_options=bare, client="obstore").read("x") == b"1"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("cloud", {}),
        ("google_default", {}),
        (None, {}),
        ("anon", {"skip_signature": True}),
        ({"private_key": "x"}, {"service_account_key": '{"private_key": "x"}'}),
        (__file__, {"application_credentials": __file__}),
    ],
)
def test_tokens_of_google(token, expected):
    """The names that gcsfs knows mean the same here, and are not taken for files."""
    assert obstore_options._configured("gs", {"token": token}, "gs://bucket/x")[0] == expected


@pytest.mark.parametrize("token", ["browser", "cache", "/nothing/key.json", "ya29.canary"])
def test_unknown_tokens_of_google(token):
    """What obstore cannot use is refused in a sentence that does not repeat it."""
    with pytest.raises(UsageError, match="'token' of gs://bucket/x is refused") as refused:
        open_storage("gs://bucket/x", storage_options={"token": token}, client="obstore").read("x")
    assert "canary" not in str(refused.value)


def test_class_of_ours_is_not_shown():
    """What a service says is told without the name of the class that carries it inside."""
    said = failure_of("read", "x", "s3://bucket", Answer("Generic S3 error: odd", 418))
    assert "because of: Generic S3 error: odd" in str(said)


def test_options_without_a_counterpart_are_refused_by_name(place):
    """What obstore cannot do as the options say is refused, nested options too; so are other schemes."""
    for changes, name in (
        ({"requester_pays": True}, "requester_pays"),
        ({"client_kwargs": {"api": 1}}, "client_kwargs.api"),
    ):
        with pytest.raises(UsageError, match=name):
            open_storage(place[0], storage_options={**place[1], **changes}, client="obstore").read("x")
    with pytest.raises(UsageError, match="'sftp'"):
        open_storage("sftp://host/x", client="obstore")


def test_missing_package_names_its_extra(monkeypatch):
    """Without obstore the command to install it is said, and "auto" does without."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mltraq-ds\[obstore\]"):
        open_storage("s3://bucket/x", client="obstore")
    assert open_storage("s3://bucket/x").url == "s3://bucket/x"


def read_in_child(storage, key):
    return storage.read(key)


def test_processes(place, monkeypatch):
    """A spawned process reads what this one wrote; a forked one is refused with the remedy, and does not hang."""
    url, given = place
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["secret"])
    bare = {name: value for name, value in given.items() if name not in ("key", "secret")}
    storage = open_storage(url, storage_options=bare, client="obstore")
    storage.put("x", [b"1"], size=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_in_child, (storage, "x")) == b"1"
    with multiprocessing.get_context("fork").Pool(1) as pool, pytest.raises(UsageError, match="spawn"):
        pool.apply_async(read_in_child, (storage, "x")).get(timeout=60)
